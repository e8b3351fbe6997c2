"""The stream translator: every vector whole, byte by byte, cut at every index and at random gives the same lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_lmstudio.lmstudio.answer import ThinkTags
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.translate.line_format import CHAT, GENERATE, LineFormat
from ollama_lmstudio.translate.metrics import Timings
from ollama_lmstudio.translate.stream import ResponseOptions, Translator, TranslatorOptions

WALL = 1_700_000_000_000_000_000
LIMIT = 4096
ALWAYS = ThinkTags(always=True)
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def delta(finish: str | None = None, logprobs: Any = None, **values: Any) -> bytes:
    head = {
        "id": "chatcmpl-x",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "system_fingerprint": "m",
    }
    return data({**head, "choices": [{"index": 0, "delta": values, "logprobs": logprobs, "finish_reason": finish}]})


def text(value: str) -> bytes:
    return delta(content=value)


def call(index: int, call_id: str | None, name: str | None, arguments: str) -> bytes:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return delta(tool_calls=[{"index": index, "function": function} | ({"id": call_id} if call_id is not None else {})])


FINISH = delta("stop")
USAGE_CHUNK = data({"id": "chatcmpl-x", "choices": [], "usage": USAGE})
NO_USAGE = data({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}})
DONE = b"data: [DONE]\n\n"
END = FINISH + USAGE_CHUNK + DONE


@dataclass
class Vector:
    """A stream and what it holds: texts, reasoning, tool calls, and the end or the error."""

    stream: bytes
    content: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    reason: str = "stop"
    error: str = ""
    counts: tuple[int, int] = (7, 3)
    options: ResponseOptions = field(default_factory=ResponseOptions)
    recover: bool = False
    think_tags: ThinkTags = field(default_factory=ThinkTags)


HELLO = text("Hel") + text("lo")
VECTORS: dict[str, Vector] = {
    "plain": Vector(delta(role="assistant", content="Hel") + text("lo") + END, ["Hel", "lo"]),
    "reasoning_content": Vector(delta(reasoning_content="hm") + text("Hi") + END, ["Hi"], ["hm"]),
    "reasoning": Vector(
        delta(role="assistant", reasoning="hm") + delta(reasoning="m") + text("Hi") + END, ["Hi"], ["hm", "m"]
    ),
    "think tags": Vector(text("<think>") + text("hm") + text("</think>") + text("\n\nHi") + END, ["Hi"], ["hm"]),
    "think tags in pieces": Vector(
        text("<th") + text("ink>h") + text("m</t") + text("hink") + text(">") + text(" Hi") + END, ["Hi"], ["h", "m"]
    ),
    "thoughts that nothing opened": Vector(
        text("Okay") + text(" hi.") + text("\n</think>") + text("\n\nHi") + END,
        ["Hi"],
        ["Okay", " hi."],
        think_tags=ALWAYS,
    ),
    "thoughts that nothing opened, hidden": Vector(
        text("Okay") + text(" hi.") + text("\n</think>") + text("\n\nHi") + END,
        ["Hi"],
        options=ResponseOptions(hide_thinking=True),
        think_tags=ALWAYS,
    ),
    "thoughts that nothing opened, cut by the limit of tokens": Vector(
        text("Okay") + text(" hi.") + delta("length") + USAGE_CHUNK + DONE,
        thinking=["Okay", " hi."],
        reason="length",
        think_tags=ALWAYS,
    ),
    "thoughts that nothing opened, before a tool call": Vector(
        text("Okay") + call(0, "1", "f", "{}") + delta("tool_calls") + USAGE_CHUNK + DONE,
        thinking=["Okay"],
        calls=[("f", {})],
        think_tags=ALWAYS,
    ),
    "thoughts of their own, of a model that cannot but think": Vector(
        delta(reasoning_content="hm") + text("The </think> tag") + END, ["The </think> tag"], ["hm"], think_tags=ALWAYS
    ),
    "structured output of a model that cannot but think": Vector(
        text('{"a":') + text("1}") + END,
        ['{"a":', "1}"],
        options=ResponseOptions(expects_json=True),
        think_tags=ALWAYS,
    ),
    "a closing tag, where thoughts are not wanted": Vector(
        text("Okay\n") + text("</think>") + text("\n\nHi") + END,
        ["Okay\n", "Hi"],
        options=ResponseOptions(hide_thinking=True),
        think_tags=ThinkTags(drop_close=True),
    ),
    "think hidden": Vector(
        delta(reasoning="hm") + text("Hi") + END, ["Hi"], options=ResponseOptions(hide_thinking=True)
    ),
    "nothing but hidden thoughts": Vector(
        delta(reasoning="hm") + delta(reasoning="m") + END, ["hmm"], options=ResponseOptions(hide_thinking=True)
    ),
    "structured output among the thoughts": Vector(
        delta(reasoning='{"a":') + delta(reasoning="1}") + END,
        ['{"a":1}'],
        ['{"a":', "1}"],
        options=ResponseOptions(expects_json=True),
    ),
    "tool call in fragments": Vector(
        call(0, "1", "f", "")
        + call(0, None, None, '{"ci')
        + call(0, None, None, 'ty":"Ü"}')
        + delta("tool_calls")
        + USAGE_CHUNK
        + DONE,
        calls=[("f", {"city": "Ü"})],
    ),
    "tool call whole": Vector(
        call(0, "1", "f", '{"a":1}') + delta("tool_calls") + USAGE_CHUNK + DONE, calls=[("f", {"a": 1})]
    ),
    "parallel tool calls after text": Vector(
        text("Let me")
        + call(0, "1", "f", "{}")
        + call(1, "2", "g", '{"b":')
        + call(1, None, None, "2}")
        + delta("tool_calls")
        + USAGE_CHUNK
        + DONE,
        ["Let me"],
        calls=[("f", {}), ("g", {"b": 2})],
    ),
    "tool call without a name": Vector(call(0, "1", "", "{}") + END, error="LM Studio sent a tool call without a name"),
    "tool call with broken arguments": Vector(
        call(0, "1", "f", '{"a":') + END, error='the model called f with arguments that are not JSON: {"a":'
    ),
    "tool call with nothing in it": Vector(
        text("Hi") + delta(tool_calls=[{"index": 0, "id": "", "type": "function"}]) + END, ["Hi"]
    ),
    "tool call cut by the limit of tokens": Vector(
        text("I will") + call(0, "1", "f", '{"path":"a') + delta("length") + USAGE_CHUNK + DONE,
        ["I will"],
        reason="length",
    ),
    "tool call cut after a whole one": Vector(
        call(0, "1", "f", '{"a":1}') + call(1, "2", "g", '{"b') + delta("length") + USAGE_CHUNK + DONE,
        calls=[("f", {"a": 1})],
        reason="length",
    ),
    "length": Vector(text("Hi") + delta("length") + USAGE_CHUNK + DONE, ["Hi"], reason="length"),
    "a reason that nobody knows": Vector(text("Hi") + delta("content_filter") + USAGE_CHUNK + DONE, ["Hi"]),
    "no usage": Vector(text("Hi") + FINISH + DONE, ["Hi"], counts=(5, 1)),
    "usage of nothing": Vector(
        text("Hi") + text(" you all") + FINISH + NO_USAGE + DONE, ["Hi", " you all"], counts=(5, 3)
    ),
    "usage without the answer's": Vector(
        text("Hi") + FINISH + data({"choices": [], "usage": {"prompt_tokens": 7}}) + DONE, ["Hi"], counts=(7, 1)
    ),
    "no usage of a tool call": Vector(
        call(0, "1", "f", "") + call(0, None, None, "{}") + delta("tool_calls") + DONE, calls=[("f", {})], counts=(5, 2)
    ),
    "no usage of thoughts that are hidden": Vector(
        delta(reasoning="hm") + delta(reasoning="m") + text("Hi") + FINISH + DONE,
        ["Hi"],
        options=ResponseOptions(hide_thinking=True),
        counts=(5, 3),
    ),
    "no usage, and no tokens": Vector(delta(content="") + FINISH + DONE, counts=(5, 0)),
    "no tokens at all": Vector(delta(content="") + END),
    "error event": Vector(
        text("Hi") + b'event: error\ndata: {"error":{"message":"Model unloaded."},"message":"Model unloaded."}\n\n',
        ["Hi"],
        error="Model unloaded.",
    ),
    "error event, then DONE": Vector(
        b'event: error\ndata: {"error":{"message":"boom"},"message":"boom"}\n\n' + DONE, error="boom"
    ),
    "error as text": Vector(text("Hi") + b'data: {"error":"boom"}\n\n', ["Hi"], error="boom"),
    "CRLF": Vector((HELLO + END).replace(b"\n", b"\r\n"), ["Hel", "lo"]),
    "CR": Vector((HELLO + END).replace(b"\n", b"\r"), ["Hel", "lo"]),
    "comments, pings and retry": Vector(
        b": ping\n\n" + text("Hi") + b"event: ping\ndata: {}\n\nretry: 1000\nid: 7\n\n: x\n" + END, ["Hi"]
    ),
    "multi-line data": Vector(text("Hi").replace(b'{"id"', b'{\ndata: "id"') + END, ["Hi"]),
    "no space after data:": Vector((HELLO + END).replace(b"data: ", b"data:"), ["Hel", "lo"]),
    "BOM": Vector(b"\xef\xbb\xbf" + HELLO + END, ["Hel", "lo"]),
    "many alphabets": Vector(text("🦙é漢") + text("e\u0301\u2028\u0085<&>") + END, ["🦙é漢", "e\u0301\u2028\u0085<&>"]),
    "a character in two escapes of two chunks": Vector(
        data({"choices": [{"delta": {"content": "X"}}]}).replace(b"X", b"a\\ud83e")
        + data({"choices": [{"delta": {"content": "X"}}]}).replace(b"X", b"\\udd99b")
        + END,
        ["a", "🦙b"],
    ),
    "half a character": Vector(
        data({"choices": [{"delta": {"content": "X"}}]}).replace(b"X", b"a\\ud83e") + END, ["a", "\ufffd"]
    ),
    "DONE in the text": Vector(text("[DONE]") + text("data: [DONE]\n\n") + END, ["[DONE]", "data: [DONE]\n\n"]),
    "no DONE": Vector(HELLO + FINISH + USAGE_CHUNK, ["Hel", "lo"]),
    "no DONE, no last blank line": Vector(HELLO + FINISH + USAGE_CHUNK.rstrip(b"\n"), ["Hel", "lo"]),
    "DONE without a finish": Vector(HELLO + USAGE_CHUNK + DONE, ["Hel", "lo"]),
    "what comes after DONE is nothing": Vector(HELLO + END + text("more"), ["Hel", "lo"]),
    "no end": Vector(HELLO, ["Hel", "lo"], error="LM Studio ended the stream before its answer was finished"),
    "cut in a line": Vector(
        HELLO + text("more")[:-20], ["Hel", "lo"], error="LM Studio ended the stream before its answer was finished"
    ),
    "nothing": Vector(b"", error="LM Studio ended the stream before its answer was finished"),
    "too large": Vector(
        text("Hi") + text("x" * LIMIT) + END,
        ["Hi"],
        error=f"LM Studio sent an event of more than {LIMIT} bytes; the option max_buffer_size sets the limit",
    ),
    "broken JSON": Vector(
        text("Hi") + b'data: {"choices":[{"delta":{"content":"x"}}\n\n' + END,
        ["Hi"],
        error='LM Studio sent an event that is not JSON: {"choices":[{"delta":{"content":"x"}}',
    ),
    "broken JSON, repaired": Vector(
        text("Hi") + b'data: {"choices":[{"delta":{"content":"x"}}\n\n' + END, ["Hi", "x"], recover=True
    ),
    "things that are no answer": Vector(b"data: 5\n\ndata: []\n\ndata: {}\n\ndata:\n\n" + text("Hi") + END, ["Hi"]),
    "content as it should not be": Vector(delta(content=5, tool_calls="x", reasoning=[]) + text("Hi") + END, ["Hi"]),
}


def translator(vector: Vector, line_format: LineFormat, *, streaming: bool = True) -> Translator:
    response_options = ResponseOptions(streaming, vector.options.hide_thinking, vector.options.expects_json)
    timings = Timings(started_ns=1000, forwarded=2000, load=500)
    context = None if line_format is CHAT else lambda answer: [len(answer) + 1]
    options = TranslatorOptions(
        WALL, LIMIT, recover=vector.recover, think_tags=vector.think_tags, context=context, count_prompt=lambda: 5
    )
    return Translator(line_format, "M:7b", response_options, timings, options)


def lines_of(vector: Vector, line_format: LineFormat, pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    made = translator(vector, line_format)
    lines: list[bytes] = []
    for piece in pieces:
        lines += made.feed(piece, 5000)
    lines += made.flush(9000)
    assert all(line.isascii() and line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    return [normalise(json.loads(line)) for line in lines]


def normalise(line: dict[str, Any]) -> dict[str, Any]:
    """Remove what depends on when the pieces came, and ids that are random."""
    for key in ("created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        line.pop(key, None)
    return line


def expected(vector: Vector, line_format: LineFormat) -> list[dict[str, Any]]:
    def line(content: str = "", thinking: str = "", calls: Any = (), **rest: Any) -> dict[str, Any]:
        parts: dict[str, Any] = {"content" if line_format is CHAT else "response": content}
        parts |= {"thinking": thinking} if thinking else {}
        parts |= {"tool_calls": calls} if calls else {}
        body: dict[str, Any] = {"message": {"role": "assistant", **parts}} if line_format is CHAT else parts
        return {"model": "M:7b", **body, "done": False} | rest

    lines = [line(thinking=t) for t in vector.thinking] + [line(c) for c in vector.content]
    for index, (name, arguments) in enumerate(vector.calls):
        lines.append(
            line(calls=[{"id": str(index + 1), "function": {"index": index, "name": name, "arguments": arguments}}])
        )
    if vector.error:
        return [*lines, {"error": vector.error}]
    counts: dict[str, Any] = {
        key: n for key, n in zip(("prompt_eval_count", "eval_count"), vector.counts, strict=True) if n
    }
    context: dict[str, Any] = {} if line_format is CHAT else {"context": [len("".join(vector.content)) + 1]}
    return [*lines, line(done=True, done_reason=vector.reason, **counts, **context)]


@pytest.mark.parametrize("line_format", [CHAT, GENERATE], ids=["chat", "generate"])
@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_vectors(vector: Vector, line_format: LineFormat) -> None:
    stream = vector.stream
    wanted = expected(vector, line_format)
    assert lines_of(vector, line_format, [stream]) == wanted
    assert lines_of(vector, line_format, [bytes([byte]) for byte in stream]) == wanted
    for index in cuts(stream, everywhere=line_format is CHAT and len(stream) < 1500):
        assert lines_of(vector, line_format, [stream[:index], stream[index:]]) == wanted


def cuts(stream: bytes, *, everywhere: bool) -> list[int]:
    """Return where a stream is cut in two: every few bytes; `everywhere` beside what ends a line or is no ASCII too.

    Where a piece ends is no affair of the lines' format: for one of them that is enough.
    """
    near = {index + n for index, byte in enumerate(stream) if byte in b"\r\n" or byte > 127 for n in range(-2, 4)}
    return [n for n in range(len(stream)) if n % 7 == 0 or (everywhere and n in near)]


@settings(max_examples=200)
@given(st.sampled_from(list(VECTORS)), st.data())
def test_no_cut_matters(name: str, drawn: st.DataObject) -> None:
    vector = VECTORS[name]
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(vector.stream)), max_size=12)))
    pieces = [vector.stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(vector.stream)], strict=True)]
    assert lines_of(vector, CHAT, pieces) == expected(vector, CHAT)


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"data: ", b"\n\n", b'{"choices":[', b'{"delta":{', DONE, text("x")])
    )
)
def test_rubbish_never_raises(pieces: list[bytes]) -> None:
    made = translator(VECTORS["plain"], CHAT)
    lines = [line for piece in pieces for line in made.feed(piece, 1)] + made.flush(2)
    assert all(json.loads(line) for line in lines)
    assert b"" not in lines


@pytest.mark.parametrize("line_format", [CHAT, GENERATE], ids=["chat", "generate"])
@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_one_object_is_the_sum_of_the_lines(vector: Vector, line_format: LineFormat) -> None:
    made = translator(vector, line_format, streaming=False)
    assert made.feed(vector.stream, 5000) == []
    assert made.flush(9000) == []
    answer = made.response()
    body = json.loads(answer.body)
    if vector.error:
        assert answer.status in ((503,) if vector.error == "Model unloaded." else (500, 502))
        assert body == {"error": vector.error}
        return
    assert answer.status == 200
    message = body["message"] if line_format is CHAT else body
    assert message["content" if line_format is CHAT else "response"] == "".join(vector.content)
    assert message.get("thinking", "") == "".join(vector.thinking)
    assert [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])] == vector.calls
    assert body["done"] is True
    assert body["done_reason"] == vector.reason


def test_what_was_taken_for_thoughts_was_the_answer() -> None:
    """A model that cannot but think has not thought: no closing tag has come, and it has ended its answer itself."""
    vector = Vector(b"", think_tags=ALWAYS)
    lines = [json.loads(line)["message"] for line in translator(vector, CHAT).feed(HELLO + END, 5000)]
    said = {"role": "assistant", "content": ""}
    assert lines == [said | {"thinking": "Hel"}, said | {"thinking": "lo"}, said | {"content": "Hello"}, said]
    made = translator(vector, CHAT, streaming=False)
    made.feed(HELLO + END, 5000)
    assert json.loads(made.response().body)["message"] == {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("hide_thinking", "message"),
    [
        (False, {"role": "assistant", "content": "Hi", "thinking": "Okay hi."}),
        (True, {"role": "assistant", "content": "Hi"}),
    ],
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_one_object_is_split_at_a_closing_tag(hide_thinking: bool, message: dict[str, Any], is_stream: bool) -> None:
    vector = Vector(b"", options=ResponseOptions(hide_thinking=hide_thinking))
    made = translator(vector, CHAT, streaming=False)
    if is_stream:
        answer = made.translate(200, "text/event-stream", text("Okay hi.\n") + text("</think>\n\nHi") + END, 5000)
    else:
        whole = {"choices": [{"message": {"content": "Okay hi.\n</think>\n\nHi"}, "finish_reason": "stop"}]}
        answer = made.translate(200, "application/json", json.dumps(whole).encode(), 5000)
    assert json.loads(answer.body)["message"] == message


def test_the_bytes_of_a_line() -> None:
    """The fast path writes what the writer of whole objects would write."""
    made = translator(VECTORS["plain"], CHAT)
    (line,) = made.feed(text('<"é\n'), 5_123_456_789)
    assert line == (
        b'{"model":"M:7b","created_at":"2023-11-14T22:13:25.123456789Z",'
        b'"message":{"role":"assistant","content":"\\u003c\\"\\u00e9\\n"},"done":false}\n'
    )
    made = translator(VECTORS["plain"], GENERATE)
    (line,) = made.feed(delta(reasoning="hm"), 5_123_456_789)
    assert line == (
        b'{"model":"M:7b","created_at":"2023-11-14T22:13:25.123456789Z","response":"","thinking":"hm","done":false}\n'
    )


def test_the_order_of_keys_on_the_last_line() -> None:
    times = [
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ]
    made = translator(VECTORS["plain"], CHAT)
    last = json.loads(made.feed(HELLO + END, 5000)[-1])
    assert list(last) == ["model", "created_at", "message", "done", "done_reason", *times]
    made = translator(VECTORS["plain"], GENERATE)
    last = json.loads(made.feed(HELLO + END, 5000)[-1])
    assert list(last) == ["model", "created_at", "response", "done", "done_reason", "context", *times]


def test_durations_are_measured() -> None:
    made = translator(VECTORS["plain"], CHAT)
    made.feed(text("a"), 8_002_000)
    made.feed(text("b"), 14_002_000)
    last = json.loads(made.feed(END, 15_002_000)[-1])
    assert {key: last[key] for key in last if key.endswith("duration")} == {
        "total_duration": 15_001_000,
        "load_duration": 500,
        "prompt_eval_duration": 8_000_000,
        "eval_duration": 7_000_000,
    }
    assert made.measured().at_once is False


def lasting(*came: tuple[int, bytes]) -> Translator:
    """Translate what has come at these times, in ms; the request came at 1 ms, the call was sent at 2 ms."""
    timings = Timings(started_ns=1_000_000, forwarded=2_000_000)
    made = Translator(CHAT, "m", ResponseOptions(), timings, TranslatorOptions(WALL, LIMIT))
    for at, stream in came:
        made.feed(stream, at * 1_000_000)
    return made


CALL = call(0, "1", "f", ""), call(0, None, None, "{}") + delta("tool_calls")


@pytest.mark.parametrize(
    ("came", "prompt", "generation", "at_once"),
    [
        pytest.param([(10, text("a")), (16, text("b")), (17, END)], 8, 7, False, id="tokens"),
        pytest.param([(10, text("a")), (13, FINISH), (20, USAGE_CHUNK + DONE)], 8, 3, False, id="one token"),
        pytest.param([(10, text("a") + text("b")), (13, END)], 8, 3, False, id="all tokens, then the end"),
        pytest.param([(12, text("a") + END)], 10, 10, True, id="all at once"),
        pytest.param([(12, text("a")), (12, END)], 10, 10, True, id="all at once, in two pieces"),
        pytest.param([(12, FINISH), (13, USAGE_CHUNK + DONE)], 11, 0, True, id="no tokens"),
        pytest.param([(10, CALL[0]), (17, CALL[1] + USAGE_CHUNK + DONE)], 8, 7, False, id="a tool call"),
    ],
)
def test_how_long_the_model_has_generated(
    came: list[tuple[int, bytes]], prompt: int, generation: int, at_once: bool
) -> None:
    made = lasting(*came)
    metrics = made.measured().metrics
    assert metrics.prompt_eval_duration == prompt * 1_000_000
    assert metrics.eval_duration == (generation * 1_000_000 or 1)
    assert made.measured().at_once is at_once
    assert made.measured().first_token == (0 if not generation else came[0][0] * 1_000_000 - 1_000_000)


def test_events_that_are_read_together_have_times_of_their_own() -> None:
    """What has come while the head is held is looked at event by event, some microseconds apart."""
    timings = Timings(started_ns=1_000_000, forwarded=2_000_000)
    made = Translator(CHAT, "m", ResponseOptions(), timings, TranslatorOptions(WALL, LIMIT))
    for number in range(100):
        made.feed(text("a"), 10_000_000 + number * 20_000)
    usage = {"prompt_tokens": 7, "completion_tokens": 100}
    made.feed(FINISH + data({"choices": [], "usage": usage}) + DONE, 12_000_000)
    assert made.measured().at_once
    assert made.measured().metrics.eval_duration == 10_000_000


def test_a_whole_answer_came_at_once() -> None:
    made = lasting()
    body = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
    made.translate(200, "application/json", json.dumps(body).encode(), 12_000_000)
    assert made.measured().metrics.eval_duration == 10_000_000
    assert made.measured().at_once
    stats = {"generation_time": 0.002}
    made = lasting()
    made.translate(200, "application/json", json.dumps(body | {"stats": stats}).encode(), 12_000_000)
    assert made.measured().metrics.eval_duration == 2_000_000
    assert not made.measured().at_once


def test_lm_studios_stats_are_preferred() -> None:
    made = translator(VECTORS["plain"], CHAT)
    stats = {"tokens_per_second": 2.0, "time_to_first_token": 0.5, "model_load_time_seconds": 3}
    stream = text("a") + FINISH + data({"choices": [], "usage": USAGE, "stats": stats}) + DONE
    last = json.loads(made.feed(stream, 10_000)[-1])
    assert last["prompt_eval_duration"] == 500_000_000
    assert last["eval_duration"] == 1_500_000_000
    assert last["load_duration"] == 3_000_000_000


def test_logprobs() -> None:
    entry = {
        "token": "é",
        "logprob": -0.5,
        "bytes": None,
        "top_logprobs": [
            {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
            {"token": "", "logprob": -1, "bytes": []},
        ],
    }
    stream = delta(content="é", logprobs={"content": [entry]}) + END
    options = TranslatorOptions(WALL, LIMIT)
    made = Translator(CHAT, "m", ResponseOptions(logprobs=True, top_logprobs=2), Timings(1), options)
    first = json.loads(made.feed(stream, 1)[0])
    top = [{"token": "é", "logprob": -0.5, "bytes": [195, 169]}, {"token": "", "logprob": -1}]
    assert first["logprobs"] == [{"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": top}]
    made = Translator(CHAT, "m", ResponseOptions(logprobs=True), Timings(1), options)
    first = json.loads(made.feed(stream, 1)[0])
    assert first["logprobs"] == [{"token": "é", "logprob": -0.5, "bytes": [195, 169]}]
    made = Translator(CHAT, "m", ResponseOptions(), Timings(1), options)
    assert "logprobs" not in json.loads(made.feed(stream, 1)[0])


@pytest.mark.parametrize(
    ("stream", "started", "rejected"),
    [
        (b"", False, False),
        (b": ping\n\n", False, False),
        (delta(role="assistant", content=""), False, False),
        (text("a")[:-1], False, False),
        (text("a"), True, False),
        (call(0, "1", "f", ""), True, False),
        (call(0, "", "", ""), False, False),
        (b'event: error\ndata: {"error":"boom"}\n\n', True, True),
        (delta(role="assistant", content="") + b'data: {"error":"boom"}\n\n', True, True),
        (DONE, True, False),
        (text("a") + b'event: error\ndata: {"error":"boom"}\n\n', True, False),
        (delta(reasoning="hm") + b'event: error\ndata: {"error":"boom"}\n\n', True, False),
    ],
)
@pytest.mark.parametrize("hide_thinking", [False, True])
def test_how_a_stream_begins(stream: bytes, started: bool, rejected: bool, hide_thinking: bool) -> None:
    for size in (1, len(stream) or 1):
        made = translator(Vector(b"", options=ResponseOptions(hide_thinking=hide_thinking)), CHAT)
        for at in range(0, len(stream), size):
            made.feed(stream[at : at + size], 1)
        assert (made.started, made.rejected) == (started, rejected)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_stream_that_was_rejected_may_begin_again(streaming: bool) -> None:
    """The model was evicted before its first token: another response to the call is translated in its place."""
    made, only = (translator(VECTORS["plain"], CHAT, streaming=streaming) for _ in range(2))
    made.feed(delta(role="assistant", content="") + b'event: error\ndata: {"error":"Model unloaded."}\n\n', 1)
    assert made.rejected
    assert made.error is not None
    made.begin_again()
    assert [made.rejected, made.failed, made.started, made.error is None] == [False, False, False, True]
    answers = [each.translate(200, "text/event-stream", HELLO + END, 5000) for each in (made, only)]
    assert answers[0] == answers[1]
    assert answers[0].status == 200


def test_when_lm_studio_is_gone_the_error_is_the_last_line() -> None:
    made = translator(VECTORS["plain"], CHAT)
    made.feed(text("a"), 1)
    assert made.abort(LMStudioError(502, "gone")) == [b'{"error":"gone"}\n']
    assert made.abort(LMStudioError(502, "gone")) == []
    assert made.flush(2) == []
    made = translator(VECTORS["plain"], CHAT)
    made.feed(text("a") + END, 1)
    assert made.abort(LMStudioError(502, "gone")) == []


def test_a_whole_answer_for_a_streaming_client_is_lines_too() -> None:
    made = translator(VECTORS["plain"], CHAT)
    body = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": USAGE}
    answer = made.translate(200, "application/json", json.dumps(body).encode(), 5000)
    assert answer.content_type == "application/x-ndjson"
    assert [json.loads(line)["message"]["content"] for line in answer.body.splitlines()] == ["Hi", ""]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_a_whole_stream_is_translated_like_one_that_comes_in_pieces(vector: Vector, streaming: bool) -> None:
    in_pieces, whole = (translator(vector, CHAT, streaming=streaming) for _ in range(2))
    lines = in_pieces.feed(vector.stream, 5000) + in_pieces.flush(5000)
    answer = whole.translate(200, "text/event-stream; charset=utf-8", vector.stream, 5000)
    assert (answer.status == 200) is not bool(vector.error)
    expected_body = b"".join(lines) if streaming and not vector.error else in_pieces.response().body
    assert re.sub(rb"call_\w{8}", b"call_", answer.body) == re.sub(rb"call_\w{8}", b"call_", expected_body)


@pytest.mark.parametrize(
    ("status", "content_type", "body", "expected_status"),
    [
        (200, "application/json", b'{"error":"Unexpected endpoint or method. (POST /x)"}', 502),
        (400, "application/json", b'{"error":{"message":"no"}}', 400),
        (502, "text/html", b"<html>", 502),
        (200, "application/json", b"", 502),
        (200, "application/json", b"[" * 100_000, 502),
    ],
)
def test_what_is_no_answer_is_an_error(status: int, content_type: str, body: bytes, expected_status: int) -> None:
    for streaming in (True, False):
        made = translator(VECTORS["plain"], CHAT, streaming=streaming)
        answer = made.translate(status, content_type, body, 5000)
        assert answer.status == expected_status
        assert json.loads(answer.body)["error"]
        assert answer.content_type == ("application/json" if streaming else "application/json; charset=utf-8")
