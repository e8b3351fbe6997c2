"""Accepting connections on Windows, where a client that resets while it connects would end the service.

asyncio's Proactor loop closes the listening socket when accepting fails (https://github.com/python/cpython/issues/93821,
https://github.com/mitmproxy/mitmproxy/issues/7301). The process would live on, and nothing would listen.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
from typing import Any

logger = logging.getLogger(__name__)

Accepted = tuple[socket.socket, Any]
"""A connection, and the address of its client."""

# Failures in a row after which it is waited, as asyncio's other loops wait where the system has no more descriptors.
FAILURES_AT_ONCE = 100
AGAIN_SECONDS = 1.0
# How the names of the coroutines end that wait for a connection: asyncio's own, at whose result nobody looks, so that
# each reset would be logged with a traceback, and that of this module, which leaves its trace in the same exception.
WAITING = ("accept.<locals>.accept_coro", "_accept_at_last")


class Accepting:
    """Let the running event loop go on accepting after a failure, as long as the listening socket is open.

    Other loops than Windows' do so by themselves. Without it, the port is closed until it is opened again
    (`servers.reopen`).
    """

    def __init__(self) -> None:
        self._loop: Any = None
        self._proactor: Any = None
        self._handler: Any = None

    def install(self) -> None:
        """Begin, in the running event loop."""
        loop: Any = asyncio.get_running_loop()
        proactor: Any = getattr(loop, "_proactor", None)
        if not hasattr(proactor, "accept"):
            return
        self._loop, self._proactor = loop, proactor
        self._handler = loop.get_exception_handler()
        accept = proactor.accept
        vars(proactor)["accept"] = lambda listener: loop.create_task(_accept_at_last(accept, listener))
        loop.set_exception_handler(self._report)

    def remove(self) -> None:
        """Let asyncio accept by itself again."""
        if self._proactor is not None:
            vars(self._proactor).pop("accept", None)
            if self._loop.get_exception_handler() == self._report:
                self._loop.set_exception_handler(self._handler)
            self._loop = self._proactor = self._handler = None

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # A task that has ended when it was created has no coroutine to tell.
        frames = traceback.walk_tb(error.__traceback__) if isinstance(error, OSError) else ()
        if not any(frame.f_code.co_qualname.endswith(WAITING) for frame, _ in frames):
            (self._handler or type(loop).default_exception_handler)(loop, context)


async def _accept_at_last(accept: Any, listener: socket.socket) -> Accepted:
    """Accept a connection, however often that fails."""
    failures = 0
    while True:
        try:
            accepted: Accepted = await accept(listener)
            return accepted
        except OSError as e:
            if listener.fileno() == -1:
                raise
            failures += 1
            logger.debug("a client was gone before it was accepted: %s", e)
        # A failure that has no client for its reason must not keep the loop busy.
        await asyncio.sleep(AGAIN_SECONDS if failures % FAILURES_AT_ONCE == 0 else 0)
