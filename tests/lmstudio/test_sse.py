"""The decoder of server-sent events, against the standard's rules and examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.lmstudio.sse import Decoder, Event, EventTooLargeError, has_ended

LIMIT = 1000

# The first four are the examples of the standard, section 9.2.6.
VECTORS: dict[str, tuple[bytes, list[Event]]] = {
    "multi-line data": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("", "YHOO\n+2\n10")]),
    "comment, ids, and data without its blank line": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
        [Event("", "first event"), Event("", "second event"), Event("", " third event")],
    ),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", [Event("", ""), Event("", "\n"), Event("", "")]),
    "one space is dropped": (b"data:test\n\ndata: test\n\n", [Event("", "test"), Event("", "test")]),
    "event types": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\ndata: x\n\n",
        [Event("add", "73857293"), Event("remove", "2153"), Event("", "x")],
    ),
    "an event without data is none": (b"event: ping\n\ndata: x\n\n", [Event("", "x")]),
    "CRLF": (b"event: e\r\ndata: a\r\ndata: b\r\n\r\n", [Event("e", "a\nb")]),
    "CR": (b"data: a\r\rdata: b\r\r", [Event("", "a"), Event("", "b")]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [Event("", "a"), Event("", "b"), Event("", "c")]),
    "BOM at the start": (b"\xef\xbb\xbfdata: a\n\n", [Event("", "a")]),
    "no BOM elsewhere": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("", "a")]),
    "other white space ends no line": (
        "data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
        [Event("", "a\u2028b\u0085c\x0bd\x0ce")],
    ),
    "four bytes of a character": ("data: 🦙 ü\n\n".encode(), [Event("", "🦙 ü")]),
    "retry, unknown fields, no colon": (b"retry: 10\nfoo: bar\nfoo\ndata: x\n\n", [Event("", "x")]),
    "nothing": (b"", []),
}


def decode(pieces: list[bytes], limit: int = LIMIT) -> list[Event]:
    decoder = Decoder(limit)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + list(decoder.flush())


@pytest.mark.parametrize(("stream", "events"), VECTORS.values(), ids=VECTORS)
def test_vectors(stream: bytes, events: list[Event]) -> None:
    assert decode([stream]) == events
    assert decode([bytes([byte]) for byte in stream]) == events
    for index in range(len(stream)):
        assert decode([stream[:index], stream[index:]]) == events
        assert decode([stream[:index], b"", stream[index:]]) == events


@given(
    st.lists(st.sampled_from([b"data: x", b"data", b"\n", b"\r", b"\r\n", b":", b"event: e", "é".encode(), b"\xff"])),
    st.data(),
)
def test_no_cut_matters(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(pieces) == decode([stream])


def collect(pieces: list[bytes], limit: int) -> list[Event | int]:
    """Return the events, and the limit in place of what came after it was passed."""
    decoder, found = Decoder(limit), list[Event | int]()
    try:
        for piece in pieces:
            found.extend(decoder.feed(piece))
        found.extend(decoder.flush())
    except EventTooLargeError as e:
        found.append(e.limit)
    return found


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b""])
def test_an_event_beyond_the_limit_is_refused_wherever_it_is_cut(end: bytes) -> None:
    limit = 20
    stream = b"data: fits" + (end if len(end) > 1 else b"\n\n") + b"event: e\n" + b"data: " + b"x" * 7 + end
    assert collect([stream], limit)[-1] == limit
    for index in range(len(stream)):
        assert collect([stream[:index], stream[index:]], limit) == [Event("", "fits"), limit]
    just = stream.replace(b"xxxxxxx", b"xxxxxx")
    for index in range(len(just)):
        assert collect([just[:index], just[index:]], limit) == [Event("", "fits"), Event("e", "xxxxxx")]


@pytest.mark.parametrize(
    ("data", "ended"),
    [
        (b'data: {"a":1}\n\ndata: [DONE]\n\n', True),
        (b'data: {"a":1}\r\n\r\ndata: [DONE]\r\n\r\n', True),
        (b"data: x\r\rdata: [DONE]\r\r", True),
        (b"data: [DONE]\n\n", True),
        (b"data: [DONE]\n", False),
        (b"data: [DONE", False),
        (b"data: [DONE]\n\ndata: x\n\n", False),
        (b'data: {"said":"data: [DONE]"}\n\n', False),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (b'event: response.completed\ndata: {"response":"' + b"x" * 100_000 + b'"}\n\n', True),
        (b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n', False),
        (b'event: error\ndata: {"error":"crashed"}\n\n', True),
        (b"\n\n", False),
        (b"", False),
    ],
)
def test_a_stream_has_ended_with_its_last_event(data: bytes, ended: bool) -> None:
    assert has_ended(data) is ended
