"""When models are loaded and unloaded: one load at a time, reference counts, `keep_alive` timers.

LM Studio loads on demand and unloads by its own time to live. A model is loaded explicitly only for a request without a
prompt, for `keep_alive: -1`, for a `num_ctx` that is to be used, and where loading on demand is switched off. It is
unloaded explicitly only for a `keep_alive` that ends before LM Studio's time to live.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from .lmstudio.cache import CatalogCache
from .lmstudio.catalog import Model, Resolution
from .lmstudio.client import Client
from .lmstudio.errors import LMStudioError, is_model_not_found, is_no_models_loaded
from .ollama.durations import KeepAlive
from .tasks import Tasks

# After LM Studio has refused to load on demand, models are loaded explicitly for this long: one extra call a request.
# Then it is tried again, as the user may have switched loading on demand on, which LM Studio does not report.
NOT_ON_DEMAND_SECONDS = 300
# A model is unloaded this much later than its `keep_alive` says: by then LM Studio's own time to live, which counts in
# whole seconds, has mostly ended and nothing is left to do.
UNLOAD_DELAY_SECONDS = 1

LOAD_ABANDONED = "the load was not waited for, since the bridge was stopped or given another LM Studio: ask again"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Use:
    """The requests that use a model, and the seconds that it stays after the last of them.

    `keep_seconds` is None where LM Studio's own time to live decides.
    """

    active: int = 0
    keep_seconds: float | None = None
    timer: asyncio.TimerHandle | None = None

    def cancel_timer(self) -> None:
        """Cancel the unload that is scheduled, if one is."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def wants_load(error: LMStudioError) -> bool:
    """Return whether LM Studio refused a model that it lists, because it does not load on demand."""
    return is_no_models_loaded(error) or is_model_not_found(error)


class ModelLifetimes:
    """Load and unload models, one at a time, and count the requests that use each.

    Nothing of it is stored: a model whose `keep_alive` has not ended yet stays loaded when this process ends.
    """

    def __init__(self, client: Client, catalog: CatalogCache) -> None:
        self._client = client
        self._catalog = catalog
        self._lock = asyncio.Lock()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unloading: dict[str, asyncio.Event] = {}
        self._uses: dict[str, _Use] = {}
        self._tasks = Tasks()
        self._not_on_demand_until = 0.0

    @property
    def on_demand(self) -> bool:
        """Whether LM Studio loads on demand, as far as is known."""
        return time.monotonic() >= self._not_on_demand_until

    def not_on_demand(self) -> None:
        """Remember for NOT_ON_DEMAND_SECONDS that LM Studio refused to load on demand."""
        self._not_on_demand_until = time.monotonic() + NOT_ON_DEMAND_SECONDS

    async def prepare(
        self, model: Resolution, keep_alive: KeepAlive | None, *, timeout: float, context_length: int | None = None
    ) -> None:
        """Load a model before a request, where LM Studio would not load it on demand, or not in the way asked for.

        A caller that calls `acquire` next, without awaiting anything, can rely on the model to stay loaded until then.
        Raises LMStudioError, LMStudioTimeout after `timeout` seconds.
        """
        explicit = context_length is not None or (keep_alive is not None and keep_alive.forever)
        with self.using(model.model):
            unloaded = await self.wait_for_unload(model.model)
            if (explicit or not self.on_demand) and (unloaded or not model.model.loaded):
                await self.ensure_loaded(model, timeout, context_length)

    async def ensure_loaded(self, model: Resolution, timeout: float, context_length: int | None = None) -> None:
        """Load a model unless it is loaded; concurrent callers share one load.

        Raises LMStudioError, LMStudioTimeout after `timeout` seconds; LM Studio goes on with that load.
        """
        key = model.model.key
        if key not in self._loading:
            task = asyncio.get_running_loop().create_task(self._load(model, timeout, context_length))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._load_ended(key, done))
        loading = self._loading[key]
        try:
            # Shielded: a caller that is cancelled must not cancel the load for the others.
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if loading.cancelled() and caller is not None and not caller.cancelling():
                raise LMStudioError(HTTPStatus.SERVICE_UNAVAILABLE, LOAD_ABANDONED) from None
            raise

    def _load_ended(self, key: str, task: asyncio.Task[None]) -> None:
        self._loading.pop(key, None)
        if not task.cancelled():
            task.exception()  # retrieved: every caller has raised it, if any is left

    async def _load(self, model: Resolution, timeout: float, context_length: int | None) -> None:
        # LM Studio aborts two loads of different models that overlap.
        async with self._lock:
            if (await self._refreshed(model.model)).loaded:
                return
            try:
                await self._client.load(model.id, context_length, timeout=timeout)
            finally:
                self._catalog.invalidate()

    async def unload(self, model: Model) -> None:
        """Unload every instance of a model, even if it is in use; one that is gone already is no error."""
        async with self._lock:
            await self._unload(await self._refreshed(model))

    async def unload_when_idle(self, model: Model) -> None:
        """Unload a model now, or when the last request that uses it has ended."""
        use = self._uses.setdefault(model.key, _Use())
        use.keep_seconds = 0
        use.cancel_timer()
        if not use.active:
            await self._unload_if_due(model)

    async def wait_for_unload(self, model: Model) -> bool:
        """Wait for the unload of a model that has begun, and return whether there was one; it may have failed.

        An unload that has not begun yet does not begin while the model is in use.
        """
        ended = self._unloading.get(model.key)
        if ended is None:
            return False
        await ended.wait()
        return True

    async def _unload_if_due(self, model: Model) -> None:
        """Unload a model, unless a request has acquired it meanwhile: then the end of that one decides."""
        async with self._lock:
            if not self._is_due(model):
                return
            try:
                current = await self._refreshed(model)
            finally:
                # Checked again: requests also come while the list is read.
                if due := self._is_due(model):
                    del self._uses[model.key]
            if due:
                await self._unload(current)

    def _is_due(self, model: Model) -> bool:
        use = self._uses.get(model.key)
        return use is not None and use.active == 0 and use.timer is None

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

    async def _refreshed(self, model: Model) -> Model:
        """Return the model as LM Studio lists it now."""
        catalog = await self._catalog.refresh()
        return next((m for m in catalog.models if m.key == model.key), model)

    def acquire(self, model: Model, keep_alive: KeepAlive | None) -> None:
        """Count a request that uses a model: no timer unloads it before `release` has been called for each."""
        use = self._uses.setdefault(model.key, _Use())
        use.active += 1
        use.cancel_timer()
        if keep_alive is not None:
            use.keep_seconds = None if keep_alive.forever else keep_alive.seconds

    def active_requests(self, key: str) -> int:
        """Return how many requests use a model now."""
        use = self._uses.get(key)
        return use.active if use else 0

    def release(self, model: Model) -> None:
        """Count the end of a request that used a model; the end of the last one starts the timer of `keep_alive`."""
        use = self._uses.get(model.key)
        if use is None:
            return  # `stop` was called in the meantime
        use.active -= 1
        if use.active > 0:
            return
        if use.keep_seconds is None:
            del self._uses[model.key]
            return
        delay = math.ceil(use.keep_seconds) + UNLOAD_DELAY_SECONDS if use.keep_seconds else 0
        use.timer = asyncio.get_running_loop().call_later(delay, self._timer_ended, model, use)

    @contextmanager
    def using(self, model: Model) -> Iterator[None]:
        """Return a context in which a model is in use, with the `keep_alive` that it has.

        A caller that calls `acquire` right after it, without awaiting anything, has used the model without a gap.
        """
        self.acquire(model, None)
        try:
            yield
        finally:
            self.release(model)

    def _timer_ended(self, model: Model, use: _Use) -> None:
        use.timer = None
        self._tasks.spawn(self._unload_after_timer(model))

    async def _unload_after_timer(self, model: Model) -> None:
        try:
            await self._unload_if_due(model)
        except LMStudioError as e:
            logger.warning("%s could not be unloaded: %s", model.key, e.message)

    def stop(self) -> None:
        """Cancel all loads, unloads and timers, and log which models stay loaded because of it."""
        kept = [key for key, use in self._uses.items() if not use.active]
        if kept:
            logger.info("stays loaded, since this process ends: %s", ", ".join(kept))
        for use in self._uses.values():
            use.cancel_timer()
        for task in self._loading.values():
            task.cancel()
        self._tasks.cancel()
        self._uses.clear()
