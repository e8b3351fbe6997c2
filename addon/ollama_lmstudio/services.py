"""What endpoints share: settings, LM Studio's client and its model list, aliases, clocks, the life of models."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .lifetimes import ModelLifetimes
from .lmstudio.cache import CatalogCache
from .lmstudio.client import Client
from .options import Settings
from .outcomes import BodySink, Outcome, Request
from .state.aliases import AliasStore


class Clock:
    """The clocks, to be handed to what needs them: ns each."""

    def monotonic(self) -> int:
        """Return the monotonic time, for durations."""
        return time.perf_counter_ns()

    def wall(self) -> int:
        """Return the time since the epoch, for dates."""
        return time.time_ns()


@dataclass(slots=True)
class Services:
    """What endpoints share: the settings, LM Studio's client and its model list, the aliases, the clocks."""

    settings: Settings
    client: Client
    catalog: CatalogCache
    aliases: AliasStore
    clock: Clock = field(default_factory=Clock)
    logged_once: set[str] = field(default_factory=set)
    """What has been said once in the log already."""
    dimensions: dict[str, int] = field(default_factory=dict)
    """How long the vectors of a model are, by its key. LM Studio does not tell; its answers do."""
    downloads: dict[tuple[str, str | None], str] = field(default_factory=dict)
    """The last job of each download, by model and quantization."""
    lifetimes: ModelLifetimes = field(init=False)

    def __post_init__(self) -> None:
        self.lifetimes = ModelLifetimes(self.client, self.catalog)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be told to anybody."""
        return tuple(s for s in (self.settings.lmstudio_token, self.settings.api_key) if s)


Endpoint = Callable[[Request, Services], Awaitable[Outcome]]
Upload = Callable[[Request, Services], BodySink]
