"""Background tasks: kept until they end, logged if they fail, cancelled together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """The background tasks of one owner.

    The event loop holds only weak references to its tasks (asyncio.create_task's documentation), so that a task which
    nobody else holds may be collected in the middle of its work. Every method is synchronous: mitmproxy's `running` and
    `done` hooks cannot be coroutines, because a reload invokes them synchronously.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in the background; return its task, which need not be kept."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def cancel(self) -> None:
        """Cancel all tasks that have not ended. They end in the next turns of the event loop, not in this call."""
        for task in tuple(self._tasks):
            task.cancel()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task in the background failed: %s", error, exc_info=error)
