"""What LM Studio is told to load and to unload, one model at a time, and what has come of it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from http import HTTPStatus
from typing import Final, NamedTuple

from .cache import CatalogCache
from .catalog import Catalog, Instance, Model, Resolution
from .client import Client
from .errors import LMStudioError, is_model_not_found

LOAD_LIMIT_SECONDS: Final = 3600.0
"""How long a load is waited for here, whoever still waits for it: hundreds of gigabytes take their time."""

MAYBE_LOADED: Final = (
    "{key} may still be loaded: the server at lmstudio_url does not tell what is. Unload it in LM Studio, or let its "
    "time to live end. What was asked says: {said}"
)

logger = logging.getLogger(__name__)


LOAD_SETTINGS: Final = ("eval_batch_size", "flash_attention", "num_experts", "offload_kv_cache_to_gpu")
"""The settings of an instance that a load takes, apart from its context length."""


class _Granted(NamedTuple):
    """The context length that a load has asked for, and that it got: the memory guard may have given less."""

    asked: int
    got: int | None


class Loader:
    """Load and unload models.

    Explicit loads and unloads hold `lock`: LM Studio aborts two loads of different models that overlap.
    """

    def __init__(
        self, client: Client, catalog: CatalogCache, lock: AbstractAsyncContextManager[None] | None = None
    ) -> None:
        self._client = client
        self._catalog = catalog
        self.lock = lock or asyncio.Lock()
        self._explicit: dict[str, None] = {}
        """In the order in which they were loaded."""
        self._granted: dict[str, _Granted] = {}
        self._loaded_since: set[str] = set()
        self._since: Catalog | None = None
        self._tells_ttl = False
        self.loads: Counter[str] = Counter()
        """How often each model was loaded from here, or seen to be loaded for a call, by its key."""

    @property
    def tells_loaded(self) -> bool:
        """Whether LM Studio's list tells which models are loaded."""
        return self._catalog.tells_loaded

    def is_explicit(self, key: str) -> bool:
        """Return whether a model was loaded explicitly from here: LM Studio keeps it until it is told to unload it."""
        return key in self._explicit

    def note_explicit(self, key: str) -> None:
        """Note that another bridge, which has gone, has loaded a model explicitly."""
        self._explicit.setdefault(key)

    async def explicit_models(self) -> list[Model]:
        """Return the models that were loaded explicitly from here as they are listed now, the oldest load first."""
        listed = {model.key: model for model in (await self._catalog.refresh()).models}
        return [listed[key] for key in self._explicit if key in listed]

    async def refreshed(self, model: Model) -> Model:
        """Return the model as LM Studio lists it now; one that is not listed any more has no instances."""
        catalog = await self._catalog.refresh()
        # LM Studio tells it from 0.4.22 on, of the models that have one.
        self._tells_ttl |= any(i.remaining_ttl_seconds is not None for m in catalog.models for i in m.instances)
        current = next((m for m in catalog.models if m.key == model.key), replace(model, instances=()))
        if catalog.tells_loaded and not current.loaded:
            self._explicit.pop(model.key, None)
        return current

    def note_loaded(self, key: str) -> None:
        """Note that a model is loaded, though the last list may say that it is not."""
        if self._since is not self._catalog.last:
            self._since = self._catalog.last
            self._loaded_since.clear()
        if key not in self._loaded_since:
            self.loads[key] += 1
        self._loaded_since.add(key)

    def was_loaded(self, key: str) -> bool:
        """Return whether a model has been loaded since the last list was read."""
        return self._since is self._catalog.last and key in self._loaded_since

    async def is_loaded(self, model: Model, max_age: float) -> bool:
        """Return whether a list that is no older than `max_age` seconds has the model loaded."""
        catalog = await self._catalog.get(max_age=max_age)
        return any(m.key == model.key and m.loaded for m in catalog.models)

    async def is_offered(self, key: str) -> bool:
        """Return whether OpenAI's list has a model: without loading on demand, LM Studio lists there what is loaded."""
        return key in await self._client.offered()

    async def load(self, model: Resolution, context_length: int | None) -> None:
        """Load a model explicitly, unless it is loaded. LM Studio keeps such a model until it is told to unload it."""
        async with self.lock:
            if not (await self.refreshed(model.model)).loaded:
                await self._load(model, context_length)

    async def _load(
        self, model: Resolution, context_length: int | None, settings: Mapping[str, object] | None = None
    ) -> None:
        try:
            answer = await self._client.load(model.id, context_length, settings or {}, timeout=LOAD_LIMIT_SECONDS)
        finally:
            self._catalog.invalidate()
        key = model.model.key
        self._explicit[key] = None
        self.note_loaded(key)
        if context_length is None:
            return
        config = answer.get("load_config")
        got = config.get("context_length") if isinstance(config, Mapping) else None
        if not isinstance(got, int):
            got = _context_length(replace(model, model=await self.refreshed(model.model)))
        self._granted[key] = _Granted(context_length, got)
        if got is not None and got < context_length:
            logger.warning(
                "LM Studio has loaded %s with a context of %d tokens, not of the %d that were asked for",
                key,
                got,
                context_length,
            )
        else:
            logger.info("%s is loaded with a context of %s tokens", key, got or context_length)

    def has_less_context(self, model: Resolution, context_length: int) -> bool:
        """Return whether a loaded model has less context than this, and might get more."""
        got = _context_length(model)
        if got is None:
            return False
        granted = self._granted.get(model.model.key)
        return max(got, granted.asked if granted and granted.got == got else 0) < context_length

    async def reload(self, model: Resolution, context_length: int) -> None:
        """Load a model anew with more context, in place of all its instances; without, where LM Studio cannot.

        The caller holds `lock`. The settings of the instance stay, and whether LM Studio keeps it for ever.
        """
        current = replace(model, model=await self.refreshed(model.model))
        key, instance = model.model.key, _instance(current)
        if instance is None or not self.has_less_context(current, context_length):
            return
        settings = {name: instance.config[name] for name in LOAD_SETTINGS if name in instance.config}
        kept_for_ever = self._tells_ttl and key not in self._explicit and instance.remaining_ttl_seconds is None
        await self.unload(current.model)
        try:
            await self._load(model, context_length, settings)
        except LMStudioError as e:
            before = instance.context_length
            logger.warning(
                "%s could not be loaded with a context of %d tokens, and is loaded with %d again: %s",
                key,
                context_length,
                before,
                e,
            )
            await self._load(model, before, settings)
            self._granted[key] = _Granted(context_length, before)
        if kept_for_ever:
            self._explicit.pop(key, None)

    async def load_on_demand(self, model: Resolution, ttl: Mapping[str, int], keep_seconds: float) -> bool:
        """Load a model as LM Studio does on demand, so that its time to live and its eviction rule for it.

        A loaded one whose time to live ends before `keep_seconds` has that begun anew. Return whether the model is
        loaded then: another model may have answered for it.
        """
        async with self.lock:
            current = await self.refreshed(model.model)
            if current.loaded and not _ends_before(current, keep_seconds):
                return True
            try:
                embeds = model.model.type == "embedding"
                await self._client.use_once(model.id, ttl, embeds=embeds, timeout=LOAD_LIMIT_SECONDS)
            except LMStudioError:
                # Whatever it has to say of the prompt: the model was to be loaded, no more.
                if not (await self.refreshed(model.model)).loaded:
                    raise
                return True
            self._catalog.invalidate()
            loaded = (await self.refreshed(model.model)).loaded
            if loaded and not current.loaded:
                self.loads[model.model.key] += 1
            return loaded or not self.tells_loaded

    async def unload(self, model: Model) -> None:
        """Unload every instance of a model as it was listed last; one that is gone already is no error.

        The caller holds `lock`. Where the list does not tell what is loaded, LM Studio is asked to unload what has the
        id of a first instance, so that nothing is claimed that it has not said: behind another server it may be another
        LM Studio than the one that has the model. An id that another model has too, on a
        linked device, would unload either: LMStudioError says so.
        """
        ids = [instance.id for instance in model.instances]
        self._check_owners(model, ids)
        try:
            for id_ in ids if self.tells_loaded else dict.fromkeys((*ids, model.key)):
                try:
                    await self._client.unload(id_)
                except LMStudioError as e:
                    if not is_model_not_found(e):
                        raise
                    if not self.tells_loaded:
                        message = MAYBE_LOADED.format(key=model.key, said=e.message)
                        raise LMStudioError(HTTPStatus.BAD_GATEWAY, message) from None
            self._explicit.pop(model.key, None)
            self._loaded_since.discard(model.key)
        finally:
            self._catalog.invalidate()

    def _check_owners(self, model: Model, ids: Sequence[str]) -> None:
        models = self._catalog.last.models if self._catalog.last else ()
        others = {instance.id: m.key for m in models if m.key != model.key for instance in m.instances}
        for id_ in ids:
            if id_ in others:
                message = (
                    f"{model.key} is not unloaded: {others[id_]}, on another device, is loaded under the same id, "
                    f"{id_}. Unload it in LM Studio, or give one of them another identifier there."
                )
                raise LMStudioError(HTTPStatus.CONFLICT, message)


def _instance(model: Resolution) -> Instance | None:
    """Return the instance that answers for an id; None if the model is not loaded."""
    return next(iter(model.model.instances_for(model.id)), None)


def _context_length(model: Resolution) -> int | None:
    """Return the context length that a model is loaded with; None if it is not, or LM Studio does not tell."""
    return model.model.context_length_for(model.id)


def _ends_before(model: Model, seconds: float) -> bool:
    """Return whether LM Studio unloads an idle model before `seconds` have passed."""
    remaining = [i.remaining_ttl_seconds for i in model.instances if i.remaining_ttl_seconds is not None]
    return bool(remaining) and min(remaining) < seconds
