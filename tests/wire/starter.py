"""Start mitmproxy's tools by a fork() of a process that has imported mitmproxy already.

Each is a process of its own, with its own arguments, variables and output, and runs what its script in the environment
runs. It saves the second that the imports of mitmproxy take; the addon is imported by the tool itself. Tests of the
start itself start the tools anew, and so do all where a fork() after such imports is not safe.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

assert sys.platform == "linux", "to have fork() is not enough: on macOS it is not safe after such imports"

TOOLS = ("mitmdump", "mitmweb")
# Of a process id, and of an exit status.
DIGITS = 10


class Forked:
    """A tool that was forked, with what the tests use of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self.args = command
        self.returncode: int | None = None
        self._channel, theirs = socket.socketpair()
        output, writing = os.pipe()
        self.stdout = open(output, encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115
        with theirs:
            socket.send_fds(_starter(), [b"+"], [theirs.fileno(), writing])
        os.close(writing)
        asked = {"command": list(command), "environment": dict(environment), "directory": str(directory)}
        self._channel.sendall(json.dumps(asked).encode() + b"\n")
        self.pid = int(self._channel.recv(DIGITS, socket.MSG_WAITALL))

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status, which is negative for a signal. Raise TimeoutExpired."""
        if self.returncode is None:
            self._channel.settimeout(timeout)
            try:
                status = self._channel.recv(DIGITS)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self._channel.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@cache
def _starter() -> socket.socket:
    """Start the process that forks the tools, which ends with this one."""
    ours, theirs = socket.socketpair()
    with theirs:
        starter = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def end() -> None:
        ours.close()
        starter.wait()

    atexit.register(end)
    return ours


def _serve(control: socket.socket) -> None:
    """Fork a process for each request, until nobody can ask any more."""
    # With what is imported only when it is used, of these and of what the addon needs.
    import anyio._backends._asyncio  # noqa: F401
    import httpcore  # noqa: F401
    import httpx  # noqa: F401
    import platformdirs  # noqa: F401
    import pydantic.json_schema  # noqa: F401
    from mitmproxy import certs, options
    from mitmproxy.tools import dump, main, web  # noqa: F401

    # To check the key of the authority takes a sixth of a start. No test is about that, and no client here uses TLS.
    certs.load_pem_private_key = cache(certs.load_pem_private_key)
    certs.CertStore.from_store(Path(options.CONF_DIR).expanduser(), options.CONF_BASENAME, options.KEY_SIZE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while descriptors := socket.recv_fds(control, 1, 2)[1]:
        channel, output = descriptors
        if not os.fork():
            control.close()
            _watch(socket.socket(fileno=channel), output, main)
        os.close(channel)
        os.close(output)
        # Those that have ended: their processor time is this one's then, and in the end that of the tests.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watch(channel: socket.socket, output: int, main: Any) -> NoReturn:
    """Fork the tool, tell its process id, and in the end its status."""
    with channel.makefile("rb") as lines:
        asked = json.loads(lines.readline())
    process = os.fork()
    if not process:
        channel.close()
        _run(asked, output, main)
    os.close(output)
    # Whoever asked may have ended before.
    with suppress(BrokenPipeError):
        channel.sendall(b"%*d" % (DIGITS, process))
        channel.sendall(b"%*d" % (DIGITS, os.waitpid(process, 0)[1]))
    os._exit(0)


def _run(asked: dict[str, Any], output: int, main: Any) -> NoReturn:
    """Be the tool."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    # Those of the process that forks know what was there before, which may have been a file.
    sys.stdout, sys.stderr = _unbuffered(1, "strict"), _unbuffered(2, "backslashreplace")
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    sys.exit(getattr(main, Path(sys.argv[0]).name)())


def _unbuffered(descriptor: int, errors: str) -> io.TextIOWrapper:
    """Return a stream as Python makes it with PYTHONUNBUFFERED."""
    raw: Any = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, "utf-8", errors, write_through=True)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
