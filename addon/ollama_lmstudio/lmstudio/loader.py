"""What LM Studio is told to load and to unload, one model at a time, and what has come of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from .cache import CatalogCache
from .catalog import Model, Resolution
from .client import Client
from .errors import LMStudioError, is_model_not_found

LOAD_LIMIT_SECONDS: Final = 3600.0
"""How long an explicit load is waited for here, whoever still waits for it: hundreds of gigabytes take their time."""

logger = logging.getLogger(__name__)


class Loader:
    """Load and unload models.

    Explicit loads and unloads hold `lock`: LM Studio aborts two loads of different models that overlap.
    """

    def __init__(self, client: Client, catalog: CatalogCache) -> None:
        self._client = client
        self._catalog = catalog
        self.lock = asyncio.Lock()
        self._explicit: set[str] = set()

    @property
    def tells_loaded(self) -> bool:
        """Whether LM Studio's list tells which models are loaded."""
        return self._catalog.tells_loaded

    def is_explicit(self, key: str) -> bool:
        """Return whether a model was loaded explicitly from here: LM Studio keeps it until it is told to unload it."""
        return key in self._explicit

    async def refreshed(self, model: Model) -> Model:
        """Return the model as LM Studio lists it now; one that is not listed any more has no instances."""
        catalog = await self._catalog.refresh()
        current = next((m for m in catalog.models if m.key == model.key), replace(model, instances=()))
        if catalog.tells_loaded and not current.loaded:
            self._explicit.discard(model.key)
        return current

    async def load(self, model: Resolution, context_length: int | None) -> None:
        """Load a model explicitly, unless it is loaded. LM Studio keeps such a model until it is told to unload it."""
        async with self.lock:
            if not (await self.refreshed(model.model)).loaded:
                await self._load(model, context_length)

    async def _load(self, model: Resolution, context_length: int | None) -> None:
        try:
            await self._client.load(model.id, context_length, timeout=LOAD_LIMIT_SECONDS)
        finally:
            self._catalog.invalidate()
        self._explicit.add(model.model.key)

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
                await self._client.use_once(model.id, ttl, embeds=model.model.type == "embedding")
            except LMStudioError:
                # Whatever it has to say of the prompt: the model was to be loaded, no more.
                if not (await self.refreshed(model.model)).loaded:
                    raise
                return True
            self._catalog.invalidate()
            loaded = (await self.refreshed(model.model)).loaded
            return loaded or not self.tells_loaded

    async def unload(self, model: Model) -> None:
        """Unload every instance of a model as it was listed last; one that is gone already is no error.

        The caller holds `lock`. Where the list does not tell what is loaded, LM Studio is asked to unload what has the
        id of a first instance, so that nothing is claimed that it has not said.
        """
        ids = [instance.id for instance in model.instances]
        try:
            for id_ in ids if self.tells_loaded else dict.fromkeys((*ids, model.key)):
                try:
                    await self._client.unload(id_)
                except LMStudioError as e:
                    if not is_model_not_found(e):
                        raise
            self._explicit.discard(model.key)
        finally:
            self._catalog.invalidate()


def _ends_before(model: Model, seconds: float) -> bool:
    """Return whether LM Studio unloads an idle model before `seconds` have passed."""
    remaining = [i.remaining_ttl_seconds for i in model.instances if i.remaining_ttl_seconds is not None]
    return bool(remaining) and min(remaining) < seconds
