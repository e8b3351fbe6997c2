"""A bridge in front of the stand-in, and what its process takes: all on this machine, and all of it bounded."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.wire.conftest import Proxy, models

from ollama_lmstudio.sim import Sim, SimThread

MB = 10**6


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is asked for: seconds of it in the whole suite, minutes with `--load`."""

    whole: bool

    def __call__(self, short: int, whole: int) -> int:
        return whole if self.whole else short


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    return Scale(request.config.getoption("load"))


@pytest.fixture(scope="module")
def sim() -> Iterator[Sim]:
    with SimThread(models=models()) as sim:
        yield sim


@pytest.fixture(scope="module")
def proxy(sim: Sim) -> Iterator[Proxy]:
    with Proxy(sim.url) as proxy:
        yield proxy


class Usage:
    """What a process takes now."""

    def __init__(self, process: int) -> None:
        self._folder = Path(f"/proc/{process}")

    @property
    def memory(self) -> int:
        """Bytes of memory."""
        return self._status("VmRSS")

    @property
    def most_memory(self) -> int:
        """Most bytes of memory since `forget_most`."""
        return self._status("VmHWM")

    @property
    def descriptors(self) -> int:
        """How many files and sockets are open."""
        return len(list((self._folder / "fd").iterdir()))

    def forget_most(self) -> None:
        """Begin the measurement of `most_memory` anew (proc(5))."""
        (self._folder / "clear_refs").write_text("5", encoding="ascii")

    def _status(self, name: str) -> int:
        lines = (self._folder / "status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@pytest.fixture(scope="module")
def usage(proxy: Proxy) -> Usage:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell in /proc what a process takes")
    return Usage(proxy.process.pid)


@contextmanager
def connection(proxy: Proxy, seconds: float = 60) -> Iterator[socket.socket]:
    """Connect to a bridge, without a client's library."""
    with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=seconds)) as sock:
        yield sock


def head(method: str, path: str, *fields: str) -> bytes:
    """Give the head of a request, without the empty line at its end."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "")).encode()
