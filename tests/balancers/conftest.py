"""Three bridges that share a state directory and one stand-in for LM Studio, behind the real HAProxy and nginx."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.balancers.programs import BRIDGES, command
from tests.wire.conftest import CHAT, HI, Proxy, clear, free_port, http_client, models, post_bytes

from ollama_lmstudio.sim import Sim, SimThread, Step, content, wait

# Longer than any test takes, so that what is waited for is told by the test.
SECONDS = 60
PARALLEL = 64


@dataclass
class Balancer:
    """A balancer's process, which serves on `port`."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def pids(self) -> list[int]:
        """Return the ids of its processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def client(self) -> httpx.Client:
        """Return a client of it."""
        return http_client(base_url=f"http://127.0.0.1:{self.port}", timeout=SECONDS)


@contextmanager
def balancing(program: str, folder: Path, bridges: Sequence[int]) -> Iterator[Balancer]:
    """Run a balancer in front of bridges on these ports."""
    port = free_port()
    if (arguments := command(program, folder, port, bridges)) is None:
        pytest.skip(f"{program} is not installed (Debian's package {program})")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    balancer = Balancer(process, port, folder)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            with balancer.client() as client:
                return client.get("/api/version").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers)
        yield balancer
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait_until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait until something is so."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("waited in vain")


@dataclass
class Many:
    """The bridges, and LM Studio behind them."""

    sim: Sim
    state_dir: Path
    bridges: list[Proxy] = field(default_factory=list)

    def start(self, port: int = 0) -> Proxy:
        """Start a bridge."""
        return Proxy(self.sim.url, state_dir=self.state_dir, port=port, options={"drain_seconds": "60"}).start()

    def start_again(self, number: int) -> None:
        """Start a bridge that has ended again, on its port."""
        self.bridges[number] = self.start(self.bridges[number].port)

    def kill(self) -> None:
        """End all bridges."""
        for bridge in self.bridges:
            bridge.process.kill()
            bridge.process.wait(SECONDS)

    def served(self) -> list[int]:
        """Return how many chats each bridge has begun and told of."""
        return [bridge.log.count("/api/chat ") for bridge in self.bridges]

    @property
    def ports(self) -> list[int]:
        """Where they serve."""
        return [bridge.port for bridge in self.bridges]


@pytest.fixture(scope="session")
def all_bridges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    with SimThread(models=models()) as sim, ExitStack() as stack:
        many = Many(sim, tmp_path_factory.mktemp("state"))
        stack.callback(many.kill)
        for _ in BRIDGES:
            many.bridges.append(many.start())
        yield many


@pytest.fixture(scope="session", params=["haproxy", "nginx"])
def one_balancer(
    request: pytest.FixtureRequest, all_bridges: Many, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    folder = tmp_path_factory.mktemp(request.param)
    with balancing(request.param, folder, all_bridges.ports) as balancer:
        yield balancer


@pytest.fixture
def many(all_bridges: Many) -> Iterator[Many]:
    """The bridges, of which none has ended, with LM Studio's model loaded and nothing scripted."""
    sim = all_bridges.sim
    clear(sim)
    sim.load(CHAT).parallel = PARALLEL
    yield all_bridges
    clear(sim)
    assert not sim.failures


@pytest.fixture
def balancer(one_balancer: Balancer, many: Many) -> Balancer:
    """A balancer that knows that all bridges serve."""

    def all_serve() -> bool:
        before = many.served()
        with one_balancer.client() as client:
            for _ in BRIDGES:
                assert client.post("/api/chat", json={"model": CHAT, "messages": HI, "stream": False}).is_success
        wait_until(lambda: sum(many.served()) >= sum(before) + len(BRIDGES))
        return all(now > then for then, now in zip(before, many.served(), strict=True))

    wait_until(all_serve)
    many.sim.clear()
    return one_balancer


class Tokens:
    """An answer of numbered tokens, each of which LM Studio sends when it is told to."""

    def __init__(self, count: int) -> None:
        self.events = [threading.Event() for _ in range(count)]
        self.text = "".join(f"{n} " for n in range(count))

    def steps(self) -> list[Step]:
        """Return the steps for the stand-in."""
        return [step for n, event in enumerate(self.events) for step in (wait(event), content(f"{n} "))]

    def send_all(self) -> None:
        """Let LM Studio send all of them."""
        for event in self.events:
            event.set()


class Chat:
    """A streamed chat by way of a balancer, or of a bridge; its answer is read line by line."""

    def __init__(self, port: int, prompt: str = "hi", **fields: Any) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        body = {"model": CHAT, "messages": [{"role": "user", "content": prompt}], **fields}
        sock.sendall(post_bytes("/api/chat", body))
        self._file = sock.makefile("rb")
        # Open until the file is closed.
        sock.close()
        self.status: int | None = None

    def _head(self) -> int:
        status = int(self._file.readline().split()[1])
        while self._file.readline() not in (b"\r\n", b""):
            pass
        return status

    def line(self) -> dict[str, Any] | None:
        """Return the next line, which is a chunk of its own or one of several; None at the end of a whole answer.

        Raises EOFError where the answer ends before that.
        """
        if self.status is None:
            self.status = self._head()
            assert self.status == 200
        while True:
            text = self._file.readline()
            if text.startswith(b"{"):
                found: dict[str, Any] = json.loads(text)
                return found
            if text == b"0\r\n":
                return None
            if not text:
                raise EOFError

    def rest(self) -> str:
        """Return the text of all lines from here to the end. Raises EOFError where the answer is cut off."""
        text = ""
        with self._file:
            while line := self.line():
                assert "error" not in line, line
                text += line["message"]["content"]
        return text

    def leave(self) -> None:
        """Close the connection."""
        self._file.close()
