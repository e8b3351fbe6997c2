"""What endpoints share, and the types of endpoints."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from .keys import Keyring
from .lifetimes import ModelLifetimes
from .lmstudio.cache import CatalogCache
from .lmstudio.client import Client
from .options import Settings
from .outcomes import BodySink, Outcome, Request, Response
from .state import jobs, uses
from .state.aliases import AliasStore
from .state.jobs import DownloadJobs
from .state.uses import SharedUses


class Clock:
    """The clocks, in ns; tests pass others."""

    def monotonic(self) -> int:
        """Return the time of a clock that never goes back, for durations."""
        return time.perf_counter_ns()

    def wall(self) -> int:
        """Return the time since the epoch, for dates."""
        return time.time_ns()


class Exposition(Protocol):
    """The numbers that are exposed to a monitoring system."""

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all of them in the format that a header `Accept` asks for, and its content type."""


@dataclass(slots=True)
class Services:
    """What endpoints share: settings, LM Studio's client and model list, aliases, clocks, the lifetimes of models."""

    settings: Settings
    client: Client
    catalog: CatalogCache
    aliases: AliasStore
    clock: Clock = field(default_factory=Clock)
    lmstudio: str = ""
    """What bridges that share a state directory call this LM Studio; empty where nothing is told them."""
    logged_once: set[str] = field(default_factory=set)
    """What is logged only once, and has been."""
    advised: set[str] = field(default_factory=set)
    """The keys of models for which it was logged how they get more context."""
    dimensions: dict[str, int] = field(default_factory=dict)
    """The length of a model's vectors, by its key, learned from answers: LM Studio's lists do not have it."""
    downloads: DownloadJobs = field(init=False)
    tags: tuple[tuple[object, ...], Response] | None = None
    """The last response of /api/tags, and what it was made of."""
    health: tuple[int, Response] | None = None
    """The last response of /health, and when it was made."""
    keys: Keyring = field(default_factory=Keyring)
    metrics: Exposition | None = None
    """The numbers for Prometheus; None where the option `metrics` is off."""
    lifetimes: ModelLifetimes = field(init=False)

    def __post_init__(self) -> None:
        self.downloads = DownloadJobs(lmstudio=self.lmstudio)
        self.lifetimes = ModelLifetimes(self.client, self.catalog)
        self.share()

    def share(self) -> None:
        """Share what is used and downloaded with the bridges that have the same state directory."""
        if self.lmstudio:
            cache = self.settings.state_dir.cache
            self.downloads.directory = jobs.directory_in(cache)
            self.lifetimes.share(SharedUses(uses.directory_in(cache), self.lmstudio))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The tokens, which must not appear in responses, logs or saved flows.

        Of the named keys, an exchange hides the one that its client has sent: each would be looked for in each body.
        """
        return tuple(s for s in (self.settings.lmstudio_token, self.settings.api_key) if s)


Endpoint = Callable[[Request, Services], Awaitable[Outcome]]
Upload = Callable[[Request, Services], BodySink]
"""An endpoint whose request body is not held in memory."""
