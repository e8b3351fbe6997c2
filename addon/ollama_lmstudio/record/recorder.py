"""Record both sides of an exchange while it runs, and store them in its flow.

Nothing waits for this: bytes are kept as they pass, up to a limit, and parsed when the exchange has ended.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from mitmproxy import http

from .. import tolerant_json
from ..lmstudio.errors import holds_secret, peel, scrub, scrub_bytes
from ..lmstudio.sse import is_event_stream
from ..outcomes import BodySink, Call, FirstWords, Measured, Outcome, Passthrough, Request, Response
from .arrivals import Arrivals
from .record import UNFINISHED, Kind, Numbers, Record

# The usage in a response that is passed through is near its end.
_TAIL_BYTES = 4096
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_FINISH = re.compile(rb'(?:"(?:finish|stop)_reason"\s*:\s*"|"type"\s*:\s*"response\.(?=incomplete))(\w+)"')
# LM Studio ends lines with LF.
_END_OF_EVENT = b"\n\n"
_FIRST_AND_LAST = 2
# An error in a stream is in one of its last lines.
_LAST_LINES = 6


@dataclass(slots=True)
class CappedBody:
    """The beginning of a body, and the size of the whole."""

    limit: int
    size: int = 0
    data: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Add the next bytes; those over the limit are only counted."""
        self.size += len(data)
        room = self.limit - len(self.data)
        if room > 0:
            self.data += data if len(data) <= room else data[:room]

    @property
    def version(self) -> int:
        """A number that is another one when what is kept has changed."""
        return len(self.data)


@dataclass(slots=True)
class ProgressBody(CappedBody):
    """A body of progress lines: of those that follow each other with one status, the first and the last are kept.

    A download of a day writes a line each second.
    """

    line_at: int = 0
    """Where the line begins that is being written."""
    last_at: int = 0
    """Where the line before that begins."""
    same: int = 0
    """How many lines before it have one status."""
    status: object = None

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        self.size += len(data)
        for piece in data.splitlines(keepends=True):
            if len(self.data) + len(piece) > self.limit:
                return
            self.data += piece
            if piece.endswith(b"\n"):
                self._end_line()

    @property
    def version(self) -> int:
        """A number that is another one when what is kept has changed."""
        return self.size

    def _end_line(self) -> None:
        value = tolerant_json.loads(bytes(self.data[self.line_at :]))
        status = (value.get("status"), value.get("digest")) if isinstance(value, dict) else None
        self.same = self.same + 1 if status is not None and status == self.status else 1
        self.status = status
        if self.same > _FIRST_AND_LAST:
            del self.data[self.last_at : self.line_at]
        else:
            self.last_at = self.line_at
        self.line_at = len(self.data)


def _leave_unlabelled(flow: http.HTTPFlow, record: Record) -> None:
    pass


class Recorder:
    """Fills the Record of one flow. Times are in ns, of the monotonic clock."""

    def __init__(
        self,
        limit: int,
        started_ns: int,
        record: Record,
        secrets: tuple[str, ...] = (),
        label: Callable[[http.HTTPFlow, Record], None] = _leave_unlabelled,
    ) -> None:
        """Keep at most `limit` bytes of each body, with the secrets masked where LM Studio repeats them.

        `label` is called with the flow and its record each time that is saved.
        """
        self.record = record
        record.limit = limit
        self._limit = limit
        self.secrets = secrets
        self._label = label
        self._shown_in: http.Response | None = None
        """The response that has shown what had come of a stream, which may not be the one at the end."""
        self.started_ns = started_ns
        """When the request came, plus the time for which the user intercepted it."""
        self.failure = ""
        """What went wrong with the connection, in words for the user."""
        self._first_over_limit = 0
        self._tail = bytearray()
        """The end of a body that is over the limit: the last `_TAIL_BYTES`, and at most as many before them."""
        self._shown = 0, 0
        self.is_finished = False
        """Whether the exchange has ended, and its flow has all of it."""
        self.upstream_body = CappedBody(limit)
        """The body of LM Studio's response."""
        self._arrivals = Arrivals()
        """When that came, as far as it is kept."""
        self._add_size, self._add_time = self._arrivals.sizes.append, self._arrivals.times.append
        self.client_body = CappedBody(limit)
        """The body of the response to the client, where it is streamed."""

    def set_key(self, name: str, key: str) -> None:
        """Record the name of the client's key, which is masked itself."""
        self.record.key = name
        self.secrets = (*self.secrets, key)

    def set_request(self, request: Request) -> None:
        """Record the client's request, whose headers are without secrets."""
        self.record.method, self.record.path, self.record.query = request.method, request.path, request.query
        self.record.headers = tuple(request.headers.items())
        self.record.request, self.record.request_size = request.body[: self._limit], len(request.body)

    def set_outcome(self, outcome: Outcome | BodySink) -> None:
        """Record how the request is handled; an internal call stays one when it is replayed."""
        if self.record.kind != "own":
            self.record.kind = _kind(outcome)
        if isinstance(outcome, (Call, Passthrough)):
            self.record.model, self.record.upstream_model = outcome.asked, outcome.model
            self.record.dropped = tuple(outcome.unsupported) if isinstance(outcome, Call) else ()
            # One that is replayed is sent as it is: what it says is known already.
            if outcome.words != FirstWords():
                self.record.prompt, self.record.signs = outcome.words.text, outcome.words.signs
        else:
            self.record.model = _model(self.record.request)

    def set_upstream_head(self, response: http.Response) -> None:
        """Record the status and headers of LM Studio's response."""
        self.record.status = response.status_code
        headers = response.headers.items(multi=True)
        if holds_secret(b"\n".join([value for _, value in response.headers.fields]), self.secrets):
            headers = [(name, scrub(value, self.secrets)) for name, value in headers]
        self.record.upstream_headers = tuple(headers)

    def add_upstream(self, data: bytes, at: int) -> None:
        """Record bytes of the body of LM Studio's response, which came at the time `at`."""
        # This runs for each token: what is usual is here, without a call.
        body, size = self.upstream_body, len(data)
        body.size += size
        if body.size <= self._limit:
            body.data += data
            self._add_size(size)
            self._add_time(at)
        else:
            self._add_over_limit(data, at)

    def _add_over_limit(self, data: bytes, at: int) -> None:
        body = self.upstream_body
        body.size -= len(data)
        body.add(data)
        self._first_over_limit = self._first_over_limit or at
        self._tail += data
        if len(self._tail) > 2 * _TAIL_BYTES:
            del self._tail[:-_TAIL_BYTES]

    def expect_progress(self) -> None:
        """Expect a response to the client that is made of progress lines."""
        self.client_body = ProgressBody(self._limit)

    def forget_upstream(self) -> None:
        """Forget the response of LM Studio that has come: another one takes its place."""
        self._first_over_limit, self._tail = 0, bytearray()
        self.upstream_body = CappedBody(self._limit)
        self._arrivals.clear()

    def forget_translation(self) -> None:
        """Forget what has been streamed to the flow alone: its response is another one."""
        self.client_body = CappedBody(self._limit)

    def update(self, flow: http.HTTPFlow) -> bool:
        """Store what has come of a stream in the flow, as far as it is kept; return whether that is anything new.

        The client gets nothing of it: mitmproxy does not send the content of a response that is streamed.
        """
        record, response = self.record, flow.response
        self._shown_in = response
        kept = self.client_body if self.client_body.size or record.kind == "call" else self.upstream_body
        come = self.client_body.version, self.upstream_body.version
        if response is None or come == self._shown:
            return False
        self._shown = come
        response.raw_content = scrub_bytes(bytes(kept.data), self.secrets) + (UNFINISHED if kept.data else b"")
        record.response_size = kept.size
        if record.kind == "call":
            record.upstream, record.upstream_size = self._upstream(), self.upstream_body.size
        if self._is_stream:
            record.arrivals = self._arrivals.packed(self.started_ns)
        record.save(flow.metadata)
        return True

    @property
    def _is_stream(self) -> bool:
        """Whether LM Studio's response is a stream of events, whose parts come when they are made."""
        return any(
            name.lower() == "content-type" and is_event_stream(value) for name, value in self.record.upstream_headers
        )

    def _upstream(self) -> bytes:
        return scrub_bytes(bytes(self.upstream_body.data), self.secrets)

    def finish(self, flow: http.HTTPFlow, ended: int, measured: Measured | None) -> None:
        """Store everything in the flow; what the client got of a stream becomes the body of the flow's response."""
        self.is_finished = True
        record, response = self.record, flow.response
        record.state = ""
        if response is not None and response.timestamp_end is None:
            # mitmproxy sets it only where a response is whole: in mitmweb, one that broke would go on for ever.
            response.timestamp_end = flow.error.timestamp if flow.error else time.time()
        record.upstream = self._upstream()
        record.upstream_size = self.upstream_body.size
        if response is not None:
            if self._shown != (0, 0) and self._shown_in is response:
                response.raw_content = None
            if self.client_body.size:
                response.raw_content = bytes(self.client_body.data)
            elif record.kind in ("relay", "own") and response.raw_content is None:
                # The client got LM Studio's body as it came: it is stored once.
                response.raw_content, record.upstream = record.upstream, b""
            passed_on = self.upstream_body.size if record.kind in ("relay", "own") and not record.upstream else 0
            record.response_size = self.client_body.size or passed_on or len(response.raw_content or b"")
        record.kind = record.kind or "answer"
        connection_error = (self.failure or flow.error.msg) if flow.error else ""
        record.error = measured.error if measured and measured.error else connection_error
        if (
            measured is None
            and not record.error
            and response is not None
            and response.status_code < HTTPStatus.BAD_REQUEST
        ):
            record.error = self._error_in_body()
        record.numbers = self._numbers(ended, measured)
        if self._is_stream:
            record.arrivals = self._arrivals.packed(self.started_ns)
            self._find_pause(record.numbers, ended)
        if measured is not None:
            record.answer = measured.words.text
            record.signs = f"{record.signs} {measured.words.signs}".strip()
        self.save(flow)

    @property
    def kept_bytes(self) -> int:
        """The size of the bodies as far as they are kept."""
        return len(self.record.request) + len(self.upstream_body.data) + len(self.client_body.data)

    def is_too_large(self, flow: http.HTTPFlow) -> bool:
        """Return whether the flow has a body over the limit."""
        return any(len(message.raw_content or b"") > self._limit for message in _messages(flow))

    def cut(self, flow: http.HTTPFlow) -> None:
        """Cut the flow's bodies at the limit, once they have been sent."""
        size = len(flow.request.raw_content or b"")
        self.record.call_size = size if size > self._limit else 0
        for message in _messages(flow):
            message.raw_content = message.raw_content and message.raw_content[: self._limit]
        self.record.save(flow.metadata)

    def save(self, flow: http.HTTPFlow) -> None:
        """Store what is known so far in the flow, and update its label."""
        self.record.save(flow.metadata)
        self._label(flow, self.record)

    def _numbers(self, ended: int, measured: Measured | None) -> Numbers:
        if measured is not None:
            metrics = measured.metrics
            return Numbers(
                total=metrics.total_duration or ended - self.started_ns,
                load=metrics.load_duration,
                first_token=measured.first_token,
                generation=0 if measured.at_once else metrics.eval_duration,
                prompt_tokens=metrics.prompt_eval_count,
                answer_tokens=metrics.eval_count,
                done_reason=measured.done_reason,
                is_load_rough=measured.is_load_rough,
                reading=metrics.prompt_eval_duration if measured.first_token and not measured.at_once else 0,
                read_tokens=_read_tokens(metrics.prompt_eval_count, metrics.prompt_eval_cached_count),
            )
        numbers = Numbers(total=ended - self.started_ns)
        if self.record.kind == "relay" and self.upstream_body.size:
            self._read_tail(numbers, ended)
        return numbers

    def _find_pause(self, numbers: Numbers, ended: int) -> None:
        """Fill in the longest pause, unless it may be in what is not kept; an error may have come after it."""
        body = self.upstream_body
        if body.size > self._limit:
            return
        pause = self._arrivals.longest_pause(ended if self.record.error else 0)
        if pause is not None:
            numbers.pause, numbers.pause_after = pause.duration, max(pause.began_at - self.started_ns, 0)
            numbers.pause_events = body.data.count(_END_OF_EVENT, 0, pause.size)

    def _error_in_body(self) -> str:
        """Return the error in a response whose status says success; an empty string if there is none."""
        body = self.upstream_body if self.upstream_body.size else self.client_body
        for line in reversed(self._last(body).splitlines()[-_LAST_LINES:]):
            value = tolerant_json.loads(line.removeprefix(b"data:")) if b'"error"' in line else None
            if isinstance(value, dict):
                value = value["response"] if isinstance(value.get("response"), dict) else value
                if value.get("error") or value.get("type") == "error":
                    return peel(value, self.secrets).message
        return ""

    def end_of_upstream(self) -> bytes:
        """Return what is kept of LM Studio's response, up to the last byte that has come."""
        return bytes(self._tail or self.upstream_body.data)

    def _last(self, kept: CappedBody) -> bytes:
        return bytes((self._tail or kept.data)[-_TAIL_BYTES:])

    def _read_tail(self, numbers: Numbers, ended: int) -> None:
        """Fill in the usage and finish reason of a response that was passed through."""
        tail = self._last(self.upstream_body)
        usages = _USAGE.findall(tail)
        try:
            usage = json.loads(usages[-1]) if usages else {}
        except ValueError:
            usage = {}
        prompt, answer = (
            next((usage[name] for name in names if isinstance(usage.get(name), int)), 0)
            for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
        )
        numbers.prompt_tokens, numbers.answer_tokens = prompt, answer
        details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        numbers.read_tokens = _read_tokens(prompt, cached if isinstance(cached, int) else None)
        finished = _FINISH.findall(tail)
        numbers.done_reason = finished[-1].decode() if finished else ""
        if self._is_stream:
            first = self._arrivals.first or self._first_over_limit
            numbers.first_token = first - self.started_ns
            numbers.generation = ended - first


def _read_tokens(prompt: int, cached: int | None) -> int:
    return max(prompt - cached, 0) if cached is not None else 0


def _messages(flow: http.HTTPFlow) -> list[http.Message]:
    return [message for message in (flow.request, flow.response) if message is not None]


def _kind(outcome: Outcome | BodySink) -> Kind:
    match outcome:
        case Call():
            return "call"
        case Passthrough():
            return "relay"
        case Response():
            return "answer"
    return "served"


def _model(body: bytes) -> str:
    """Return the model that a request names; for a copy, its source."""
    value = tolerant_json.loads(body)
    names = [value.get(key) for key in ("model", "name", "source")] if isinstance(value, dict) else []
    return next((name for name in names if isinstance(name, str) and name), "")
