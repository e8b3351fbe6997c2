"""What SIGTERM begins: no more requests are taken, those that are under way get some time, then the process ends.

What is not done in time ends as at Ctrl-C, with its error line: ending the process is what does that.
"""

from __future__ import annotations

import logging

from ..internals import ending
from ..tasks import Tasks
from ..units import plural
from .registry import Exchanges

logger = logging.getLogger(__name__)


class Drain:
    """Drain at SIGTERM; another one, or Ctrl-C, ends at once."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges
        # Not cancelled when the script is loaded anew: the process has been told to end.
        self._tasks = Tasks()

    def install(self) -> None:
        """Begin to heed SIGTERM, until a newer version of the script does.

        A drain that has begun with an earlier version goes on, and the next signal still ends it.
        """
        self._exchanges.bridge.is_draining = ending.is_draining()
        if not ending.is_draining():
            ending.on_terminate(self._begin)

    def _begin(self) -> None:
        ending.end_at_next_signal()
        bridge = self._exchanges.bridge
        # Without settings nothing is served. What began before may go on with an earlier version of the script.
        seconds = bridge.services.settings.drain_seconds if bridge.is_configured else 0
        count = self._exchanges.drain() + sum(drain() for drain in ending.others("drain_exchanges"))
        if count and seconds:
            logger.info(
                "Stopping: no more requests are taken, and %d that %s under way may take %d s (option drain_seconds).",
                count,
                plural(count, "is", "are"),
                seconds,
            )
        self._tasks.spawn(self._drain(seconds))

    async def _drain(self, seconds: int) -> None:
        try:
            await ending.drain(seconds, lambda: self._exchanges.busy_clients)
        finally:
            ending.end()
