"""What endpoints are given, with a model list that a test writes down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ollama_lmstudio import options
from ollama_lmstudio.endpoints.base import Clock, Services
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Model
from ollama_lmstudio.lmstudio.client import Client

MakeServices = Callable[..., Services]


class StoppedClock(Clock):
    """Always the same time, in ns: one second on the monotonic clock, a day in 2023 on the wall."""

    def monotonic(self) -> int:
        return 1_000_000_000

    def wall(self) -> int:
        return 1_700_000_000_000_000_000


@dataclass
class LMStudio:
    """LM Studio's client, with a list of models; it notes what it is asked to load."""

    listed: Catalog
    loads: list[str] = field(default_factory=list)

    async def catalog(self) -> Catalog:
        return self.listed

    async def load(self, key: str, context_length: int | None = None, *, timeout: float) -> None:
        self.loads.append(key)


@pytest.fixture
def make_services() -> MakeServices:
    """Make services of models and of options that are not the default's."""

    def make(*models: Model, **changed: Any) -> Services:
        defaults = {option.name: option.default for option in options.OPTIONS}
        lmstudio = cast(Client, LMStudio(Catalog(models)))
        return Services(options.parse(defaults | changed), lmstudio, CatalogCache(lmstudio, 300), StoppedClock())

    return make
