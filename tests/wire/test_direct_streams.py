"""Tokens that go from LM Studio's socket to the client's past mitmproxy's events, and when mitmproxy has them again."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import mitmproxy.version
import pytest
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, HI, Proxy, StartProxy, content_of, ndjson, needs_proc, post_bytes, read_flows

from ollama_lmstudio.internals.direct_streams import MAX_WAITING_BYTES
from ollama_lmstudio.sim import Disconnect, Sim, content, sleep

CHAT_BODY = {"model": CHAT, "messages": HI}
V1_BODY = CHAT_BODY | {"stream": True}
TOKENS = 40
ANSWER = [step for number in range(TOKENS) for step in (content(f"{number} "), sleep(0.01))]
TEXT = "".join(f"{number} " for number in range(TOKENS))

# A script that counts the reads from LM Studio that mitmproxy handles, and writes their number when a flow has ended.
COUNTER = """\
from mitmproxy.proxy import events, server

reads = 0
server_event = server.ConnectionHandler.server_event


async def counted(self, event):
    global reads
    reads += isinstance(event, events.DataReceived) and event.connection is not self.client
    await server_event(self, event)


server.ConnectionHandler.server_event = counted


def requestheaders(flow):
    global reads
    reads = 0


def response(flow):
    open({path!r}, "w").write(str(reads))
"""
# Scripts that change what is streamed.
WRAPPER = """\
def responseheaders(flow):
    inner = flow.response.stream
    if callable(inner):
        flow.response.stream = lambda data: [line.replace(b"7 ", b"seven ") for line in inner(data)]
"""


@pytest.fixture
def reads(tmp_path: Path) -> Callable[[], int]:
    """How many reads from LM Studio mitmproxy has handled of the last flow, with the script `COUNTER`."""
    (tmp_path / "counter.py").write_text(COUNTER.format(path=str(tmp_path / "reads")))
    return lambda: int((tmp_path / "reads").read_text())


def text_of_v1(response: httpx.Response) -> str:
    """Give the text of a stream of /v1."""
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@pytest.mark.parametrize("script", ["", WRAPPER], ids=["nothing changed", "another script changes the stream"])
def test_mitmproxy_handles_few_reads(
    script: str, sim: Sim, start_proxy: StartProxy, tmp_path: Path, reads: Callable[[], int]
) -> None:
    (tmp_path / "script.py").write_text(script)
    proxy = start_proxy(sim.url, "-s", str(tmp_path / "counter.py"), "-s", str(tmp_path / "script.py"))
    with proxy.client() as client:
        for path, body, read in (
            ("/api/chat", CHAT_BODY, lambda response: content_of(ndjson(response))),
            ("/v1/chat/completions", V1_BODY, text_of_v1),
        ):
            sim.script(ANSWER)
            response = client.post(path, json=body)
            if script:
                assert read(response) == TEXT.replace("7 ", "seven ")
                assert reads() >= TOKENS / 2
            else:
                assert read(response) == TEXT
                assert reads() < TOKENS / 4


@pytest.mark.parametrize("option", ["proxy_debug=true", "store_streamed_bodies=true"])
def test_options_with_which_mitmproxy_keeps_the_stream(
    option: str, sim: Sim, start_proxy: StartProxy, tmp_path: Path, reads: Callable[[], int]
) -> None:
    if option.startswith("store") and mitmproxy.version.VERSION.startswith("11."):
        pytest.skip("mitmproxy 11 does not have this option")
    proxy = start_proxy(sim.url, "-s", str(tmp_path / "counter.py"), "--set", option)
    with proxy.client() as client:
        sim.script(ANSWER)
        assert content_of(ndjson(client.post("/api/chat", json=CHAT_BODY))) == TEXT
    assert reads() >= TOKENS / 2


def test_both_sides_are_kept(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    proxy = start_proxy(sim.url, "-w", str(flows))
    sim.script(ANSWER)
    with proxy.client() as client:
        response = client.post("/api/chat", json=CHAT_BODY)
    proxy.stop()
    (flow,) = (flow for flow in read_flows(flows) if flow.metadata.get("ollama_path") == "/api/chat")
    assert flow.response is not None
    assert flow.response.content == response.content
    assert flow.metadata["ollama_upstream"].count(b"data: {") >= TOKENS
    assert flow.metadata["ollama_upstream"].endswith(b"data: [DONE]\n\n")
    assert flow.metadata["ollama_upstream_size"] == len(flow.metadata["ollama_upstream"])


# Bytes as other servers may send them


class Reframed:
    """A server before the stand-in that writes each chunk of a stream in another way; only used for short answers."""

    def __init__(self, url: str, writes: Callable[[bytes], list[bytes]]) -> None:
        self._upstream = int(url.rpartition(":")[2])
        self._writes = writes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = socket.create_connection(("127.0.0.1", self._upstream))
                threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError, ValueError), client, server, server.makefile("rb") as answers:
            while line := answers.readline():
                head = line
                while line != b"\r\n":
                    line = answers.readline()
                    head += line
                client.sendall(head)
                if found := re.search(rb"(?i)content-length: (\d+)", head):
                    client.sendall(answers.read(int(found[1])))
                while not found:
                    chunk = answers.read(int(answers.readline(), 16))
                    answers.read(2)
                    for data in self._writes(chunk) if chunk else [b"0\r\n\r\n"]:
                        client.sendall(data)
                        time.sleep(0.003)
                    found = None if chunk else re.match(b"", b"")


LARGE_COMMENT = b": " + b"x" * MAX_WAITING_BYTES + b"\n\n"


@pytest.mark.parametrize(
    "writes",
    [
        lambda chunk: [b"%x\r\n%s\r\n" % (len(chunk), chunk)],
        lambda chunk: [b"%06X\r\n%s\r\n" % (len(chunk), chunk)],
        lambda chunk: [b"%x;a=b\r\n%s\r\n" % (len(chunk), chunk)],
        lambda chunk: [b"%03x" % len(chunk), b"\r", b"\n%s" % chunk[:9], chunk[9:], b"\r", b"\n"],
        lambda chunk: [b"".join(b"1\r\n%c\r\n" % byte for byte in chunk)],
        lambda chunk: [b"4\r\n%s\r\n%x\r\n%s" % (chunk[:4], len(chunk) - 4, chunk[4:]), b"\r\n"],
        lambda chunk: [b"%x\r\n" % (len(chunk) + len(LARGE_COMMENT)), LARGE_COMMENT, chunk, b"\r\n"],
    ],
    ids=["as it is", "zeros", "extension", "cut everywhere", "single bytes", "one and a half", "large"],
)
def test_other_chunks(writes: Callable[[bytes], list[bytes]], sim: Sim, start_proxy: StartProxy) -> None:
    server = Reframed(sim.url, writes)
    try:
        proxy = start_proxy(server.url)
        with proxy.client() as client:
            sim.script(ANSWER)
            assert content_of(ndjson(client.post("/api/chat", json=CHAT_BODY))) == TEXT
            assert text_of_v1(client.post("/v1/chat/completions", json=V1_BODY)) == TEXT
            # The connections are in order.
            assert client.get("/api/version").status_code == 200
            assert content_of(ndjson(client.post("/api/chat", json=CHAT_BODY))) == TEXT
    finally:
        server.close()


def test_what_is_no_chunk_ends_the_answer_with_an_error(sim: Sim, start_proxy: StartProxy) -> None:
    def writes(chunk: bytes) -> list[bytes]:
        return [b"no chunk\r\n" if b'"20 "' in chunk else b"%x\r\n%s\r\n" % (len(chunk), chunk)]

    server = Reframed(sim.url, writes)
    try:
        proxy = start_proxy(server.url)
        sim.script(ANSWER)
        lines = proxy.raw(post_bytes("/api/chat", CHAT_BODY)).lines
    finally:
        server.close()
    assert content_of(lines[:-1]) == "".join(f"{number} " for number in range(20))
    assert "LM Studio closed the connection" in lines[-1]["error"]


# Ends


@pytest.mark.parametrize("how", ["fin", "rst", "mid_line"])
def test_lm_studio_goes_in_the_middle(how: Any, proxy: Proxy, sim: Sim) -> None:
    sim.script(ANSWER)
    sim.fault(disconnect=Disconnect(after=20, how=how))
    lines = proxy.raw(post_bytes("/api/chat", CHAT_BODY)).lines
    assert content_of(lines[:-1]) == "".join(f"{number} " for number in range(20))
    assert list(lines[-1]) == ["error"]


def test_a_client_that_goes_ends_the_call(proxy: Proxy, sim: Sim) -> None:
    sim.script([step for number in range(10_000) for step in (content(f"{number} "), sleep(0.01))])
    with marked(cut=True), proxy.connect() as sock:
        sock.sendall(post_bytes("/api/chat", CHAT_BODY))
        received = b""
        while b'"20 "' not in received:
            received += sock.recv(65536)
        (record,) = sim.requests
        assert record.closed is None
    proxy.wait_for(lambda: record.closed)


@needs_proc
def test_a_client_that_does_not_read_stops_the_reading(proxy: Proxy, sim: Sim) -> None:
    """LM Studio waits then, and nothing piles up in the bridge."""
    word = "word " * 2000
    count = 10_000
    sim.script([*ANSWER, *(content(word) for _ in range(count))])
    before = resident_bytes(proxy)
    with marked(cut=True), proxy.connect() as sock:
        sock.sendall(post_bytes("/api/chat", CHAT_BODY))
        time.sleep(3)
        grown = resident_bytes(proxy) - before
    assert grown < 50 * 2**20


def resident_bytes(proxy: Proxy) -> int:
    """Give the size of the process in memory."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
