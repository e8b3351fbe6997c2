"""Which exchanges have a text in them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from mitmproxy.test import tflow
from tests.inspect.conftest import chunk, dumps, flow_of, line, ndjson, record, snapshot, sse

from ollama_lmstudio.page.search import has_text, said_in

EVENTS: dict[str, bytes] = {
    "chat": ndjson(line("The ca"), line("t sat"), line(done=True)),
    "generate": ndjson({"response": "The ca"}, {"response": "t sat", "done": True}),
    "thinking": ndjson(line(thinking="The ca"), line(thinking="t sat"), line(done=True)),
    "chat completions": sse(chunk(content="The ca"), chunk(content="t sat"), chunk("stop")),
    "reasoning": sse(chunk(reasoning_content="The ca"), chunk(reasoning_content="t sat")),
    "completions": sse({"choices": [{"text": "The ca"}]}, {"choices": [{"text": "t sat"}]}),
    "responses": sse(
        {"type": "response.output_text.delta", "delta": "The ca"},
        {"type": "response.output_text.delta", "delta": "t sat"},
    ),
    "messages": sse(
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "The ca"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "t sat"}},
    ),
    "api/v1/chat": sse({"type": "message.delta", "content": "The ca"}, {"type": "message.delta", "content": "t sat"}),
    "a tool's input": sse({"delta": {"partial_json": "The ca"}}, {"delta": {"partial_json": "t sat"}}),
    "a tool's arguments": sse(
        chunk(tool_calls=[{"function": {"arguments": "The ca"}}]),
        chunk(tool_calls=[{"function": {"arguments": "t sat"}}]),
    ),
}


@pytest.mark.parametrize("response", EVENTS.values(), ids=EVENTS)
def test_answers_of_all_apis_are_put_together(response: bytes) -> None:
    flow = flow_of(snapshot(record(b"{}"), response=response))
    assert has_text(flow, "the CAT sat")
    assert not has_text(flow, "cat stood")


REQUESTS: dict[str, Any] = {
    "messages": {"messages": [{"role": "user", "content": "Find me"}]},
    "content parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Find me"}]}]},
    "a system text": {"system": "Find me", "messages": []},
    "a prompt": {"prompt": "Find me"},
    "an input": {"input": "Find me"},
    "instructions": {"instructions": "Find me", "input": "x"},
    "the system prompt of LM Studio's API": {"system_prompt": "Find me", "input": "x"},
    "a tool's result": {"input": [{"type": "function_call_output", "call_id": "1", "output": "Find me"}]},
}


@pytest.mark.parametrize("body", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("indent", [None, 2])
def test_requests_of_all_apis(body: Any, indent: int | None) -> None:
    flow = flow_of(snapshot(record(json.dumps(body, indent=indent).encode()), response=b""))
    assert has_text(flow, "find ME")


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "text", ["Grüße", "日本語", "😀 smile", 'say "hi"', "a\\b", "line\nbreak", "tab\there", "\u2028"]
)
def test_escapes(text: str, ascii_only: bool) -> None:
    body = json.dumps({"messages": [{"content": text}]}, ensure_ascii=ascii_only).encode()
    assert has_text(flow_of(snapshot(record(body), response=b"")), text)
    response = json.dumps(line(text), ensure_ascii=ascii_only).encode()
    assert has_text(flow_of(snapshot(record(b"{}"), response=response)), text)


def test_what_is_split_within_a_character() -> None:
    """A surrogate pair that two events share."""
    response = b'{"message":{"content":"\\ud83d"}}\n{"message":{"content":"\\ude00!"}}\n'
    assert has_text(flow_of(snapshot(record(b"{}"), response=response)), "😀!")


def test_what_is_broken_is_found_where_it_is_whole() -> None:
    response = b'{"message":{"content":"fine \\x and \xff\xfe"}}\n{"message":{"content":"cut of'
    flow = flow_of(snapshot(record(b'{"messages":[{"content":"\\ud800 lone'), response=response))
    assert has_text(flow, "fine")
    said_in(flow)


def test_errors_and_names_are_found() -> None:
    flow = flow_of(snapshot(record(b"{}", error="No Such Model", model="qwen3", purpose="load"), response=b""))
    for text in ("no such", "QWEN3", "load", ""):
        assert has_text(flow, text)


def test_other_flows_have_no_text() -> None:
    assert said_in(tflow.tflow(resp=True)) == ""
    assert not has_text(tflow.tflow(resp=True), "a")


def test_keys_of_json_are_not_text() -> None:
    flow = flow_of(snapshot(record(dumps({"messages": [{"role": "user", "content": "x"}]})), response=b""))
    assert not has_text(flow, "role")


@pytest.mark.parametrize("text", [b'"content":"' + b"\\" * 100_001, b'"content":"a' * 100_000, b'"content" ' * 100_000])
def test_it_takes_time_that_is_linear_in_the_length(text: bytes) -> None:
    def seconds(data: bytes) -> float:
        began = time.process_time()
        said_in(flow_of(snapshot(record(data), response=data)))
        return time.process_time() - began

    # Ten times as much is not a hundred times as long, also on a machine that is busy.
    assert seconds(text * 10) < 50 * max(seconds(text), 0.01)
