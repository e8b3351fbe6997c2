"""What is new, over one WebSocket: rows of the list that have changed, and answers that somebody looks at.

The page sends `{"follow": [id, ...]}`: the exchanges that it shows. It gets `{"reset": true}` where its list is to be
forgotten, `{"rows": [...]}`, `{"removed": [id, ...]}` and, of what it follows, `{"answer": {...}}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy.http import HTTPFlow
from tornado.websocket import WebSocketClosedError

from ..internals import web_app
from ..tasks import Tasks
from ..unicode import well_formed
from .follow import Followed
from .rows import row_of

logger = logging.getLogger(__name__)

# How often the page is told of what has changed.
TELL_SECONDS = 0.25
# So many rows are made without a pause for everything else on the event loop: about 3 ms.
ROWS_AT_ONCE = 50
# Both sides of a comparison.
MAX_FOLLOWED = 4

Send = Callable[[str], Any]


class Reader:
    """One page that is open: what it has not been told yet."""

    def __init__(self, send: Send, show_body: Callable[[str], None]) -> None:
        """Tell it by `send`, which returns an awaitable; `show_body` brings a flow up to date that streams."""
        self._send = send
        self._show_body = show_body
        self._changed: dict[str, HTTPFlow] = {}
        self._removed: dict[str, None] = {}
        self._is_reset = True
        self._followed: dict[str, Followed] = {}
        self._wake = asyncio.Event()
        self._wake.set()

    def changed(self, flow: HTTPFlow) -> None:
        """Tell of a flow that is new in the list, or another one now."""
        self._changed[flow.id] = flow
        self._removed.pop(flow.id, None)
        self._wake.set()

    def removed(self, flow: HTTPFlow) -> None:
        """Tell of a flow that has left the list."""
        self._changed.pop(flow.id, None)
        self._removed[flow.id] = None
        self._wake.set()

    def reset(self) -> None:
        """Tell the whole list anew."""
        self._is_reset = True
        self._wake.set()

    def follow(self, ids: list[str]) -> None:
        """Tell what comes of these answers from now on, each from its beginning; of no others any more."""
        flows = [flow for id_ in ids[:MAX_FOLLOWED] if (flow := web_app.shown_flow(id_)) is not None]
        self._followed = {flow.id: Followed(flow) for flow in flows if _is_running(flow)}
        self._wake.set()

    async def run(self) -> None:
        """Tell what there is to tell, until the page is closed."""
        with contextlib.suppress(WebSocketClosedError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._tell_list()
                await self._tell_answers()
                if self._followed:
                    self._wake.set()
                await asyncio.sleep(TELL_SECONDS)

    async def _tell_list(self) -> None:
        if self._is_reset:
            self._is_reset = False
            self._removed.clear()
            # The newest are seen first.
            self._changed = {flow.id: flow for flow in reversed(web_app.shown_flows())}
            await self._write({"reset": True, "count": len(self._changed)})
        if self._removed:
            removed, self._removed = list(self._removed), {}
            await self._write({"removed": removed})
        while self._changed and not self._is_reset:
            batch = [self._changed.pop(id_) for id_ in tuple(self._changed)[:ROWS_AT_ONCE]]
            await self._write({"rows": [row for flow in batch if (row := _row(flow)) is not None]})
            await asyncio.sleep(0)

    async def _tell_answers(self) -> None:
        for followed in tuple(self._followed.values()):
            flow = followed.flow
            self._show_body(flow.id)
            if not _is_running(flow):
                # Its row has told the page, which asks for the whole of it.
                self._followed.pop(flow.id, None)
            elif news := followed.news():
                await self._write({"answer": news})

    async def _write(self, message: dict[str, Any]) -> None:
        await self._send(well_formed(json.dumps(message, ensure_ascii=False, separators=(",", ":"))))


def _row(flow: HTTPFlow) -> dict[str, Any] | None:
    try:
        return row_of(flow)
    except Exception:
        # Of a file that another program has written, such as one without a client. The others are shown all the same.
        logger.debug("a flow has no row", exc_info=True)
        return None


def _is_running(flow: HTTPFlow) -> bool:
    row = _row(flow)
    return bool(row and row.get("isRunning"))


class Readers:
    """All pages that are open."""

    def __init__(self, tasks: Tasks, show_body: Callable[[str], None]) -> None:
        self._tasks = tasks
        self._show_body = show_body
        self._open: dict[Reader, tuple[asyncio.Task[None], Callable[[], None]]] = {}

    def open(self, send: Send, close: Callable[[], None]) -> Reader:
        """Return what tells a page that has been opened; `close` ends its connection."""
        reader = Reader(send, self._show_body)
        self._open[reader] = self._tasks.spawn(reader.run()), close
        return reader

    def close(self, reader: Reader) -> None:
        """Tell a page no more."""
        if (found := self._open.pop(reader, None)) is not None:
            found[0].cancel()

    def close_all(self) -> None:
        """End the connections of all pages: they connect again, to the next version of the script."""
        for reader, (_, close) in tuple(self._open.items()):
            self.close(reader)
            close()

    def changed(self, flow: HTTPFlow) -> None:
        """Tell all of a flow that is new in the list, or another one now."""
        for reader in self._open:
            reader.changed(flow)

    def removed(self, flow: HTTPFlow) -> None:
        """Tell all of a flow that has left the list."""
        for reader in self._open:
            reader.removed(flow)

    def reset(self) -> None:
        """Tell all the whole list anew."""
        for reader in self._open:
            reader.reset()
