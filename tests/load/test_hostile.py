"""Clients that want too much: each is refused, at a cost that is known, and the others notice nothing."""

from __future__ import annotations

import gzip
import json
import socket

import pytest
from tests.load.conftest import MB, Scale, Usage, connection, head
from tests.wire.conftest import Proxy

pytestmark = pytest.mark.load

# What a process may take for a moment, for one request that is refused.
REFUSED_BYTES = 200 * MB
HEAD_BYTES = 1 << 20


def answer(sock: socket.socket) -> bytes:
    """Read until the bridge has closed the connection."""
    pieces = []
    try:
        while piece := sock.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        # It has closed with bytes of ours unread.
        pass
    return b"".join(pieces)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_body_that_becomes_large(proxy: Proxy, usage: Usage, scale: Scale, path: str) -> None:
    body = gzip.compress(bytes(scale(400, 1_000) * MB))
    fields = ("Content-Type: application/json", "Content-Encoding: gzip", f"Content-Length: {len(body)}")
    usage.forget_most()
    before = usage.memory
    with connection(proxy) as sock:
        sock.sendall(head("POST", path, *fields, "Connection: close") + b"\r\n" + body)
        got = answer(sock)
    assert got.split(b" ", 2)[1] in (b"413", b"400")
    assert "error" in json.loads(got.partition(b"\r\n\r\n")[2])
    assert usage.most_memory - before < REFUSED_BYTES


@pytest.mark.parametrize("what", ["lines", "one line", "the path"])
def test_a_head_without_an_end(proxy: Proxy, usage: Usage, what: str) -> None:
    line = b"X: y\r\n" * 1000 if what == "lines" else b"y" * 8000
    begin = b"GET /" if what == "the path" else head("GET", "/api/version") + b"X: "
    usage.forget_most()
    before, sent = usage.memory, 0
    with connection(proxy) as sock:
        sock.sendall(begin)
        try:
            while sent < 100 * HEAD_BYTES:
                sock.sendall(line)
                sent += len(line)
        except (BrokenPipeError, ConnectionResetError):
            pass
    # What is on its way when it is refused lies in the system's buffers.
    assert HEAD_BYTES < sent < 20 * HEAD_BYTES
    assert usage.most_memory - before < REFUSED_BYTES
    # The line comes after the refusal.
    proxy.wait_for_log(r"the request's headers are larger than 1,048,576 bytes \(option max_header_size\)")


def test_a_head_that_is_too_large_is_refused_with_a_reason(proxy: Proxy) -> None:
    with connection(proxy) as sock:
        # No more than is read, so that the answer is not lost with the connection.
        sock.sendall(head("GET", "/api/version") + b"X: " + b"y" * HEAD_BYTES)
        got = answer(sock)
    assert got.startswith(b"HTTP/1.1 431 ")
    assert json.loads(got.partition(b"\r\n\r\n")[2]) == {
        "error": "the request's headers are larger than 1,048,576 bytes (option max_header_size)"
    }


def test_headers_up_to_the_limit_are_taken(proxy: Proxy) -> None:
    fields = (f"X-{number}: y" for number in range(80_000))
    with connection(proxy) as sock:
        sock.sendall(head("GET", "/api/version", "Connection: close", *fields) + b"\r\n")
        assert answer(sock).startswith(b"HTTP/1.1 200 ")
