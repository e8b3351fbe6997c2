"""Answers put together from lines, events, or what is left of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inspect.conftest import EVENTS, LINES, chunk, dumps, line, ndjson, sse

from ollama_lmstudio.inspect.answers import MAX_PROGRESS, ParsedAnswer, Progress, read_answer
from ollama_lmstudio.inspect.conversation import ParsedToolCall
from ollama_lmstudio.record.record import Numbers

METRICS = {
    "total_duration": 5,
    "load_duration": 1,
    "prompt_eval_count": 7,
    "eval_count": 3,
    "eval_duration": 2,
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def fragment(index: int, name: str = "", arguments: Any = None, call_id: str = "") -> dict[str, Any]:
    return chunk(tool_calls=[{"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}])


ANSWERS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "lines of a chat": (LINES, {"text": "It is a dot.", "thinking": "Let me see.", "finish": "stop", "done": True}),
    "one object of a chat": (
        dumps(line("hi", done=True, reason="length") | METRICS),
        {"text": "hi", "finish": "length", "done": True, "numbers": Numbers(5, 1, 0, 2, 7, 3, "length")},
    ),
    "lines of generate": (
        ndjson(
            {"response": "", "thinking": "hm", "done": False},
            {"response": "hi", "done": False},
            {"response": "", "done": True, "done_reason": "stop", "context": [1, 2]},
        ),
        {"text": "hi", "thinking": "hm", "finish": "stop", "done": True},
    ),
    "tool calls of a chat": (
        ndjson(
            line(tool_calls=[{"id": "c", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}]),
            line(done=True),
        ),
        {"tool_calls": (ParsedToolCall("f", '{"a": 1}', "c"),), "finish": "stop", "done": True},
    ),
    "an error line": (
        ndjson(line("It is"), {"error": "LM Studio closed the connection"}),
        {"text": "It is", "error": "LM Studio closed the connection"},
    ),
    "lines without an end": (ndjson(line("It "), line("is")), {"text": "It is"}),
    "a line that is cut": (
        ndjson(line("It ")) + b'{"model":"m","message":{"role":"assistant","content":"i',
        {
            "text": "It i",
            "problems": [
                "part 2 is broken: Unterminated string starting at character 54: "
                '{"model":"m","message":{"role":"assistant","content":"i'
            ],
        },
    ),
    "a broken line between others": (
        ndjson(line("a")) + b"oops\n" + ndjson(line("b", done=True)),
        {
            "text": "ab",
            "finish": "stop",
            "done": True,
            "problems": ["part 2 is not JSON: Expecting value at character 1: oops"],
        },
    ),
    "events of a chat": (EVENTS, {"text": "It is a dot.", "finish": "stop", "done": True}),
    "events with reasoning and usage": (
        sse(chunk(reasoning_content="h"), chunk(reasoning="m"), chunk("length"), {"choices": [], "usage": USAGE}),
        {
            "thinking": "hm",
            "finish": "length",
            "done": True,
            "numbers": Numbers(prompt_tokens=7, answer_tokens=3),
        },
    ),
    "events without an end": (sse(chunk(content="a"), done=False), {"text": "a"}),
    "an event that is cut": (
        EVENTS[: EVENTS.index(b"a dot.") + 5],
        {"text": "It is a dot", "problems": [...]},
    ),
    "pieces of tool calls": (
        sse(
            fragment(0, "f", "", "1"),
            fragment(1, "g", '{"b":', "2"),
            fragment(0, "", '{"a":1}'),
            fragment(1, "", "2}"),
            fragment(1, "h", "{}", "3"),
            chunk("tool_calls"),
        ),
        {
            "tool_calls": (
                ParsedToolCall("f", '{"a":1}', "1"),
                ParsedToolCall("g", '{"b":2}', "2"),
                ParsedToolCall("h", "{}", "3"),
            ),
            "finish": "tool_calls",
            "done": True,
        },
    ),
    "pieces without an index, as the client gets them": (
        sse(
            fragment(0, "f", '{"a":1}'),
            fragment(1, "g", '{"b"'),
            chunk(tool_calls=[{"function": {"arguments": ":2}"}}]),
            chunk("tool_calls"),
        ),
        {
            "tool_calls": (ParsedToolCall("f", '{"a":1}'), ParsedToolCall("g", '{"b":2}')),
            "finish": "tool_calls",
            "done": True,
        },
    ),
    "calls without ids at one index": (
        sse(fragment(0, "f", '{"a":1}'), fragment(0, "g", {"b": 2})),
        {"tool_calls": (ParsedToolCall("f", '{"a":1}'), ParsedToolCall("g", '{"b": 2}')), "done": True},
    ),
    "a tool call that never ends": (
        sse(fragment(0, "f", '{"a": "x'), done=False),
        {"tool_calls": (ParsedToolCall("f", '{"a": "x'),)},
    ),
    "one object of a chat completion": (
        dumps(
            {
                "choices": [
                    {
                        "message": {"content": "hi", "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
                        "finish_reason": "stop",
                    }
                ],
                "usage": USAGE,
                "stats": {"time_to_first_token": 0.5, "generation_time": 2, "tokens_per_second": 1.5},
            }
        ),
        {
            "text": "hi",
            "tool_calls": (ParsedToolCall("f", "{}", "1"),),
            "finish": "stop",
            "done": True,
            "numbers": Numbers(first_token=500_000_000, generation=2_000_000_000, prompt_tokens=7, answer_tokens=3),
        },
    ),
    "a text completion": (
        sse({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "length"}]}),
        {"text": "ab", "finish": "length", "done": True},
    ),
    "an error of LM Studio's": (
        dumps({"error": {"message": "no such model", "type": "x", "code": "model_not_found"}}),
        {"error": "no such model"},
    ),
    "an error event": (
        sse(chunk(content="a"), done=False) + b'event: error\ndata: {"message":"out of memory"}\n\n',
        {"text": "a", "error": "out of memory"},
    ),
    "messages": (
        sse(
            {"type": "message_start", "message": {"usage": {"input_tokens": 7}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "1", "name": "f"}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
            done=False,
        ),
        {
            "text": "hi",
            "tool_calls": (ParsedToolCall("f", '{"a":1}', "1"),),
            "finish": "tool_use",
            "done": True,
            "numbers": Numbers(prompt_tokens=7, answer_tokens=3),
        },
    ),
    "one object of messages": (
        dumps(
            {
                "type": "message",
                "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "text", "text": "hi"},
                    {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
                ],
                "stop_reason": "tool_use",
            }
        ),
        {
            "text": "hi",
            "thinking": "hm",
            "tool_calls": (ParsedToolCall("f", '{"a": 1}', "1"),),
            "finish": "tool_use",
            "done": True,
        },
    ),
    "responses": (
        sse(
            {"type": "response.created", "response": {"status": "in_progress"}},
            {"type": "response.reasoning_text.delta", "delta": "hm"},
            {"type": "response.output_text.delta", "delta": "hi"},
            {"type": "response.output_text.done", "text": "hi"},
            {
                "type": "response.output_item.done",
                "item": {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
            },
            {"type": "response.completed", "response": {"status": "completed", "usage": {"output_tokens": 3}}},
            done=False,
        ),
        {
            "text": "hi",
            "thinking": "hm",
            "tool_calls": (ParsedToolCall("f", "{}", "c"),),
            "finish": "completed",
            "done": True,
            "numbers": Numbers(answer_tokens=3),
        },
    ),
    "one object of responses": (
        dumps(
            {
                "status": "completed",
                "error": None,
                "output": [
                    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
                    {"type": "message", "content": [{"type": "output_text", "text": "hi"}]},
                ],
            }
        ),
        {"text": "hi", "thinking": "hm", "finish": "completed", "done": True},
    ),
    "LM Studio's own chat": (
        sse(
            {"type": "chat.start"},
            {"type": "model_load.progress", "progress": 0.5},
            {"type": "reasoning.delta", "content": "hm"},
            {"type": "message.delta", "content": "hi"},
            {"type": "chat.end", "result": {"stats": {"input_tokens": 7, "total_output_tokens": 3}}},
            done=False,
        ),
        {
            "text": "hi",
            "thinking": "hm",
            "finish": "stop",
            "done": True,
            "numbers": Numbers(prompt_tokens=7, answer_tokens=3),
        },
    ),
    "one object of LM Studio's own chat": (
        dumps({"output": [{"type": "reasoning", "content": "hm"}, {"type": "message", "content": "hi"}], "stats": {}}),
        {"text": "hi", "thinking": "hm", "finish": "stop", "done": True},
    ),
    "halves of a character": (
        b'{"message":{"content":"\\ud83d"}}\n{"message":{"content":"\\ude00"},"done":true}\n',
        {"text": "\U0001f600", "done": True},
    ),
    "a list": (dumps({"models": []}), {"data": {"models": []}}),
    "a list that is cut": (b'{"models": [{"name": "a"}, {"na', {"data": {"models": [{"name": "a"}, {}]}}),
    "a list on many lines that is cut": (b'{\n "models": [\n {"name": "a"},', {"data": {"models": [{"name": "a"}]}}),
    "a text": (b"Ollama is running", {"plain": "Ollama is running"}),
    "nothing": (b"", {}),
}


@pytest.mark.parametrize(("body", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answers(body: bytes, expected: dict[str, Any]) -> None:
    answer = read_answer(body)
    for name in ("text", "thinking", "tool_calls", "finish", "done", "error", "numbers", "data", "plain"):
        if name == "numbers" and name not in expected:
            continue
        assert getattr(answer, name) == expected.get(name, getattr(ParsedAnswer(), name)), name
    if "data" not in expected:
        assert len(answer.problems) == len(expected.get("problems", []))
    if expected.get("problems") not in (None, [...]):
        assert answer.problems == expected["problems"]


def test_the_content_type_tells_of_events_too() -> None:
    body = b"\n" + EVENTS.replace(b"data: ", b"data:")
    assert read_answer(body, "text/event-stream").text == "It is a dot."
    assert read_answer(b"retry: 1\n\n" + EVENTS, "text/event-stream; charset=utf-8").text == "It is a dot."


def test_a_download() -> None:
    answer = read_answer(
        ndjson(
            {"status": "pulling manifest"},
            {"status": "pulling ab", "digest": "sha256:ab", "total": 100},
            {"status": "pulling ab", "digest": "sha256:ab", "total": 100, "completed": 50},
            {"status": "success"},
        )
    )
    assert answer.progress == [Progress("pulling manifest"), Progress("pulling ab", 100, 50, 2), Progress("success")]
    assert not answer.has_answer


def test_of_many_states_the_last_is_known() -> None:
    answer = read_answer(ndjson(*({"status": f"state {number}"} for number in range(1000))))
    assert len(answer.progress) == MAX_PROGRESS
    assert answer.progress[-1].status == "state 999"


def test_only_the_first_problems_are_kept() -> None:
    answer = read_answer(LINES + b"oops\n" * 1000)
    assert len(answer.problems) == 6
    assert answer.text == "It is a dot."


@given(st.binary(), st.sampled_from(["", "text/event-stream"]))
def test_never_raises(body: bytes, content_type: str) -> None:
    read_answer(body, content_type)


KEYS = st.sampled_from(
    ["message", "content", "choices", "delta", "tool_calls", "function", "arguments", "usage", "stats", "error", "type",
     "output", "status", "response", "done", "index", "item", "content_block", "total", "thinking"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["message", "chat.end", "message_delta", "content_block_delta", "response.completed", "tool_use"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_never_raises_for_nearly_right_answers(values: list[Any]) -> None:
    read_answer(ndjson(*values))
    read_answer(sse(*values))


@given(st.integers(0, len(LINES)), st.integers(0, len(EVENTS)))
def test_a_cut_answer_is_the_begin_of_the_whole_one(line_end: int, event_end: int) -> None:
    assert "It is a dot.".startswith(read_answer(LINES[:line_end]).text)
    assert "It is a dot.".startswith(read_answer(EVENTS[:event_end]).text)
