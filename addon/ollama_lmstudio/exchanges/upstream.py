"""Requests that become another server's."""

from __future__ import annotations

import re
from urllib.parse import quote

from mitmproxy import http

from ..access import SECRET_HEADERS
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


# What a path may not hold (RFC 3986, section 3.3): controls, spaces, what is not ASCII, and what begins a query.
_NOT_IN_PATHS = re.compile(r"[^!-~]|[?#]")


def set_body(message: http.Message, body: bytes) -> None:
    """Set a message's body as it is sent, with its length."""
    message.raw_content = body
    message.headers.pop("transfer-encoding", None)
    message.headers["Content-Length"] = str(len(body))


def call_headers(request: http.Request) -> http.Headers:
    """Return the headers of a call that the bridge has made of a client's request."""
    headers = http.Headers(content_type="application/json", accept=f"{sse.MEDIA_TYPE}, application/json")
    if agent := request.headers.get("user-agent", ""):
        headers["User-Agent"] = agent
    return headers


def passthrough_headers(request: http.Request) -> http.Headers:
    """Return a client's headers without those that are between it and this bridge."""
    headers = request.headers.copy()
    remove_hop_by_hop(headers)
    for name in NOT_FOR_LM_STUDIO:
        headers.pop(name, None)
    return headers


def remove_hop_by_hop(headers: http.Headers) -> None:
    """Remove the headers that are between one hop and the next; a message's Connection header names further ones."""
    named = [name.strip() for value in headers.get_all("connection") for name in value.split(",")]
    for name in (*HOP_BY_HOP, *named):
        headers.pop(name, None)


async def send(exchange: Exchange, path: str, body: bytes, headers: http.Headers) -> None:
    """Make the flow's request one to LM Studio, with the token, which is sent but not shown."""
    bridge, request = exchange.bridge, exchange.flow.request
    if not exchange.is_replay:
        await bridge.idle_connections.drop_old(exchange.flow)
    upstream, token = bridge.upstream, bridge.services.settings.lmstudio_token
    query = exchange.recorder.record.query
    request.scheme, request.host, request.port = upstream.scheme, upstream.host, upstream.port
    request.http_version = "HTTP/1.1"
    request.path = upstream.prefix + _encoded(path) + (f"?{query}" if query else "")
    request.headers = headers
    # What is compressed cannot be translated.
    request.headers["Accept-Encoding"] = "identity"
    request.headers["Host"] = upstream.authority
    if body or request.raw_content:
        set_body(request, body)
    seal(exchange, {"Authorization": f"Bearer {token}"} if token else {})
    exchange.recorder.save(exchange.flow)


def _encoded(path: str) -> str:
    """Return a path as it is sent: one that was decoded to find its route must not end the request line."""
    return _NOT_IN_PATHS.sub(lambda found: quote(found[0], safe="", errors="surrogateescape"), path)


def seal(exchange: Exchange, secrets: dict[str, str]) -> None:
    """Add headers to the flow's request that are sent, but shown and saved as a mask."""
    request = exchange.flow.request
    request.headers = exchange.sealed = SealedHeaders(request.headers.fields, secrets)
