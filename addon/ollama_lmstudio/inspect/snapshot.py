"""One exchange at one moment, read from its flow: the Record in its metadata, its request and its response."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .. import access, compression
from ..internals import interception, interface
from ..lmstudio.apis import PREFIXES
from ..lmstudio.errors import MASK
from ..record import record as records
from ..record.record import UNFINISHED, Fields, Record
from ..record.redaction import LOOPBACK_SECRET_HEADER

if TYPE_CHECKING:
    from mitmproxy import http

# Flows may come from a file that another mitmproxy has saved, with nothing masked.
SECRET_HEADERS = frozenset((*access.SECRET_HEADERS, "set-cookie", LOOPBACK_SECRET_HEADER.lower()))

_NS_PER_SECOND = 1e9

# It is decompressed on mitmproxy's loop, where every exchange waits.
DECOMPRESSED_BYTES = 16 * 10**6

OLLAMA_PREFIX = "/api/"
# The endpoints of LM Studio's own APIs whose requests hold a conversation.
CHATS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
    "/api/v0/chat/completions",
    "/api/v0/completions",
    "/api/v1/chat",
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One exchange, as its flow has it.

    `method` to `body` are of the flow's request: the call to LM Studio, or the client's request where there is no call.
    `status` to `response` are of the flow's response; until it has come, the status is 0 and the response None.
    """

    record: Record
    method: str
    path: str
    headers: Fields
    body: bytes
    status: int = 0
    reason: str = ""
    response_headers: Fields = ()
    response: bytes | None = None
    replayed: bool = False
    duration: int = 0
    """From the request's first byte to the response's last, in ns; 0 while that is not known."""
    is_streaming: bool = False
    """Whether the response has begun and not ended."""
    connection_error: str = ""
    """The flow's error, such as a client that disconnected."""
    page: str = ""
    """Its address on the conversation page; empty where there is none."""
    backup: interception.Bodies | None = None
    """What mitmproxy keeps of the flow from before an edit, which may not have ended yet."""

    @property
    def called(self) -> bool:
        """Whether a request to LM Studio was made."""
        return self.record.kind in ("call", "relay", "own")

    @property
    def is_internal(self) -> bool:
        """Whether the bridge made the call on its own, such as for the model list."""
        return self.record.kind == "own"

    @property
    def is_report(self) -> bool:
        """Whether this is no exchange, but what a command has to say."""
        return self.record.kind == "report"

    @property
    def client_method(self) -> str:
        """The method of the client's request."""
        return self.record.method or self.method

    @property
    def client_path(self) -> str:
        """The path of the client's request, without its query."""
        return self.record.path or self.path.partition("?")[0]

    @property
    def client_target(self) -> str:
        """The path and query of the client's request."""
        query = self.record.query
        return self.client_path + (f"?{query}" if query else "")

    @property
    def client_body(self) -> bytes:
        """The client's body, as far as it is kept; before the request is handled, as the user has edited it."""
        if not self.record.kind:
            return self.body or self.record.request
        return self.record.request or (b"" if self.called and not self.is_internal else self.body)

    @property
    def client_body_before(self) -> bytes:
        """The client's body before the user edited it; empty if nobody did."""
        return self.record.edited_from or (b"" if self.record.kind else self._before)

    @property
    def call_before(self) -> bytes:
        """The body of the call before the user edited it; empty if nobody did."""
        return self.record.call_edited_from or (self._before if self.called and not self.record.edited_from else b"")

    @property
    def _before(self) -> bytes:
        """The body of the flow's request before an edit, unless it was another request then."""
        if self.backup is None or self.backup.path != self.path or self.backup.request == self.body:
            return b""
        return self.backup.request

    @property
    def client_headers(self) -> Fields:
        """The headers of the client's request, with secrets masked."""
        return masked(self.record.headers or (() if self.called else self.headers))

    @property
    def content_type(self) -> str:
        """The content type of the response that the client got."""
        return header(self.response_headers, "content-type")

    @property
    def upstream(self) -> bytes:
        """LM Studio's response body, as far as it is kept; where it was passed through, the flow's response has it."""
        return self.record.upstream or ((self.response or b"") if self.record.kind in ("relay", "own") else b"")

    @property
    def upstream_status(self) -> int:
        """The status of LM Studio's response; 0 where there is none."""
        return self.record.status or (0 if self.record.kind == "call" else self.status)

    @property
    def upstream_headers(self) -> Fields:
        """The headers of LM Studio's response, with secrets masked."""
        return masked(self.record.upstream_headers or (self.response_headers if self.record.kind != "call" else ()))

    @property
    def is_chat(self) -> bool:
        """Whether the request is for LM Studio's own APIs and holds a conversation."""
        return self.client_path.startswith(CHATS)

    @property
    def endpoint(self) -> str:
        """A short name: `chat` for `/api/chat`, `v1/models` for an endpoint of LM Studio's own APIs."""
        path = self.client_path
        ours = path.startswith(OLLAMA_PREFIX) and not path.startswith(PREFIXES)
        name = path.removeprefix(OLLAMA_PREFIX) if ours else path.strip("/")
        return name.partition("/")[0] if ours else name or "root"

    @property
    def is_in_progress(self) -> bool:
        """Whether the response has not come, or not ended yet."""
        return (self.response is None or self.is_streaming) and self.record.numbers is None and not self.error

    @property
    def error(self) -> str:
        """What went wrong, as far as it is known without reading the response's body."""
        return self.record.error or self.connection_error


def masked(fields: Iterable[tuple[str, str]]) -> Fields:
    """Return headers with a mask for the value of each that holds a secret."""
    return tuple((name, MASK if name.lower() in SECRET_HEADERS else value) for name, value in fields)


def header(fields: Fields, name: str) -> str:
    """Return the first value of a header; an empty string if there is none."""
    return next((value for key, value in fields if key.lower() == name), "")


def of(flow: http.HTTPFlow) -> Snapshot | None:
    """Return the snapshot of a flow; None for a flow that did not pass through the bridge."""
    record = records.of(flow)
    if record is None:
        return None
    request, response = _fields(flow.request), _fields(flow.response) if flow.response else ()
    return replace(
        for_summary(flow, record),
        headers=request,
        body=_content(flow.request) or b"",
        response_headers=response,
        page=interface.page_address(flow),
        backup=interception.before_edit(flow),
    )


def for_summary(flow: http.HTTPFlow, record: Record) -> Snapshot:
    """Return the snapshot of a flow that has this record, without what no summary shows: headers, and what was sent."""
    request, response = flow.request, flow.response
    began = request.timestamp_start or 0.0
    ended = (response.timestamp_end if response else None) or began
    is_streaming = response is not None and response.timestamp_end is None
    content = _content(response) if response else None
    return Snapshot(
        record=record,
        method=request.method,
        path=request.path,
        headers=(),
        body=b"" if record.kind in ("call", "relay") else _content(request) or b"",
        status=response.status_code if response else 0,
        reason=(response.reason or "") if response else "",
        response=content.removesuffix(UNFINISHED) if content and is_streaming else content,
        replayed=flow.is_replay == "request",
        duration=max(int((ended - began) * _NS_PER_SECOND), 0),
        is_streaming=is_streaming,
        connection_error=flow.error.msg if flow.error else "",
    )


def _fields(message: http.Message) -> Fields:
    return masked((str(name), str(value)) for name, value in message.headers.items(multi=True))


def _content(message: http.Message) -> bytes | None:
    """Return a body, decompressed; as it was sent where it is broken, or would be too large.

    Few are compressed: a request that comes in is decompressed for LM Studio, and LM Studio compresses nothing.
    mitmproxy's own `get_content` has no limit, and keeps the last body that it has decompressed.
    """
    body, encoding = message.raw_content, message.headers.get("content-encoding")
    if not body or encoding is None:
        return body
    try:
        decompressed = compression.decompress(body, encoding, DECOMPRESSED_BYTES)
    except compression.TooLarge:
        return body
    return body if decompressed is None else decompressed
