"""Connections of clients and to LM Studio: found by flow, written to, closed; and the error pages."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any

from mitmproxy import ctx, http
from mitmproxy.net.http.http1 import connection_close
from mitmproxy.proxy import server as proxy_server

try:
    from mitmproxy.proxy.layers.http import _http1
except ImportError:  # pragma: no cover - a mitmproxy to come
    _http1 = None  # type: ignore[assignment]

CORK: int | None = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", None))

ErrorPage = Callable[[int, str], bytes]


def by_id() -> dict[Any, Any]:
    """Give the live client connections by their id."""
    found = getattr(ctx.master.addons.get("proxyserver"), "connections", None)
    return found if isinstance(found, dict) else {}


def close_clients(but: Container[str]) -> None:
    """Close the connections of all clients but those with these ids."""
    for client_id, handler in by_id().items():
        with suppress(KeyError, AttributeError, OSError, RuntimeError):
            if client_id not in but:
                handler.transports[handler.client].writer.close()


class ErrorPages:
    """Replace mitmproxy's HTML error pages with another function's bytes, until removed."""

    def __init__(self) -> None:
        self._original: Any = None

    def install(self, page: ErrorPage) -> bool:
        """Replace the pages; False if this mitmproxy makes them elsewhere."""
        if not hasattr(_http1, "make_error_response"):
            return False
        self._original = self._original or _http1.make_error_response
        _http1.make_error_response = lambda status_code, message="": page(int(status_code), str(message))
        return True

    def remove(self) -> None:
        """Put mitmproxy's own pages back."""
        if self._original is not None:
            _http1.make_error_response = self._original
            self._original = None


def write_last(flow: http.HTTPFlow, data: bytes) -> bool:
    """Write the last bytes to a flow's client and close its connection; False if it cannot be reached or has left."""
    if flow.client_conn.tls:
        return False  # the writer is below the encryption
    try:
        writer = by_id()[flow.client_conn.id].transports[flow.client_conn].writer
        if writer is None or writer.is_closing():
            return False
        # The bytes and the end in one packet, so that no client asks again on a connection that is about to end.
        if CORK is not None:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, CORK, 1)
        writer.write(data)
        writer.write_eof()
        writer.close()
    except (KeyError, AttributeError, OSError, RuntimeError):
        return False
    return True


def allow_silence(seconds: int) -> None:
    """Let connections be silent for this long."""
    if "tcp_timeout" in ctx.options:
        if ctx.options.tcp_timeout < seconds:
            ctx.options.update(tcp_timeout=seconds)
    elif isinstance(timeout := vars(proxy_server).get("TCP_TIMEOUT"), int):
        vars(proxy_server)["TCP_TIMEOUT"] = max(timeout, seconds)


async def drop_idle(flow: http.HTTPFlow) -> None:
    """Close the connection to LM Studio that a client's earlier request left, so that the next one gets its own."""
    try:
        transports = by_id()[flow.client_conn.id].transports
        idle = [io.writer for connection, io in transports.items() if connection is not flow.client_conn]
        for writer in idle:
            if writer is not None:
                writer.close()
        # The reader has to see the end before a new request is routed: a few turns of the loop.
        for _ in range(20):
            if len(transports) <= 1:
                break
            await asyncio.sleep(0)
    except (KeyError, AttributeError, OSError, RuntimeError):
        return


# mitmproxy.net is not documented.
def closes_after(request: http.Request) -> bool:
    """Whether the client wants its connection closed after this request, by its version and headers."""
    return bool(connection_close(request.http_version, request.headers))
