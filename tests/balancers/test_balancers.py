"""Many bridges behind HAProxy and nginx, with the ready configurations: what clients see of it is nothing."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from tests.balancers.conftest import SECONDS, Balancer, Chat, Many, Tokens, balancing, wait_until
from tests.balancers.programs import BRIDGES, PATH
from tests.wire.conftest import CHAT, HI, ROOT, Proxy, free_port, post_bytes

if sys.platform != "linux":
    pytest.skip("these balancers are tested on Linux, with /proc", allow_module_level=True)

# A part of the 1 GB that a blob may well have: what would be held of it is as plain, and the test takes seconds.
BLOB_BYTES = 256 << 20
PIECE_BYTES = 1 << 20
# What a balancer and a bridge may take more while it passes.
FLAT_BYTES = 48 << 20
# Longer than what the balancers hold in memory, so that nginx keeps it in a file; and than what HAProxy sends again.
LONG_PROMPT = "word " * 80_000
STREAMS = 6


def test_the_readme_has_them() -> None:
    readme = (ROOT / "README.md").read_text()
    for file in (ROOT / "configs" / "balancers").iterdir():
        assert f"configs/balancers/{file.name}" in readme


@pytest.mark.parametrize("check", [["haproxy", "-c", "-f"], ["nginx", "-t", "-c"]], ids=lambda check: check[0])
def test_they_are_taken_without_a_warning(check: list[str], tmp_path: Path) -> None:
    if shutil.which(check[0], path=PATH) is None:
        pytest.skip(f"{check[0]} is not installed")
    file = next((ROOT / "configs" / "balancers").glob(f"{check[0]}.*"))
    folder = ["-p", str(tmp_path)] if check[0] == "nginx" else []
    done = subprocess.run(
        [*check, str(file), *folder], capture_output=True, text=True, env=os.environ | {"PATH": PATH}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("warn|alert", done.stdout + done.stderr, re.IGNORECASE)


# Streams


def test_each_line_comes_before_the_next_token(many: Many, balancer: Balancer) -> None:
    """LM Studio sends the next token when the client has read the last one's line, on as many streams as bridges."""
    answers = [Tokens(8) for _ in BRIDGES]
    for n, tokens in enumerate(answers):
        many.sim.script(tokens.steps(), match=f"stream {n}")
    chats = [Chat(balancer.port, f"stream {n}") for n in range(len(answers))]
    for step in range(8):
        for chat, tokens in zip(chats, answers, strict=True):
            tokens.events[step].set()
            line = chat.line()
            assert line is not None
            assert line["message"]["content"] == f"{step} "
    for chat in chats:
        assert chat.rest() == ""


@pytest.mark.parametrize("tokens", [0, 2], ids=["before the first token", "in the middle"])
def test_a_client_that_leaves_frees_lm_studio(many: Many, balancer: Balancer, tokens: int) -> None:
    answer = Tokens(tokens + 1)
    many.sim.script(answer.steps())
    chat = Chat(balancer.port)
    for event in answer.events[:tokens]:
        event.set()
        assert chat.line() is not None
    wait_until(lambda: many.sim.active)
    chat.leave()
    wait_until(lambda: not many.sim.active)


# Connections


def peers(ports: list[int]) -> set[tuple[int, int]]:
    """Return the connections to servers on these ports, those that have just ended too: ports of both ends."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [tuple(int(end.rpartition(":")[2], 16) for end in line.split()[1:3]) for line in lines]
    return {(here, there) for here, there in ends if there in ports}


def test_connections_are_kept(many: Many, balancer: Balancer) -> None:
    before = peers(many.ports)
    with balancer.client() as client:
        for _ in range(40):
            answer = client.post("/api/chat", json={"model": CHAT, "messages": HI, "stream": False})
            assert answer.status_code == 200
    # One of each bridge, and HAProxy's checks.
    assert len(peers(many.ports) - before) < 20


def test_an_alias_is_there_at_once(many: Many, balancer: Balancer) -> None:
    for n in range(4):
        name = f"alias-{n}"
        with balancer.client() as client:
            made = client.post("/api/create", json={"model": name, "from": CHAT, "system": name, "stream": False})
            assert made.json() == {"status": "success"}
        for _ in range(len(BRIDGES) + 1):
            with balancer.client() as client:
                answer = client.post("/api/chat", json={"model": name, "messages": HI, "stream": False})
                assert answer.status_code == 200
            assert name in many.sim.requests[-1].body.decode()
        with balancer.client() as client:
            assert client.request("DELETE", "/api/delete", json={"model": name}).status_code == 200
        for bridge in many.bridges:
            with bridge.client() as client:
                assert client.post("/api/show", json={"model": name}).status_code == 404


def test_a_long_head_comes_through(balancer: Balancer) -> None:
    """That of a browser has the cookies of all programs on the machine."""
    with balancer.client() as client:
        assert client.get("/api/version", headers={"Cookie": "x" * 100_000}).status_code == 200


@pytest.mark.parametrize("program", ["haproxy", "nginx"])
def test_numbers_for_this_machine_only_are_not_given_to_others(many: Many, tmp_path: Path, program: str) -> None:
    pytest.importorskip("prometheus_client", reason="the library of the extra `metrics` is not installed")
    with (
        Proxy(many.sim.url, state_dir=tmp_path, options={"metrics": "local"}) as bridge,
        balancing(program, tmp_path, [bridge.port] * len(BRIDGES)) as balancer,
    ):
        for server, status in ((bridge, 200), (balancer, 403)):
            with server.client() as client:
                assert client.get("/metrics").status_code == status


def test_keys_and_hosts_are_checked_as_without_one(balancer: Balancer) -> None:
    """The name that the client has used arrives."""
    with balancer.client() as client:
        refused = client.get("/api/tags", headers={"Host": "evil.example"})
        assert (refused.status_code, "allowed_hosts" in refused.text) == (403, True)
        assert client.get("/api/tags", headers={"Host": "box.local:11434"}).status_code == 200


# Blobs


def peak(pid: int) -> int:
    """Return the most memory that a process has held since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_a_blob_passes_in_flat_memory(many: Many, balancer: Balancer) -> None:
    piece = bytes(PIECE_BYTES)
    digest = hashlib.sha256()
    for _ in range(BLOB_BYTES // PIECE_BYTES):
        digest.update(piece)
    pids = [*balancer.pids(), *(bridge.process.pid for bridge in many.bridges)]
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # begins the peak anew: proc(5)
    before = {pid: peak(pid) for pid in pids}
    path = f"/api/blobs/sha256:{digest.hexdigest()}"
    with socket.create_connection(("127.0.0.1", balancer.port), timeout=SECONDS) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BLOB_BYTES}\r\n\r\n".encode())
        for sent in range(BLOB_BYTES // PIECE_BYTES):
            sock.sendall(piece)
            if sent == BLOB_BYTES // PIECE_BYTES // 2:
                assert not [*balancer.folder.glob("body/*")], "nginx holds it on its disk"
        assert sock.makefile("rb").readline().split()[1] == b"201"
    assert {pid: peak(pid) - before[pid] for pid in pids if peak(pid) - before[pid] > FLAT_BYTES} == {}
    (blob,) = many.state_dir.glob("blobs/sha256-*")
    assert blob.stat().st_size == BLOB_BYTES
    with many.bridges[-1].client() as client:
        assert client.head(path).status_code == 200
    blob.unlink()


# Health


@pytest.mark.parametrize("program", ["haproxy", "nginx"])
def test_bridges_whose_lm_studio_is_away_still_answer(program: str, tmp_path: Path) -> None:
    """Those that do not serve are left out, a bridge without LM Studio is not; its own words reach clients."""
    away = f"http://127.0.0.1:{free_port()}"
    with Proxy(away, state_dir=tmp_path / "state") as bridge:
        ports = [free_port(), free_port(), bridge.port]
        with balancing(program, tmp_path, ports) as balancer, balancer.client() as client:
            for _ in range(6):
                assert client.get("/api/version").status_code == 200
                answer = client.post("/api/chat", json={"model": CHAT, "messages": HI})
                assert (answer.status_code, "not reachable" in answer.json()["error"]) == (503, True)


class Recorder(http.server.BaseHTTPRequestHandler):
    """A server in place of a bridge, which keeps what it is asked."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_health_checks_do_not_reach_lm_studio(many: Many, tmp_path: Path) -> None:
    """HAProxy's, that is; nginx has none. The server beside the bridges gets as many as they do."""
    with http.server.HTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        many.sim.clear()
        with balancing("haproxy", tmp_path, [*many.ports[:2], server.server_port]):
            wait_until(lambda: Recorder.asked.count(("/health/live", "localhost")) > 2)
        server.shutdown()
    assert many.sim.requests == []


# A bridge that goes


CLIENTS = 4
# Of an answer that is cut off, its head has come.
BEGUN = "EOFError(b'HTTP/1.1 200 "


class Traffic:
    """Clients that ask one short chat after the other, on kept connections and on new ones."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n % 2,), daemon=True) for n in range(CLIENTS)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def _ask(self, keeps: int) -> None:
        while not self._stop.is_set():
            with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as sock:
                is_open = True
                while is_open and not self._stop.is_set():
                    is_open = self._ask_once(sock) and bool(keeps)

    def _ask_once(self, sock: socket.socket) -> bool:
        """Ask once; return whether the connection stays open."""
        try:
            sock.sendall(post_bytes("/api/chat", {"model": CHAT, "messages": HI, "stream": False}))
            head, body = _read_answer(sock)
        except (OSError, EOFError) as e:
            self.answers.append(repr(e))
            return False
        is_whole = head.startswith(b"HTTP/1.1 200 ") and json.loads(body)["done"]
        self.answers.append("" if is_whole else (head + body).decode())
        return b"connection: close" not in head.lower()

    def goes_on(self, count: int = 40) -> None:
        """Wait until so many more answers have come."""
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted)

    @property
    def lost(self) -> list[str]:
        """What went wrong, but for answers that had begun when their bridge ended."""
        return [answer for answer in self.answers if answer and not answer.startswith(BEGUN)]


def _read_answer(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of an answer with a length. Raises EOFError."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = sock.recv(65536)
        if not received:
            raise EOFError(data)
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    while found and len(body) < int(found[1]):
        received = sock.recv(65536)
        if not received:
            raise EOFError(head)
        body += received
    return head, body


def begun(many: Many, balancer: Balancer) -> tuple[list[Chat], Tokens]:
    """Begin streams; each bridge has some of them."""
    answer = Tokens(6)
    many.sim.script(answer.steps(), match="stream")
    chats: list[Chat] = []
    for event in answer.events[:2]:
        event.set()
    for _ in range(STREAMS):
        chats.append(Chat(balancer.port, "stream"))
        assert chats[-1].line() is not None
    return chats, answer


def told_of_streams(many: Many) -> int:
    """Return how many of these streams have ended, whole or not, at the bridges that nobody kills."""
    return sum(bridge.log.count('"stream"') for bridge in many.bridges[1:])


def waiting(many: Many, balancer: Balancer, prompt: str) -> tuple[list[Chat], Tokens]:
    """Begin chats that wait for their first token."""
    answer = Tokens(3)
    many.sim.script(answer.steps(), match=prompt)
    before = many.sim.active
    chats = [Chat(balancer.port, prompt) for _ in range(STREAMS)]
    wait_until(lambda: many.sim.active == before + STREAMS)
    return chats, answer


def whole(chats: list[Chat]) -> list[str | None]:
    """Return the rest of each answer, None for one that is cut off."""
    texts: list[str | None] = []
    for chat in chats:
        text: str | None = None
        with suppress(EOFError, ConnectionError):
            text = chat.rest()
        texts.append(text)
    return texts


def test_one_that_is_killed_takes_only_its_own_streams_along(many: Many, balancer: Balancer) -> None:
    before = told_of_streams(many)
    streams, stream_answer = begun(many, balancer)
    not_begun, waiting_answer = waiting(many, balancer, "waits")
    with Traffic(balancer.port) as traffic:
        traffic.goes_on()
        many.bridges[0].process.kill()
        many.bridges[0].process.wait(SECONDS)
        traffic.goes_on()
        stream_answer.send_all()
        waiting_answer.send_all()
        texts = whole(streams)
        waited = whole(not_begun)
        many.start_again(0)
        traffic.goes_on()
    assert traffic.lost == []
    assert traffic.answers.count("") >= len(traffic.answers) - CLIENTS
    assert waited == [waiting_answer.text] * STREAMS
    assert 0 < texts.count(None) < STREAMS
    ended = texts.count("1 2 3 4 5 ")
    assert ended == STREAMS - texts.count(None)
    # A stream that the balancer had cut off would be told by its bridge, too.
    wait_until(lambda: told_of_streams(many) - before == ended)


def test_a_long_prompt_that_waits_is_asked_again(many: Many, balancer: Balancer) -> None:
    """Longer than what is held in memory. HAProxy holds no more: what it cannot send again is an error at once."""
    answer = Tokens(1)
    many.sim.script(answer.steps(), match=LONG_PROMPT[:50])
    chats = [Chat(balancer.port, LONG_PROMPT) for _ in BRIDGES]
    wait_until(lambda: many.sim.active == len(BRIDGES))
    many.bridges[0].process.kill()
    many.bridges[0].process.wait(SECONDS)
    answer.send_all()
    texts = []
    for chat in chats:
        try:
            texts.append(chat.rest())
        except AssertionError:
            texts.append(str(chat.status))
    many.start_again(0)
    expected = answer.text if "nginx" in balancer.folder.name else "502"
    assert sorted(texts) == sorted([answer.text, answer.text, expected])


def test_one_that_drains_loses_nothing(many: Many, balancer: Balancer) -> None:
    streams, stream_answer = begun(many, balancer)
    not_begun, waiting_answer = waiting(many, balancer, "waits")
    with Traffic(balancer.port) as traffic:
        traffic.goes_on()
        many.bridges[0].process.send_signal(signal.SIGTERM)
        traffic.goes_on(80)
        assert many.bridges[0].process.poll() is None, "it waits for its streams"
        stream_answer.send_all()
        waiting_answer.send_all()
        assert whole(streams) == ["1 2 3 4 5 "] * STREAMS
        assert whole(not_begun) == [waiting_answer.text] * STREAMS
        assert many.bridges[0].process.wait(SECONDS) == 0
        traffic.goes_on()
        many.start_again(0)
        traffic.goes_on()
    assert not any(traffic.answers), traffic.lost
    assert many.bridges[0].process.poll() is None
