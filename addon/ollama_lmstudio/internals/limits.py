"""A limit that mitmproxy does not have: for the head of a request."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any

from mitmproxy.proxy import commands, events
from mitmproxy.utils import human

try:
    from mitmproxy.proxy.layers.http import _http1
except ImportError:  # pragma: no cover - a mitmproxy to come
    _http1 = None  # type: ignore[assignment]

AHEAD = (
    "more than {:,} bytes were sent ahead of the answer under way (option max_header_size): the client is disconnected"
)
TOO_LARGE = "the request's headers are larger than {:,} bytes (option max_header_size)"


# RFC 9112 2.2: a line may end without CR.
_END = re.compile(rb"\n\r?\n")


def _head_size(data: bytes) -> int:
    """Return how long the head is that a request begins with, as far as it is there."""
    found = _END.search(data)
    return found.end() if found else len(data)


class HeadLimit:
    """Refuse a request whose head, its first line and its headers, is too large.

    Without it, one client fills the memory with a head that never ends. What a client sends while it is being answered
    is the beginning of its next request, and has the same limit: mitmproxy keeps it until the answer has ended.
    """

    def __init__(self) -> None:
        self._server: Any = None
        self._original: Any = None
        self.max_bytes = 0

    def install(self, max_bytes: int) -> bool:
        """Refuse heads of more bytes; return False if this mitmproxy reads them elsewhere."""
        self.max_bytes = max_bytes
        server: Any = getattr(_http1, "Http1Server", None)
        if not (hasattr(server, "read_headers") and hasattr(server, "wait") and hasattr(_http1, "make_error_response")):
            return False
        if self._original is None:
            self._server = server
            self._original = original = server.read_headers
            original_wait = server.wait

            def read_headers(layer: Any, event: Any) -> Any:
                # A connection that waits for its next request keeps the limit that it had before a reload.
                is_large = isinstance(event, events.DataReceived) and len(layer.buf) > self.max_bytes
                if is_large and _head_size(bytes(layer.buf)) > self.max_bytes:
                    message = TOO_LARGE.format(self.max_bytes)
                    yield commands.Log(f"{human.format_address(layer.conn.peername)}: {message}", logging.WARNING)
                    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                    yield commands.SendData(layer.conn, _http1.make_error_response(status, message))
                    yield commands.CloseConnection(layer.conn)
                    layer.state = layer.done
                else:
                    yield from original(layer, event)

            def wait(layer: Any, event: Any) -> Any:
                yield from original_wait(layer, event)
                if isinstance(event, events.DataReceived) and len(layer.buf) > self.max_bytes:
                    message = AHEAD.format(self.max_bytes)
                    yield commands.Log(f"{human.format_address(layer.conn.peername)}: {message}", logging.WARNING)
                    layer.buf.maybe_extract_at_most(len(layer.buf))
                    # The end of the connection comes as that of a client that leaves.
                    yield commands.CloseConnection(layer.conn)

            server.read_headers, server.wait = read_headers, wait
        return True

    def remove(self) -> None:
        """Restore mitmproxy's own reading."""
        if self._original is not None:
            self._server.read_headers = self._original
            # The class has none of its own.
            del self._server.wait
            self._original = None
