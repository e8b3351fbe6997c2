"""The order in which mitmproxy dials the addresses of `localhost`.

It connects with asyncio, which tries the addresses of a name one after another, in the order in which the event loop's
method `getaddrinfo` gives them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

NAMES = ("localhost", b"localhost")


class LocalhostOrder:
    """Let the running event loop resolve `localhost` to these addresses, in this order (RFC 6761 6.3).

    Without it, where the system names ::1 first, as Windows does, each connection to an LM Studio that listens on IPv4
    waits two seconds for the refusal of ::1.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._loop: Any = None

    def install(self) -> None:
        """Begin, in the running event loop."""
        loop: Any = asyncio.get_running_loop()
        resolve = loop.getaddrinfo

        async def getaddrinfo(host: Any, port: Any, **hints: Any) -> list[Any]:
            # With flags, the addresses are to be listened on.
            if host not in NAMES or hints.get("flags"):
                return list(await resolve(host, port, **hints))
            found: list[Any] = []
            for address in self._addresses:
                # Of a family that is not wanted, or not supported.
                with suppress(socket.gaierror):
                    found += await resolve(address, port, **hints)
            return found or list(await resolve(host, port, **hints))

        # An event loop of another library may not let itself be changed.
        with suppress(AttributeError):
            loop.getaddrinfo = getaddrinfo
            self._loop = loop

    def remove(self) -> None:
        """Let the system's order decide again."""
        if self._loop is not None:
            vars(self._loop).pop("getaddrinfo", None)
            self._loop = None
