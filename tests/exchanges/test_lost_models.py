"""Which exchanges are ended because LM Studio has lost their model: those of which it says nothing, no sooner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ollama_lmstudio.exchanges import lost_models
from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.exchanges.lost_models import LostModels
from ollama_lmstudio.lmstudio.catalog import Catalog, Instance, Model
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.tasks import Tasks

LOADED = Catalog((Model("one", instances=(Instance("one"),)),))
UNLOADED, GONE = Catalog((Model("one"),)), Catalog()
AWAY = LMStudioError(503, "away")


@dataclass
class Waiting:
    """An exchange."""

    received: int = 10
    kind: str = "call"
    waits_for_lmstudio: bool = True
    comes: int = 0
    ended: list[LMStudioError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.record = SimpleNamespace(kind=self.kind, upstream_model="one")
        self.flow = SimpleNamespace(live=True)

    def end(self, error: LMStudioError) -> None:
        self.ended.append(error)
        self.flow.live = False


class List:
    """LM Studio's list, as it is from one look to the next."""

    def __init__(self, exchange: Waiting, lists: list[Catalog | LMStudioError], *, tells_loaded: bool) -> None:
        self._exchange, self._lists, self.tells_loaded = exchange, lists, tells_loaded

    async def refresh(self) -> Catalog:
        self._exchange.received += self._exchange.comes
        found = self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]
        if isinstance(found, LMStudioError):
            raise found
        return found


def is_ended(
    monkeypatch: pytest.MonkeyPatch,
    exchange: Waiting,
    *lists: Catalog | LMStudioError,
    tells_loaded: bool = True,
) -> bool:
    monkeypatch.setattr(lost_models, "LOOK_SECONDS", 0.001)

    async def scenario() -> None:
        services = SimpleNamespace(catalog=List(exchange, [*lists], tells_loaded=tells_loaded))
        tasks = Tasks()
        bridge: Any = SimpleNamespace(services=services, tasks=tasks)
        exchanges = {"id": cast(Exchange, exchange)}
        LostModels(exchanges, cast(Bridge, bridge)).begin()
        for _ in range(50):
            await asyncio.sleep(0.001)
        exchanges.clear()
        await asyncio.sleep(0.01)
        assert not len(tasks), "it looks no more"

    asyncio.run(scenario())
    return bool(exchange.ended)


def test_a_model_that_is_gone_ends_its_answer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Waiting()
    assert is_ended(monkeypatch, exchange, GONE)
    (error,) = exchange.ended
    assert error.status == 503
    assert "has lost one" in error.message


def test_one_that_is_loaded_no_more_ends_what_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ended(monkeypatch, Waiting(), UNLOADED)
    assert not is_ended(monkeypatch, Waiting(received=0), UNLOADED)
    assert not is_ended(monkeypatch, Waiting(kind="relay"), UNLOADED)
    assert is_ended(monkeypatch, Waiting(received=0), GONE)
    assert is_ended(monkeypatch, Waiting(kind="relay"), GONE)


def test_what_may_go_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_ended(monkeypatch, Waiting(), LOADED)
    assert not is_ended(monkeypatch, Waiting(comes=1), GONE), "something comes all the time"
    assert not is_ended(monkeypatch, Waiting(waits_for_lmstudio=False), GONE), "a user holds it"
    assert not is_ended(monkeypatch, Waiting(), GONE, tells_loaded=False), "the list is another server's"
    assert not is_ended(monkeypatch, Waiting(), GONE, LOADED, GONE, AWAY), "back in between, or no list"
