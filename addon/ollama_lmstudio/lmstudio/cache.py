"""The model list, kept for a while and read once however many ask for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Protocol

from .catalog import Catalog
from .resolve import Resolution, Resolver, exact

MISS_SECONDS: Final = 1.0
"""How old the list must be before an unknown name is worth another look."""


class CatalogSource(Protocol):
    """Where the list comes from: a Client."""

    async def catalog(self) -> Catalog: ...


class CatalogCache:
    """Keep the last model list, and resolve names in it.

    A list that cannot be read raises what the client raised, to everyone who waits for it, and is not
    remembered. The last good one stays in `last` for callers who can use it.
    """

    def __init__(
        self,
        client: CatalogSource,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self.ttl_seconds = ttl_seconds
        self._clock = clock
        self._read_at: float | None = None
        self._reading: asyncio.Task[Catalog] | None = None
        self._last: Catalog | None = None
        self._resolver: Resolver | None = None

    @property
    def last(self) -> Catalog | None:
        """The last list that could be read, however old."""
        return self._last

    async def get(self, *, max_age: float | None = None) -> Catalog:
        """Return the list if it is younger than `max_age` seconds (the TTL if not given), else read it."""
        limit = self.ttl_seconds if max_age is None else max_age
        if self._last is not None and self._age() < limit:
            return self._last
        return await self.refresh()

    async def refresh(self) -> Catalog:
        """Read the list, together with everyone else who asks while it is being read."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_take_note_of_failure)
        # One who stops waiting must not stop the others.
        return await asyncio.shield(self._reading)

    def invalidate(self) -> None:
        """Forget how fresh the list is, and one that is being read: what it tells has just been changed."""
        self._read_at = None
        self._reading = None

    async def resolve(self, name: str) -> Resolution | None:
        """Find the model that a name means, in a fresh list if the one at hand does not know the name."""
        found = self._resolver_of(await self.get()).resolve(name)
        if found is None and self._age() >= MISS_SECONDS:
            found = self._resolver_of(await self.refresh()).resolve(name)
        return found

    async def exact(self, id_: str) -> Resolution | None:
        """Find the model with this very id, in a fresh list if the one at hand does not know it."""
        found = exact(await self.get(), id_)
        if found is None and self._age() >= MISS_SECONDS:
            found = exact(await self.refresh(), id_)
        return found

    async def _read(self) -> Catalog:
        this_task = asyncio.current_task()
        try:
            catalog = await self._client.catalog()
            if self._reading is this_task:
                self._last, self._resolver = catalog, Resolver(catalog)
                self._read_at = self._clock()
            return catalog
        finally:
            if self._reading is this_task:
                self._reading = None

    def _age(self) -> float:
        return math.inf if self._read_at is None else self._clock() - self._read_at

    def _resolver_of(self, catalog: Catalog) -> Resolver:
        """Return the resolver of a list, which is not `last` if it was invalidated while it was read."""
        return self._resolver if self._resolver and catalog is self._last else Resolver(catalog)


def _take_note_of_failure(task: asyncio.Task[Catalog]) -> None:
    """Look at the exception, which asyncio would complain about if everyone had stopped waiting."""
    if not task.cancelled():
        task.exception()
