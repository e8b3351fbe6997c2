"""What the tests of the stand-in share: raw sockets, and a clock that stands still."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ollama_lmstudio.sim import Sim, SimThread, embedder, gpt_oss
from ollama_lmstudio.sim.models import SimModel

CHAT = "/v1/chat/completions"


@dataclass
class Clock:
    """A clock that only moves when told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Reply:
    """An answer as it was on the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def header_names(self) -> list[str]:
        return [name for name, _ in self.headers]

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


@dataclass
class Wire:
    """A connection to a stand-in, byte by byte."""

    url: str
    timeout: float = 5.0
    buffer: bytes = b""
    sock: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        host, port = self.url.removeprefix("http://").split(":")
        self.sock = socket.create_connection((host, int(port)), timeout=self.timeout)

    def send(
        self, method: str, path: str, body: bytes | dict[str, Any] = b"", headers: str = "", version: str = "1.1"
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/{version}\r\nHost: x\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
        self.sock.sendall(head.encode() + data)

    def fill(self) -> bytes:
        data = self.sock.recv(65536)
        self.buffer += data
        return data

    def until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            if not self.fill():
                raise EOFError(self.buffer)
        found, self.buffer = self.buffer.split(end, 1)
        return found

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self.fill():
                raise EOFError(self.buffer)
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        first, *lines = self.until(b"\r\n\r\n").decode().split("\r\n")
        headers = []
        for line in lines:
            name, _, value = line.partition(": ")
            headers.append((name, value))
        return int(first.split()[1]), headers

    def chunk(self) -> bytes:
        """Return the next chunk of a chunked body; the last one is empty. Raises EOFError if it breaks off."""
        size = int(self.until(b"\r\n"), 16)
        data = self.exactly(size)
        assert self.exactly(2) == b"\r\n"
        return data

    def chunks(self) -> list[bytes]:
        found = []
        while data := self.chunk():
            found.append(data)
        return found

    def reply(self, *, body: bool = True) -> Reply:
        status, headers = self.head()
        named = dict(headers)
        if "Transfer-Encoding" in named:
            data = b"".join(self.chunks())
        elif body:
            data = self.exactly(int(named.get("Content-Length", 0)))
        else:
            data = b""
        return Reply(status, headers, data)

    def call(self, method: str, path: str, body: bytes | dict[str, Any] = b"", headers: str = "") -> Reply:
        self.send(method, path, body, headers)
        return self.reply(body=method != "HEAD")

    def rest(self) -> bytes:
        """Return everything until the other side closes."""
        while self.fill():
            pass
        found, self.buffer = self.buffer, b""
        return found

    def close(self) -> None:
        self.sock.close()


Connect = Callable[..., Wire]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open raw connections that are closed after the test."""
    wires: list[Wire] = []

    def open_wire(sim: Sim, timeout: float = 5.0) -> Wire:
        wires.append(Wire(sim.url, timeout))
        return wires[-1]

    yield open_wire
    for wire in wires:
        wire.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sim() -> Iterator[Sim]:
    """A stand-in with a plain, a reasoning and an embedding model, none of them loaded."""
    with SimThread([SimModel("plain"), gpt_oss(), embedder()]) as running:
        yield running
    assert running.failures == []


def user(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """Return the body of a chat completion."""
    return {"model": "plain", "messages": [{"role": "user", "content": text}], **more}


def events(body: bytes) -> list[Any]:
    """Return the data of an OpenAI-style stream, parsed but for `[DONE]`."""
    found = []
    for frame in body.decode().split("\n\n"):
        for line in frame.split("\n"):
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
    return found
