"""Requests that become another server's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from mitmproxy import http

from ..access import SECRET_HEADERS
from ..internals import interface
from ..internals.headers import SealedHeaders
from ..lmstudio import sse
from .exchange import Exchange

# RFC 9110, section 7.6.1, and what older clients send of the kind.
HOP_BY_HOP = (
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
# LM Studio's own CORS and caching are not for this bridge's clients: a 304 could not be translated.
NOT_FOR_LM_STUDIO = (*SECRET_HEADERS, "if-none-match", "origin", "access-control-request-method")

# Headers as HTTP/1 writes them. Each look into mitmproxy's object of them goes through all of their names, and each
# change makes all of them anew: what becomes of a request is worked out in tuples, and set once.
Fields = tuple[tuple[bytes, bytes], ...]

_HOP_BY_HOP = frozenset(name.encode() for name in HOP_BY_HOP)
_NOT_FOR_LM_STUDIO = frozenset(name.encode() for name in NOT_FOR_LM_STUDIO)
_OF_CALLS: Fields = (
    (b"content-type", b"application/json"),
    (b"accept", f"{sse.MEDIA_TYPE}, application/json".encode()),
)


# What a path may not hold (RFC 3986, section 3.3): controls, spaces, what is not ASCII, and what begins a query.
_NOT_IN_PATHS = re.compile(r"[^!-~]|[?#]")


def set_body(message: http.Message, body: bytes) -> None:
    """Set a message's body as it is sent, with its length."""
    message.raw_content = body
    message.headers.pop("transfer-encoding", None)
    message.headers["Content-Length"] = str(len(body))


def call_headers(request: http.Request) -> Fields:
    """Return the headers of a call that the bridge has made of a client's request."""
    agent = b", ".join(value for name, value in request.headers.fields if name.lower() == b"user-agent")
    return (*_OF_CALLS, (b"User-Agent", agent)) if agent else _OF_CALLS


def passthrough_headers(request: http.Request) -> Fields:
    """Return a client's headers without those that are between it and this bridge."""
    return tuple(field for field in _end_to_end(request.headers) if field[0].lower() not in _NOT_FOR_LM_STUDIO)


def remove_hop_by_hop(headers: http.Headers) -> None:
    """Remove the headers that are between one hop and the next; a message's Connection header names further ones."""
    headers.fields = _end_to_end(headers)


def _end_to_end(headers: http.Headers) -> Fields:
    named = {
        option.strip().lower()
        for name, value in headers.fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    left_out = _HOP_BY_HOP | named
    return tuple(field for field in headers.fields if field[0].lower() not in left_out)


async def send(exchange: Exchange, path: str, body: bytes, headers: Fields) -> None:
    """Make the flow's request one to LM Studio, with the token, which is sent but not shown."""
    bridge, request = exchange.bridge, exchange.flow.request
    if not exchange.is_replay:
        await bridge.idle_connections.drop_old(exchange.flow)
    upstream, token = bridge.upstream, bridge.services.settings.lmstudio_token
    query = exchange.recorder.record.query
    # In reverse mode they are the same already, and to set them costs a look for each header.
    if (request.scheme, request.host, request.port) != (upstream.scheme, upstream.host, upstream.port):
        request.scheme, request.host, request.port = upstream.scheme, upstream.host, upstream.port
    request.http_version = "HTTP/1.1"
    request.path = upstream.prefix + _encoded(path) + (f"?{query}" if query else "")
    # What is compressed cannot be translated.
    fields = [*headers]
    _put(fields, b"Accept-Encoding", b"identity")
    _put(fields, b"Host", upstream.authority.encode())
    if body or request.raw_content:
        request.raw_content = body
        fields = [field for field in fields if field[0].lower() != b"transfer-encoding"]
        _put(fields, b"Content-Length", b"%d" % len(body))
    _seal(exchange, fields, {"Authorization": f"Bearer {token}"} if token else {})
    if interface.is_shown():
        exchange.recorder.save(exchange.flow)
    else:
        # Without a list of flows, nobody sees the comment of one that has not ended.
        exchange.recorder.record.save(exchange.flow.metadata)


def _put(fields: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    """Set a header: in the place of the first one of its name, else at the end."""
    same = [at for at, field in enumerate(fields) if field[0].lower() == name.lower()]
    if not same:
        fields.append((name, value))
        return
    fields[same[0]] = (fields[same[0]][0], value)
    for at in reversed(same[1:]):
        del fields[at]


def _encoded(path: str) -> str:
    """Return a path as it is sent: one that was decoded to find its route must not end the request line."""
    return _NOT_IN_PATHS.sub(lambda found: quote(found[0], safe="", errors="surrogateescape"), path)


def seal(exchange: Exchange, secrets: dict[str, str]) -> None:
    """Add headers to the flow's request that are sent, but shown and saved as a mask."""
    _seal(exchange, exchange.flow.request.headers.fields, secrets)


def _seal(exchange: Exchange, fields: Iterable[tuple[bytes, bytes]], secrets: dict[str, str]) -> None:
    exchange.flow.request.headers = exchange.sealed = SealedHeaders(fields, secrets)
