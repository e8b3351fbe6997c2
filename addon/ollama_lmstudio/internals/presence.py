"""Who answers at an address of this machine: this process, another one, or nobody.

It takes no request, which would be in the list of flows and would need a key: mitmproxy knows the clients that are
connected to this process, and a connection that it does not know was taken by another.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from enum import Enum, auto
from typing import Any

from . import connections

# Windows tries a connection that is refused again and again: it takes two seconds.
DIAL_SECONDS = 5.0
# mitmproxy takes a connection, and forgets one that was closed, within a few turns of the event loop.
LOOKS = 100
LOOK_SECONDS = 0.01


class Presence(Enum):
    """Who answers at an address."""

    NOBODY = auto()
    THIS = auto()
    ANOTHER = auto()


async def at(host: str, port: int) -> Presence:
    """Return who answers at an address.

    Without the list of mitmproxy's connections, this process is taken for another.
    """
    loop, logger = asyncio.get_running_loop(), logging.getLogger(Silence.LOGGER)
    try:
        (family, kind, protocol, _, address), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = socket.socket(family, kind, protocol)
    except OSError:
        return Presence.NOBODY
    with sock:
        sock.setblocking(False)
        try:
            # The port is known before mitmproxy can see the connection.
            sock.bind(("", 0))
        except OSError:
            return Presence.NOBODY
        silence = Silence(sock.getsockname()[1])
        logger.addFilter(silence)
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                await loop.sock_connect(sock, address)
            name = sock.getsockname()
            is_known = await _becomes(name, known=True)
            sock.close()
            await _becomes(name, known=False)
        except (OSError, TimeoutError):
            return Presence.NOBODY
        finally:
            logger.removeFilter(silence)
    return Presence.THIS if is_known else Presence.ANOTHER


async def _becomes(name: Any, *, known: bool) -> bool:
    """Wait until mitmproxy knows a client of this name, or knows it no more; return whether that was so in time."""
    for _ in range(LOOKS):
        if _is_known(name) is known:
            return True
        await asyncio.sleep(LOOK_SECONDS)
    return False


def _is_known(name: Any) -> bool:
    clients = (getattr(handler, "client", None) for handler in connections.by_id().values())
    return any(tuple(getattr(client, "peername", ()) or ())[:2] == tuple(name)[:2] for client in clients)


class Silence(logging.Filter):
    """Keep mitmproxy from logging that the client with this port has come and gone."""

    LOGGER = "mitmproxy.proxy.server"

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def filter(self, record: logging.LogRecord) -> bool:
        return self._port not in (getattr(record, "client", None) or ())
