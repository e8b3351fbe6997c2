"""Answers that will never end, since LM Studio has lost their model and says nothing, as of a linked device.

Nobody can tell such silence from that of a model that thinks. But LM Studio's list does not have the model any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from http import HTTPStatus

from ..lmstudio.errors import LMStudioError
from .bridge import Bridge
from .exchange import Exchange

logger = logging.getLogger(__name__)

# How often it is looked whether anything has come, and what LM Studio's list has. An answer ends when nothing has come
# between two looks, and the list was without its model at both: a device may be back in between.
LOOK_SECONDS = 30.0
LOST = (
    "LM Studio says nothing, and has lost {} in the middle of its answer: the linked device that had it is not "
    "connected (`lms link status`), or it was unloaded. Ask again."
)


class LostModels:
    """Look at the exchanges that wait for LM Studio, and end those whose model is gone."""

    def __init__(self, exchanges: Mapping[str, Exchange], bridge: Bridge) -> None:
        self._exchanges = exchanges
        self._bridge = bridge
        self._task: asyncio.Task[None] | None = None
        self._received: dict[str, int] = {}
        self._lost: set[str] = set()

    def begin(self) -> None:
        """Look from now on, as long as there are exchanges."""
        if self._task is None or self._task.done():
            self._task = self._bridge.tasks.spawn(self._look())

    async def _look(self) -> None:
        while self._exchanges:
            await asyncio.sleep(LOOK_SECONDS)
            # Not in the task itself: it would hold exchanges, with their bodies, until it looks again.
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        waiting = {id_: exchange for id_, exchange in self._exchanges.items() if exchange.waits_for_lmstudio}
        before, self._received = self._received, {id_: found.received for id_, found in waiting.items()}
        silent = {id_: found for id_, found in waiting.items() if before.get(id_) == found.received}
        for id_ in await self._lost_of(silent):
            self._end(silent[id_])

    async def _lost_of(self, silent: Mapping[str, Exchange]) -> set[str]:
        """Return those whose model was gone at the last look, too."""
        services, before = self._bridge.services, self._lost
        self._lost = set()
        # Another server's list may lack what is just too busy to tell that it is there.
        if silent and services.catalog.tells_loaded:
            try:
                catalog = await services.catalog.refresh()
            except LMStudioError:
                return set()
            for id_, exchange in silent.items():
                model = catalog.owner(exchange.record.upstream_model)
                # Before an answer begins, its model may still be loading: LM Studio's own API tells of that, too.
                has_begun = exchange.received > 0 and exchange.record.kind == "call"
                if model is None or (has_begun and not model.loaded):
                    self._lost.add(id_)
        return self._lost & before

    def _end(self, exchange: Exchange) -> None:
        # It may have ended while the list was read.
        if exchange.flow.live and exchange.waits_for_lmstudio:
            message = LOST.format(exchange.record.upstream_model)
            logger.warning("%s", message)
            exchange.end(LMStudioError(HTTPStatus.SERVICE_UNAVAILABLE, message))
