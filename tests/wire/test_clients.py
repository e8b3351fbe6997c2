"""The official Ollama library for Python in front of the addon: what it makes of answers, what reaches LM Studio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import platformdirs
import pytest
from tests.wire.conftest import (
    CHAT,
    DOWNLOADABLE,
    EMBEDDER,
    GPT_OSS,
    HI,
    ROOT,
    THINKING,
    VISION,
    Proxy,
    StartProxy,
    models,
)

from lmstudio_sim import Recorded, Sim, SimDownload, SimThread, content, error, reasoning

pytestmark = pytest.mark.clients

REQUIREMENT = "ollama==0.6.3"
SCRIPT = ROOT / "tests" / "clients" / "python_ollama.py"
INSTALL_SECONDS = 300
RUN_SECONDS = 60
CANCEL_SECONDS = 1.0

# What would lead the library elsewhere, or tell it a key.
FOREIGN_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OLLAMA_HOST", "OLLAMA_API_KEY")


@pytest.fixture(scope="session")
def library() -> Path:
    """The folder that holds the library, installed once for this interpreter and version, and outside of the checkout.

    Two runs at once may both install it: each into a folder of its own, and the first that is done is kept.
    """
    cache = platformdirs.user_cache_path("ollama-lmstudio-proxy-tests")
    folder = cache / f"{REQUIREMENT.replace('==', '-')}-{sys.implementation.cache_tag}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            _install(Path(temporary) / "library", folder)
    return folder


def _install(temporary: Path, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1"]
    command = [*pip, "--target", str(temporary), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        pytest.skip(f"{REQUIREMENT} cannot be installed: {done.stderr.strip().rpartition(chr(10))[2]}")
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():
            raise


class Script:
    """The client script, to be run in a process of its own."""

    def __init__(self, library: Path, url: str) -> None:
        self._command = [sys.executable, "-IS", str(SCRIPT), str(library), url]
        self._environment = {name: value for name, value in os.environ.items() if name.upper() not in FOREIGN_VARIABLES}

    def start(self, scenario: str, model: str) -> subprocess.Popen[str]:
        """Start a scenario; it stays until its standard input is closed."""
        return subprocess.Popen(
            [*self._command, scenario, model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def __call__(self, scenario: str, model: str) -> Any:
        """Run a scenario to its end; give what it printed."""
        with self.start(scenario, model) as process:
            output, _ = process.communicate(timeout=RUN_SECONDS)
        assert process.returncode == 0
        return json.loads(output)


@pytest.fixture
def run(library: Path, proxy: Proxy, client: httpx.Client) -> Script:
    """Run scenarios against the addon, which knows LM Studio's models already: that is what `client` is for."""
    return Script(library, proxy.url)


def calls(sim: Sim) -> list[Recorded]:
    """Give what reached LM Studio besides questions for its model list."""
    return [request for request in sim.requests if request.method == "POST"]


def sent(sim: Sim, path: str = "/v1/chat/completions") -> dict[str, Any]:
    """Give the body of the one request that reached LM Studio."""
    assert [(request.method, request.path) for request in sim.requests] == [("POST", path)]
    body: dict[str, Any] = sim.requests[0].json
    return body


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until something is so; fail after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def check_metrics(last: dict[str, Any]) -> None:
    """Check what the last part of an answer measures."""
    assert last["done"] is True
    assert last["done_reason"] == "stop"
    counts = ["prompt_eval_count", "eval_count"]
    durations = ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"]
    assert all(last[name] > 0 for name in counts + durations)


# Chat


def test_chat(run: Script, sim: Sim) -> None:
    answer = run("chat", CHAT)
    assert answer["model"] == CHAT
    assert answer["message"] == {"role": "assistant", "content": "You said: hi"}
    check_metrics(answer)
    assert sent(sim) == {
        "model": CHAT,
        "messages": HI,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 50,
    }


@pytest.mark.parametrize("scenario", ["chat_stream", "chat_async_stream"])
def test_chat_stream(run: Script, sim: Sim, scenario: str) -> None:
    *parts, last = run(scenario, CHAT)
    assert [part["message"]["content"] for part in parts] == ["You", " said", ":", " hi"]
    assert not any(part["done"] for part in parts)
    check_metrics(last)
    assert last["eval_count"] == len(parts)
    assert sent(sim)["messages"] == HI


def test_text_that_breaks_line_readers(run: Script, sim: Sim) -> None:
    # The library splits lines at all of these, where they are not escaped.
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh \U0001f600"
    sim.script([content(*text)])
    assert "".join(part["message"]["content"] for part in run("chat_stream", CHAT)) == text


@pytest.mark.parametrize("scenario", ["chat_leave", "chat_leave_async"])
def test_leaving_a_stream_stops_lm_studio(run: Script, sim: Sim, scenario: str) -> None:
    sim.script([content(*["on and "] * 1000)])
    sim.set(token_delay=0.02)
    with run.start(scenario, CHAT) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        # The client is still there, only its stream is not.
        wait_until(lambda: sim.requests[0].closed, CANCEL_SECONDS)
        assert process.poll() is None
        process.communicate(timeout=RUN_SECONDS)
    assert first["message"]["content"] == "on and "
    sent(sim)


def test_chat_keep_alive_0(run: Script, sim: Sim) -> None:
    assert run("chat_keep_alive_0", CHAT)["message"]["content"] == "You said: hi"
    wait_until(lambda: not sim.instances, 5)
    asked, unload = calls(sim)
    assert (asked.path, unload.path) == ("/v1/chat/completions", "/api/v1/models/unload")
    assert "ttl" not in asked.json
    assert unload.json == {"instance_id": CHAT}


def test_tools(run: Script, sim: Sim) -> None:
    asked, answered = run("chat_tools", CHAT)
    (call,) = asked["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": {"a": 7, "b": 7}}
    assert answered == {"role": "assistant", "content": "The tool answered: 14"}

    first, second = (request.json for request in sim.requests)
    (tool,) = first["tools"]
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "add"
    assert list(tool["function"]["parameters"]["properties"]) == ["a", "b"]
    question, request, result = second["messages"]
    assert question == {"role": "user", "content": "Add 7 and 7, please"}
    (made,) = request["tool_calls"]
    assert made["type"] == "function"
    assert made["function"]["name"] == "add"
    assert json.loads(made["function"]["arguments"]) == {"a": 7, "b": 7}
    # The library drops the ids: they are made up anew, and fit.
    assert made["id"]
    assert result == {"role": "tool", "tool_call_id": made["id"], "content": "14"}
    assert second["tools"] == first["tools"]


def test_images(run: Script, sim: Sim) -> None:
    assert run("chat_images", VISION)["content"] == "You said: What is this? I see 1 image."
    (message,) = sent(sim)["messages"]
    text, image = message["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert image["type"] == "image_url"
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


def test_format(run: Script, sim: Sim) -> None:
    assert run("chat_format", CHAT) == {"name": "Canada", "capital": "Canada", "languages": ["Canada"]}
    response_format = sent(sim)["response_format"]
    assert response_format["type"] == "json_schema"
    schema = response_format["json_schema"]["schema"]
    assert list(schema["properties"]) == ["name", "capital", "languages"]
    assert schema["required"] == ["name", "capital", "languages"]


THOUGHTS = ("Let", " me", " think")


def test_thinking(run: Script, sim: Sim) -> None:
    sim.script([reasoning(*THOUGHTS), content("Hello", " you")])
    message = run("chat_think", THINKING)
    assert message == {"role": "assistant", "content": "Hello you", "thinking": "Let me think"}
    # It thinks unless told otherwise.
    assert "reasoning_effort" not in sent(sim)


def test_thinking_a_lot(run: Script, sim: Sim) -> None:
    assert run("chat_think_high", GPT_OSS)["thinking"]
    assert sent(sim)["reasoning_effort"] == "high"


def test_not_thinking(run: Script, sim: Sim) -> None:
    assert run("chat_think_not", THINKING) == {"role": "assistant", "content": "You said: hi"}
    assert sent(sim)["reasoning_effort"] == "none"


def test_thinking_stream(run: Script, sim: Sim) -> None:
    sim.script([reasoning(*THOUGHTS), content("Hello", " you")])
    parts = run("chat_think_stream", THINKING)
    said = [(part.get("thinking"), part["content"]) for part in parts]
    assert said == [*((text, "") for text in THOUGHTS), (None, "Hello"), (None, " you"), (None, "")]


# Errors


def test_an_unknown_model(run: Script, sim: Sim) -> None:
    assert run("chat_error", "nowhere") == {"error": "model 'nowhere' not found", "status": 404}
    assert calls(sim) == []


def test_an_error_of_lm_studio(run: Script, sim: Sim) -> None:
    sim.script([error("The engine is on fire")])
    failed = run("chat_error", CHAT)
    assert "The engine is on fire" in failed["error"]
    assert failed["status"] >= 400
    sent(sim)


def test_an_error_after_the_first_token(run: Script, sim: Sim) -> None:
    sim.script([content("Well"), error("The engine is on fire")])
    failed = run("chat_stream_error", CHAT)
    assert failed["parts"] == ["Well"]
    assert "The engine is on fire" in failed["error"]


# Generate


def test_generate(run: Script, sim: Sim) -> None:
    answer = run("generate", CHAT)
    assert answer["response"] == "You said: hi"
    check_metrics(answer)
    assert sent(sim)["messages"] == [{"role": "system", "content": "Be brief"}, *HI]


def test_generate_stream(run: Script, sim: Sim) -> None:
    *parts, last = run("generate_stream", CHAT)
    assert [part["response"] for part in parts] == ["You", " said", ":", " hi"]
    assert last["response"] == ""
    check_metrics(last)
    assert sent(sim)["messages"] == HI


def test_generate_goes_on_with_a_context(run: Script, sim: Sim) -> None:
    assert run("generate_context", CHAT)["response"] == "You said: Who am I?"
    _, second = (request.json for request in sim.requests)
    assert second["messages"] == [
        {"role": "user", "content": "I am Ada"},
        {"role": "assistant", "content": "You said: I am Ada"},
        {"role": "user", "content": "Who am I?"},
    ]


# Embeddings


def test_embed(run: Script, sim: Sim) -> None:
    answer = run("embed", EMBEDDER)
    one, two = answer["embeddings"]
    assert one != two
    assert sum(number**2 for number in one) == pytest.approx(1, abs=1e-5)
    assert answer["prompt_eval_count"] > 0
    body = sent(sim, "/v1/embeddings")
    assert (body["model"], body["input"]) == (EMBEDDER, ["one", "two"])


def test_embeddings(run: Script, sim: Sim) -> None:
    assert len(run("embeddings", EMBEDDER)["embedding"]) == 768
    assert sent(sim, "/v1/embeddings")["model"] == EMBEDDER


# Models


def test_list(run: Script, sim: Sim) -> None:
    listed = {model["model"]: model for model in run("list_models", "")["models"]}
    assert {f"{CHAT}:latest", f"{EMBEDDER}:latest"} <= set(listed)
    model = listed[f"{CHAT}:latest"]
    assert model["size"] > 0
    assert len(model["digest"]) == 64
    assert model["details"]["quantization_level"] == "Q4_K_M"
    assert calls(sim) == []


def test_show(run: Script, sim: Sim) -> None:
    shown = run("show", VISION)
    assert {"completion", "vision"} <= set(shown["capabilities"])
    architecture = shown["modelinfo"]["general.architecture"]
    assert shown["modelinfo"][f"{architecture}.context_length"] > 0
    assert calls(sim) == []
    assert sim.instances == []


def test_ps(run: Script, sim: Sim) -> None:
    (running,) = run("ps", CHAT)["models"]
    assert running["model"] == f"{CHAT}:latest"
    assert running["size_vram"] > 0
    assert running["context_length"] > 0
    assert "T" in running["expires_at"]
    (generated,) = calls(sim)
    assert generated.json["ttl"] == 600


def test_aliases(run: Script, sim: Sim) -> None:
    told = run("aliases", CHAT)
    assert told["created"][-1] == {"status": "success"}
    assert "SYSTEM You are Ada." in told["described"]["modelfile"]
    assert {"Ada:latest", "lovelace:latest"} <= set(told["names"])
    assert told["answer"]["model"] == "lovelace"
    assert told["answer"]["message"]["content"] == "You said: hi"
    assert "lovelace:latest" in told["loaded"]
    (request,) = calls(sim)
    assert request.json["model"] == CHAT
    assert request.json["messages"] == [{"role": "system", "content": "You are Ada."}, *HI]
    assert told["deleted"] == ["success", "success"]
    assert not {"Ada:latest", "lovelace:latest"} & set(told["left"])
    assert told["again"]["status"] == 404


def test_a_blob(run: Script) -> None:
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert run("blob", CHAT) == [digest, digest]


def test_a_pull_draws_a_progress_bar(library: Path, start_proxy: StartProxy) -> None:
    # A stand-in of its own: what is pulled stays.
    with SimThread(models(), downloads=[SimDownload(DOWNLOADABLE)]) as sim:
        run = Script(library, start_proxy(sim.url).url)
        lines = run("pull", DOWNLOADABLE)
        assert run("pull_whole", DOWNLOADABLE) == {"status": "success"}
        assert calls(sim)[0].json == {"model": DOWNLOADABLE}
    assert [line["status"] for line in lines[:1] + lines[-3:]] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    bar = [line for line in lines if "digest" in line]
    assert bar
    assert all(line["status"] == f"pulling {line['digest'][7:19]}" for line in bar)
    assert bar[-1]["completed"] == bar[-1]["total"] > 0


def test_a_push_says_that_nothing_was_sent(run: Script, sim: Sim) -> None:
    lines = run("push", CHAT)
    assert lines[-1] == {"status": "success"}
    assert any("registry" in line["status"] for line in lines)
    assert calls(sim) == []
