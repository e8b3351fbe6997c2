"""Many clients, and clients that come and go: each gets its own answer, and nothing of them stays."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from tests.load.conftest import MB, Scale, Usage, connection
from tests.wire.conftest import CHAT, Proxy, content_of, ndjson, post_bytes, served
from tests.wire.web import mitmweb

from ollama_lmstudio.sim import Sim, content, sleep

pytestmark = pytest.mark.load

# What Python keeps of memory that was needed once.
KEPT_BYTES = 40 * MB
# Closed with these, a connection is reset.
LINGER_0 = struct.pack("ii", 1, 0)


def chat(text: str, *, stream: bool = True) -> bytes:
    return post_bytes("/api/chat", {"model": CHAT, "messages": [{"role": "user", "content": text}], "stream": stream})


def body(text: str, *, stream: bool = True) -> dict[str, object]:
    return {"model": CHAT, "messages": [{"role": "user", "content": text}], "stream": stream}


@pytest.fixture
def few_descriptors(proxy: Proxy, usage: Usage) -> Iterator[int]:
    """How many files and sockets are open before anything is asked, and again at the end."""
    with proxy.client() as client:
        assert client.post("/api/chat", json=body("hi")).status_code == 200
    # Its own connections to LM Studio stay for some seconds.
    before = usage.descriptors
    yield before
    proxy.wait_for(lambda: usage.descriptors <= before)


def test_idle_connections_and_streams(proxy: Proxy, usage: Usage, few_descriptors: int, sim: Sim) -> None:
    idle, active = 256, 64
    sim.script([step for n in range(20) for step in (content(f"{n} "), sleep(0.05))], match="count")
    wanted = "".join(f"{n} " for n in range(20))
    with ExitStack() as stack:
        for _ in range(idle):
            stack.enter_context(connection(proxy))
        proxy.wait_for(lambda: usage.descriptors > idle)

        def ask(number: int) -> str:
            with proxy.client(timeout=60) as client:
                return content_of(ndjson(client.post("/api/chat", json=body(f"count {number}"))))

        with ThreadPoolExecutor(active) as pool:
            assert list(pool.map(ask, range(active))) == [wanted] * active


def test_streams_whose_clients_leave(proxy: Proxy, usage: Usage, few_descriptors: int, sim: Sim, scale: Scale) -> None:
    sim.script([step for _ in range(600) for step in (content("word "), sleep(0.1))], match="leave")
    request = chat("leave")

    def leave(number: int) -> None:
        with connection(proxy) as sock:
            sock.sendall(request)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
            if number % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)

    def leave_all(count: int) -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(leave, range(count)))
        proxy.wait_for(lambda: usage.descriptors <= few_descriptors)

    leave_all(100)
    before = usage.memory
    leave_all(scale(200, 10_000))
    assert usage.memory - before < KEPT_BYTES
    # LM Studio's machine is free again.
    proxy.wait_for(lambda: not sim.active)


def test_requests_in_a_row(proxy: Proxy, usage: Usage, scale: Scale) -> None:
    with proxy.client() as client:

        def ask(count: int) -> None:
            for number in range(count):
                answer = client.post("/api/chat", json=body(f"hi {number}", stream=number % 2 == 0))
                assert answer.status_code == 200

        ask(200)
        before = usage.memory
        ask(scale(300, 10_000))
    assert usage.memory - before < KEPT_BYTES


def test_the_list_of_mitmweb_has_an_end(sim: Sim, scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> None:
    most, text = 50, "x" * 20_000
    options = {"max_flows": str(most)}
    with mitmweb(sim.url, state_dir=tmp_path_factory.mktemp("state"), options=options) as (proxy, web):
        usage = Usage(proxy.process.pid)
        with proxy.client() as client:

            def ask(first: int, count: int) -> None:
                for number in range(first, first + count):
                    client.post("/api/chat", json=body(f"{number} {text}", stream=False)).raise_for_status()

            ask(0, 4 * most)
            before = usage.memory
            count = scale(200, 10_000)
            ask(4 * most, count)
        flows = web.flows()
        assert len(flows) == most
        # Those that are left are the newest.
        assert f'"{4 * most + count - 1} xx' in web.content(flows[-1])
        assert usage.memory - before < KEPT_BYTES
        said = "The list holds the newest 50 exchanges from now on: the oldest leave it. The option max_flows"
        assert " ".join(proxy.log.split()).count(said) == 1


def test_who_reads_slowly_holds_nobody_up(proxy: Proxy, usage: Usage, sim: Sim) -> None:
    # LM Studio runs four requests of a model at once.
    readers, size = 3, 100 * MB
    sim.script([content("y" * 10_000) for _ in range(size // 10_000)], match="much")
    usage.forget_most()
    before = usage.memory
    with ExitStack() as stack:
        for _ in range(readers):
            sock = socket.socket()
            # Little fits in the system's own buffers.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", proxy.port))
            stack.callback(sock.close)
            sock.sendall(chat("much"))
            assert sock.recv(1)
        with proxy.client() as client:
            for _ in range(20):
                assert client.post("/api/chat", json=body("hi")).status_code == 200
        assert sock.recv(1)
    # Of what they were sent, the bridge holds a part only.
    assert usage.most_memory - before < readers * size // 2


def test_who_sends_slowly_holds_nobody_up(proxy: Proxy) -> None:
    request, stop = chat("slow", stream=False), threading.Event()
    with connection(proxy) as sock, ThreadPoolExecutor(1) as pool:

        def send() -> bytes:
            for byte in request:
                sock.sendall(bytes([byte]))
                stop.wait(0.005)
            return sock.recv(4096)

        answer = pool.submit(send)
        with proxy.client() as client:
            for _ in range(10):
                assert client.post("/api/chat", json=body("hi")).status_code == 200
        assert answer.result(60).startswith(b"HTTP/1.1 200 ")


class Endless(socketserver.ThreadingTCPServer):
    """A server whose stream begins, and then is one line that never ends."""

    daemon_threads = True

    def __init__(self, size: int) -> None:
        super().__init__(("127.0.0.1", 0), EndlessAnswers)
        self.size = size
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class EndlessAnswers(socketserver.StreamRequestHandler):
    server: Endless

    def handle(self) -> None:
        with suppress(OSError):
            while line := self.rfile.readline():
                path, length = line.split()[1], 0
                while field := self.rfile.readline().strip():
                    if field.lower().startswith(b"content-length:"):
                        length = int(field.partition(b":")[2])
                self.rfile.read(length)
                if path == b"/v1/chat/completions":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ")
                    while self.server.sent < self.server.size:
                        self.server.sent += self.request.send(b"x" * 65536)
                    return
                listed = {"data": [{"id": CHAT, "object": "model", "type": "llm", "state": "loaded"}], "object": "list"}
                answer = json.dumps(listed).encode() if path == b"/api/v0/models" else b"{}"
                self.wfile.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    + b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer)
                )


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_line_without_an_end(scale: Scale, path: str) -> None:
    size = scale(200, 1_000) * MB
    upstream = Endless(size)
    with served(upstream), Proxy(upstream.url) as proxy, proxy.client(timeout=60) as client:
        usage = Usage(proxy.process.pid)
        client.get("/api/tags")
        usage.forget_most()
        before, last = usage.memory, b""
        with suppress(Exception), client.stream("POST", path, json=body("hi")) as response:
            for piece in response.iter_bytes():
                last = piece
        assert usage.most_memory - before < KEPT_BYTES
        if path == "/api/chat":
            assert "max_buffer_size" in json.loads(last.splitlines()[-1])["error"]
            # LM Studio is not read any further.
            proxy.wait_for(lambda: upstream.sent < size)
