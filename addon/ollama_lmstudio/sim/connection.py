"""One client's connection: h11 reads what comes, and what goes is written as Node.js and Express write it.

h11 is only told of the answers, to keep its state; their bytes are made here, for the order and case of headers
and for streams that cost one write per chunk.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import h11

from .faults import NO_FAULT, Fault
from .wire import JSON_TYPE, SSE_TYPE, Headers, etag, http_date, stringify

LAST_CHUNK = b"0\r\n\r\n"
# After so many writes in a row others get their turn, and a lost client is noticed.
WRITES_PER_TURN = 32


@dataclass
class Recorded:
    """A request as it arrived, and what became of it. Times are of `time.monotonic`.

    `json` is None for a body that is none. `ignored` are the top-level keys LM Studio takes no notice of. `closed` is
    when the client went away before the answer ended, else None.
    """

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    json: Any = None
    started: float = field(default_factory=time.monotonic)
    status: int | None = None
    closed: float | None = None
    ignored: tuple[str, ...] = ()

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class SimExchange:
    """One request, and the way to answer it."""

    def __init__(self, connection: Connection, request: h11.Request) -> None:
        target, _, query = request.target.decode("latin-1").partition("?")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw_items()]
        self.record = Recorded(request.method.decode(), target, query, headers)
        self.fault: Fault = NO_FAULT
        self.ended = False
        self._connection = connection
        self._http_10 = request.http_version == b"1.0"
        self._pending = b""
        self._chunked = False
        self._sent = 0
        self._writes = 0
        self.close_after = self._http_10 or "close" in (self.record.header("connection") or "").lower()

    @property
    def begun(self) -> bool:
        """Whether the answer has begun."""
        return self.record.status is not None

    async def reply(self, status: int, content_type: str, body: bytes, extra: Headers | None = None) -> None:
        """Answer with a whole body, or with 304 if the client has it already."""
        tag = etag(body)
        headers: Headers = [("X-Powered-By", "Express"), *(extra or [])]
        if (
            status == HTTPStatus.OK
            and self.record.method in ("GET", "HEAD")
            and self.record.header("if-none-match") == tag
        ):
            status, body = 304, b""
            headers += [("ETag", tag)]
        else:
            headers += [("Content-Type", content_type), ("Content-Length", str(len(body))), ("ETag", tag)]
        self._begin(status, [*headers, ("Date", http_date()), *self._persistence()])
        drop = self.fault.disconnect
        if drop:
            self._connection.write(self._take(body[: len(body) // 2]))
            self.drop(rst=drop.how == "rst")
            return
        body = b"" if self.record.method == "HEAD" else body
        if self.fault.split is None:
            self._end(body)
            await self._connection.drained()
        else:
            await self._write_pieces(body)
            self._end(b"")

    async def reply_json(self, status: int, value: Any, *, indent: int = 2, extra: Headers | None = None) -> None:
        """Answer with JSON."""
        await self.reply(status, JSON_TYPE, stringify(value, indent), extra)

    async def reply_empty(self, status: int, extra: Headers) -> None:
        """Answer without a body."""
        headers = [("X-Powered-By", "Express"), *extra, ("Content-Length", "0"), ("Date", http_date())]
        self._begin(status, [*headers, *self._persistence()])
        self._end(b"")

    def _persistence(self) -> Headers:
        if self.close_after:
            return [("Connection", "close")]
        return [("Connection", "keep-alive"), ("Keep-Alive", f"timeout={self._connection.keep_alive:g}")]

    def open_stream(self, extra: Headers | None = None) -> None:
        """Begin an answer of SSE; the head goes out with the first bytes or with `flush`."""
        headers: Headers = [
            ("X-Powered-By", "Express"),
            *(extra or []),
            ("Content-Type", SSE_TYPE),
            ("Cache-Control", "no-cache"),
            ("Connection", "keep-alive"),
            ("Date", http_date()),
        ]
        self._chunked = not self._http_10
        if self._chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        self._begin(200, headers)

    async def flush(self) -> None:
        """Send the head of a stream ahead of its body."""
        self._connection.write(self._take(b""))
        await self._connection.drained()

    async def write(self, data: bytes) -> None:
        """Send a piece of a stream, in one write unless a fault says otherwise."""
        if self.fault.split is None:
            self._connection.write(self._take(data))
        else:
            await self._write_pieces(data)
        self._writes += 1
        if not self._writes % WRITES_PER_TURN:
            await asyncio.sleep(0)
        if self._connection.is_full:
            await self._connection.drained()

    def end_stream(self) -> None:
        """End a stream as it should."""
        head, self._pending = self._pending, b""
        self._end(head + LAST_CHUNK if self._chunked else head)

    def drop(self, *, rst: bool = False) -> None:
        """Close the connection here and now."""
        self.ended = self.close_after = True
        self._connection.close(rst=rst)

    async def wait_for_client(self) -> None:
        """Do nothing until the client goes away."""
        await asyncio.get_running_loop().create_future()

    async def _write_pieces(self, data: bytes) -> None:
        pieces = self.fault.pieces(data, self._sent)
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0)
            self._connection.write(self._take(piece))
        self._sent += len(data)
        await self._connection.drained()

    def _begin(self, status: int, headers: Headers) -> None:
        self.record.status = status
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "unknown"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self._pending = "\r\n".join(lines).encode("latin-1")

    def _take(self, data: bytes) -> bytes:
        """Frame bytes of the body, after the head if that has not gone yet."""
        head, self._pending = self._pending, b""
        if not self._chunked or not data:
            return head + data
        return b"%b%x\r\n%b\r\n" % (head, len(data), data)

    def _end(self, data: bytes) -> None:
        """Send the last bytes; by the time the client has them nothing goes on here any more."""
        self.ended = True
        self._connection.write(self._take(data) if self._pending else data)
        self._connection.answered(self.record.status or 200)


class Connection(asyncio.Protocol):
    """A connection of a client: requests are read and handled one after the other."""

    transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self.keep_alive = hub.keep_alive
        self._hub = hub
        self._h11 = h11.Connection(h11.SERVER)
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._exchange: SimExchange | None = None
        self._served = 0
        self._idle: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._hub.opened(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle.cancel()
            self._idle = None
        self._h11.receive_data(data)
        self._arrived.set()

    def eof_received(self) -> None:
        # Node.js ends its side too: an answer under way is lost.
        self._lost()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()
        self._hub.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _lost(self) -> None:
        if self._exchange and not self._exchange.ended and self._exchange.record.closed is None:
            self._exchange.record.closed = time.monotonic()
        if self.task:
            self.task.cancel()

    @property
    def is_busy(self) -> bool:
        """Whether a request waits for its answer, or for the rest of it."""
        return self._exchange is not None and not self._exchange.ended

    # What an exchange needs

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    @property
    def is_full(self) -> bool:
        """Whether the client reads slower than it is written to."""
        return not self._writable.is_set()

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        await self._writable.wait()

    def answered(self, status: int) -> None:
        """Report to h11 that the response is complete."""
        if self._h11.our_state is h11.SEND_RESPONSE:
            self._h11.send(h11.Response(status_code=status, headers=[("Transfer-Encoding", "chunked")]))
            self._h11.send(h11.EndOfMessage())

    def close(self, *, rst: bool) -> None:
        """Close the connection, with a reset if asked."""
        if rst:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def shut(self) -> None:
        """Close the connection because the server stops."""
        if self._exchange:
            self._exchange.ended = True
        self.transport.abort()
        if self.task:
            self.task.cancel()

    # Requests

    async def _serve(self) -> None:
        try:
            while (request := await self._request()) is not None:
                self._exchange = exchange = SimExchange(self, request)
                exchange.fault = self._hub.early_fault(exchange.record, reused=self._served > 0)
                if exchange.fault.stale:
                    break
                if exchange.fault.hang == "read":
                    self.transport.pause_reading()
                else:
                    exchange.record.body = await self._body()
                await self._hub.handle(exchange)
                self._exchange = None
                if exchange.close_after or self._h11.our_state is not h11.DONE:
                    break
                self._served += 1
                self._h11.start_next_cycle()
                if not self._h11.trailing_data[0]:
                    self._idle = asyncio.get_running_loop().call_later(self.keep_alive, self.transport.close)
        except h11.RemoteProtocolError as problem:
            phrase = HTTPStatus(problem.error_status_hint).phrase
            self.write(f"HTTP/1.1 {problem.error_status_hint} {phrase}\r\nConnection: close\r\n\r\n".encode())
        finally:
            if self._idle:
                self._idle.cancel()
            self.transport.close()

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            if self._h11.they_are_waiting_for_100_continue:
                self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._arrived.clear()
            await self._arrived.wait()

    async def _request(self) -> h11.Request | None:
        event = await self._event()
        return event if isinstance(event, h11.Request) else None

    async def _body(self) -> bytes:
        parts = []
        while isinstance(event := await self._event(), h11.Data):
            parts.append(bytes(event.data))
        return b"".join(parts)


class Hub(Protocol):
    """What connections share. The server is one."""

    keep_alive: float

    def opened(self, connection: Connection) -> None:
        """Add a connection."""

    def closed(self, connection: Connection) -> None:
        """Remove a connection that has ended."""

    def early_fault(self, record: Recorded, *, reused: bool) -> Fault:
        """Return the fault to apply before a body is read; `reused`: the connection had an earlier request."""
        ...

    async def handle(self, exchange: SimExchange) -> None:
        """Answer a request."""
