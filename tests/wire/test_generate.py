"""Prompts through a real mitmdump, asserting on both sides."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.wire.conftest import CHAT, CODER, EMBEDDER, THINKING, VISION, StartProxy, ndjson

from ollama_lmstudio.sim import Sim, content, reasoning

CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
METRICS = [
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
]


def generate(client: httpx.Client, **body: Any) -> httpx.Response:
    """Ask for the completion of a prompt."""
    return client.post("/api/generate", json={"model": CHAT, "prompt": "hi"} | body)


def sent(sim: Sim, path: str = CHATS) -> dict[str, Any]:
    """Give the body of the one call that reached LM Studio."""
    assert [(request.method, request.path) for request in sim.requests] == [("POST", path)]
    body: dict[str, Any] = sim.requests[0].json
    return body


def response_of(lines: list[dict[str, Any]]) -> str:
    """Give the text of the lines."""
    return "".join(line["response"] for line in lines)


def test_stream(client: httpx.Client, sim: Sim) -> None:
    first, *others, last = ndjson(generate(client))
    assert response_of([first, *others, last]) == "You said: hi"
    assert list(first) == ["model", "created_at", "response", "done"]
    assert list(last) == ["model", "created_at", "response", "done", "done_reason", "context", *METRICS]
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert last["context"]
    assert all(isinstance(number, int) for number in last["context"])
    assert sent(sim) == {
        "model": CHAT,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_one_object(client: httpx.Client, sim: Sim) -> None:
    response = generate(client, stream=False)
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    answer = response.json()
    assert list(answer) == ["model", "created_at", "response", "done", "done_reason", "context", *METRICS]
    assert answer["response"] == "You said: hi"
    assert answer["eval_count"] == 4
    sent(sim)


def test_thinking(client: httpx.Client, sim: Sim) -> None:
    sim.script([reasoning("Hm", "m"), content("Hello")])
    lines = ndjson(generate(client, model=THINKING))
    assert [(line["response"], line.get("thinking")) for line in lines] == [
        ("", "Hm"),
        ("", "m"),
        ("Hello", None),
        ("", None),
    ]
    assert list(lines[0]) == ["model", "created_at", "response", "thinking", "done"]
    answer = generate(client, model=THINKING, stream=False).json()
    assert (answer["thinking"], answer["response"]) == ("Hmm", "Hello")
    sim.clear()
    sim.scripts.clear()
    assert "thinking" not in generate(client, model=THINKING, think=False, stream=False).json()
    assert sent(sim)["reasoning_effort"] == "none"


def test_system(client: httpx.Client, sim: Sim) -> None:
    ndjson(generate(client, system="Be brief."))
    assert sent(sim)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


@pytest.mark.parametrize("stream", [True, False])
def test_context_brings_the_earlier_turns(client: httpx.Client, sim: Sim, stream: bool) -> None:
    def ask(prompt: str, context: list[int]) -> list[int]:
        response = generate(client, prompt=prompt, context=context, stream=stream)
        told = json.loads(response.text.splitlines()[-1])["context"]
        assert all(0 <= number < 2**31 for number in told)
        return list(told)

    ask("und dann?", ask("Grüße \U0001f600", []))
    assert sim.requests[-1].json["messages"] == [
        {"role": "user", "content": "Grüße \U0001f600"},
        {"role": "assistant", "content": "You said: Grüße \U0001f600"},
        {"role": "user", "content": "und dann?"},
    ]


def test_the_context_of_another_server_is_left_out(client: httpx.Client, sim: Sim) -> None:
    assert response_of(ndjson(generate(client, context=[1, 2, 3]))) == "You said: hi"
    assert sent(sim)["messages"] == [{"role": "user", "content": "hi"}]


def test_images(client: httpx.Client, sim: Sim) -> None:
    data = io.BytesIO()
    Image.new("RGB", (2, 2)).save(data, "PNG")
    image = base64.b64encode(data.getvalue()).decode()
    lines = ndjson(generate(client, model=VISION, images=[image, image]))
    assert response_of(lines) == "You said: hi I see 2 images."
    assert [part["type"] for part in sent(sim)["messages"][0]["content"]] == ["text", "image_url", "image_url"]


def test_format(client: httpx.Client, sim: Sim) -> None:
    schema = {"type": "object", "properties": {"b": {"type": "boolean"}, "a": {"type": "integer"}}}
    assert json.loads(response_of(ndjson(generate(client, format=schema)))) == {"b": True, "a": 1}
    assert json.dumps(sent(sim)["response_format"]["json_schema"]["schema"]) == json.dumps(schema)


def test_logprobs_come_last(client: httpx.Client) -> None:
    answer = generate(client, logprobs=True, stream=False).json()
    assert list(answer)[-1] == "logprobs"
    assert [entry["token"] for entry in answer["logprobs"]] == ["You", " said", ":", " hi"]
    assert list(answer["logprobs"][0]) == ["token", "logprob", "bytes"]


# Without a template


@pytest.mark.parametrize("stream", [True, False])
def test_raw_is_verbatim(client: httpx.Client, sim: Sim, stream: bool) -> None:
    prompt = "<|user|>\nhi <think>\n<|assistant|>"
    response = generate(client, prompt=prompt, raw=True, stream=stream, options={"num_predict": 50, "stop": ["!"]})
    lines = ndjson(response) if stream else [response.json()]
    assert response_of(lines) == f"You said: {prompt}"
    assert "context" not in lines[-1]
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] > 0
    assert sent(sim, COMPLETIONS) == {
        "model": CHAT,
        "prompt": prompt,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 50,
        "stop": ["!"],
    }
    assert sim.requests[0].ignored == ()


def test_raw_text_keeps_its_thoughts(client: httpx.Client, sim: Sim) -> None:
    sim.script([content("<think>", "Hm", "</think>", "Hello")])
    assert response_of(ndjson(generate(client, model=THINKING, raw=True))) == "<think>Hm</think>Hello"


@pytest.mark.parametrize("conflict", [{"system": "x"}, {"template": "x"}, {"context": [1]}])
def test_raw_with_what_needs_a_template(client: httpx.Client, conflict: dict[str, Any]) -> None:
    response = generate(client, raw=True, **conflict)
    assert response.status_code == 400
    assert response.json() == {"error": "raw mode does not support template, system, or context"}


@pytest.mark.parametrize("stream", [True, False])
def test_a_suffix(client: httpx.Client, sim: Sim, stream: bool) -> None:
    response = generate(client, model=CODER, prompt="def f({}):", suffix="\n    return {x}", stream=stream)
    assert response.status_code == 200
    expected = "<|fim_prefix|>def f({}):<|fim_suffix|>\n    return {x}<|fim_middle|>"
    assert sent(sim, COMPLETIONS)["prompt"] == expected
    lines = ndjson(response) if stream else [response.json()]
    assert response_of(lines) == f"You said: {expected}"


def test_a_suffix_without_a_prompt(client: httpx.Client, sim: Sim) -> None:
    ndjson(generate(client, model=CODER, prompt="", suffix="after"))
    assert sent(sim, COMPLETIONS)["prompt"] == "<|fim_prefix|><|fim_suffix|>after<|fim_middle|>"


def test_a_suffix_for_a_model_that_cannot_insert(client: httpx.Client, sim: Sim) -> None:
    response = generate(client, suffix="after")
    assert response.status_code == 400
    assert response.json() == {"error": f"registry.ollama.ai/library/{CHAT}:latest does not support insert"}
    assert not sim.requests


# The life of the model


@pytest.mark.parametrize("stream", [True, False])
def test_no_prompt_loads_the_model(client: httpx.Client, sim: Sim, stream: bool) -> None:
    for _ in range(2):
        response = generate(client, prompt="", stream=stream)
        answer = response.json()
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        assert list(answer) == ["model", "created_at", "response", "done", "done_reason"]
        assert (answer["response"], answer["done"], answer["done_reason"]) == ("", True, "load")
        assert [instance.id for instance in sim.instances] == [CHAT]


def test_no_prompt_unloads_the_model(client: httpx.Client, sim: Sim) -> None:
    sim.load(CHAT)
    for _ in range(2):
        answer = generate(client, prompt="", keep_alive="0s").json()
        assert (answer["done"], answer["done_reason"]) == (True, "unload")
        assert not sim.instances


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": ""}, 404, "model '' not found"),
        ({"model": "nosuch"}, 404, "model 'nosuch' not found"),
        ({"model": EMBEDDER}, 400, f'"{EMBEDDER}" does not support generate'),
        ({"think": True}, 400, f'"{CHAT}" does not support thinking'),
        ({"think": True, "prompt": ""}, 400, f'"{CHAT}" does not support thinking'),
        ({"top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
    ],
)
def test_what_ollama_refuses(client: httpx.Client, sim: Sim, body: dict[str, Any], status: int, error: str) -> None:
    response = generate(client, **body)
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert not any(request.method == "POST" for request in sim.requests)


# The option generate_endpoint


@pytest.mark.parametrize("policy", ["completions", "chat"])
def test_generate_endpoint(sim: Sim, start_proxy: StartProxy, policy: str) -> None:
    with start_proxy(sim.url, options={"generate_endpoint": policy}).client() as client:
        client.get("/api/tags")

        def prompt(**body: Any) -> tuple[str, Any]:
            sim.clear()
            ndjson(generate(client, **body))
            (request,) = sim.requests
            return request.path, request.json.get("prompt")

        if policy == "completions":
            assert prompt() == (COMPLETIONS, "hi")
            assert prompt(system="Be brief.") == (COMPLETIONS, "Be brief.\n\nhi")
        else:
            assert prompt() == (CHATS, None)
        # These can go one way only.
        assert prompt(raw=True) == (COMPLETIONS, "hi")
        assert prompt(model=CODER, suffix="x")[0] == COMPLETIONS
