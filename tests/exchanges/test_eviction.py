"""A call whose model was evicted before its first token, and is called once more."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tests.exchanges.conftest import FakeTranslation, MakeExchange, answer

from ollama_lmstudio.exchanges import eviction
from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.buffered import Buffered
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.internals.held_heads import HeldBody
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.outcomes import Call


class LMStudio:
    """Answer calls of the bridge's own, when `go` is set."""

    def __init__(self, bridge: Bridge) -> None:
        self.did: list[str] = []
        self.go = asyncio.Event()
        self.error: LMStudioError | None = None
        bridge.services.client = cast(Any, self)

    async def load(self) -> None:
        self.did.append("load")

    async def post(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        self.did.append(f"call {body.decode()}")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.did.append("cancelled")
            raise
        if self.error:
            raise self.error
        return 200, "application/json", b"second"


@pytest.fixture
def lmstudio(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> LMStudio:
    monkeypatch.setattr(eviction, "SETTLE_SECONDS", 0)
    return LMStudio(bridge)


def evicted(exchange: Exchange, lmstudio: LMStudio, body: bytes = b"1") -> Buffered:
    handler = Buffered(exchange, Call("/v1/embeddings", body, FakeTranslation(), reload=lmstudio.load))
    answer(exchange, 400)
    return handler


@pytest.mark.parametrize("on_demand", [True, False])
def test_it_is_called_again(exchange_of: MakeExchange, bridge: Bridge, lmstudio: LMStudio, on_demand: bool) -> None:
    """Without loading on demand the model is loaded first; that it was evicted says nothing about that."""
    if not on_demand:
        bridge.services.lifetimes.not_on_demand()
    lmstudio.go.set()
    response = asyncio.run(evicted(exchange_of(), lmstudio).call_in_turn(HeldBody()))
    assert response is not None
    assert (response.status, response.body) == (200, b"translated second")
    assert lmstudio.did == ["call 1"] if on_demand else ["load", "call 1"]
    assert bridge.services.lifetimes.loads_explicitly is not on_demand


def test_a_second_call_that_fails_is_the_answer(exchange_of: MakeExchange, lmstudio: LMStudio) -> None:
    lmstudio.go.set()
    lmstudio.error = LMStudioError(502, "gone")
    response = asyncio.run(evicted(exchange_of(), lmstudio).call_in_turn(HeldBody()))
    assert response is not None
    assert (response.status, response.body) == (502, b'{"error":"gone"}')


def test_one_call_after_the_other(exchange_of: MakeExchange, lmstudio: LMStudio) -> None:
    """They would evict each other again."""

    async def scenario() -> None:
        calls = [evicted(exchange_of(), lmstudio, body).call_in_turn(HeldBody()) for body in (b"1", b"2")]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.01)
        assert lmstudio.did == ["call 1"]
        lmstudio.go.set()
        await asyncio.gather(*tasks)
        assert lmstudio.did == ["call 1", "call 2"]

    asyncio.run(scenario())


def test_a_client_that_goes_keeps_no_other_waiting(
    exchange_of: MakeExchange, lmstudio: LMStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "LOOK_SECONDS", 0.01)

    async def scenario() -> None:
        held = HeldBody()
        call = asyncio.create_task(evicted(exchange_of(), lmstudio).call_in_turn(held))
        await asyncio.sleep(0.05)
        assert not call.done()
        held.client_gone = True
        assert await call is None
        await asyncio.sleep(0)
        assert lmstudio.did == ["call 1", "cancelled"]

    asyncio.run(scenario())
