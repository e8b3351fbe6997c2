"""Streams that pass mitmproxy's event machinery by: from LM Studio's socket through one function to the client's.

Of a body that is streamed, mitmproxy shows nothing to anybody: no hook is called between its head and its end. What it
does for each chunk all the same (two tasks woken, a dozen generators, three locks) costs more than the translation. So
once the head and the first chunk have gone their usual way, the transport gets another protocol. It takes whole chunks
of HTTP's chunked coding, and leaves everything else to mitmproxy, which reads on from between two of them: the end of
the body, an error, a client that is gone or slow, a chunk that is not as it should be.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from mitmproxy import ctx, http

from . import connections

try:
    from mitmproxy.proxy.layers.http import _http1
except ImportError:  # pragma: no cover - a mitmproxy to come
    _http1 = None  # type: ignore[assignment]

# RFC 9112 7.1. Extensions, which LM Studio does not send, are left to mitmproxy.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_PART_OF_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}\r?")
_HEXADECIMAL = 16
_CRLF = b"\r\n"
# A chunk that has not come whole is waited for up to this size; of a larger one, mitmproxy passes on the parts.
MAX_WAITING_BYTES = 1 << 16
# More than this is not written ahead of a client that reads slowly: mitmproxy stops to read from LM Studio then.
MAX_UNSENT_BYTES = 1 << 16

Function = Callable[[bytes], Sequence[bytes]]


class DirectStream(asyncio.Protocol):
    """What a flow's `response.stream` is set to, when the head of the response is complete.

    mitmproxy calls it for each chunk, and it calls `function`, whose chunks are those that the client gets. When
    mitmproxy waits for the next one, this becomes the protocol of the connection to LM Studio, and calls `feed`, with
    all the data that was read at once.
    """

    def __init__(self, flow: http.HTTPFlow, function: Function, feed: Function) -> None:
        self._flow = flow
        self._function = function
        self._feed = feed
        self._is_due = False
        self._is_active = False
        self._rest = b""
        try:
            self._is_possible = self._find()
        except (AttributeError, KeyError, StopIteration):
            self._is_possible = False

    def _find(self) -> bool:
        """Find what there is of the flow in mitmproxy and asyncio; return False where that cannot be used."""
        flow = self._flow
        handler = connections.by_id()[flow.client_conn.id]
        http_connections = connections.http_layer_of(flow).connections
        self._stream = connections.stream_of(flow)
        self._server_layer = http_connections[flow.server_conn].context.layers[-1]
        self._reader = handler.transports[flow.server_conn].reader
        self._transport = handler.transports[flow.server_conn].writer.transport
        self._writer = handler.transports[flow.client_conn].writer
        self._client_transport = self._writer.transport
        self._watchdog = handler.timeout_watchdog
        assert flow.response is not None
        self._is_chunked = "chunked" in flow.response.headers.get("transfer-encoding", "").lower()
        return (
            not (flow.client_conn.tls or flow.server_conn.tls or flow.server_conn.via)
            and isinstance(self._server_layer, _http1.Http1Client)
            and isinstance(http_connections[flow.client_conn], _http1.Http1Server)
            and isinstance(self._reader, asyncio.StreamReader)
            # With these options, somebody does look into it.
            and self._stream.debug is None
            and not ("store_streamed_bodies" in ctx.options and ctx.options.store_streamed_bodies)
        )

    def __call__(self, data: bytes) -> Sequence[bytes]:
        """Return the chunks for the client.

        Then read directly. Where that is not possible, mitmproxy passes on each chunk, which costs more CPU time than
        all that the bridge does with it.
        """
        if self._is_possible and not self._is_due and data:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._begin)
        return self._function(data)

    def _begin(self) -> None:
        self._is_due = False
        try:
            can_begin = not self._is_active and self._has_passed_on_all() and self._may_go_on()
        except AttributeError:
            can_begin = self._is_possible = False
        if can_begin:
            chunks = self._server_layer.body_reader
            if chunks._bytes_in_chunk:
                # What is missing of a chunk of which mitmproxy has passed on a part becomes one of its own.
                self._rest = b"%x\r\n" % chunks._bytes_in_chunk
                chunks._bytes_in_chunk = 0
            self._original = self._transport.get_protocol()
            self._transport.set_protocol(self)
            self._is_active = True

    def _has_passed_on_all(self) -> bool:
        """Whether mitmproxy has nothing of the body that it has not passed on."""
        server, reader = self._server_layer, self._reader
        return not (
            server.state != server.read_body
            or not isinstance(server.body_reader, _http1.ChunkedReader)
            or server.buf
            or server.body_reader._bytes_to_discard
            or reader._buffer
            or reader._paused
            or reader.at_eof()
        )

    def _may_go_on(self) -> bool:
        """Whether the stream goes on as it began: its client is there and reads, and nobody has ended or changed it."""
        stream, response = self._stream, self._flow.response
        return (
            stream._paused is None
            and not stream._paused_event_queue
            and stream.server_state == stream.state_stream_response_body
            and stream.client_state == stream.state_done
            and response is not None
            and response.stream is self
            and not self._client_transport.is_closing()
            and self._client_transport.get_write_buffer_size() <= MAX_UNSENT_BYTES
        )

    def _hand_back(self) -> None:
        """Let mitmproxy read on, beginning with what has not been passed on."""
        rest, self._rest = self._rest, b""
        self._is_active = False
        self._transport.set_protocol(self._original)
        if rest:
            self._original.data_received(rest)

    # asyncio's hooks

    def data_received(self, data: bytes) -> None:
        """Pass on the chunks that are whole."""
        data = self._rest + data if self._rest else data
        if not self._may_go_on():
            self._rest = data
            self._hand_back()
            return
        self._watchdog.register_activity()
        chunks, end, is_regular = split_chunks(data)
        self._rest = data[end:]
        if chunks:
            for written in self._feed(b"".join(chunks)):
                self._writer.write(b"%x\r\n%s\r\n" % (len(written), written) if self._is_chunked else written)
        if not is_regular or self._client_transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._hand_back()

    def eof_received(self) -> bool | None:
        """Leave the end of the connection to mitmproxy."""
        self._hand_back()
        return bool(self._original.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the end of the connection to mitmproxy."""
        self._hand_back()
        self._original.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on to the protocol that mitmproxy writes with."""
        self._original.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on to the protocol that mitmproxy writes with."""
        self._original.resume_writing()


def split_chunks(data: bytes) -> tuple[list[bytes], int, bool]:
    """Split a body in HTTP's chunked coding.

    Return the data of the chunks that are whole, where the next one begins, and whether what is there of that one can
    become a chunk: False is for the last one, which is empty, and for what is none at all or too large.
    """
    chunks: list[bytes] = []
    at, length = 0, len(data)
    while at < length:
        size = _CHUNK_SIZE.match(data, at)
        if size is None:
            return chunks, at, _PART_OF_SIZE.fullmatch(data, at) is not None
        begin = size.end()
        end = begin + int(size[1], _HEXADECIMAL)
        if end == begin or end - begin > MAX_WAITING_BYTES:
            return chunks, at, False
        closing = data[end : end + len(_CRLF)]
        if closing != _CRLF:
            return chunks, at, _CRLF.startswith(closing)
        chunks.append(data[begin:end])
        at = end + len(_CRLF)
    return chunks, at, True
