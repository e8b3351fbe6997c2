"""What is done for the life of models: one load at a time, timers, unloading.

LM Studio loads on demand and unloads by its own time to live, so almost nothing is done from here: only what a client
asks to have loaded without a prompt, to be kept for ever or loaded with its `num_ctx`, to be unloaded, or to be kept
for a shorter time than LM Studio would. And where loading on demand is switched off, all of the loading.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass

from ..lmstudio.cache import CatalogCache
from ..lmstudio.catalog import Model
from ..lmstudio.client import Client
from ..lmstudio.errors import LMStudioError, is_model_not_found
from ..lmstudio.resolve import Resolution
from ..ollama.durations import KeepAlive

# How long it is believed that LM Studio does not load on demand.
NOT_ON_DEMAND_SECONDS = 300

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Use:
    """By how many requests a model is used, and how many seconds it is to stay afterwards (None: as LM Studio says)."""

    running: int = 0
    seconds: float | None = None
    timer: asyncio.TimerHandle | None = None


class Life:
    """Load and unload models, one at a time; remember how long each is to stay.

    All of it is in memory: what is to be unloaded later stays loaded when this process ends.
    """

    def __init__(self, client: Client, catalog: CatalogCache) -> None:
        self._client = client
        self._catalog = catalog
        self._lock = asyncio.Lock()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._uses: dict[str, _Use] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._not_on_demand_until = 0.0

    @property
    def on_demand(self) -> bool:
        """Whether LM Studio loads on demand, as far as is known."""
        return time.monotonic() >= self._not_on_demand_until

    def not_on_demand(self) -> None:
        """Take note that LM Studio refused to load on demand; believed for a while: a person can switch that."""
        self._not_on_demand_until = time.monotonic() + NOT_ON_DEMAND_SECONDS

    async def ensure_loaded(self, found: Resolution, timeout: float, context_length: int | None = None) -> None:
        """Load a model, unless it is loaded; however many ask, once. LM Studio goes on with a load that takes too long.

        Raises LMStudioError, LMStudioTimeout after `timeout` seconds.
        """
        key = found.model.key
        if key not in self._loading:
            task = asyncio.get_running_loop().create_task(self._load(found, timeout, context_length))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        # One who leaves must not stop the others.
        await asyncio.shield(self._loading[key])

    def _loaded(self, key: str, task: asyncio.Task[None]) -> None:
        self._loading.pop(key, None)
        if not task.cancelled():
            task.exception()  # everyone who waited has it

    async def _load(self, found: Resolution, timeout: float, context_length: int | None) -> None:
        # LM Studio aborts loads of two models that meet.
        async with self._lock:
            if (await self._current(found.model)).loaded:
                return
            try:
                await self._client.load(found.id, context_length, timeout=timeout)
            finally:
                self._catalog.invalidate()

    async def unload(self, model: Model) -> None:
        """Unload every instance of a model; one that is gone already is no error."""
        async with self._lock:
            for instance in (await self._current(model)).instances:
                try:
                    await self._client.unload(instance.id)
                except LMStudioError as e:
                    if not is_model_not_found(e):
                        raise
            self._catalog.invalidate()

    async def _current(self, model: Model) -> Model:
        """Give the model as LM Studio lists it now."""
        catalog = await self._catalog.refresh()
        return next((m for m in catalog.models if m.key == model.key), model)

    def begin(self, model: Model, keep_alive: KeepAlive | None) -> None:
        """Take note of a request that uses a model; nothing unloads it until all of them have ended."""
        use = self._uses.setdefault(model.key, _Use())
        use.running += 1
        if use.timer is not None:
            use.timer.cancel()
            use.timer = None
        if keep_alive is not None:
            use.seconds = None if keep_alive.forever else keep_alive.seconds

    def running(self, key: str) -> int:
        """Give how many requests use a model now."""
        use = self._uses.get(key)
        return use.running if use else 0

    def end(self, model: Model) -> None:
        """Take note of its end: the time that the model is to stay begins, anew with each use."""
        use = self._uses.get(model.key)
        if use is None:
            return  # stopped in the meantime
        use.running -= 1
        if use.running > 0:
            return
        if use.seconds is None:
            del self._uses[model.key]
            return
        loop = asyncio.get_running_loop()
        # A little later than LM Studio's own time to live, which is whole seconds and is its own affair.
        delay = 0 if use.seconds == 0 else math.ceil(use.seconds) + 1
        use.timer = loop.call_later(delay, self._expire, model)

    def _expire(self, model: Model) -> None:
        self._uses.pop(model.key, None)
        task = asyncio.get_running_loop().create_task(self._unload_quietly(model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unload_quietly(self, model: Model) -> None:
        try:
            await self.unload(model)
        except LMStudioError as e:
            logger.warning("%s could not be unloaded: %s", model.key, e.message)

    def stop(self) -> None:
        """Forget everything, and say what stays loaded for it."""
        kept = [key for key, use in self._uses.items() if use.timer is not None]
        if kept:
            logger.info("stays loaded, since this process ends: %s", ", ".join(kept))
        for use in self._uses.values():
            if use.timer is not None:
                use.timer.cancel()
        for task in (*self._loading.values(), *self._tasks):
            task.cancel()
        self._uses.clear()
