"""When models are loaded and unloaded: one load at a time, reference counts, `keep_alive` timers.

LM Studio loads on demand, and unloads by its own time to live and its rule of eviction. A model is loaded explicitly
only for a context length that is to be used, and where loading on demand is switched off: LM Studio would keep it for
ever, so that a timer of this bridge unloads it. Other models are unloaded explicitly only for a `keep_alive` that ends
before LM Studio's time to live.

Bridges that share a state directory tell each other what they use, so that none unloads what another one uses, and the
timers of one that goes are taken over by another (state/uses.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from . import progress
from .lmstudio.cache import CatalogCache
from .lmstudio.catalog import Model, Resolution
from .lmstudio.client import Client
from .lmstudio.errors import LMStudioError, is_model_not_found, is_no_models_loaded, lacks_memory
from .lmstudio.loader import Loader
from .ollama.durations import UNLOAD, KeepAlive
from .state.load_lock import LoadLock
from .state.uses import Note, SharedUses
from .tasks import Tasks

# After LM Studio has refused to load on demand, models are loaded explicitly for this long. Then its list is looked at
# again, as the user may have switched loading on demand on.
NOT_ON_DEMAND_SECONDS = 300
# A model is unloaded this much later than its `keep_alive` says: by then LM Studio's own time to live, which counts in
# whole seconds, has mostly ended and nothing is left to do.
UNLOAD_DELAY_SECONDS = 1

# An unload that has failed is tried again after this time.
UNLOAD_AGAIN_SECONDS = 60
# How long a model that was loaded explicitly stays after its last use, if no request says it: LM Studio's own time to
# live for a model that it has loaded on demand.
EXPLICIT_KEEP_SECONDS = 3600
# How long Ollama keeps a model by default (OLLAMA_KEEP_ALIVE): what a request without a prompt asks for at least.
OLLAMA_KEEP_SECONDS = 300

# How often it is looked whether a model is loaded, while a call waits for it, and whether another bridge still uses a
# model that is due.
LOOK_SECONDS = 1.0

LOAD_ABANDONED = "the load was not waited for, since the bridge was stopped or given another LM Studio: ask again"
STILL_LOADING = (
    "{key} is not loaded yet after {seconds:g} seconds, which the option load_timeout_seconds sets. LM Studio goes on "
    "loading it: ask again, and the request waits for this load."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadTerms:
    """How a model is to be loaded: within `timeout` seconds, and with what context length, None for LM Studio's own.

    With `grow`, one that is loaded with less context is loaded anew.
    """

    timeout: float
    context_length: int | None = None
    grow: bool = False


@dataclass(slots=True)
class _Use:
    """The requests that use a model, and the last `keep_alive` that one of them has named.

    `waiting` counts those of them that wait until the model is loaded with more context; `used_at` is when the last one
    has ended, on the system's clock.
    """

    active: int = 0
    waiting: int = 0
    used_at: float = 0.0
    keep_alive: KeepAlive | None = None
    timer: asyncio.TimerHandle | None = None

    def cancel_timer(self) -> None:
        """Cancel the unload that is scheduled, if one is."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(slots=True)
class _Growth:
    """A model that is to be loaded with more context, as soon as no answer uses it.

    `changed` is set whenever that may be so, `begun` when it was so, or when nobody wants it any more.
    """

    model: Resolution
    context_length: int
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


def _kept_for(note: Note) -> float | None:
    """Return how long the model of a note stays after its last use; None for ever, or where LM Studio decides."""
    if note.keep_seconds is None:
        return EXPLICIT_KEEP_SECONDS if note.explicit else None
    return None if math.isinf(note.keep_seconds) else note.keep_seconds


def wants_load(error: LMStudioError) -> bool:
    """Return whether LM Studio refused a model that it lists, because it does not load on demand."""
    return is_no_models_loaded(error) or is_model_not_found(error)


class ModelLifetimes:
    """Load and unload models, one at a time, and count the requests that use each.

    `shared` is what other bridges tell: a model whose `keep_alive` has not ended yet when this process ends stays
    loaded until one of them unloads it.
    """

    def __init__(self, client: Client, catalog: CatalogCache, shared: SharedUses | None = None) -> None:
        self._shared = shared
        self._writes_soon = False
        self._lock = LoadLock()
        self._lock.shared = shared
        self._loader = Loader(client, catalog, self._lock)
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unloading: dict[str, asyncio.Event] = {}
        self._growths: dict[str, _Growth] = {}
        self._uses: dict[str, _Use] = {}
        self._tasks = Tasks()
        self._not_on_demand_until: float | None = None

    def not_on_demand(self) -> None:
        """Remember that LM Studio refused to load on demand."""
        self._not_on_demand_until = time.monotonic() + NOT_ON_DEMAND_SECONDS

    @property
    def loads_explicitly(self) -> bool:
        """Whether LM Studio has refused to load on demand, and not been seen to do so since."""
        return self._not_on_demand_until is not None

    async def on_demand(self, model: Model) -> bool:
        """Return whether LM Studio loads a model that is not loaded on demand, as far as is known.

        It is taken to do so until it has refused to. Then its list tells, but is not asked at each request.
        """
        if self._not_on_demand_until is None:
            return True
        if time.monotonic() < self._not_on_demand_until:
            return False
        try:
            offered = await self._loader.is_offered(model.key)
        except LMStudioError:
            offered = True
        if offered:
            self._not_on_demand_until = None
        else:
            self.not_on_demand()
        return offered

    async def prepare(self, model: Resolution, terms: LoadTerms) -> None:
        """Load a model before a request, where LM Studio would not load it on demand, or not in the way asked for.

        A caller that calls `acquire` next, without awaiting anything, can rely on the model to stay loaded until then.
        Raises LMStudioError.
        """
        with self.using(model.model):
            await self._prepare(model, terms)

    async def _prepare(self, model: Resolution, terms: LoadTerms) -> None:
        key = model.model.key
        unloaded = await self._wait_for_unload(key)
        grown = await self._grow(model, terms)
        unloaded = unloaded or grown
        is_loaded = not unloaded and (model.model.loaded or not self._loader.tells_loaded)
        is_loading = key in self._loading
        if not is_loaded and not is_loading:
            is_loading = terms.context_length is not None or not await self.on_demand(model.model)
        if is_loading:
            await self.ensure_loaded(model, terms)
            if terms.grow and not grown:
                # Another load may have come before, with less context.
                await self._grow(replace(model, model=await self._loader.refreshed(model.model)), terms)

    async def load(
        self, model: Resolution, keep_alive: KeepAlive | None, ttl: Mapping[str, int], terms: LoadTerms
    ) -> None:
        """Load a model for a request that asks for nothing else, and let the time of its `keep_alive` begin.

        LM Studio does it on demand, with `ttl`, where it can. Raises LMStudioError.
        """
        with self.using(model.model):
            await self._prepare(model, terms)
            on_demand = await self.on_demand(model.model)
            if not on_demand or not await self._load_on_demand(model, keep_alive, ttl):
                await self.ensure_loaded(model, terms)
                if on_demand:
                    self.not_on_demand()
        self.acquire(model.model, keep_alive)
        self.release(model.model)

    async def _load_on_demand(self, model: Resolution, keep_alive: KeepAlive | None, ttl: Mapping[str, int]) -> bool:
        """Return whether the model is loaded; that may take as long as it takes, as for a request with a prompt."""
        others = self.active_requests(model.model.key) > 1
        # A request that runs begins the time to live anew when it ends.
        keep_seconds = 0 if others else OLLAMA_KEEP_SECONDS if keep_alive is None else keep_alive.seconds
        try:
            with progress.waiting_for(progress.loading(model.model.key)):
                return await self._loader.load_on_demand(model, ttl, keep_seconds)
        except LMStudioError as e:
            if not wants_load(e):
                raise
            return False

    async def ensure_loaded(self, model: Resolution, terms: LoadTerms) -> None:
        """Load a model explicitly unless it is loaded; concurrent callers share one load.

        Raises LMStudioError, also when it takes longer than the terms say: LM Studio goes on with that load, and later
        callers wait for the same.
        """
        key = model.model.key
        if key not in self._loading:
            task = asyncio.get_running_loop().create_task(self._load(model, terms.context_length))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._load_ended(key, done))
        loading = self._loading[key]
        # Waiting for it does not cancel it when the caller is cancelled: others may wait, too.
        with progress.waiting_for(progress.loading(key)):
            done, _ = await asyncio.wait([loading], timeout=terms.timeout)
        if not done:
            raise self._still_loading(key, terms.timeout)
        if loading.cancelled():
            raise LMStudioError(HTTPStatus.SERVICE_UNAVAILABLE, LOAD_ABANDONED)
        loading.result()

    @staticmethod
    def _still_loading(key: str, seconds: float | None) -> LMStudioError:
        return LMStudioError(HTTPStatus.SERVICE_UNAVAILABLE, STILL_LOADING.format(key=key, seconds=seconds))

    async def _load(self, model: Resolution, context_length: int | None) -> None:
        # In use, so that the time for which it is kept begins at its end, also if nobody waits for it any more.
        with self.using(model.model):
            while True:
                try:
                    await self._loader.load(model, context_length)
                except LMStudioError as e:
                    if not lacks_memory(e) or not await self._evict_one():
                        raise
                else:
                    return

    async def _evict_one(self) -> bool:
        """Unload the oldest model that was loaded explicitly from here and is not in use; return whether there is one.

        LM Studio makes room by itself, but only of what it has loaded on demand.
        """
        async with self._loader.lock:
            for model in await self._loader.explicit_models():
                use = self._uses.get(model.key)
                if (use is None or not use.active) and not self._is_in_use_elsewhere(model.key):
                    logger.info("%s is unloaded, to make room", model.key)
                    try:
                        await self._unload(model)
                    except LMStudioError as e:
                        logger.warning("%s could not be unloaded: %s", model.key, e.message)
                        return False
                    # A request may have acquired it meanwhile.
                    if use is not None and not use.active and self._uses.get(model.key) is use:
                        use.cancel_timer()
                        self._forget(model.key)
                    return True
        return False

    def _load_ended(self, key: str, task: asyncio.Task[None]) -> None:
        self._loading.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Every caller has raised it, if any is left.
            logger.info("%s could not be loaded: %s", key, error)

    async def _grow(self, model: Resolution, terms: LoadTerms) -> bool:
        """Wait for a load with more context, if this request or another one wants it; return whether there was one.

        All who want it wait for the same, and those who come later, so that a model in use becomes free for it.
        """
        key, wanted = model.model.key, (terms.context_length or 0) if terms.grow else 0
        while True:
            growth = self._growths.get(key)
            if self._loader.has_less_context(model, wanted):
                growth = growth or self._growths.setdefault(key, _Growth(model, wanted))
                if not growth.begun.is_set():
                    growth.context_length = max(growth.context_length, wanted)
            if growth is None:
                return False
            await self._wait_for_growth(key, growth, terms.timeout)
            if growth.context_length >= wanted:
                return True
            model = replace(model, model=await self._loader.refreshed(model.model))

    async def _wait_for_growth(self, key: str, growth: _Growth, timeout: float | None) -> None:
        use = self._uses[key]
        use.waiting += 1
        self._tell(key, use)
        growth.changed.set()
        if growth.task is None:
            growth.task = self._tasks.spawn(self._load_with_more_context(key, growth))
        try:
            # Answers may take their time; `timeout` is for the load.
            with progress.waiting_for("waits for other answers, to load the model with more context"):
                await growth.begun.wait()
            with progress.waiting_for(progress.loading(key)):
                done, _ = await asyncio.wait([growth.task], timeout=timeout)
        finally:
            use.waiting -= 1
            self._tell(key, use)
        if not done:
            raise self._still_loading(key, timeout)

    async def _load_with_more_context(self, key: str, growth: _Growth) -> None:
        try:
            while (use := self._uses.get(key)) and use.waiting:
                growth.changed.clear()
                if use.active > use.waiting:
                    await growth.changed.wait()
                    continue
                if self._is_in_use_elsewhere(key):
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                async with self._loader.lock:
                    # Looked at again: an answer may have begun while the lock was waited for.
                    if use.active > use.waiting or self._is_in_use_elsewhere(key):
                        continue
                    growth.begun.set()
                    with self.using(growth.model.model):
                        await self._loader.reload(growth.model, growth.context_length)
                return
        except LMStudioError as e:
            logger.warning("%s could not be loaded with a context of %d tokens: %s", key, growth.context_length, e)
        finally:
            del self._growths[key]
            growth.begun.set()

    async def unload(self, model: Model) -> None:
        """Unload every instance of a model, even if it is in use; one that is gone already is no error."""
        async with self._loader.lock:
            await self._unload(await self._loader.refreshed(model))

    async def unload_when_idle(self, model: Model) -> None:
        """Unload a model now, or when the last request that uses it has ended."""
        use = self._uses.setdefault(model.key, _Use())
        use.keep_alive = UNLOAD
        use.cancel_timer()
        if not use.active:
            await self._unload_if_due(model)

    async def settled(self, model: Model) -> None:
        """Wait for the unload of a model that has begun, and for its load; either may have failed.

        An unload that has not begun yet does not begin while the model is in use. The caller uses it.
        """
        await self._wait_for_unload(model.key)
        if growth := self._growths.get(model.key):
            await self._wait_for_growth(model.key, growth, None)
        if loading := self._loading.get(model.key):
            with progress.waiting_for(progress.loading(model.key)):
                await asyncio.wait([loading])

    async def _wait_for_unload(self, key: str) -> bool:
        """Wait for the unload of a model that has begun, and return whether there was one."""
        ended = self._unloading.get(key)
        if ended is None:
            return False
        with progress.waiting_for("waits for the unload of the model"):
            await ended.wait()
        return True

    async def _unload_if_due(self, model: Model) -> None:
        """Unload a model, unless a request has acquired it meanwhile: then the end of that one decides."""
        async with self._loader.lock:
            if not self._is_due(model) or self._is_used_elsewhere(model):
                return
            try:
                current = await self._loader.refreshed(model)
            finally:
                # Checked again: requests also come while the list is read, to another bridge as well.
                if due := self._is_due(model) and not self._is_used_elsewhere(model):
                    self._forget(model.key)
            if due:
                await self._unload(current)

    def _is_due(self, model: Model) -> bool:
        use = self._uses.get(model.key)
        return (
            use is not None and use.active == 0 and use.timer is None and self._keep_seconds(model.key, use) is not None
        )

    def _keep_seconds(self, key: str, use: _Use) -> float | None:
        """Return how long a model stays after its last use; None where LM Studio decides."""
        if use.keep_alive is None:
            return EXPLICIT_KEEP_SECONDS if self._loader.is_explicit(key) else None
        return None if use.keep_alive.forever else use.keep_alive.seconds

    def _is_used_elsewhere(self, model: Model) -> bool:
        """Return whether a model that is due here is not, since another bridge uses it or has used it since.

        Then it is due when that one has ended, or when the later one's time is over.
        """
        use, now = self._uses[model.key], time.time()
        notes = self._shared.others(model.key) if self._shared else []
        if any(note.in_use for note in notes):
            seconds = LOOK_SECONDS
        else:
            last = max(notes, key=lambda note: note.used_at, default=None)
            if last is None or last.used_at <= use.used_at:
                return False
            keep_seconds = self._keep_seconds(model.key, use) if last.keep_seconds is None else last.keep_seconds
            if keep_seconds is None or math.isinf(keep_seconds):
                self._forget(model.key)
                return True
            seconds = last.used_at + keep_seconds + UNLOAD_DELAY_SECONDS - now
            if seconds <= 0:
                return False
        use.timer = asyncio.get_running_loop().call_later(seconds, self._timer_ended, model, use)
        return True

    def _is_in_use_elsewhere(self, key: str) -> bool:
        return self._shared is not None and any(note.in_use for note in self._shared.others(key))

    def _forget(self, key: str) -> None:
        del self._uses[key]
        self._tell(key, None)

    def _told_of(self, key: str, use: _Use) -> Note:
        named = use.keep_alive.seconds if use.keep_alive else None
        # Who waits for more context does not keep another bridge from loading it.
        return Note(use.active > use.waiting, use.used_at, named, self._loader.is_explicit(key))

    def _tell(self, key: str, use: _Use | None) -> None:
        """Tell other bridges how a model is used, once for all that changes in this turn of the event loop."""
        if self._shared is None:
            return
        self._shared.tell(key, self._told_of(key, use) if use else None)
        if not self._writes_soon:
            self._writes_soon = True
            asyncio.get_running_loop().call_soon(self._write_shared)

    def _write_shared(self) -> None:
        self._writes_soon = False
        if self._shared:
            self._shared.write()

    def share(self, shared: SharedUses) -> None:
        """Tell other bridges how models are used from now on, in place of those that were told before."""
        self._stop_sharing({*self._uses})
        self._shared = self._lock.shared = shared
        for key, use in self._uses.items():
            self._tell(key, use)

    def _stop_sharing(self, keys: Iterable[str]) -> None:
        """Leave nothing of these models to the other bridges, and let them take over the rest."""
        if self._shared:
            for key in keys:
                self._shared.tell(key, None)
            self._shared.close()

    def take_over(self) -> None:
        """Take over the timers of bridges that have gone."""
        for notes in self._shared.take_over() if self._shared else ():
            for key, note in notes.items():
                self._take_over(key, note)

    def _take_over(self, key: str, note: Note) -> None:
        """Go on with what a bridge has told that has gone. A request that it had under way has ended with it."""
        keep_seconds = _kept_for(note)
        if keep_seconds is None:
            return
        own, now = self._shared.own(key) if self._shared else None, time.time()
        use = self._uses.setdefault(key, _Use())
        if note.explicit:
            self._loader.note_explicit(key)
        used_at = max(now if note.in_use else note.used_at, own.used_at if own else 0)
        if note.keep_seconds is not None:
            use.keep_alive = use.keep_alive or KeepAlive(note.keep_seconds)
        if use.active or use.timer:
            return
        use.used_at = used_at
        self._tell(key, use)
        seconds = max(used_at + keep_seconds + UNLOAD_DELAY_SECONDS - now, 0)
        logger.info("another bridge has ended that was to unload %s: it is unloaded from here, in %.0f s", key, seconds)
        loop = asyncio.get_running_loop()
        # LM Studio's list says what else there is to know of it.
        use.timer = loop.call_later(seconds, self._timer_ended, Model(key=key, type="llm"), use)

    def remaining_seconds(self, key: str) -> float | None:
        """Return how long a model stays loaded from now on, were it used no more; None where LM Studio decides."""
        use = self._uses.get(key)
        if use is None:
            return self._remaining_elsewhere(key)
        if use.timer is None:
            return self._keep_seconds(key, use)
        return max(use.timer.when() - UNLOAD_DELAY_SECONDS - asyncio.get_running_loop().time(), 0)

    def _remaining_elsewhere(self, key: str) -> float | None:
        notes = self._shared.others(key) if self._shared else []
        last = max(notes, key=lambda note: (note.in_use, note.used_at), default=None)
        keep_seconds = _kept_for(last) if last else None
        if last is None or keep_seconds is None:
            return None
        return keep_seconds if last.in_use else max(last.used_at + keep_seconds - time.time(), 0)

    async def _unload(self, model: Model) -> None:
        ended = self._unloading[model.key] = asyncio.Event()
        try:
            await self._loader.unload(model)
        finally:
            del self._unloading[model.key]
            ended.set()

    def acquire(self, model: Model, keep_alive: KeepAlive | None) -> None:
        """Count a request that uses a model: no timer unloads it before `release` has been called for each."""
        use = self._uses.setdefault(model.key, _Use())
        use.active += 1
        use.cancel_timer()
        if keep_alive is not None:
            use.keep_alive = keep_alive
        if use.active == use.waiting + 1:
            use.used_at = time.time()
            self._tell(model.key, use)

    def is_cold(self, model: Model) -> bool:
        """Return whether LM Studio has to load a model for the next call, as far as is known without asking."""
        return not model.loaded and self._loader.tells_loaded and not self._loader.was_loaded(model.key)

    async def is_loaded(self, model: Model) -> bool:
        """Return whether a model is loaded; many who ask about as often as LOOK_SECONDS have one look at the list."""
        return await self._loader.is_loaded(model, LOOK_SECONDS / 2)

    def note_loaded(self, model: Model) -> None:
        """Note that a model has answered: whatever the last list says, it is loaded."""
        self._loader.note_loaded(model.key)

    @property
    def loads(self) -> Counter[str]:
        """How often each model was loaded from here, or seen to be loaded for a call, by its key."""
        return self._loader.loads

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
        if growth := self._growths.get(model.key):
            growth.changed.set()
            self._tell(model.key, use)
        if use.active > 0:
            return
        use.used_at = time.time()
        self._tell(model.key, use)
        seconds = self._keep_seconds(model.key, use)
        if seconds is None:
            # Ollama goes on with the last `keep_alive` that was named; LM Studio does so itself for what it loads.
            if not self._loader.is_explicit(model.key):
                del self._uses[model.key]
            return
        delay = math.ceil(seconds) + UNLOAD_DELAY_SECONDS if seconds else 0
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
        self._tasks.spawn(self._unload_after_timer(model, use))

    async def _unload_after_timer(self, model: Model, use: _Use) -> None:
        if self._ends_by_itself(model.key, use):
            if self._uses.get(model.key) is use and not use.active:
                del self._uses[model.key]
            return
        try:
            await self._unload_if_due(model)
        except LMStudioError as e:
            logger.warning("%s could not be unloaded: %s", model.key, e.message)
            # LM Studio would keep a model for ever that was loaded explicitly.
            if self._loader.is_explicit(model.key) and self._uses.setdefault(model.key, use) is use:
                loop = asyncio.get_running_loop()
                use.timer = loop.call_later(UNLOAD_AGAIN_SECONDS, self._timer_ended, model, use)

    def _ends_by_itself(self, key: str, use: _Use) -> bool:
        """Return whether it is left to LM Studio's time to live to end a model.

        Where the list does not tell what is loaded, an unload may reach another LM Studio. The one that has the model
        was told the time, unless that is none.
        """
        told = use.keep_alive is not None and not use.keep_alive.unload
        return told and not self._loader.tells_loaded and not self._loader.is_explicit(key)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for a request that has ended."""
        self._tasks.spawn(work)

    def stop(self) -> None:
        """Cancel all loads, unloads and timers, and log which models stay loaded because of it."""
        kept = [key for key, use in self._uses.items() if not use.active]
        if kept:
            logger.info(
                "this process ends, and what it would have unloaded later stays loaded, until another bridge with its "
                "state directory or its next start unloads it: %s",
                ", ".join(kept),
            )
        # What is in use goes on after a reload of the script, and is nobody's to unload.
        self._stop_sharing({*self._uses} - {*kept})
        for use in self._uses.values():
            use.cancel_timer()
        for task in self._loading.values():
            task.cancel()
        self._tasks.cancel()
        self._uses.clear()
