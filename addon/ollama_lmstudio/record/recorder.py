"""Keep both sides of an exchange while it goes on, and put them into its flow.

Nothing waits for this: bytes are kept as they pass, up to a limit, and what is read from them is read at the end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from mitmproxy import http

from ..inspect import snapshot as exchanges
from ..inspect import summary
from ..lmstudio.errors import peel, scrub, scrub_bytes
from ..outcomes import BodySink, Call, Measured, Outcome, Passthrough, Request, Response
from .record import PREFIX, Kind, Numbers, Record

# The numbers of an answer that is passed on are near its end.
_TAIL_BYTES = 4096
_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_FINISH = re.compile(rb'(?:"(?:finish|stop)_reason"\s*:\s*"|"type"\s*:\s*"response\.(?=incomplete))(\w+)"')
# An error is in one of the last lines.
_LAST_LINES = 6


@dataclass(slots=True)
class Kept:
    """The beginning of a body, and the size of all of it."""

    limit: int
    size: int = 0
    data: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Keep what there is room for."""
        self.size += len(data)
        room = self.limit - len(self.data)
        if room > 0:
            self.data += data if len(data) <= room else data[:room]


class Recorder:
    """Fill the Record of one flow. Times are ns of the monotonic clock."""

    def __init__(self, limit: int, arrived: int, record: Record, secrets: tuple[str, ...] = ()) -> None:
        """Keep at most `limit` bytes of each body, and none of the secrets, should LM Studio tell them."""
        self.record = record
        record.limit = limit
        self._limit = limit
        self._secrets = secrets
        self.arrived = arrived
        """When the request came; later by the time for which it was held."""
        self._first = 0
        self._tail = b""
        self._shown = 0, 0
        self.heard = Kept(limit)
        """LM Studio's body."""
        self.told = Kept(limit)
        """The client's body, where it is not all there at once."""

    def asked(self, incoming: Request) -> None:
        """Take the client's request; secrets are gone from its headers."""
        self.record.method, self.record.path, self.record.query = incoming.method, incoming.path, incoming.query
        self.record.headers = tuple(incoming.headers.items())
        self.record.request, self.record.request_size = incoming.body[: self._limit], len(incoming.body)

    def became(self, outcome: Outcome | BodySink) -> None:
        """Take what becomes of the request; a call of our own stays one when it is replayed."""
        if self.record.kind != "own":
            self.record.kind = _kind(outcome)
        if isinstance(outcome, (Call, Passthrough)):
            self.record.model, self.record.upstream_model = outcome.asked, outcome.model
            self.record.dropped = tuple(outcome.unsupported) if isinstance(outcome, Call) else ()
        else:
            self.record.model = _model(self.record.request)

    def answered(self, response: http.Response) -> None:
        """Take the head of LM Studio's answer."""
        self.record.status = response.status_code
        headers = response.headers.items(multi=True)
        self.record.upstream_headers = tuple((name, scrub(value, self._secrets)) for name, value in headers)

    def hear(self, data: bytes, at: int) -> None:
        """Take bytes of LM Studio's answer."""
        self._first = self._first or at
        self.heard.add(data)
        if self.heard.size > self._limit:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def so_far(self, flow: http.HTTPFlow) -> bool:
        """Put what has come of a stream into the flow, as far as it is kept; False if that is nothing new.

        The flow is the same to whoever sends its response: what streams is sent from elsewhere.
        """
        record, response = self.record, flow.response
        kept = self.told if self.told.size or record.kind == "call" else self.heard
        come = len(self.told.data), len(self.heard.data)
        if response is None or come == self._shown:
            return False
        self._shown = come
        response.raw_content = scrub_bytes(bytes(kept.data), self._secrets)
        record.response_size = kept.size
        if record.kind == "call":
            record.upstream, record.upstream_size = self._upstream(), self.heard.size
        record.save(flow.metadata)
        return True

    def _upstream(self) -> bytes:
        return scrub_bytes(bytes(self.heard.data), self._secrets)

    def finish(self, flow: http.HTTPFlow, ended: int, measured: Measured | None) -> None:
        """Put everything into the flow. What the client got of a stream becomes the body of its response."""
        record, response = self.record, flow.response
        record.upstream = self._upstream()
        record.upstream_size = self.heard.size
        if response is not None:
            if self._shown != (0, 0):
                response.raw_content = None
            if self.told.size:
                response.raw_content = bytes(self.told.data)
            elif record.kind in ("relay", "own") and response.raw_content is None:
                # What LM Studio said is what the client got.
                response.raw_content, record.upstream = record.upstream, b""
            passed_on = self.heard.size if record.kind in ("relay", "own") and not record.upstream else 0
            record.response_size = self.told.size or passed_on or len(response.raw_content or b"")
        record.kind = record.kind or "answer"
        record.error = measured.error if measured and measured.error else flow.error.msg if flow.error else ""
        if measured is None and not record.error and response is not None and response.status_code < 400:
            record.error = self._error_told()
        record.numbers = self._numbers(ended, measured)
        self.show(flow)

    def is_too_large(self, flow: http.HTTPFlow) -> bool:
        """Whether a flow holds more of a body than is to be kept."""
        return any(len(message.raw_content or b"") > self._limit for message in _messages(flow))

    def cut(self, flow: http.HTTPFlow) -> None:
        """Keep of each body in the flow what is to be kept, when nobody sends it any more."""
        size = len(flow.request.raw_content or b"")
        self.record.call_size = size if size > self._limit else 0
        for message in _messages(flow):
            message.raw_content = message.raw_content and message.raw_content[: self._limit]
        self.record.save(flow.metadata)

    def show(self, flow: http.HTTPFlow) -> None:
        """Put what is known so far into the flow, in a line too."""
        self.record.save(flow.metadata)
        sum_up(flow)

    def _numbers(self, ended: int, measured: Measured | None) -> Numbers:
        if measured is not None:
            metrics = measured.metrics
            return Numbers(
                total=metrics.total_duration or ended - self.arrived,
                load=metrics.load_duration,
                first_token=measured.first_token,
                generation=metrics.eval_duration,
                prompt_tokens=metrics.prompt_eval_count,
                answer_tokens=metrics.eval_count,
                done_reason=measured.done_reason,
            )
        numbers = Numbers(total=ended - self.arrived)
        if self.record.kind == "relay" and self._first:
            self._read_tail(numbers, ended)
        return numbers

    def _error_told(self) -> str:
        """Give the error that an answer ended with which had begun as a success."""
        for line in reversed(self._last(self.heard if self.heard.size else self.told).splitlines()[-_LAST_LINES:]):
            try:
                value = json.loads(line.removeprefix(b"data:")) if b'"error"' in line else None
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                value = value["response"] if isinstance(value.get("response"), dict) else value
                if value.get("error") or value.get("type") == "error":
                    return peel(value, self._secrets).message
        return ""

    def _last(self, kept: Kept) -> bytes:
        return self._tail or bytes(kept.data[-_TAIL_BYTES:])

    def _read_tail(self, numbers: Numbers, ended: int) -> None:
        """Read the numbers of an answer that was passed on."""
        tail = self._last(self.heard)
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
        finished = _FINISH.findall(tail)
        numbers.done_reason = finished[-1].decode() if finished else ""
        if any(value.startswith("text/event-stream") for _, value in self.record.upstream_headers):
            numbers.first_token = self._first - self.arrived
            numbers.generation = ended - self._first


def _messages(flow: http.HTTPFlow) -> list[http.Message]:
    return [message for message in (flow.request, flow.response) if message is not None]


def sum_up(flow: http.HTTPFlow) -> None:
    """Give a flow its comment and its mark, unless a person gave it others."""
    exchange = exchanges.of(flow)
    if exchange is None:
        return
    for name, text in (("comment", summary.comment(exchange)), ("marked", summary.mark(exchange))):
        if getattr(flow, name) in ("", flow.metadata.get(f"{PREFIX}{name}")):
            setattr(flow, name, text)
            flow.metadata[f"{PREFIX}{name}"] = text


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
    """Give the model that a request names, of those that are answered here."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    names = [value.get(key) for key in ("model", "name", "source")] if isinstance(value, dict) else []
    return next((name for name in names if isinstance(name, str) and name), "")
