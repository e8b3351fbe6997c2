"""What each look at an answer that is coming adds."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import tflow
from tests.inspect.conftest import EVENTS, LINES, chunk, flow_of, record, snapshot, sse

from ollama_lmstudio.page.detail import MAX_EVENTS
from ollama_lmstudio.page.follow import Followed
from ollama_lmstudio.record.arrivals import Arrivals
from ollama_lmstudio.record.record import UNFINISHED


def come(flow: http.HTTPFlow, lines: bytes, events: bytes, reads: list[int], **kept: Any) -> None:
    """Let so much of an answer have come, LM Studio's stream in reads of these sizes."""
    made = Arrivals()
    for at, size in enumerate(reads, 1):
        made.sizes.append(size)
        made.times.append(at * 1_000_000)
    fields = {"upstream": events, "upstream_size": len(events), "arrivals": made.packed(0), "limit": 100_000_000}
    record(numbers=None, state="runs", **fields | kept).save(flow.metadata)
    assert flow.response is not None
    # As mitmproxy's tools have it while it comes.
    flow.response.raw_content = lines + UNFINISHED
    flow.response.timestamp_end = None


def put_together(answer: dict[str, Any], news: dict[str, Any] | None) -> None:
    """Do what the page does."""
    for name, new in (news or {}).items():
        if name in ("text", "thinking"):
            answer[name] = answer.get(name, "") + new
        elif name == "events":
            answer[name] = answer.get(name, []) + new
        else:
            answer[name] = new


@pytest.mark.parametrize("step", [1, 7, 50, 10_000])
def test_whatever_the_pieces_the_whole_is_the_same(step: int) -> None:
    """Byte by byte, within lines, events and characters."""
    lines = LINES.replace(b"a dot", "ä 😀".encode())
    flow = flow_of(snapshot(record(upstream=b"", arrivals=b"")))
    followed = Followed(flow)
    answer: dict[str, Any] = {}
    reads: list[int] = []
    for at in range(0, max(len(lines), len(EVENTS)) + step, step):
        events = EVENTS[: at + step]
        if len(events) > sum(reads):
            reads.append(len(events) - sum(reads))
        come(flow, lines[: at + step], events, reads)
        put_together(answer, followed.news())
    assert answer["text"] == "It is ä 😀."
    assert answer["thinking"] == "Let me see."
    assert [piece[1:] for piece in answer["events"]] == [["t", "It is "], ["t", "a dot."], ["", ""], ["", ""]]
    assert followed.news() is None


def test_a_tool_call_that_grows_is_told_whole() -> None:
    flow = flow_of(snapshot(record(path="/v1/chat/completions"), content_type="text/event-stream"))
    first = sse(chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a"'}}]), done=False)
    second = sse(chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]), done=False)
    followed = Followed(flow)
    come(flow, first, b"", [], path="/v1/chat/completions")
    told = followed.news()
    assert told is not None
    assert told["calls"] == [{"name": "f", "id": "c", "arguments": '{"a"'}]
    come(flow, first + second, b"", [], path="/v1/chat/completions")
    told = followed.news()
    assert told is not None
    assert told["calls"] == [{"name": "f", "id": "c", "arguments": '{\n  "a": 1\n}'}]
    assert followed.news() is None


def test_no_more_events_than_the_page_takes() -> None:
    flow = flow_of(snapshot(record(upstream=b"", arrivals=b"")))
    event = sse(chunk(content="a"), done=False)
    followed = Followed(flow)
    come(flow, b"", event * (MAX_EVENTS + 50), [len(event)] * (MAX_EVENTS + 50))
    told = followed.news()
    assert told is not None
    assert len(told["events"]) == MAX_EVENTS
    assert followed.news() is None


def test_what_is_kept_in_part_ends_where_it_was_cut() -> None:
    flow = flow_of(snapshot(record(upstream=b"", arrivals=b"")))
    followed = Followed(flow)
    size = EVENTS.index(b"\n\n") + 2
    come(flow, b"", EVENTS[: size + 5], [size, size, size])
    told = followed.news()
    assert told is not None
    assert [piece[2] for piece in told["events"]] == ["It is "]
    assert followed.news() is None


def test_what_has_no_answer_has_no_news() -> None:
    flow = flow_of(snapshot())
    flow.response = None
    assert Followed(flow).news() is None
    assert Followed(tflow.tflow(resp=True)).news() is None
