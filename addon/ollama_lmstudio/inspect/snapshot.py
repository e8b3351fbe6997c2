"""One exchange, as everything that shows it is given it: what the flow keeps of both sides, and the flow's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import access
from ..lmstudio.errors import MASK
from ..record import record as records
from ..record.record import Fields, Record
from ..record.redaction import LOOPBACK_SECRET_HEADER

if TYPE_CHECKING:
    from mitmproxy import http

# A foreign file may hold them all.
SECRET_HEADERS = frozenset((*access.SECRET_HEADERS, "set-cookie", LOOPBACK_SECRET_HEADER.lower()))

OLLAMA_PREFIX = "/api/"
LMSTUDIO_PREFIXES = ("/api/v0/", "/api/v1/", "/v1/")
# What holds a conversation, of LM Studio's own APIs.
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
    """One exchange.

    `method` to `body` are the flow's request: the call to LM Studio, or the client's own request where none was made.
    `status` to `response` are the flow's response; the status is 0, and the response None, while it is not there.
    `took` is in ns, 0 while that is not known.
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
    took: int = 0
    coming: bool = False
    """Whether the response is there, but not all of it yet."""
    problem: str = ""
    """What became of the connection, if it did not end well."""

    @property
    def called(self) -> bool:
        """Whether the request became a call to LM Studio."""
        return self.record.kind in ("call", "relay", "own")

    @property
    def is_internal(self) -> bool:
        """Whether nobody asked for it."""
        return self.record.kind == "own"

    @property
    def client_method(self) -> str:
        """The client's method."""
        return self.record.method or self.method

    @property
    def client_path(self) -> str:
        """The client's path, without its query."""
        return self.record.path or self.path.partition("?")[0]

    @property
    def client_target(self) -> str:
        """The client's path and query."""
        query = self.record.query
        return self.client_path + (f"?{query}" if query else "")

    @property
    def client_body(self) -> bytes:
        """The client's body, as far as it is kept; while nothing has become of it, as a person has edited it."""
        if not self.record.kind:
            return self.body or self.record.request
        return self.record.request or (b"" if self.called and not self.is_internal else self.body)

    @property
    def client_headers(self) -> Fields:
        """The client's headers, masked."""
        return masked(self.record.headers or (() if self.called else self.headers))

    @property
    def content_type(self) -> str:
        """The type of the client's answer."""
        return header(self.response_headers, "content-type")

    @property
    def upstream(self) -> bytes:
        """LM Studio's answer, as far as it is kept; where the client got it as it was, that is the flow's own."""
        return self.record.upstream or ((self.response or b"") if self.record.kind in ("relay", "own") else b"")

    @property
    def is_chat(self) -> bool:
        """Whether it is a request of LM Studio's own APIs that holds a conversation."""
        return self.client_path.startswith(CHATS)

    @property
    def endpoint(self) -> str:
        """A short name: `chat` for `/api/chat`, `v1/models` for LM Studio's own."""
        path = self.client_path
        ours = path.startswith(OLLAMA_PREFIX) and not path.startswith(LMSTUDIO_PREFIXES)
        name = path.removeprefix(OLLAMA_PREFIX) if ours else path.strip("/")
        return name.partition("/")[0] if ours else name or "root"

    @property
    def is_in_progress(self) -> bool:
        """Whether the answer is still to come."""
        return (self.response is None or self.coming) and self.record.numbers is None and not self.error

    @property
    def error(self) -> str:
        """What went wrong, as far as it is known without reading the answer."""
        return self.record.error or self.problem


def masked(fields: Iterable[tuple[str, str]]) -> Fields:
    """Put a mask where headers hold a secret."""
    return tuple((name, MASK if name.lower() in SECRET_HEADERS else value) for name, value in fields)


def header(fields: Fields, name: str) -> str:
    """Give the first value of a header, or an empty string."""
    return next((value for key, value in fields if key.lower() == name), "")


def of(flow: http.HTTPFlow) -> Snapshot | None:
    """Give the exchange of a flow; None for a flow that is none of ours."""
    record = records.of(flow)
    if record is None:
        return None
    request, response = flow.request, flow.response
    began = request.timestamp_start or 0.0
    ended = (response.timestamp_end if response else None) or began
    return Snapshot(
        record,
        request.method,
        request.path,
        _fields(request),
        _content(request) or b"",
        response.status_code if response else 0,
        (response.reason or "") if response else "",
        _fields(response) if response else (),
        _content(response) if response else None,
        flow.is_replay == "request",
        max(int((ended - began) * 1e9), 0),
        response is not None and response.timestamp_end is None,
        flow.error.msg if flow.error else "",
    )


def _fields(message: http.Message) -> Fields:
    return masked((str(name), str(value)) for name, value in message.headers.items(multi=True))


def _content(message: http.Message) -> bytes | None:
    return message.get_content(strict=False)
