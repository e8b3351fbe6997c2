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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .lmstudio.cache import CatalogCache
from .lmstudio.catalog import Model, Resolution
from .lmstudio.client import Client
from .lmstudio.errors import LMStudioError, is_model_not_found
from .ollama.durations import KeepAlive

# How long it is believed that LM Studio does not load on demand.
NOT_ON_DEMAND_SECONDS = 300

GIVEN_UP = "the load was not waited for, since the bridge was stopped or given another LM Studio: ask again"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Use:
    """By how many requests a model is used, and how many seconds it is to stay afterwards (None: as LM Studio says)."""

    running: int = 0
    seconds: float | None = None
    timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """Let the time that the model is to stay run no longer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class ModelLifetimes:
    """Load and unload models, one at a time; remember how long each is to stay.

    All of it is in memory: what is to be unloaded later stays loaded when this process ends.
    """

    def __init__(self, client: Client, catalog: CatalogCache) -> None:
        self._client = client
        self._catalog = catalog
        self._lock = asyncio.Lock()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unloading: dict[str, asyncio.Event] = {}
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
        loading = self._loading[key]
        try:
            # One who leaves must not stop the others.
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if loading.cancelled() and waiting is not None and not waiting.cancelling():
                raise LMStudioError(503, GIVEN_UP) from None
            raise

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
        """Unload every instance of a model, even if it is in use; one that is gone already is no error."""
        async with self._lock:
            await self._unload(await self._current(model))

    async def expire(self, model: Model) -> None:
        """Unload a model now, or when the last request that uses it has ended."""
        use = self._uses.setdefault(model.key, _Use())
        use.seconds = 0
        use.stop_timer()
        if not use.running:
            await self._unload_unused(model)

    async def unloaded(self, model: Model) -> bool:
        """Wait while LM Studio unloads a model, and say whether it did; it may have failed.

        An unload that LM Studio has not been asked for yet does not come while the model is in use.
        """
        ended = self._unloading.get(model.key)
        if ended is None:
            return False
        await ended.wait()
        return True

    async def _unload_unused(self, model: Model) -> None:
        """Unload a model that is to stay no longer, unless a request has come since: then that one's end decides."""
        async with self._lock:
            if not self._is_due(model):
                return
            try:
                current = await self._current(model)
            finally:
                # Requests also come while the list is read.
                if due := self._is_due(model):
                    del self._uses[model.key]
            if due:
                await self._unload(current)

    def _is_due(self, model: Model) -> bool:
        use = self._uses.get(model.key)
        return use is not None and use.running == 0 and use.timer is None

    async def _unload(self, model: Model) -> None:
        ended = self._unloading[model.key] = asyncio.Event()
        try:
            for instance in model.instances:
                try:
                    await self._client.unload(instance.id)
                except LMStudioError as e:
                    if not is_model_not_found(e):
                        raise
        finally:
            self._catalog.invalidate()
            del self._unloading[model.key]
            ended.set()

    async def _current(self, model: Model) -> Model:
        """Give the model as LM Studio lists it now."""
        catalog = await self._catalog.refresh()
        return next((m for m in catalog.models if m.key == model.key), model)

    def begin(self, model: Model, keep_alive: KeepAlive | None) -> None:
        """Take note of a request that uses a model; nothing unloads it until all of them have ended."""
        use = self._uses.setdefault(model.key, _Use())
        use.running += 1
        use.stop_timer()
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
        use.timer = loop.call_later(delay, self._time_is_up, model, use)

    @contextmanager
    def used(self, model: Model) -> Iterator[None]:
        """Use a model for as long as the context lasts.

        Who calls `begin` right after it, without waiting for anything, has used the model all the time.
        """
        self.begin(model, None)
        try:
            yield
        finally:
            self.end(model)

    def _time_is_up(self, model: Model, use: _Use) -> None:
        use.timer = None
        task = asyncio.get_running_loop().create_task(self._unload_quietly(model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _unload_quietly(self, model: Model) -> None:
        try:
            await self._unload_unused(model)
        except LMStudioError as e:
            logger.warning("%s could not be unloaded: %s", model.key, e.message)

    def stop(self) -> None:
        """Forget everything, and say what stays loaded for it."""
        kept = [key for key, use in self._uses.items() if not use.running]
        if kept:
            logger.info("stays loaded, since this process ends: %s", ", ".join(kept))
        for use in self._uses.values():
            use.stop_timer()
        for task in (*self._loading.values(), *self._tasks):
            task.cancel()
        self._uses.clear()
