"""What the user sees of an exchange, from both sides."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inspect.conftest import (
    ASKED,
    EVENTS,
    LINES,
    PNG,
    WEATHER,
    answered,
    chunk,
    dumps,
    line,
    ndjson,
    parts,
    record,
    rule,
    said,
    snapshot,
    sse,
)

from ollama_lmstudio.inspect import quantities, render, render_answer, render_lmstudio
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.record.record import Numbers, Record

WHOLE = """\
━━ POST /api/chat ━━━━━━━━━━━━━━━━━━━━
client: ollama-python/0.6
model: llama3.2

━━ New in this request, after 2 messages ━━
tool weather: 18 degrees
system: Be terse.

━━ Options and tools ━━━━━━━━━━━━━━━━━
stream: true
think: true
keep_alive: "5m"
options: {"temperature": 0.2, "num_predict": 100, "num_ctx": 8192}
tools:
  weather(city: string, unit?: string)  Tell the weather

━━ Sent to LM Studio: POST /v1/chat/completions ━━
model: llama3.2 -> llama-3.2-3b-instruct
message 3: thinking not sent, weather has the id call_1
message 4: answers weather -> call_1
num_predict: 100 -> max_tokens
think: true -> reasoning_effort "medium"
keep_alive: "5m" -> ttl 300
as it came: temperature, stream
added: stream_options {"include_usage": true}
not sent: num_ctx 8192

━━ Answer: 200 OK ━━━━━━━━━━━━━━━━━━━━
assistant thinks: Let me see.
assistant: It is a dot.

━━ Numbers ━━━━━━━━━━━━━━━━━━━━━━━━━━━
prompt: 512 tokens
answer: 87 tokens
speed: 43.5 tok/s
first token: 310 ms
total: 2.4 s
done reason: stop

━━ Earlier: 2 messages ━━━━━━━━━━━━━━━
── user [image/png, 1 x 1 pixels, 70 bytes] ──
What is this?
Look.
──────────────────────────────────────
assistant thinks: Where?
assistant calls: weather({"city": "Rome"})

━━ Tools: 1 schema ━━━━━━━━━━━━━━━━━━━
tool: weather
{
  "type": "object",
  "properties": {
    "city": {
      "type": "string"
    },
    "unit": {
      "type": "string"
    }
  },
  "required": [
    "city"
  ]
}"""


def test_a_request_shows_the_whole_exchange() -> None:
    assert render.ollama_request(snapshot()) == WHOLE


def test_a_request_tells_whose_key_it_had() -> None:
    shown = render.ollama_request(snapshot(record(key="alice")))
    assert "client: ollama-python/0.6\nkey: alice\nmodel: llama3.2\n" in shown


def test_a_response_shows_what_came_back() -> None:
    assert render_answer.ollama_response(snapshot()) == WHOLE[WHOLE.index("━━ Answer") : WHOLE.index("\n\n━━ Earlier")]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"status": 0, "response": None}, {render.ANSWER_TO_COME: ""}),
        (
            {"status": 0, "response": None, "connection_error": "Client disconnected."},
            {"No answer": "", "Error": "error: Client disconnected."},
        ),
        ({"response": None}, {render.ANSWER_TO_COME: ""}),
        ({"response": b"{}", "is_streaming": True}, {render.ANSWER_TO_COME: ""}),
    ],
)
def test_an_exchange_in_progress(changed: dict[str, Any], expected: dict[str, str]) -> None:
    shown = parts(render.ollama_request(snapshot(record(numbers=None), **changed)))
    assert {name: shown.get(name) for name in expected} == expected
    assert "POST /api/chat" in shown


@pytest.mark.parametrize(
    ("response", "text"), [(None, "body: still on its way"), (ndjson(line("It is ")), "assistant: It is ")]
)
def test_an_answer_that_is_coming(response: bytes | None, text: str) -> None:
    asked = snapshot(record(numbers=None, response_size=0), response=response, is_streaming=True)
    assert parts(render_answer.ollama_response(asked)) == {"Answer so far: 200 OK": text}


def test_an_answer_that_is_not_kept() -> None:
    shown = parts(render.ollama_request(snapshot(response=None)))
    assert shown["Answer: 200 OK"] == "body: not kept"
    assert "total: " in shown["Numbers"]


def test_a_request_that_waits_is_shown_as_a_person_edits_it() -> None:
    asked = snapshot(record(kind="", numbers=None), body=dumps(ASKED | {"model": "edited"}), status=0, response=None)
    assert "model: edited" in render.ollama_request(asked)


def test_a_broken_answer_shows_what_is_there() -> None:
    kept = record(error="LM Studio closed the connection before its answer was finished", numbers=None, response_size=0)
    body = ndjson(line("It is "), {"error": "LM Studio closed the connection"})
    shown = parts(render_answer.ollama_response(snapshot(kept, response=body)))
    assert shown == {
        "Error": "error: LM Studio closed the connection before its answer was finished",
        "Answer up to the error: 200 OK": "assistant: It is ",
    }
    shown = parts(render_answer.ollama_response(snapshot(replace(kept, error=""), response=ndjson(line("It is ")))))
    assert shown == {"Answer: 200 OK": "assistant: It is \nproblem: the end of the answer is missing"}


@pytest.mark.parametrize(("reason", "text"), [("stop", "assistant: (nothing)"), ("load", None), ("unload", None)])
def test_an_answer_without_words(reason: str, text: str | None) -> None:
    body = {"model": "m", "response": "", "done": True, "done_reason": reason}
    shown = parts(render_answer.ollama_response(answered("/api/generate", body, numbers=Numbers(total=1000))))
    assert shown["Answer: 200"] == (text or "")
    assert shown["Numbers"] == f"total: 0.0 ms\ndone reason: {reason}"


def test_bodies_that_are_not_kept_whole_say_so() -> None:
    body = dumps(ASKED)
    kept = record(body[: body.index(PNG.encode()) + 40], request_size=len(body), response_size=5_000_000)
    shown = parts(render.ollama_request(snapshot(kept, response=LINES[:150])))
    assert f"kept: {len(kept.request)} bytes of " in shown["POST /api/chat"]
    assert "problem: the body is broken: Unterminated string" in shown["POST /api/chat"]
    assert "── user [image/png, 1 x 1 pixels, 30 bytes] ──" in shown["POST /api/chat"]
    sent = shown["Sent to LM Studio: POST /v1/chat/completions"]
    assert sent == "changed: cannot be told, since not all of the body is kept"
    assert "kept: 150 bytes of 5.0 MB" in shown["Answer: 200 OK"]
    assert "the end of the answer is missing" not in shown["Answer: 200 OK"]


def test_a_short_body_that_is_broken_is_shown_beside_what_could_be_read_of_it() -> None:
    shown = parts(render.ollama_request(snapshot(record(b'{"model": "m", "messages": [{"role": '))))["POST /api/chat"]
    assert 'body: {"model": "m", "messages": [{"role": \nmodel: m\n' in shown


@pytest.mark.parametrize("body", [b"oops", b"[1, 2", b'"' + PNG.encode()])
def test_a_body_that_is_no_request_is_shown_as_it_is(body: bytes) -> None:
    shown = render.ollama_request(snapshot(record(body)))
    assert (body.decode() in shown) == (PNG.encode() not in body)
    assert PNG not in shown


def test_what_the_client_left_empty_is_named_only() -> None:
    body: dict[str, Any] = {
        "name": "m",
        "prompt": "",
        "suffix": "",
        "format": None,
        "context": [1] * 500,
        "options": {},
    }
    shown = parts(render.ollama_request(snapshot(record(body, path="/api/generate"))))
    assert shown["POST /api/generate"].split("\n")[1:] == ["model: m"]
    assert shown["Options and tools"] == "context: 500 numbers\nempty: suffix, format"


def test_what_was_dropped_on_the_way_and_cannot_be_seen_is_named() -> None:
    shown = render.ollama_request(snapshot(record(dropped=("num_ctx", "format together with tools"))))
    assert "LM Studio has no: format together with tools\n" in shown


SYSTEM: dict[str, str] = {"role": "system", "content": "You are helpful.\n" + "Think well. " * 20}
TURNS = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
TOOL_TURN = [
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]},
    {"role": "tool", "tool_name": "weather", "content": "18"},
]
NEW = {
    "the first question": ([TURNS[0]], None, None),
    "the next question": (
        [*TURNS, {"role": "user", "content": "three"}],
        ("after 2 messages", "user: three"),
        "user: one\nassistant: two",
    ),
    "the result of a tool": (
        [TURNS[0], *TOOL_TURN],
        ("after 2 messages", "tool weather: 18"),
        "user: one\nassistant calls: weather()",
    ),
    "a question beside a result": (
        [TURNS[0], *TOOL_TURN, {"role": "user", "content": "and?"}],
        ("after 2 messages", "tool weather: 18\nuser: and?"),
        "user: one\nassistant calls: weather()",
    ),
    "an answer to be continued": (
        [*TURNS, *TURNS],
        ("after 2 messages", "user: one\nassistant: two"),
        "user: one\nassistant: two",
    ),
    "nothing but an answer to be continued": ([TURNS[1]], None, None),
}


@pytest.mark.parametrize(("messages", "new", "earlier"), NEW.values(), ids=NEW)
def test_what_is_new_stands_first(messages: list[Any], new: tuple[str, str] | None, earlier: str | None) -> None:
    shown = parts(render.ollama_request(snapshot(record({"model": "m", "messages": [SYSTEM, *messages]}))))
    names = list(shown)
    whole = said("system", SYSTEM["content"])
    if new is None or earlier is None:
        # The system text is a part of what is new.
        assert names[1].startswith("Sent to LM Studio")
        assert shown[names[0]].startswith(f"client: ollama-python/0.6\nmodel: m\n{whole[:100]}")
        assert not any(name.startswith(("New", "Earlier", "System")) for name in names)
        return
    where, text = new
    assert names[:2] == ["POST /api/chat", f"New in this request, {where}"]
    line = "system: 257 characters, below: You are helpful. Think well. Think we..."
    assert shown[names[1]] == f"{text}\n{line}"
    assert names[2:] == ["Sent to LM Studio: POST /v1/chat/completions", "Answer: 200 OK", "Numbers", *names[-2:]]
    assert names[-2:] == [f"Earlier: {where.removeprefix('after ')}", "System"]
    assert (shown[names[-2]], shown[names[-1]]) == (earlier, whole)


def test_tools_are_one_a_line_and_their_schemas_below() -> None:
    described = WEATHER["function"] | {"description": "Tell the weather.\nOf any city."}
    tools = [WEATHER, {"type": "function", "function": described}, {"type": "function", "function": {"name": "now"}}]
    shown = parts(render.ollama_request(snapshot(record({"model": "m", "messages": [TURNS[0]], "tools": tools}))))
    assert shown["Options and tools"] == (
        "tools:\n"
        "  weather(city: string, unit?: string)  Tell the weather\n"
        "  weather(city: string, unit?: string)  Tell the weather. Of any city.\n"
        "  now()"
    )
    schema = json.dumps(described["parameters"], indent=2)
    assert shown["Tools: 2 schemas"] == (
        f"tool: weather\n{schema}\n{said('weather is', described['description'])}\ntool: weather\n{schema}"
    )


def test_long_conversations() -> None:
    messages = [{"role": "user", "content": f"number {number} " + "x " * 15_000} for number in range(500)]
    shown = render.ollama_request(snapshot(record({"messages": messages}), call={"messages": messages}))
    assert "━━ 300 messages are left out" in shown
    assert "number 19 x" in shown
    assert "number 20 x" not in shown
    assert "number 499 x" in shown
    assert "── 29,011 characters are left out here ──" in shown
    assert "━━ Numbers" in shown
    assert len(shown) < 500_000


def test_thousands_of_tools() -> None:
    """What is not shown is not written: it took seconds, for which all else stood still."""
    parameters = WEATHER["function"]["parameters"]
    tools = [{"function": {"name": f"tool_{n}", "parameters": parameters}} for n in range(3500)]
    shown = render.ollama_request(snapshot(record({"model": "m", "messages": [TURNS[0]], "tools": tools})))
    assert "  tool_199(city: string, unit?: string)\n  and 3,300 more\n" in shown
    left_out = re.search(r"━━ ([\d,]+) schemas are left out", shown)
    assert left_out is not None
    assert shown.count("tool: tool_") + int(left_out[1].replace(",", "")) == 3500
    assert len(shown) < 300_000


def test_many_texts() -> None:
    body = {"model": "m", "input": ["a text"] * 999}
    shown = render.ollama_request(snapshot(record(body, path="/api/embed"), call=body, path="/v1/embeddings"))
    assert shown.count("a text") == 200
    assert "━━ 799 texts are left out" in shown


def test_a_few_texts_are_shown_as_they_were_said() -> None:
    body = {"model": "m", "input": ["one", "two\n\tthree  "]}
    shown = parts(render.ollama_request(snapshot(record(body, path="/api/embed"), call=body, path="/v1/embeddings")))
    assert shown["POST /api/embed"].endswith("text 1: one\n" + said("text 2", "two\n\tthree  ").rpartition("\n")[0])


def test_a_field_with_a_text_is_shown_as_it_was_said() -> None:
    body = {"model": "m", "prompt": "def f():", "suffix": "\n\treturn 1\n", "keep_alive": "5m"}
    shown = parts(render.ollama_request(snapshot(record(body, path="/api/generate"))))
    assert said("suffix", body["suffix"]) in shown["Options and tools"]
    assert 'keep_alive: "5m"' in shown["Options and tools"]


EMBEDDED = {"model": "nomic", "embeddings": [[0.6, -0.8, *[0.0] * 766]] * 30}
TAG = {
    "name": "qwen3-4b:latest",
    "model": "qwen3-4b:latest",
    "size": 2_497_281_120,
    "details": {"parameter_size": "4B", "quantization_level": "Q4_K_M", "context_length": 40960},
    "capabilities": ["completion", "tools"],
}
V1_MODEL = {
    "type": "llm",
    "key": "qwen/qwen3-4b",
    "size_bytes": 2_497_281_120,
    "params_string": "4B",
    "quantization": {"name": "Q4_K_M"},
    "max_context_length": 40960,
    "loaded_instances": [{"id": "qwen/qwen3-4b"}],
    "capabilities": {"vision": False, "trained_for_tool_use": True},
}

ANSWERS: dict[str, tuple[Snapshot, str]] = {
    "embeddings": (
        answered("/api/embed", EMBEDDED),
        "model: nomic\nembeddings:\n"
        + "  768 dimensions, norm 1.0000: 0.6, -0.8, 0, 0, 0, ...\n" * 20
        + "  and 10 more",
    ),
    "one embedding": (
        answered("/api/embeddings", {"embedding": [3, 4.0]}),
        "embeddings:\n  2 dimensions, norm 5.0000: 3, 4",
    ),
    "embeddings of LM Studio's": (
        answered(
            "/v1/embeddings",
            {"data": [{"embedding": [1.0]}, {"embedding": "AAAA"}, {"embedding": "AAAAPwAAAL8="}, {"embedding": "%"}]},
        ),
        'embeddings:\n  1 dimensions, norm 1.0000: 1\n  "AAAA"\n  2 dimensions, norm 0.7071: 0.5, -0.5\n  "%"',
    ),
    "no embeddings": (answered("/api/embed", {"embeddings": []}), "embeddings:\n  none"),
    "a list of models": (
        answered("/api/tags", {"models": [TAG, {**TAG, "name": "b", "size": 0, "capabilities": None}]}),
        "2 models:\n"
        "  name             size    parameters  quantization  context  can\n"
        "  qwen3-4b:latest  2.5 GB  4B          Q4_K_M        40960    completion tools\n"
        "  b                        4B          Q4_K_M        40960",
    ),
    "a list of LM Studio's": (
        answered("/api/v1/models", {"models": [V1_MODEL]}),
        "1 model:\n"
        "  name           type  size    parameters  quantization  context  loaded         can\n"
        "  qwen/qwen3-4b  llm   2.5 GB  4B          Q4_K_M        40960    qwen/qwen3-4b  trained_for_tool_use",
    ),
    "a list of names": (
        answered("/v1/models", {"data": [{"id": "a"}], "object": "list"}),
        "1 model:\n  name\n  a",
    ),
    "an empty list": (answered("/api/ps", {"models": []}), "0 models:\n  none"),
    "a description": (
        answered(
            "/api/show",
            {
                "modelfile": "FROM a\nSYSTEM b",
                "details": {"format": "gguf"},
                "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960},
                "capabilities": ["tools"],
                "license": "",
            },
            method="POST",
        ),
        said("modelfile", "FROM a\nSYSTEM b") + "\n"
        'details:\n  format: "gguf"\n'
        'model_info:\n  general.architecture: "qwen3"\n  qwen3.context_length: 40960\n'
        'capabilities: ["tools"]',
    ),
    "a download": (
        answered(
            "/api/pull",
            ndjson(
                {"status": "pulling manifest"},
                *({"status": "pulling ab", "total": 2 * 10**9, "completed": n * 10**8} for n in range(10)),
            ),
        ),
        "progress:\n  pulling manifest\n  pulling ab: 45%, 900.0 MB of 2.0 GB (10 lines)",
    ),
    "a version": (answered("/api/version", {"version": "0.33.0"}), '{\n  "version": "0.33.0"\n}'),
    "a text": (answered("/", b"Ollama is running"), "text: Ollama is running"),
    "nothing": (answered("/api/copy", b""), ""),
}


@pytest.mark.parametrize(("case", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_answers_of_the_bridge_itself(case: Snapshot, expected: str) -> None:
    assert parts(render_answer.ollama_response(case))["Answer: 200"] == expected
    assert "━━ Answered by the bridge itself" in render.ollama_request(case)


def test_an_error() -> None:
    shown = render_answer.ollama_response(answered("/api/chat", {"error": "model 'nope' not found"}, status=404))
    assert parts(shown) == {"Error: 404": "error: model 'nope' not found"}


def test_an_error_without_words_of_its_own_is_what_came() -> None:
    shown = render_answer.ollama_response(answered("/nope", b"404 page not found", status=404))
    assert parts(shown) == {"Answer: 404": "text: 404 page not found"}


def test_long_lists_and_downloads_are_bounded() -> None:
    shown = render_answer.ollama_response(answered("/api/tags", {"models": [TAG] * 1000}))
    assert shown.count("qwen3-4b") == 200
    assert "and 800 more" in shown


DURATIONS = {
    400_000: "0.4 ms",
    310_000_000: "310 ms",
    999_400_000: "999 ms",
    999_600_000: "1.0 s",
    2_440_000_000: "2.4 s",
    59_960_000_000: "60.0 s",
    185_000_000_000: "3 min 5 s",
}


@pytest.mark.parametrize(("nanoseconds", "text"), DURATIONS.items())
def test_durations(nanoseconds: int, text: str) -> None:
    assert quantities.duration(nanoseconds) == text


def test_numbers_are_read_from_the_answer_where_none_were_measured() -> None:
    metrics = {"total_duration": 2 * 10**9, "load_duration": 10**9, "eval_count": 11, "eval_duration": 10**9}
    shown = render_answer.ollama_response(snapshot(record(numbers=None), response=ndjson(line(done=True) | metrics)))
    assert parts(shown)["Numbers"] == (
        "answer: 11 tokens\nspeed: 11 tok/s\nload: 1.0 s\ntotal: 2.0 s\ndone reason: stop"
    )


# What LM Studio sees


def test_the_call() -> None:
    shown = render_lmstudio.lmstudio_request(snapshot())
    assert shown.startswith(rule("POST /v1/chat/completions") + '\n{\n  "model": "llama-3.2-3b-instruct",\n')
    assert '"url": "[image/png, 70 bytes]"' in shown
    body = json.loads(shown.partition("\n")[2])
    assert body["messages"][3] == {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"}


def test_the_events_as_they_came() -> None:
    shown = render_lmstudio.lmstudio_response(snapshot())
    events = EVENTS.decode().replace("\n\n", "\n").strip()
    assert shown == (
        rule("LM Studio's answer: 200")
        + "\nContent-Type: text/event-stream\nSet-Cookie: ***\n\n"
        + rule("The same in all events")
        + "\nobject: chat.completion.chunk\n\n"
        + rule(f"Body: {len(EVENTS)} bytes, 4 events")
        + '\nevents:\n  event  says\n      1  content "It is "\n      2  content "a dot."\n'
        + '      3  finish_reason "stop"\n      4  [DONE]\n\n'
        + rule("As it came")
        + f"\n{events}"
    )


def test_named_events_and_broken_ones() -> None:
    body = b': ping\n\nevent: error\ndata: {"message":\ndata: "no"}\n\ndata: {"broken\n\ndata: [DO'
    kept = record(upstream=body, upstream_size=10**6, error="LM Studio closed the connection")
    shown = parts(render_lmstudio.lmstudio_response(snapshot(kept)))
    assert shown == {
        "Error": "error: LM Studio closed the connection",
        "LM Studio's answer: 200": (
            f"Content-Type: text/event-stream\nSet-Cookie: ***\nkept: {len(body)} bytes of 1.0 MB"
        ),
        "Body: 1.0 MB, 3 events": (
            'events:\n  event  says\n      1  error  message "no"\n      2  {"broken\n      3  [DO'
        ),
        "As it came": 'event: error\ndata: {"message":\ndata: "no"}\ndata: {"broken\ndata: [DO',
    }
    assert next(iter(shown)) == "Error"


def test_many_events() -> None:
    body = sse(*(chunk(content=f"<{number}>") for number in range(5000)))
    shown = render_lmstudio.lmstudio_response(snapshot(record(upstream=body, upstream_size=len(body))))
    assert "5,001 events" in shown
    assert "━━ 3,501 events are left out" in shown
    assert "<1199>" in shown
    assert "<1200>" not in shown
    assert "<4999>" in shown


def test_one_object() -> None:
    body = dumps({"error": {"message": "no such model"}})
    kept = record(status=400, upstream=body, upstream_size=len(body), upstream_headers=(("ETag", "x"),))
    assert parts(render_lmstudio.lmstudio_response(snapshot(kept))) == {
        "LM Studio's answer: 400": "ETag: x",
        f"Body: {len(body)} bytes": '{\n  "error": {\n    "message": "no such model"\n  }\n}',
    }


def test_lm_studio_has_not_answered() -> None:
    assert render_lmstudio.lmstudio_response(snapshot(record(status=0))) == rule("No answer of LM Studio yet")
    shown = render_lmstudio.lmstudio_response(snapshot(record(status=0, error="LM Studio is not reachable")))
    assert parts(shown) == {"No answer of LM Studio": "", "Error": "error: LM Studio is not reachable"}


def test_lm_studio_was_not_asked() -> None:
    version = answered("/api/version", {"version": "0.33.0"})
    assert render_lmstudio.lmstudio_request(version).startswith(rule("Nothing was sent to LM Studio") + "\n")
    assert "0.33.0" in render_lmstudio.lmstudio_response(version)


def internal_call(**changed: Any) -> Snapshot:
    """Return the snapshot of an internal call."""
    kept = Record(kind="own", purpose="model list for name resolution")
    headers = (("Content-Type", "application/json"),)
    body = dumps({"models": [V1_MODEL]})
    whole = Snapshot(kept, "GET", "/api/v1/models", (), b"", 200, "OK", headers, body)
    return replace(whole, **changed)


def test_an_internal_call() -> None:
    assert render_lmstudio.lmstudio_request(internal_call()) == (
        rule("The bridge's own call: model list for name resolution") + "\n\n" + rule("GET /api/v1/models")
    )
    shown = render_lmstudio.lmstudio_response(internal_call())
    assert shown.startswith(rule("LM Studio's answer: 200") + "\nContent-Type: application/json\n\n━━ Body: ")
    assert '"key": "qwen/qwen3-4b"' in shown
    assert "1 model:\n" in render.ollama_request(internal_call())
    assert "1 model:\n" in render_answer.ollama_response(internal_call())


def test_a_request_that_was_sent_on() -> None:
    body = dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    call = dumps({"model": "org/m", "messages": [{"role": "user", "content": "hi"}]})
    kept = Record(kind="relay", method="POST", path="/v1/chat/completions", request=body)
    sent_on = snapshot(kept, call=call, response=EVENTS, content_type="text/event-stream")
    shown = parts(render.ollama_request(sent_on))
    assert shown["Sent to LM Studio: POST /v1/chat/completions"] == "model: m -> org/m"
    assert shown["Answer: 200 OK"] == "assistant: It is a dot."
    assert f"{len(EVENTS)} bytes, 4 events" in render_lmstudio.lmstudio_response(sent_on)


VIEWS = (
    render.ollama_request,
    render_answer.ollama_response,
    render_lmstudio.lmstudio_request,
    render_lmstudio.lmstudio_response,
)
PATHS = st.sampled_from(["/api/chat", "/api/embed", "/v1/responses", "/", "?", "/api/pull"])


@given(
    st.sampled_from(["call", "relay", "served", "answer", "own", ""]),
    PATHS,
    st.binary(),
    st.binary(),
    st.none() | st.binary(),
    st.binary(),
    st.sampled_from([0, 200, 404, 999]),
    st.text(),
)
def test_never_raises(
    kind: Any, path: str, asked: bytes, call: bytes, response: bytes | None, upstream: bytes, status: int, text: str
) -> None:
    kept = Record(kind=kind, path=path, model=text, request=asked, upstream=upstream, status=status, error=text)
    whole = Snapshot(kept, text, path, ((text, text),), call, status, text, ((text, text),), response)
    for view in VIEWS:
        view(whole).encode()


@pytest.mark.parametrize("view", VIEWS)
def test_base64_is_never_shown(view: Any) -> None:
    for cut in range(0, len(dumps(ASKED)), 50):
        assert PNG[:40] not in view(snapshot(record(dumps(ASKED)[:cut])))


def test_huge_numbers() -> None:
    numbers = Numbers(total=10**30, generation=10**5, answer_tokens=10**30)
    assert "tok/s" in render_answer.ollama_response(snapshot(record(numbers=numbers)))
    vectors = {"embeddings": [[10**400], [1e308, 1e308], [float("nan")]]}
    assert "too large" in render_answer.ollama_response(snapshot(response=dumps(vectors)))
