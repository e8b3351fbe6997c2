"""The model list, kept for a while and read once however many ask for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from .catalog import Catalog, Resolution

MISS_SECONDS: Final = 1.0
"""How old the list must be before an unknown name makes it be read again: a client that asks for one unknown name
after another costs at most one read a second."""


class CatalogSource(Protocol):
    """Where the list comes from: a Client."""

    async def catalog(self, purpose: str = "") -> Catalog: ...


class NameIndex(Protocol):
    """The names of the models of one list, as clients write them."""

    def resolve(self, name: str) -> Resolution | None: ...

    def as_written(self, name: str) -> Resolution | None: ...


class _Listing(NamedTuple):
    """A list, and the index of its names."""

    catalog: Catalog
    names: NameIndex


class CatalogCache:
    """Keep the last model list, and resolve names in it.

    `index` makes the index of a list's names, once for each list that is read. A list that cannot be read raises what
    the client raised, to everyone who waits for it, and is not remembered. The last good one stays in `last` for
    callers who can use it.
    """

    def __init__(
        self,
        client: CatalogSource,
        ttl_seconds: float,
        index: Callable[[Catalog], NameIndex],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self.ttl_seconds = ttl_seconds
        self._index = index
        self._clock = clock
        self._read_at: float | None = None
        self._reading: asyncio.Task[_Listing] | None = None
        self._last: _Listing | None = None
        # Pairs of an id that was asked for and another one that answered, which the last list allows.
        self._confirmed: set[tuple[str, str]] = set()

    @property
    def last(self) -> Catalog | None:
        """The last list that could be read, however old."""
        return self._last and self._last.catalog

    @property
    def tells_loaded(self) -> bool:
        """Whether LM Studio's list tells which models are loaded, as far as is known."""
        return self._last is None or self._last.catalog.tells_loaded

    def known_context_length(self, id_: str) -> int:
        """Return how many tokens a model is loaded for, as far as the last list tells; 0 if that is not known."""
        return self._last.catalog.context_length(id_) if self._last is not None else 0

    async def get(self, *, max_age: float | None = None) -> Catalog:
        """Return the list if it is younger than `max_age` seconds (the TTL if not given), else read it."""
        return (await self._fresh(self.ttl_seconds if max_age is None else max_age)).catalog

    async def refresh(self, purpose: str = "") -> Catalog:
        """Read the list, together with everyone else who asks while it is being read.

        `purpose` is what a call to LM Studio that begins here is for, where it is no request's.
        """
        return (await self._read_shared(purpose)).catalog

    def invalidate(self) -> None:
        """Mark the list as outdated, and one that is being read: models have just been loaded, unloaded or added."""
        self._read_at = None
        self._reading = None

    async def resolve(self, name: str) -> Resolution | None:
        """Return the model that a name means; a name that is not in the list refreshes it once."""
        return await self._find(lambda listing: listing.names.resolve(name))

    async def as_written(self, name: str) -> Resolution | None:
        """Return the model that has this very name; a name that is not in the list refreshes it once."""
        return await self._find(lambda listing: listing.names.as_written(name))

    async def exact(self, id_: str) -> Resolution | None:
        """Return the model with this very id; an id that is not in the list refreshes it once."""
        return await self._find(lambda listing: listing.catalog.exact(id_))

    async def confirm(self, asked: str, answered: str) -> bool:
        """Return whether `answered`, the id that an answer names, belongs to the model that was asked for as `asked`.

        LM Studio answers for a model that it does not have with the one that is loaded. What the last list does not
        tell makes it be read anew: an instance may have been loaded since, and the model may have been removed. An id
        that the list does not know is believed, as long as it has the model that was asked for.
        """
        if answered == asked or (asked, answered) in self._confirmed:
            return True
        if self._last is not None and _is_known(self._last.catalog, asked, answered):
            return True
        catalog = await self.refresh()
        owner = catalog.owner(answered)
        is_right = catalog.owner(asked) is not None and (owner is None or _is_known(catalog, asked, answered))
        if is_right:
            self._confirmed.add((asked, answered))
        return is_right

    async def has(self, id_: str) -> bool:
        """Return whether LM Studio has a model or an instance of this id now."""
        return (await self.refresh()).owner(id_) is not None

    async def _find(self, lookup: Callable[[_Listing], Resolution | None]) -> Resolution | None:
        found = lookup(await self._fresh(self.ttl_seconds))
        if found is None and self._age() >= MISS_SECONDS:
            found = lookup(await self._read_shared())
        return found

    async def _fresh(self, max_age: float) -> _Listing:
        if self._last is not None and self._age() < max_age:
            return self._last
        return await self._read_shared()

    async def _read_shared(self, purpose: str = "") -> _Listing:
        # With eager tasks (mitmproxy 12), a read that fails at once has ended before it is kept here.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(purpose))
            self._reading.add_done_callback(_retrieve_exception)
        # A caller that is cancelled must not cancel the read for the others. Of a shielded task that fails when all of
        # them are gone, asyncio complains since Python 3.14.
        reading = self._reading
        await asyncio.wait([reading])
        return reading.result()

    async def _read(self, purpose: str) -> _Listing:
        this_task = asyncio.current_task()
        try:
            catalog = await self._client.catalog(purpose)
            listing = _Listing(catalog, self._index(catalog))
            # A list that was invalidated while it was read is right for those who wait for it, but not kept.
            if self._reading is this_task:
                self._last = listing
                self._confirmed.clear()
                self._read_at = self._clock()
            return listing
        finally:
            if self._reading is this_task:
                self._reading = None

    def _age(self) -> float:
        return math.inf if self._read_at is None else self._clock() - self._read_at


def _is_known(catalog: Catalog, asked: str, answered: str) -> bool:
    """Return whether two ids belong to one model of the list."""
    owner = catalog.owner(asked)
    return owner is not None and catalog.owner(answered) is owner


def _retrieve_exception(task: asyncio.Task[_Listing]) -> None:
    """Retrieve the exception of a failed read: asyncio logs it as lost when every caller has been cancelled."""
    if not task.cancelled():
        task.exception()
