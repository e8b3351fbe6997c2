"""Real clients in front of the addon: what they make of answers, and what reaches LM Studio.

CLIENTS are the columns of one table, the tests its rows; ABSENT says where a client has no such thing, and why.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.clients.environments import NodeClient, Process, PythonClient, running
from tests.strict.reader import marked
from tests.strict.ways import Tap
from tests.wire.conftest import (
    CHAT,
    DOWNLOADABLE,
    EMBEDDER,
    GPT_OSS,
    HI,
    THINKING,
    VISION,
    Proxy,
    StartProxy,
    models,
)

from ollama_lmstudio.sim import Recorded, Sim, SimDownload, SimThread, content, error, reasoning, tool_call

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("client")]

OLLAMA_PYTHON = ("ollama==0.6.3",)

CLIENTS = {
    "ollama-python": PythonClient("python_ollama.py", OLLAMA_PYTHON, ("Client",)),
    "ollama-python-async": PythonClient("python_ollama.py", OLLAMA_PYTHON, ("AsyncClient",)),
    "ollama-js": NodeClient("node_ollama.mjs", ("ollama@0.6.4",)),
    "langchain": PythonClient("python_langchain.py", ("langchain-ollama==1.1.0",)),
    # The last versions that run on Node.js 20.
    "ai-sdk": NodeClient("node_ai_sdk.mjs", ("ai@6.0.326", "ollama-ai-provider-v2@3.6.0", "zod@4.6.7")),
    "openai": PythonClient("python_openai.py", ("openai==3.57.0",)),
    # The last version that runs on Node.js 20.
    "openai-node": NodeClient("node_openai.mjs", ("openai@6.49.0", "zod@4.6.7")),
    "instructor": PythonClient("python_instructor.py", ("instructor==1.17.0",)),
}
# instructor is for structured answers, which it has its own way to ask for.
EVERY = tuple(name for name in CLIENTS if name != "instructor")
# Ollama's own libraries do more than the others.
OWN = ("ollama-python", "ollama-python-async", "ollama-js")

ABSENT = {
    ("langchain", "models"): "no such method",
    ("langchain", "show"): "no such method",
    ("ai-sdk", "models"): "no such method",
    ("ai-sdk", "show"): "no such method",
    ("ai-sdk", "think_high"): "`think` is a boolean",
    ("ai-sdk", "fail_late"): "drops lines that are no chunk: the text just ends",
    ("openai", "show"): "has models.retrieve instead",
    ("openai-node", "show"): "has models.retrieve instead",
    ("ollama-js", "blob"): "no such method",
}


def clients(row: str, names: Any = EVERY) -> pytest.MarkDecorator:
    """Run a test, a row of the table, with all clients that have such a thing."""
    return pytest.mark.parametrize("run", [name for name in names if (name, row) not in ABSENT], indirect=True)


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, shared_proxy: Proxy) -> Iterator[Process]:
    """Run a client, one of CLIENTS, against the addon: one process for all of its tests."""
    with Tap(shared_proxy.port) as tap, running(CLIENTS[request.param], tap.url) as process:
        yield process


PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c63f8cfc0f01f00050001ff56c72f0d0000000049454e44ae426082"
    )
).decode()

# How long LM Studio goes on generating when a client leaves, at most; to the end it would take longer.
CANCEL_SECONDS = 5.0


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


# What every client does


@clients("chat_stream")
def test_chat_stream(run: Process, sim: Sim) -> None:
    said = run("chat_stream", CHAT, "hi")
    assert [part for part in said["parts"] if part] == ["You", " said", ":", " hi"]
    assert said["finish"] == "stop"
    prompt, completion = said["tokens"]
    assert prompt > 0
    assert completion == 4
    body = sent(sim)
    assert (body["model"], body["messages"], body["stream"]) == (CHAT, HI, True)
    assert body["stream_options"] == {"include_usage": True}


@clients("chat_stream")
def test_a_short_name(run: Process, sim: Sim) -> None:
    run("chat_stream", "GPT-OSS:20b", "hi")
    assert sent(sim)["model"] == GPT_OSS


@clients("chat_stream")
def test_text_that_breaks_line_readers(run: Process, sim: Sim) -> None:
    # Some libraries split lines at all of these, where they are not escaped.
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\r\nh \U0001f600"
    sim.script([content(*text)])
    assert "".join(run("chat_stream", CHAT, text)["parts"]) == text
    assert sent(sim)["messages"] == [{"role": "user", "content": text}]


@clients("tools")
def test_tools(run: Process, sim: Sim) -> None:
    told = run("tools", CHAT, "Add 7 and 7, please")
    assert told == {"calls": [{"name": "add", "arguments": {"a": 7, "b": 7}}], "answer": "The tool answered: 14"}
    first, _ = check_tools(sim, [{"a": 7, "b": 7}], ["14"])
    (tool,) = first["tools"]
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "add"
    assert list(tool["function"]["parameters"]["properties"]) == ["a", "b"]


@clients("tools")
def test_two_tools_at_once(run: Process, sim: Sim) -> None:
    sim.script([tool_call("add", {"a": 1, "b": 2}), tool_call("add", {"b": 4, "a": 3})], times=1)
    told = run("tools", CHAT, "Add 1 and 2, and 3 and 4")
    assert [call["arguments"] for call in told["calls"]] == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert told["answer"] == "The tool answered: 3 7"
    check_tools(sim, [{"a": 1, "b": 2}, {"a": 3, "b": 4}], ["3", "7"])


def check_tools(sim: Sim, arguments: list[dict[str, int]], results: list[str]) -> list[dict[str, Any]]:
    """Check that a call and the results came back as LM Studio pairs them; give the bodies of both requests."""
    first, second = (request.json for request in sim.requests)
    question, request, *answers = second["messages"]
    assert question == first["messages"][0]
    assert [json.loads(call["function"]["arguments"]) for call in request["tool_calls"]] == arguments
    assert {(call["type"], call["function"]["name"]) for call in request["tool_calls"]} == {("function", "add")}
    # Some libraries drop the ids: they are made up anew, and fit.
    ids = [call["id"] for call in request["tool_calls"]]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    paired = [(answer["role"], answer["tool_call_id"], answer["content"]) for answer in answers]
    assert paired == [("tool", call_id, result) for call_id, result in zip(ids, results, strict=True)]
    assert second["tools"] == first["tools"]
    return [first, second]


@clients("structured")
def test_structured_output(run: Process, sim: Sim) -> None:
    told = run("structured", CHAT, "Tell me about Canada")
    assert told == {"name": "Canada", "capital": "Canada", "languages": ["Canada"]}
    response_format = sent(sim)["response_format"]
    assert response_format["type"] == "json_schema"
    schema = response_format["json_schema"]["schema"]
    assert list(schema["properties"]) == ["name", "capital", "languages"]
    assert schema["required"] == ["name", "capital", "languages"]


THOUGHTS = ["Let", " me", " think"]


@clients("think")
def test_thinking(run: Process, sim: Sim) -> None:
    sim.script([reasoning(*THOUGHTS), content("Hello", " you")])
    said = run("think", THINKING, True)
    assert said["thinking"] == THOUGHTS
    assert [part for part in said["parts"] if part] == ["Hello", " you"]
    # It thinks unless told otherwise.
    assert "reasoning_effort" not in sent(sim)


@clients("think")
def test_not_thinking(run: Process, sim: Sim) -> None:
    said = run("think", THINKING, False)
    assert (said["thinking"], "".join(said["parts"])) == ([], "You said: hi")
    assert sent(sim)["reasoning_effort"] == "none"


@clients("think_high")
def test_thinking_a_lot(run: Process, sim: Sim) -> None:
    said = run("think", GPT_OSS, "high")
    assert said["thinking"]
    assert "".join(said["parts"]) == "You said: hi"
    assert sent(sim)["reasoning_effort"] == "high"


@clients("image")
def test_images(run: Process, sim: Sim) -> None:
    # LangChain begins a text that has an image with an empty line.
    said = run("image", VISION, PNG)
    assert said.replace("\n", "") == "You said: What is this? I see 1 image."
    (message,) = sent(sim)["messages"]
    text, image = message["content"]
    assert (text["type"], text["text"].strip()) == ("text", "What is this?")
    assert image == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


@clients("embed")
def test_embeddings(run: Process, sim: Sim) -> None:
    one, two = run("embed", EMBEDDER, ["one", "two"])["vectors"]
    assert len(one) == len(two) == 768
    assert one != two
    assert math.hypot(*one) == pytest.approx(1, abs=1e-5)
    body = sent(sim, "/v1/embeddings")
    assert (body["model"], body["input"]) == (EMBEDDER, ["one", "two"])


@clients("models")
def test_list(run: Process, sim: Sim) -> None:
    listed = {model["name"].removesuffix(":latest") for model in run("models")}
    assert {CHAT, VISION, THINKING, GPT_OSS, EMBEDDER} <= listed
    assert calls(sim) == []


@clients("show")
def test_show(run: Process, sim: Sim) -> None:
    shown = run("show", VISION)
    assert {"completion", "vision"} <= set(shown["capabilities"])
    architecture = shown["info"]["general.architecture"]
    assert shown["info"][f"{architecture}.context_length"] > 0
    assert calls(sim) == []
    assert sim.instances == []


@clients("fail")
def test_an_unknown_model(run: Process, sim: Sim) -> None:
    assert run("fail", "nowhere") == {"error": "model 'nowhere' not found", "status": 404, "parts": []}
    assert calls(sim) == []


@clients("fail")
def test_an_error_of_lm_studio(run: Process, sim: Sim) -> None:
    sim.script([error("The engine is on fire")])
    failed = run("fail", CHAT)
    assert "The engine is on fire" in failed["error"]
    assert failed["status"] >= 400
    assert failed["parts"] == []
    sent(sim)


@clients("fail_late")
def test_an_error_after_the_first_token(run: Process, sim: Sim) -> None:
    sim.script([content("Well"), error("The engine is on fire")])
    failed = run("fail", CHAT)
    assert failed["parts"] == ["Well"]
    assert "The engine is on fire" in failed["error"]
    sent(sim)


@clients("leave")
def test_leaving_a_stream_stops_lm_studio(run: Process, sim: Sim) -> None:
    sim.script([content(*["on and "] * 1000)])
    sim.set(token_delay=0.02)
    with marked(cut=True):
        assert run("leave", CHAT) == "on and "
    wait_until(lambda: sim.requests[0].closed, CANCEL_SECONDS)
    # The client is still there, only its stream is not.
    assert run.is_alive
    sent(sim)


# What only Ollama's own libraries do


@clients("chat", OWN)
def test_chat(run: Process, sim: Sim) -> None:
    answer = run("chat", CHAT, {"options": {"temperature": 0.5, "num_predict": 50}})
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


@clients("chat_stream", OWN)
def test_parts_of_a_stream(run: Process) -> None:
    *parts, last = run("chat_stream", CHAT, "hi")["whole"]
    assert not any(part["done"] for part in parts)
    assert all(part["message"]["role"] == "assistant" for part in [*parts, last])
    assert last["message"]["content"] == ""
    check_metrics(last)
    assert last["eval_count"] == len(parts)


@clients("chat", OWN)
def test_chat_keep_alive_0(run: Process, sim: Sim) -> None:
    assert run("chat", CHAT, {"keep_alive": 0})["message"]["content"] == "You said: hi"
    wait_until(lambda: not sim.instances, 5)
    asked, unload = calls(sim)
    assert (asked.path, unload.path) == ("/v1/chat/completions", "/api/v1/models/unload")
    assert "ttl" not in asked.json
    assert unload.json == {"instance_id": CHAT}


@clients("chat", OWN)
def test_thinking_in_one_piece(run: Process, sim: Sim) -> None:
    sim.script([reasoning(*THOUGHTS), content("Hello", " you")])
    message = run("chat", THINKING, {"think": True})["message"]
    assert message == {"role": "assistant", "content": "Hello you", "thinking": "Let me think"}
    assert "reasoning_effort" not in sent(sim)


@clients("think", OWN)
def test_parts_of_a_thought(run: Process, sim: Sim) -> None:
    sim.script([reasoning(*THOUGHTS), content("Hello", " you")])
    said = [(part.get("thinking"), part["content"]) for part in run("think", THINKING, True)["whole"]]
    assert said == [*((text, "") for text in THOUGHTS), (None, "Hello"), (None, " you"), (None, "")]


@clients("fail_whole", OWN)
def test_errors_of_an_answer_in_one_piece(run: Process, sim: Sim) -> None:
    assert run("fail_whole", "nowhere") == {"error": "model 'nowhere' not found", "status": 404}
    assert calls(sim) == []
    sim.script([error("The engine is on fire")])
    failed = run("fail_whole", CHAT)
    assert "The engine is on fire" in failed["error"]
    assert failed["status"] >= 400


@clients("generate", OWN)
def test_generate(run: Process, sim: Sim) -> None:
    answer = run("generate", CHAT)
    assert answer["response"] == "You said: hi"
    check_metrics(answer)
    assert sent(sim)["messages"] == [{"role": "system", "content": "Be brief"}, *HI]


@clients("generate", OWN)
def test_generate_stream(run: Process, sim: Sim) -> None:
    *parts, last = run("generate_stream", CHAT)
    assert [part["response"] for part in parts] == ["You", " said", ":", " hi"]
    assert last["response"] == ""
    check_metrics(last)
    assert sent(sim)["messages"] == HI


@clients("generate", OWN)
def test_generate_goes_on_with_a_context(run: Process, sim: Sim) -> None:
    assert run("generate_context", CHAT)["response"] == "You said: Who am I?"
    _, second = (request.json for request in sim.requests)
    assert second["messages"] == [
        {"role": "user", "content": "I am Ada"},
        {"role": "assistant", "content": "You said: I am Ada"},
        {"role": "user", "content": "Who am I?"},
    ]


@clients("embed", OWN)
def test_embeddings_have_a_count(run: Process) -> None:
    assert run("embed", EMBEDDER, ["one", "two"])["tokens"] > 0


@clients("embeddings", OWN)
def test_the_older_embeddings(run: Process, sim: Sim) -> None:
    assert len(run("embeddings", EMBEDDER)) == 768
    assert sent(sim, "/v1/embeddings")["model"] == EMBEDDER


@clients("models", OWN)
def test_list_describes_models(run: Process) -> None:
    listed = {model["model"]: model for model in run("models")}
    assert {f"{CHAT}:latest", f"{EMBEDDER}:latest"} <= set(listed)
    model = listed[f"{CHAT}:latest"]
    assert model["size"] > 0
    assert len(model["digest"]) == 64
    assert model["details"]["quantization_level"] == "Q4_K_M"


@clients("running", OWN)
def test_ps(run: Process, sim: Sim) -> None:
    (running,) = run("running", CHAT)
    assert running["model"] == f"{CHAT}:latest"
    assert running["size_vram"] > 0
    assert running["context_length"] > 0
    assert "T" in running["expires_at"]
    (generated,) = calls(sim)
    assert generated.json["ttl"] == 600


@clients("aliases", OWN)
def test_aliases(run: Process, sim: Sim) -> None:
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


@clients("blob", OWN)
def test_a_blob(run: Process) -> None:
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert run("blob", "hello") == [digest, digest]


@pytest.mark.parametrize("name", OWN)
def test_a_pull_draws_a_progress_bar(name: str, start_proxy: StartProxy) -> None:
    # A stand-in of its own: what is pulled stays.
    with SimThread(models(), downloads=[SimDownload(DOWNLOADABLE)]) as sim:
        with running(CLIENTS[name], start_proxy(sim.url).url) as run:
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


@clients("push", OWN)
def test_a_push_says_that_nothing_was_sent(run: Process, sim: Sim) -> None:
    lines = run("push", CHAT)
    assert lines[-1] == {"status": "success"}
    assert any("registry" in line["status"] for line in lines)
    assert calls(sim) == []


# What only OpenAI's does


@pytest.mark.parametrize("run", ["openai"], indirect=True)
@pytest.mark.parametrize("name", [GPT_OSS, f"{GPT_OSS}:latest", "GPT-OSS:20b"])
def test_a_model_is_retrieved(run: Process, sim: Sim, name: str) -> None:
    assert run("retrieve", name)["id"] == name
    assert calls(sim) == []


@pytest.mark.parametrize("run", ["openai-node"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}])
def test_embeddings_are_numbers_however_they_come(run: Process, sim: Sim, options: dict[str, Any]) -> None:
    # Without the option the library asks for base64 itself.
    (embedded,) = run("embed", EMBEDDER, ["one"], options)["vectors"]
    (request,) = sim.requests
    (own,) = httpx.post(f"{sim.url}/v1/embeddings", json=request.json, trust_env=False).json()["data"]
    assert embedded == pytest.approx(own["embedding"], abs=1e-6)
    (cut,) = run("embed", EMBEDDER, ["one"], options | {"dimensions": 2})["vectors"]
    assert len(cut) == 2
    assert math.hypot(*cut) == pytest.approx(1)


# What only instructor does


@pytest.mark.parametrize("run", ["instructor"], indirect=True)
def test_a_tool_that_the_model_has_to_call(run: Process, sim: Sim) -> None:
    told = run("structured", CHAT, "Tell me about Canada")
    assert told == {"name": "Canada", "capital": "Canada", "languages": ["Canada"]}
    body = sent(sim)
    assert body["tool_choice"] == "required"
    (tool,) = body["tools"]
    assert tool["function"]["name"] == "Country"
