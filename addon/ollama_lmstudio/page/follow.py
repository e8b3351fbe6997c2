"""An answer that somebody looks at while it comes: what each look adds to what the page has of it."""

from __future__ import annotations

from typing import Any

from mitmproxy import http

from ..inspect import snapshot as snapshots
from ..inspect.answers import GrowingAnswer
from ..inspect.timeline import TimedEvent
from ..lmstudio import sse
from ..record import arrivals
from ..record import record as records
from ..record.record import Record
from .detail import MAX_EVENTS, calls_of, pieces


class Followed:
    """One answer, from its beginning on. The page puts together what it is told."""

    def __init__(self, flow: http.HTTPFlow) -> None:
        self.flow = flow
        self._answer: GrowingAnswer | None = None
        self._answer_size = 0
        self._decoder: sse.Decoder | None = None
        self._upstream_size = 0
        self._reads = 0
        self._events = 0
        self._calls = ""

    def news(self) -> dict[str, Any] | None:
        """Return what has come since the last time; None where that is nothing."""
        record = records.of(self.flow)
        if record is None or self.flow.response is None:
            return None
        snapshot = snapshots.for_summary(self.flow, record)
        body = snapshot.response or b""
        if self._answer is None:
            self._answer = GrowingAnswer(self.flow.response.headers.get("content-type", ""), record.limit + 1)
        found: dict[str, Any] = {}
        if len(body) > self._answer_size:
            text, thinking = self._answer.feed(body[self._answer_size :])
            self._answer_size = len(body)
            found |= {name: new for name, new in (("text", text), ("thinking", thinking)) if new}
            calls = self._answer.tool_calls
            if calls and str(calls) != self._calls:
                self._calls = str(calls)
                found["calls"] = calls_of(calls)
        if events := self._new_events(record, snapshot.upstream):
            found["events"] = pieces(events)
        return {"id": self.flow.id, **found} if found else None

    def _new_events(self, record: Record, upstream: bytes) -> list[TimedEvent]:
        if self._decoder is None:
            self._decoder = sse.Decoder(record.limit + 1)
        found: list[TimedEvent] = []
        for size, at in arrivals.unpacked(record.arrivals, self._reads):
            piece = upstream[self._upstream_size : self._upstream_size + size]
            if len(piece) < size or self._events + len(found) >= MAX_EVENTS:
                break
            found += [TimedEvent(event, at) for event in self._decoder.feed(piece)]
            self._upstream_size += size
            self._reads += 1
        self._events += len(found)
        return found
