"""What /health says, and how often LM Studio is asked for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import pytest
from tests.services import StoppedClock

from ollama_lmstudio.endpoints.health import KEPT_NANOSECONDS, health, live
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Model
from ollama_lmstudio.lmstudio.client import HEALTH, Client
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.outcomes import Request, Response
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate.names import Resolver

ASKED = Request("GET", "/health", "", {}, b"", 0)


class Clock(StoppedClock):
    now = 0

    def monotonic(self) -> int:
        return self.now


@dataclass
class Source:
    """LM Studio, which takes a while to answer, or to fail."""

    url = "http://lmstudio"
    fails: bool = False
    purposes: list[str] = field(default_factory=list)

    async def catalog(self, purpose: str = "") -> Catalog:
        self.purposes.append(purpose)
        await asyncio.sleep(0.01)
        if self.fails:
            raise LMStudioError(503, "not there")
        return Catalog((Model("a"),))


@pytest.mark.parametrize("fails", [False, True])
def test_lm_studio_is_asked_once_for_many_polls(make_services: Callable[..., Services], fails: bool) -> None:
    source, clock = Source(fails), Clock()
    services = make_services()
    services.client, services.clock = cast(Client, source), clock
    services.catalog = CatalogCache(source, 300, Resolver)
    status = 503 if fails else 200

    async def polls(count: int) -> list[Response]:
        return await asyncio.gather(*(health(ASKED, services) for _ in range(count)))

    async def scenario() -> None:
        assert {response.status for response in await polls(100)} == {status}
        clock.now += KEPT_NANOSECONDS - 1
        assert {response.status for response in await polls(100)} == {status}
        assert source.purposes == [HEALTH]
        source.fails = not fails
        clock.now += 1
        assert {response.status for response in await polls(100)} == {503 if source.fails else 200}
        assert source.purposes == [HEALTH, HEALTH]

    asyncio.run(scenario())


def test_what_is_told(make_services: Callable[..., Services]) -> None:
    services = make_services(Model("a"), Model("b"))
    services.client = cast(Client, Source())
    told = json.loads(asyncio.run(health(ASKED, services)).body)
    assert (told["status"], told["models"], told["lmstudio_url"]) == ("ok", 2, "http://lmstudio")
    assert asyncio.run(live(ASKED, services)) == Response(200, b"", "")
