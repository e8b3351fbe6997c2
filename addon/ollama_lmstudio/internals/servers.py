"""mitmproxy's listening servers: the address they are told, starting them, and why one does not run.

`mitmproxy.proxy.mode_specs` is documented; the proxyserver addon's methods and its log are not.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mitmproxy import ctx
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

# What asyncio says, without a number, where this machine has no such address, on newer Pythons.
NO_ADDRESS_BOUND = "could not bind on any address out of "


def reverse_address() -> tuple[str, int | None] | None:
    """Return host and port of the first reverse mode in mitmproxy's options; an empty host is every address.

    Those are of both families.
    """
    for mode in map(ProxyMode.parse, ctx.options.mode):
        if isinstance(mode, ReverseMode):
            return mode.listen_host(ctx.options.listen_host), mode.listen_port(ctx.options.listen_port)
    return None


def cancel_start() -> None:
    """Cancel the start of servers that have no port yet.

    On Python 3.12 and newer, mitmproxy begins to start its forward proxy on port 8080 before the script is loaded.
    Where no `listen_host` is given, asyncio looks up the addresses in a thread first, so that the script comes in
    between. With a `listen_host` the port is bound already, and cancelling would leave it bound: `start` closes it.
    Without this function, the forward proxy is open until `start` has closed it.
    """
    if ctx.options.listen_host:
        return
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == "ServerInstance.start":
            task.cancel()


async def start() -> bool:
    """Start a server for each mode in the options, and stop those of other modes; return whether all of them run.

    Without it, on mitmproxy 12 the script is loaded after the server of the default mode has been started, and the mode
    that the script sets would be served only after the next change of an option.
    """
    proxyserver = ctx.master.addons.get("proxyserver")
    if proxyserver is None:
        return True
    # Its result covers the servers that are stopped, too.
    await proxyserver.setup_servers()
    return all(server.is_running for server in proxyserver.servers)


def failures() -> dict[str, int]:
    """Return the errors of the servers that do not run, as mitmproxy logs them, each with its server's port.

    Without it, the held log records are repeated as they are, and a port that Ollama has is not explained.
    """
    found = {}
    for server in _servers():
        error = getattr(server, "last_exception", None)
        if error is not None and not server.is_running:
            found[str(error)] = server.mode.listen_port(ctx.options.listen_port) or 0
    return found


def errno_of(message: str) -> int | None:
    """Return the number of the system's error behind one of `failures`. Without it, a port is not said to be taken."""
    errors = (getattr(server, "last_exception", None) for server in _servers())
    number = next((e.errno for e in errors if isinstance(e, OSError) and str(e) == message), None)
    return errno.EADDRNOTAVAIL if number is None and NO_ADDRESS_BOUND in message else number


def free_port(hosts: Sequence[str], ports: Iterable[int]) -> int | None:
    """Return the first of these ports that can be listened on at the first address, and that no other one has taken.

    Windows and macOS let a server have a port of every address where another one has it of 127.0.0.1.
    """
    host, *others = hosts
    return next(
        (port for port in ports if not _bind(host, port) and all(_bind(o, port) != errno.EADDRINUSE for o in others)),
        None,
    )


def _bind(host: str, port: int) -> int:
    """Return why a port cannot be listened on: the number of the system's error; 0 if it can."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, port))
    except (OSError, OverflowError) as e:
        return getattr(e, "errno", None) or errno.EINVAL
    return 0


def _servers() -> Iterable[Any]:
    return getattr(ctx.master.addons.get("proxyserver"), "servers", ())


def is_serving() -> bool:
    """Return whether mitmproxy listens on any port; without its list of servers, the doctor says that it does not."""
    return any(server.is_running and not is_closed(server) for server in _servers())


def is_closed(server: Any) -> bool:
    """Return whether a socket that a server listens on has been closed, though the server was not stopped."""
    return any(
        sock.fileno() == -1 for part in _parts(server) if part.is_serving() for sock in getattr(part, "sockets", ())
    )


def _parts(server: Any) -> list[Any]:
    """Return asyncio's servers of one of mitmproxy's; those of UDP are others."""
    return [part for part in getattr(server, "_servers", ()) if hasattr(part, "is_serving")]


class Reopening:
    """Open the ports again whose sockets were closed although nobody has stopped their servers.

    asyncio closes a socket when accepting fails on Windows; a system may do so when a network goes. Without this, the
    process lives on, and serves nobody.
    """

    def __init__(self) -> None:
        self._failing: weakref.WeakSet[Any] = weakref.WeakSet()

    async def look(self) -> tuple[list[int], list[str]]:
        """Open what was closed; return the ports that are open again, and why others could not be opened.

        What fails is tried again at the next look, but told once.
        """
        lock = getattr(getattr(ctx.master.addons.get("proxyserver"), "servers", None), "_lock", None)
        opened: list[int] = []
        failed: list[str] = []
        if lock is None or not any(map(self._is_lost, _servers())):
            return opened, failed
        # mitmproxy starts and stops its servers under it.
        async with lock:
            for server in filter(self._is_lost, tuple(_servers())):
                is_told = server in self._failing
                try:
                    await _restart(server)
                except Exception as e:
                    self._failing.add(server)
                    failed += [] if is_told else [str(e)]
                else:
                    self._failing.discard(server)
                    opened.append(server.mode.listen_port(ctx.options.listen_port) or 0)
        return opened, failed

    def _is_lost(self, server: Any) -> bool:
        return is_closed(server) or (server in self._failing and not server.is_running)


async def _restart(server: Any) -> None:
    for part in _parts(server):
        # Event loops cannot stop to accept at a socket that is closed.
        vars(part)["_sockets"] = [sock for sock in vars(part)["_sockets"] or () if sock.fileno() != -1]
    if server.is_running:
        await server.stop()
    await server.start()


class StartedLog(logging.Filter):
    """Hold back mitmproxy's lines about servers that were started or stopped, while `is_held` says so.

    Without it, they are shown: also that of the forward proxy on port 8080, where that could not be prevented.
    """

    LOGGER = "mitmproxy.proxy.mode_servers"

    def __init__(self, is_held: Callable[[], bool]) -> None:
        super().__init__()
        self._is_held = is_held

    def install(self) -> None:
        """Begin to hold lines back."""
        logging.getLogger(self.LOGGER).addFilter(self)

    def remove(self) -> None:
        """Let lines through again."""
        logging.getLogger(self.LOGGER).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or not self._is_held()


class FailureLog(logging.Filter):
    """Hold back every error that mitmproxy logs about starting or stopping a server, and pass its text to `failed`.

    mitmproxy ends the process for any error that is logged while it starts, and that logger has no others. Without this
    filter, on mitmproxy 12 a process ends when port 8080 is taken, although nothing is to be served there.
    """

    LOGGER = "mitmproxy.addons.proxyserver"

    def __init__(self, failed: Callable[[str], None]) -> None:
        super().__init__()
        self._failed = failed

    def install(self) -> None:
        """Begin to hold errors back."""
        logging.getLogger(self.LOGGER).addFilter(self)

    def remove(self) -> None:
        """Let errors through again."""
        logging.getLogger(self.LOGGER).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            return True
        self._failed(record.getMessage())
        return False
