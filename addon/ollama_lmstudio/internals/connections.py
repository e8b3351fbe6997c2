"""Connections of clients and to LM Studio: found by flow, written to, closed; and mitmproxy's error pages."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any

from mitmproxy import ctx, http
from mitmproxy.net.http import http1
from mitmproxy.proxy import server as proxy_server

try:
    from mitmproxy.proxy.layers import http as http_layers
    from mitmproxy.proxy.layers.http import _http1
except ImportError:  # pragma: no cover - a mitmproxy to come
    http_layers = _http1 = None  # type: ignore[assignment]

# Linux's and the BSDs' name of the option; Windows has none, and sends two packets.
CORK: int | None = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", None))
# Whether the event loop's transport keeps what it has not sent as Windows' does.
FIN_IS_LATE = sys.platform == "win32"

ErrorPage = Callable[[int, str], bytes]

# Closing a connection takes effect after a few turns of the event loop: 3 in practice.
CLOSE_TURNS = 20


def by_id() -> dict[Any, Any]:
    """Return the live client connections (mitmproxy's ConnectionHandler) by id.

    Without it nothing in this module, `held_heads` included, finds a connection: each function then does nothing.
    """
    found = getattr(ctx.master.addons.get("proxyserver"), "connections", None)
    return found if isinstance(found, dict) else {}


def http_layer_of(flow: http.HTTPFlow) -> Any:
    """Return mitmproxy's HttpLayer of a flow's client; raise KeyError, AttributeError or StopIteration without one."""
    layers = by_id()[flow.client_conn.id].layer.context.layers
    return next(layer for layer in layers if isinstance(layer, http_layers.HttpLayer))


def stream_of(flow: http.HTTPFlow) -> Any:
    """Return mitmproxy's HttpStream of a flow; raise what `http_layer_of` raises if there is none."""
    streams = http_layer_of(flow).streams.values()
    return next(stream for stream in streams if getattr(stream, "flow", None) is flow)


def close_clients(but: Container[str]) -> None:
    """Close the connections of all clients but those with these ids.

    Without it, a client that is connected when the script is removed can go on to use LM Studio, with no key asked for.
    """
    for client_id, handler in by_id().items():
        if client_id not in but:
            _close_client(handler)


def close_idle() -> bool:
    """Close the connections of clients on which no request is under way; return whether there are others.

    Without it, a process that drains waits for clients that keep a connection for their next request.
    """
    is_busy = False
    for handler in by_id().values():
        if _has_request(handler):
            is_busy = True
        else:
            _close_client(handler)
    return is_busy


def _has_request(handler: Any) -> bool:
    try:
        layers = handler.layer.context.layers
        return any(layer.streams for layer in layers if isinstance(layer, http_layers.HttpLayer))
    except AttributeError:
        # What may be under way is not cut off.
        return True


def _close_client(handler: Any) -> None:
    with suppress(KeyError, AttributeError, OSError, RuntimeError):
        handler.transports[handler.client].writer.close()


class ErrorPages:
    """Replace mitmproxy's HTML error pages with another function's bytes, until removed.

    Without it, mitmproxy's own errors are HTML, which clients cannot parse: for a malformed request, for a body over
    `body_size_limit`, and when LM Studio is gone before its response began.
    """

    def __init__(self) -> None:
        self._original: Any = None

    def install(self, page: ErrorPage) -> bool:
        """Replace the pages; return False if this mitmproxy makes them elsewhere."""
        if not hasattr(_http1, "make_error_response"):
            return False
        self._original = self._original or _http1.make_error_response
        _http1.make_error_response = lambda status_code, message="": page(int(status_code), str(message))
        return True

    def remove(self) -> None:
        """Restore mitmproxy's own pages."""
        if self._original is not None:
            _http1.make_error_response = self._original
            self._original = None


def write_last(flow: http.HTTPFlow, data: bytes) -> bool:
    """Write the last bytes to a flow's client and close its connection; return False if it is not reached.

    Without it, a stream that breaks ends without an error line, a killed flow's client waits for LM Studio's next byte,
    and a large body that is refused is read to its end first.
    """
    if flow.is_replay == "request":
        return False  # the connection is that of the client that the flow had when it was recorded
    if flow.client_conn.tls:
        return False  # the writer's bytes would not be encrypted
    try:
        writer = by_id()[flow.client_conn.id].transports[flow.client_conn].writer
        if writer is None or writer.is_closing():
            return False
        sock = writer.get_extra_info("socket")
        rest: bytes | None = data
        # The bytes and the FIN in one packet, so that no client sends its next request on a connection about to close.
        if CORK is not None:
            sock.setsockopt(socket.IPPROTO_TCP, CORK, 1)
        elif FIN_IS_LATE:
            rest = _send_at_once(writer, sock, data)
        if rest is not None:
            writer.write(rest)
            writer.write_eof()
        writer.close()
    except (KeyError, AttributeError, OSError, RuntimeError):
        return False
    return True


def _send_at_once(writer: Any, sock: Any, data: bytes) -> bytes | None:
    """Send bytes, and the FIN at once after them; return the bytes that have to wait, None if all is done.

    Windows' loop sends the FIN some turns after the bytes: time enough for a client to send its next request.
    """
    waiting = getattr(writer.transport, "_buffer", None) or b""
    # What asyncio hands out cannot send. What the system has been given already goes before.
    with sock.dup() as own:
        try:
            sent = own.send(waiting + data) if waiting or data else 0
        except BlockingIOError:
            return data
        vars(writer.transport)["_buffer"] = bytearray(waiting[sent:]) or None
        if sent < len(waiting) + len(data):
            return data[max(0, sent - len(waiting)) :]
        own.shutdown(socket.SHUT_WR)
    return None


def has_unsent(flow: http.HTTPFlow) -> bool:
    """Return whether bytes wait for a flow's client, which reads slowly: no more is read from LM Studio meanwhile.

    Without it, that is taken for silence of LM Studio's.
    """
    try:
        writer = by_id()[flow.client_conn.id].transports[flow.client_conn].writer
        return bool(writer.transport.get_write_buffer_size())
    except (KeyError, AttributeError):
        return False


def closes(request: http.Request) -> bool:
    """Return whether the client's connection ends after the response, by its HTTP version and Connection header.

    mitmproxy decides by the same function (RFC 9112 9.3), but on the request as it is sent to LM Studio.
    """
    options = request.headers.get("connection")
    return bool(http1.connection_close(request.http_version, {} if options is None else {"connection": options}))


def allow_silence(seconds: int) -> None:
    """Raise mitmproxy's timeout for a connection without traffic to this many seconds.

    mitmproxy 12 has an option, 11 a constant. Without it, a prompt that takes LM Studio more than 600 s ends with a
    closed connection.
    """
    if "tcp_timeout" in ctx.options:
        if ctx.options.tcp_timeout < seconds:
            ctx.options.update(tcp_timeout=seconds)
    elif isinstance(timeout := vars(proxy_server).get("TCP_TIMEOUT"), int):
        vars(proxy_server)["TCP_TIMEOUT"] = max(timeout, seconds)


async def drop_idle(flow: http.HTTPFlow) -> None:
    """Close the connections to LM Studio that are kept for a client, so that its next request opens a new one.

    Without it, a request may be sent on a connection that LM Studio is closing, and fail with a 502.
    """
    try:
        transports = by_id()[flow.client_conn.id].transports
        idle = [io.writer for connection, io in transports.items() if connection is not flow.client_conn]
        for writer in idle:
            if writer is not None:
                writer.close()
        # mitmproxy forgets a connection when its reader has seen the end.
        for _ in range(CLOSE_TURNS):
            if len(transports) <= 1:
                break
            await asyncio.sleep(0)
    except (KeyError, AttributeError, OSError, RuntimeError):
        return
