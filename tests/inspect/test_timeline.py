"""LM Studio's stream, a line for each event."""

from __future__ import annotations

from typing import Any

import pytest
from tests.inspect.conftest import PNG, dumps, parts, record, snapshot, sse

from ollama_lmstudio.inspect import render_lmstudio, timeline
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.lmstudio.sse import Event
from ollama_lmstudio.record.arrivals import Arrivals
from ollama_lmstudio.record.record import Record

MS = 1_000_000
COMMON = {
    "id": "chatcmpl-um3b2l9t12bzrtha63q8",
    "object": "chat.completion.chunk",
    "created": 1789412737,
    "model": "openai/gpt-oss-20b",
    "system_fingerprint": "openai/gpt-oss-20b",
}


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a chunk as LM Studio writes it."""
    return COMMON | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}


def call(**fields: Any) -> dict[str, Any]:
    return chunk(tool_calls=[{"index": 0, **fields}])


USAGE = COMMON | {"choices": [], "usage": {"prompt_tokens": 81, "completion_tokens": 16}}
STREAM = (
    chunk(role="assistant", reasoning="User"),
    chunk(content="4\n  ha"),
    chunk(content="4\n  ha"),
    call(id="814890118", type="function", function={"name": "get_weather", "arguments": ""}),
    call(function={"arguments": '{"'}),
    chunk("tool_calls"),
    USAGE,
)


def come(body: bytes, *reads: tuple[int, int], **changed: Any) -> Snapshot:
    """Return an exchange whose stream came in reads of a size and of a time in ms from the request on."""
    made = Arrivals()
    for size, at in reads:
        made.sizes.append(size)
        made.times.append(at * MS)
    kept = record(upstream=body, upstream_size=len(body), arrivals=made.packed(0))
    return snapshot(kept, **changed)


def test_when_each_event_came_and_what_it_says() -> None:
    body = sse(*STREAM)
    first, second = body.index(b"\n\n") + 2, len(sse(*STREAM[:3], done=False))
    # The second and third event come together, and the next one in two reads.
    reads = (first, 602), (second - first, 640), (20, 641), (200, 642), (len(body) - second - 220, 2680)
    shown = parts(render_lmstudio.lmstudio_response(come(body, *reads)))
    assert shown["The same in all events"] == "\n".join(f"{name}: {value}" for name, value in COMMON.items())
    title = f"Body: {len(body) / 1000:.1f} kB, 8 events, 602 ms to 2.7 s from the request"
    assert shown[title].split("\n")[1:] == [
        "  event    at ms    gap ms  says",
        '      1    602.0            role "assistant", reasoning "User"',
        '      2    640.0     +38.0  content "4\\n  ha"',
        '      3    640.0            content "4\\n  ha"',
        '      4  2,680.0  +2,040.0  tool_calls[0] id "814890118" name "get_weather" arguments ""',
        '      5  2,680.0            tool_calls[0] arguments "{\\""',
        '      6  2,680.0            finish_reason "tool_calls"',
        '      7  2,680.0            usage {"prompt_tokens": 81, "completion_tokens": 16}',
        "      8  2,680.0            [DONE]",
    ]
    # And all of it once more, as it came.
    assert shown["As it came"] == body.decode().replace("\n\n", "\n").strip()


@pytest.mark.parametrize("change", [-1, 1])
def test_times_of_another_body_are_not_told(change: int) -> None:
    """The user may edit what was passed through, and a masked secret has another length."""
    body = sse(*STREAM)
    shown = render_lmstudio.lmstudio_response(come(body, (len(body) + change, 602)))
    assert "event  says" in shown
    assert "602" not in shown


def test_times_of_a_body_that_is_not_kept_whole() -> None:
    body = sse(*STREAM)
    kept = record(upstream=body[:700], upstream_size=len(body), limit=700)
    made = Arrivals()
    made.sizes.append(400)
    made.times.append(602 * MS)
    kept.arrivals = made.packed(0)
    shown = parts(render_lmstudio.lmstudio_response(snapshot(kept)))
    (body_title,) = [title for title in shown if title.startswith("Body: ")]
    assert shown[body_title].split("\n")[2:5] == [
        '      1  602.0          role "assistant", reasoning "User"',
        '      2                 content "4\\n  ha"',
        "      3                 " + body[:700].decode().rpartition("data: ")[2],
    ]


def says(*values: Any) -> list[str]:
    """Return what events say."""
    timed = [
        timeline.TimedEvent(Event(*value) if isinstance(value, tuple) else Event("", dumps(value).decode()), None)
        for value in values
    ]
    same = timeline.same_in_all(timed)
    return [line.partition("  ")[2] for line in map(str.strip, timeline.lines(timed, range(len(timed)), same)[1:])]


RESPONSES = [
    {"type": "response.created", "response": {"id": "resp_1"}, "sequence_number": 0},
    {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 1, "delta": "Hi", "sequence_number": 1},
    {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 1, "delta": "Hi", "sequence_number": 2},
    {"type": "response.output_text.delta", "item_id": "msg_2", "output_index": 2, "delta": "!", "sequence_number": 4},
]
MESSAGES = [
    {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 5}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "w"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"'}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"'}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 9},
    },
    {"type": "message_stop"},
]
NATIVE = [
    ("model_load.progress", '{"type":"model_load.progress","model_instance_id":"m","progress":0.5}'),
    ("message.delta", '{"type":"message.delta","content":" a"}'),
    ("message.delta", '{"type":"message.delta","content":" a"}'),
    ("error", '{"error":{"type":"internal_error","message":"no room"}}'),
]
OF_OTHER_APIS: dict[str, tuple[list[Any], list[str]]] = {
    "Responses": (
        RESPONSES,
        [
            'response.created  response {"id": "resp_1"}',
            'response.output_text.delta  item_id "msg_1", output_index 1, delta "Hi"',
            'response.output_text.delta  delta "Hi"',
            'response.output_text.delta  item_id "msg_2", output_index 2, delta "!", sequence_number 4',
        ],
    ),
    "Messages": (
        MESSAGES,
        [
            'message_start  message {"id": "msg_1", "usage": {"input_tokens": 5}}',
            'content_block_start  content_block {"type": "tool_use", "name": "w"}',
            'content_block_delta  type "input_json_delta", partial_json "{\\""',
            'content_block_delta  partial_json "{\\""',
            'message_delta  stop_reason "tool_use", usage {"output_tokens": 9}',
            "message_stop",
        ],
    ),
    "api/v1": (
        NATIVE,
        [
            'model_load.progress  model_instance_id "m", progress 0.5',
            'message.delta  content " a"',
            'message.delta  content " a"',
            'error  error {"type": "internal_error", "message": "no room"}',
        ],
    ),
    "text completions": (
        [COMMON | {"choices": [{"index": 1, "text": "x", "logprobs": None, "finish_reason": None}]}] * 2,
        ['index 1, text "x"'] * 2,
    ),
    "a model that changes": (
        [{"model": "a", "choices": []}, {"model": "a", "choices": []}, {"model": "b", "choices": []}],
        ['model "a"', "{}", 'model "b"'],
    ),
    "odd ones": (
        [{"choices": [None, 5]}, {"choices": "x"}, [1], {}, ("", "5\n6"), ("ping", ""), chunk(tool_calls=[3, {}])],
        [
            "choice null, choice 5",
            'choices "x"',
            "[1]",
            "{}",
            "5\\u000a6",
            "ping",
            'id "chatcmpl-um3b2l9t12bzrtha63q8", object "chat.completion.chunk", created 1789412737, '
            'model "openai/gpt-oss-20b", system_fingerprint "openai/gpt-oss-20b", tool_calls 3, tool_calls[] ',
        ],
    ),
}


@pytest.mark.parametrize(("events", "expected"), OF_OTHER_APIS.values(), ids=OF_OTHER_APIS)
def test_events_in_their_own_terms(events: list[Any], expected: list[str]) -> None:
    assert [line.strip() for line in says(*events)] == [line.strip() for line in expected]


def test_what_is_passed_through_has_times_too() -> None:
    body = sse(*STREAM)
    made = Arrivals()
    made.sizes.append(len(body))
    made.times.append(602 * MS)
    kept = Record(kind="relay", method="POST", path="/v1/chat/completions", arrivals=made.packed(0))
    passed = snapshot(kept, call={}, response=body, content_type="text/event-stream")
    assert "\n      8  602.0          [DONE]\n" in render_lmstudio.lmstudio_response(passed)


def test_what_cannot_be_seen_is_escaped_and_long_lines_are_cut() -> None:
    assert says(chunk(content="a\x85b\u2028c  d"))[0].endswith('content "a\\u0085b\\u2028c  d"')
    assert PNG[:30] not in says(chunk(content=PNG))[0]
    (line,) = says(chunk(content="word " * 500))
    assert (len(line), line[-8:]) == (timeline.LINE_CHARACTERS, "ord w...")
