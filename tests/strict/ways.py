"""The ways of answers to the strict reader: from a client of httpx, a socket, or other programs' connections."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote

import h11
import httpx
from tests.strict.reader import Asked, Marks, Reading, check, current_marks


class _Stream(httpx.SyncByteStream):
    """What comes of an answer, read on the way."""

    def __init__(self, stream: httpx.SyncByteStream, reading: Reading) -> None:
        self._stream = stream
        self._reading = reading
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        try:
            for data in self._stream:
                self._reading.feed(data)
                yield data
        except httpx.TransportError:
            self._open = False
            self._reading.cut()
            raise
        self._open = False
        self._reading.end()

    def close(self) -> None:
        self._stream.close()
        if self._open:
            self._open = False
            self._reading.cut()


def attach(response: httpx.Response) -> None:
    """Read an answer of httpx; this is a hook for its clients."""
    request = response.request
    try:
        data = request.content
    except httpx.RequestNotRead:
        data = b""
    asked = Asked.of(request.method, request.url.raw_path.decode("ascii"), data)
    assert isinstance(response.stream, httpx.SyncByteStream)
    response.stream = _Stream(response.stream, Reading(asked, response.status_code, response.headers))


def read_connection(sent: bytes, received: bytes, *, closed: bool, marks: Marks) -> None:
    """Read what went over a connection: the answer to each request. Raises Refused.

    `closed` is whether the server closed it. `marks` are meant for the last answer. A request that is not whole, or
    is none, may have an answer too.
    """
    requests = list(_requests(sent))
    client = h11.Connection(h11.CLIENT)
    if received:
        client.receive_data(received)
    if closed:
        client.receive_data(b"")  # which is the end
    for number, (asked, whole) in enumerate(requests, 1):
        last = number == len(requests)
        _read_answer(client, replace(asked, marks=marks if last else Marks()), needed=whole)
        if not last:
            client.start_next_cycle()


def _requests(sent: bytes) -> Iterator[tuple[Asked, bool]]:
    """Give the requests, and whether each is whole."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(sent)
    try:
        while isinstance(event := server.next_event(), h11.Request):
            body, end = b"", server.next_event()
            while isinstance(end, h11.Data):
                body, end = body + bytes(end.data), server.next_event()
            whole = isinstance(end, h11.EndOfMessage)
            yield Asked.of(event.method.decode(), event.target.decode(), body), whole
            if not whole:
                return
            server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
            if server.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                return
            server.start_next_cycle()
    except h11.RemoteProtocolError:
        yield Asked("GET", "*"), False


def _read_answer(client: h11.Connection, asked: Asked, *, needed: bool) -> None:
    client.send(h11.Request(method=asked.method, target=quote(asked.path), headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    reading: Reading | None = None
    chunk = b""
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                reading = Reading(asked, event.status_code, headers)
            elif isinstance(event, h11.Data):
                assert reading is not None
                reading.feed(bytes(event.data))
                chunk += bytes(event.data)
                if event.chunk_end:
                    reading.chunk(chunk)
                    chunk = b""
            elif not isinstance(event, h11.InformationalResponse):
                break  # there is no more
    except h11.RemoteProtocolError as problem:
        # That the connection ends too early is such a problem too.
        needed = needed or reading is not None
        check(asked.marks.cut or not needed, f"no HTTP, or cut: {problem}; the request: {asked}")
        return
    if reading is None:
        check(asked.marks.cut or not needed, "no answer: it has to be marked as cut")
    elif isinstance(event, h11.EndOfMessage):
        reading.end()
    else:
        reading.cut()


class Socket(socket.socket):
    """A connection whose answers are read when `with` closes it."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.settimeout(20)
        self.connect(("127.0.0.1", port))
        self._marks = current_marks()
        self._sent = bytearray()
        self._received = bytearray()
        self._over = False

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        self._sent += data
        super().sendall(data, flags)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(size, flags)
        self._received += data
        self._over = self._over or not data
        return data

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if error[0] is None:
            read_connection(bytes(self._sent), bytes(self._received), closed=self._over, marks=self._marks)


class Tap:
    """A port through which other programs reach a server; `with` serves, and reads all answers in the end."""

    def __init__(self, port: int) -> None:
        recordings: list[Recording] = []

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                recordings.append(recording := Recording(self.request, port))
                recording.run()

        self._recordings = recordings
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        for recording in self._recordings:
            recording.close()
        self._server.server_close()
        if error[0] is None:
            self.read()

    def read(self) -> None:
        """Close all connections, and read their answers."""
        recordings, self._recordings[:] = self._recordings[:], []
        for recording in recordings:
            recording.close()
            recording.read()


class Recording:
    """One connection through a tap."""

    def __init__(self, client: socket.socket, port: int) -> None:
        self._client = client
        self._server = socket.create_connection(("127.0.0.1", port))
        self._sent = bytearray()
        self._received = bytearray()
        self._closed_first: socket.socket | None = None
        self._marks = Marks()

    def run(self) -> None:
        """Take bytes from one side to the other until one of them closes."""
        back = threading.Thread(target=self._copy, args=(self._server, self._client, self._received))
        back.start()
        self._copy(self._client, self._server, self._sent)
        back.join()
        self._server.close()

    def _copy(self, source: socket.socket, target: socket.socket, record: bytearray) -> None:
        closed = source
        with suppress(OSError):
            while data := source.recv(65536):
                record += data
                if source is self._client:
                    self._marks = current_marks()
                closed = target  # should it not take them
                target.sendall(data)
                closed = source
        self._closed_first = self._closed_first or closed
        self.close()

    def close(self) -> None:
        """Close both sides."""
        for side in (self._client, self._server):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def read(self) -> None:
        """Read its answers; what a test said when the last of them was asked for is meant for that."""
        closed = self._closed_first is self._server
        read_connection(bytes(self._sent), bytes(self._received), closed=closed, marks=self._marks)
