"""Answers as models really write them, through a real mitmdump: what is missing, empty, cut off or not marked."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.wire.conftest import CHAT, HI, content_of, ndjson

from ollama_lmstudio.sim import Sim, content, raw, tool_call

STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "one object"])
# LM Studio may answer with one JSON object though a stream was asked for: so do proxies in between.
FORMS = pytest.mark.parametrize("events", [True, False], ids=["events", "an object"])

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
