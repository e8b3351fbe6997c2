"""Answers as models really write them, through a real mitmdump: what is missing, empty, cut off or not marked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.strict.reader import JSON
from tests.wire.conftest import CHAT, EMBEDDER, HI, THINKING, Proxy, StartProxy, content_of, ndjson, post_bytes

from ollama_lmstudio.sim import (
    ALWAYS_ON_REASONING,
    MidError,
    Reasoning,
    Sim,
    SimModel,
    SimThread,
    content,
    raw,
    reasoning,
    sleep,
    tool_call,
)
from ollama_lmstudio.sim.generate import tokenize

STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "one object"])
# LM Studio may answer with one JSON object though a stream was asked for: so do proxies in between.
FORMS = pytest.mark.parametrize("events", [True, False], ids=["events", "an object"])

EMPTY_DIGEST = f"sha256:{hashlib.sha256(b'').hexdigest()}"

BASH = {
    "type": "function",
    "function": {"name": "bash", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}},
}


def event(finish: str | None = None, **delta: Any) -> bytes:
    """Write one event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode()


def answers(sim: Sim, events: bool, *deltas: dict[str, Any], finish: str = "stop") -> None:
    """Let LM Studio answer with deltas: as events, or as one object that has all of them."""
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    if events:
        counted = b"data: %s\n\n" % json.dumps({"choices": [], "usage": usage}).encode()
        sim.script(
            [raw(b"".join([*(event(**delta) for delta in deltas), event(finish), counted, b"data: [DONE]\n\n"]))]
        )
        return
    message: dict[str, Any] = {"role": "assistant", "content": "".join(delta.get("content", "") for delta in deltas)}
    message["tool_calls"] = [call for delta in deltas for call in delta.get("tool_calls", ())]
    choice = {"index": 0, "message": message, "finish_reason": finish}
    sim.fault(pre_error=(200, "application/json", json.dumps({"choices": [choice], "usage": usage})))


def chat(client: httpx.Client, stream: bool, **body: Any) -> dict[str, Any]:
    """Ask for a chat; give its last object, with the text and the calls of all of its lines."""
    response = client.post("/api/chat", json={"model": CHAT, "messages": HI, "stream": stream} | body)
    if not stream:
        assert response.status_code == 200, response.text
        return dict(response.json())
    lines = ndjson(response)
    calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
    message = {"role": "assistant", "content": content_of(lines)} | ({"tool_calls": calls} if calls else {})
    return lines[-1] | {"message": message}


# Thoughts

ALWAYS, OFTEN, UNKNOWN, NEVER = "zai-org/glm-4.7-flash", "glm-4.6v", "glm-community", "glm-that-never-thinks"


@pytest.fixture(scope="module")
def thinkers() -> Iterator[tuple[Sim, httpx.Client]]:
    """Models whose templates open the thoughts, and a client of the addon in front of them."""
    models = [
        SimModel(key=ALWAYS, reasoning=ALWAYS_ON_REASONING, opens_thoughts=True),
        SimModel(key=OFTEN, reasoning=Reasoning(("off", "on"), "on"), opens_thoughts=True),
        SimModel(key=NEVER, opens_thoughts=True),
        SimModel(key=UNKNOWN, capabilities_known=False, opens_thoughts=True),
    ]
    with SimThread(models) as sim, Proxy(sim.url) as proxy, proxy.client() as client:
        sim.script([reasoning("Okay, the user", " says hi.", "\n"), content("\n\nHello", "!")])
        yield sim, client


def said_of(response: httpx.Response, key: str) -> str:
    """Give what an answer says under a key: one object, or all lines."""
    assert response.status_code == 200, response.text
    lines = [json.loads(line) for line in response.text.splitlines()]
    return "".join(line.get("message", line).get(key, "") for line in lines)


@STREAMS
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize(
    ("model", "think"),
    [
        *[(model, think) for model in (ALWAYS, OFTEN, UNKNOWN) for think in (None, True, False)],
        # One that does not think, if one believes LM Studio, and so may not be asked to.
        (NEVER, None),
        (NEVER, False),
    ],
)
def test_thoughts_that_nothing_opens(
    thinkers: tuple[Sim, httpx.Client], path: str, stream: bool, think: bool | None, model: str
) -> None:
    body: dict[str, Any] = {"messages": HI} if path == "/api/chat" else {"prompt": "hi"}
    response = thinkers[1].post(path, json={"model": model, "think": think, "stream": stream} | body)
    answer = said_of(response, "content" if path == "/api/chat" else "response")
    thinking = said_of(response, "thinking")
    if model == ALWAYS or not stream:
        # The text is split where it is sure what it begins with, or all of it is there.
        assert (thinking, answer) == ("" if think is False else "Okay, the user says hi.", "Hello!")
    elif think is False:
        assert (thinking, answer) == ("", "Okay, the user says hi.\nHello!")
    else:
        assert (thinking, answer) == ("", "Okay, the user says hi.\n</think>\n\nHello!")


@STREAMS
def test_thoughts_in_tags_that_are_not_wanted(client: httpx.Client, sim: Sim, stream: bool) -> None:
    sim.set(separate_reasoning=False)
    sim.script([reasoning("Okay"), content("\n\nHello")])
    answer = chat(client, stream, model=THINKING, think=False)
    assert answer["message"] == {"role": "assistant", "content": "Hello"}


def test_thoughts_stream_as_they_come(thinkers: tuple[Sim, httpx.Client]) -> None:
    lines = ndjson(thinkers[1].post("/api/chat", json={"model": ALWAYS, "messages": HI}))
    assert [(line["message"].get("thinking"), line["message"]["content"]) for line in lines] == [
        ("Okay, the user", ""),
        (" says hi.", ""),
        (None, "Hello"),
        (None, "!"),
        (None, ""),
    ]


def test_a_raw_prompt_has_its_answer_as_it_is(thinkers: tuple[Sim, httpx.Client]) -> None:
    body = {"model": ALWAYS, "prompt": "hi", "raw": True, "stream": False}
    assert "</think>" in thinkers[1].post("/api/generate", json=body).json()["response"]


# Tool calls


@FORMS
@STREAMS
def test_an_entry_of_tool_calls_that_has_nothing_in_it(
    client: httpx.Client, sim: Sim, stream: bool, events: bool
) -> None:
    entry = {"index": 0, "id": "", "type": "function"}
    answers(
        sim, events, {"role": "assistant", "content": "I've created"}, {"content": " it.\n"}, {"tool_calls": [entry]}
    )
    answer = chat(client, stream, tools=[BASH])
    assert answer["message"] == {"role": "assistant", "content": "I've created it.\n"}
    assert (answer["done"], answer["done_reason"]) == (True, "stop")


@STREAMS
def test_a_tool_call_that_the_limit_of_tokens_cuts(client: httpx.Client, sim: Sim, stream: bool) -> None:
    sim.script([content("I", " will"), tool_call("write_file", {"path": "a", "text": "lorem ipsum"}, fragments=9)])
    answer = chat(client, stream, options={"num_predict": 6})
    assert answer["message"] == {"role": "assistant", "content": "I will"}
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "length", 6)


@FORMS
@STREAMS
def test_the_calls_before_the_one_that_was_cut(client: httpx.Client, sim: Sim, stream: bool, events: bool) -> None:
    calls = [
        {"index": index, "id": str(index), "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate([("f", '{"a":1}'), ("write_file", '{"path":"a","text":"lorem ips')])
    ]
    answers(sim, events, {"content": "I will"}, {"tool_calls": calls}, finish="length")
    answer = chat(client, stream)
    assert answer["message"] == {
        "role": "assistant",
        "content": "I will",
        "tool_calls": [{"id": "0", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}],
    }
    assert answer["done_reason"] == "length"


# Counts and durations


@STREAMS
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_tokens_that_lmstudio_does_not_count(client: httpx.Client, sim: Sim, path: str, stream: bool) -> None:
    sim.set(counts_tokens=False)
    body = {"messages": [{"role": "user", "content": "How are you?"}]} if path == "/api/chat" else {"prompt": "How so?"}
    response = client.post(path, json={"model": CHAT, "stream": stream, "system": "Be brief."} | body)
    last = ndjson(response)[-1] if stream else response.json()
    # Words of the prompt; events, or where they have come as one object, words of the answer.
    assert last["prompt_eval_count"] == (3 if path == "/api/chat" else 4)
    assert last["eval_count"] == len(tokenize("You said: How are you?" if path == "/api/chat" else "You said: How so?"))


@STREAMS
def test_a_lmstudio_that_sends_no_counts(stream: bool) -> None:
    with SimThread([SimModel(key=CHAT)], version="0.3.17") as sim, Proxy(sim.url) as proxy, proxy.client() as client:
        last = chat(client, stream)
    assert (last["prompt_eval_count"], last["eval_count"]) == (1, 4)


@STREAMS
def test_how_long_an_answer_took_that_came_at_once(client: httpx.Client, sim: Sim, stream: bool) -> None:
    """Not a nanosecond, which `ollama run --verbose` would call 3,000,000,000 tokens a second."""
    sim.fault(prefill=0.3)
    answers(sim, True, {"content": "Hello"}, {"content": " you"})
    assert chat(client, stream)["eval_duration"] >= 300_000_000


@STREAMS
def test_how_long_an_answer_of_one_token_took(client: httpx.Client, sim: Sim, stream: bool) -> None:
    sim.fault(prefill=0.3)
    sim.script([content("Hello"), sleep(0.4)])
    answer = chat(client, stream)
    assert answer["eval_duration"] >= 150_000_000
    assert answer["prompt_eval_duration"] >= 250_000_000
    assert answer["prompt_eval_duration"] + answer["eval_duration"] < answer["total_duration"]


@STREAMS
def test_how_long_a_tool_call_took(client: httpx.Client, sim: Sim, stream: bool) -> None:
    """The call is told when it is whole, but its tokens have come before."""
    sim.set(token_delay=0.05)
    sim.script([tool_call("bash", {"command": "ls -l"}, fragments=6)])
    answer = chat(client, stream, tools=[BASH])
    assert answer["eval_duration"] >= 100_000_000


# Chunks


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/create", {"model": "mine", "from": CHAT}),
        ("/api/create", {"model": "mine", "files": {"x.gguf": EMPTY_DIGEST}}),
        ("/api/push", {"model": CHAT}),
        ("/api/pull", {"model": CHAT}),
    ],
    ids=["create", "create that fails", "push", "pull"],
)
def test_a_chunk_a_line(client: httpx.Client, proxy: Proxy, path: str, body: dict[str, Any]) -> None:
    """ollama-rs parses each chunk as one document."""
    client.post(f"/api/blobs/{EMPTY_DIGEST}", content=b"").raise_for_status()
    answer = proxy.raw(post_bytes(path, body))
    client.request("DELETE", "/api/delete", json={"model": "mine"})
    assert answer.header("content-type") == "application/x-ndjson"
    lines = [b"%s\n" % line for line in answer.body.split(b"\r\n")[1:-3:2] for line in line.splitlines()]
    assert len(lines) > 1
    assert answer.body == b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in [*lines, b""])


# Models that are evicted

EVICTIONS = {
    "aborted": f'Failed to load model "{CHAT}". Error: Engine protocol startup was aborted',
    "unloaded": "Model unloaded.",
    "fetch failed": "Engine protocol predict request failed: fetch failed",
}
BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": CHAT, "messages": HI},
    "/api/generate": {"model": CHAT, "prompt": "hi"},
    "/api/embed": {"model": EMBEDDER, "input": "hi"},
}
WAYS = [(path, stream) for path in ("/api/chat", "/api/generate") for stream in (True, False)] + [("/api/embed", False)]
EVICTED = pytest.mark.parametrize("message", EVICTIONS.values(), ids=EVICTIONS)


def calls(sim: Sim) -> list[str]:
    """Give the paths of the calls to models."""
    return [request.path for request in sim.requests if request.path.startswith("/v1/") and request.method == "POST"]


def evict(sim: Sim, message: str, times: int | None, *, in_stream: bool = False) -> None:
    """Let LM Studio evict the model, so many times, before its first token."""
    if in_stream:
        sim.fault(times=times, mid_error=MidError(after=0, message=message))
    else:
        sim.fault(times=times, pre_error=(400, "application/json", json.dumps({"error": message})))


@EVICTED
@pytest.mark.parametrize(("path", "stream"), WAYS)
def test_a_model_that_is_evicted_before_its_first_token_is_called_once_more(
    client: httpx.Client, sim: Sim, path: str, stream: bool, message: str
) -> None:
    evict(sim, message, 1)
    response = client.post(path, json=BODIES[path] | {"stream": stream})
    assert response.status_code == 200, response.text
    if path == "/api/embed":
        assert len(response.json()["embeddings"]) == 1
    else:
        assert said_of(response, "content" if path == "/api/chat" else "response") == "You said: hi"
        assert response.headers["content-type"] == ("application/x-ndjson" if stream else JSON)
    assert len(calls(sim)) == 2


@EVICTED
@pytest.mark.parametrize(("path", "stream"), WAYS)
def test_a_model_that_is_evicted_twice_is_a_503(
    client: httpx.Client, sim: Sim, path: str, stream: bool, message: str
) -> None:
    evict(sim, message, None)
    response = client.post(path, json=BODIES[path] | {"stream": stream})
    assert response.status_code == 503
    assert list(response.json()) == ["error"]
    assert response.json()["error"].startswith(f"{message.removesuffix('.')}. LM Studio has unloaded the model")
    assert len(calls(sim)) == 2


@STREAMS
@pytest.mark.parametrize("times", [1, None])
def test_a_stream_that_begins_with_an_eviction(client: httpx.Client, sim: Sim, times: int | None, stream: bool) -> None:
    evict(sim, "Model unloaded.", times, in_stream=True)
    response = client.post("/api/chat", json=BODIES["/api/chat"] | {"stream": stream})
    assert len(calls(sim)) == 2
    if times:
        assert response.status_code == 200, response.text
        assert said_of(response, "content") == "You said: hi"
    else:
        assert (response.status_code, response.json()["error"]) == (503, "Model unloaded.")


def test_an_eviction_after_the_first_token_is_told(client: httpx.Client, sim: Sim) -> None:
    sim.fault(mid_error=MidError(after=1, message="Model unloaded."), token_delay=0.01)
    lines = ndjson(client.post("/api/chat", json=BODIES["/api/chat"]))
    assert lines[-1] == {"error": "Model unloaded."}
    assert len(calls(sim)) == 1


def test_two_clients_whose_models_abort_each_others_load() -> None:
    models = [SimModel(key=key, load_seconds=0.3) for key in ("one", "two")]
    with (
        SimThread(models, abort_concurrent_loads=True) as sim,
        Proxy(sim.url) as proxy,
        proxy.client() as client,
        ThreadPoolExecutor() as threads,
    ):
        client.get("/api/tags").raise_for_status()
        body = {"messages": HI, "stream": False}
        answers = list(threads.map(lambda key: client.post("/api/chat", json=body | {"model": key}), ("one", "two")))
        assert [said_of(answer, "content") for answer in answers] == ["You said: hi"] * 2
        assert len(calls(sim)) > 2


@EVICTED
@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/chat/completions", {"type": "api_error", "param": None, "code": None}),
        ("/v1/messages", {"type": "overloaded_error"}),
    ],
)
def test_an_eviction_on_v1_is_a_503_in_the_shape_of_its_api(
    client: httpx.Client, sim: Sim, path: str, error: dict[str, Any], message: str
) -> None:
    evict(sim, message, None)
    response = client.post(path, json={"model": CHAT, "messages": HI, "max_tokens": 9})
    assert response.status_code == 503
    told = response.json()["error"]
    assert told.pop("message").startswith(message.removesuffix("."))
    assert told == error
    assert len(calls(sim)) == 1


def test_evictions_that_pass_as_they_are(client: httpx.Client, sim: Sim, start_proxy: StartProxy) -> None:
    """Those of LM Studio's own APIs, and all without `repair_passthrough`."""
    body = json.dumps({"error": "Model unloaded."})
    evict(sim, "Model unloaded.", None)
    response = client.post("/api/v0/chat/completions", json=BODIES["/api/chat"])
    assert (response.status_code, response.text) == (400, body)
    proxy = start_proxy(sim.url, options={"repair_passthrough": "false"})
    with proxy.client() as plain:
        response = plain.post("/v1/chat/completions", json=BODIES["/api/chat"])
    assert (response.status_code, response.text) == (400, body)
