"""Responses of other servers on their way to the client."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mitmproxy import http

from ..internals.direct_streams import DirectStream
from ..lmstudio import sse
from ..outcomes import NDJSON, Headers
from .exchange import LAST_CHUNK, Exchange
from .upstream import remove_hop_by_hop

# The other server's CORS headers are for its own clients.
NOT_FOR_CLIENTS = ("access-control-allow-origin", "access-control-allow-headers")
STREAMS = (sse.MEDIA_TYPE, NDJSON)
# nginx holds back what is streamed, until 4 or 8 kB have come, unless it is told not to.
UNBUFFERED: Headers = (("X-Accel-Buffering", "no"),)


def pass_headers(exchange: Exchange) -> None:
    """Put this bridge's CORS headers in the place of those that are between it and the other server."""
    assert exchange.flow.response is not None
    headers = exchange.flow.response.headers
    remove_hop_by_hop(headers)
    for name in NOT_FOR_CLIENTS:
        headers.pop(name, None)
    for name, value in exchange.cors_headers:
        headers.add(name, value)
    if headers.get("content-type", "").startswith(STREAMS):
        headers.update(UNBUFFERED)


def pass_body(exchange: Exchange, keep: Callable[[bytes], None], *, chunked: bool, lines: bool = False) -> None:
    """Pass the response's body through as it comes, and keep it too. `chunked` is how the other server sends it.

    With `lines`, each line is a chunk of its own, also where several come at once: clients read one of each.
    """
    response = exchange.flow.response
    assert response is not None

    def pass_on(data: bytes) -> list[bytes]:
        keep(data)
        if lines:
            return data.splitlines(keepends=True)
        # An empty chunk would end the body.
        return [data] if data else []

    if chunked:
        frame_chunks(exchange, response)
    response.stream = DirectStream(exchange.flow, pass_on, pass_on)
    exchange.head_sent = True


def frame_chunks(exchange: Exchange, response: http.Response) -> None:
    """Frame a body of unknown length: in chunks, which HTTP/1.0 does not have, or up to the end of the connection."""
    if exchange.http10:
        exchange.close_connection = True
    else:
        response.headers["Transfer-Encoding"] = "chunked"


def last_bytes(parts: Sequence[bytes], *, chunked: bool) -> bytes:
    """Return the last parts of a body as they go over the wire, with the body's end."""
    if not chunked:
        return b"".join(parts)
    return b"".join([*(b"%x\r\n%s\r\n" % (len(part), part) for part in parts), LAST_CHUNK])
