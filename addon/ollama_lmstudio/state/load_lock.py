"""The lock of loads and unloads, which the bridges that share a state directory have in common.

Bridges that load a model at the same time would each get an instance of it, and LM Studio aborts loads of different
models that overlap.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

from .uses import SharedUses

# How often it is looked whether another bridge still has it.
LOOK_SECONDS: Final = 0.2
# How long it is waited for at most: no load takes longer.
_LIMIT_SECONDS: Final = 3600


class LoadLock:
    """An `asyncio.Lock`, and the same among bridges.

    One that another bridge holds for longer than any load takes is not waited for: its process has been stopped.
    """

    def __init__(self) -> None:
        self.shared: SharedUses | None = None
        self._lock = asyncio.Lock()
        self._held: SharedUses | None = None

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                while self.shared and not self.shared.lock():  # noqa: ASYNC110 - other processes have no event for it
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            pass
        except BaseException:
            self._lock.release()
            raise
        self._held = self.shared

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._held.unlock()
        self._lock.release()
