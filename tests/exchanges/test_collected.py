"""A call whose answer streams, for a client that wants one object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.exchanges.conftest import FakeTranslation, Holding, MakeExchange, answer, kept, response_of, written

from ollama_lmstudio.exchanges.collected import Collected
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.internals import held_heads
from ollama_lmstudio.outcomes import CollectedCall

MakeHolding = Callable[..., Holding]


def begin(exchange: Exchange) -> FakeTranslation:
    translation = FakeTranslation(wants_lines=False)
    exchange.handler = Collected(exchange, CollectedCall("/v1/chat/completions", b"{}", translation))
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    return translation


def test_every_event_is_translated_when_it_comes(exchange_of: MakeExchange, hold: MakeHolding) -> None:
    holding = hold(b"a", b"b", ended=True)
    exchange = exchange_of()
    translation = begin(exchange)
    assert translation.fed == [(b"a", 100), (b"b", 101), (b"", 200)]
    assert holding.seconds is None, "however long it takes"
    assert exchange.flow.response is not None
    exchange.flow.response.raw_content = b"ab"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"whole")
    assert len(translation.fed) == 3
    assert kept(exchange).upstream == b"ab"


def test_an_error_is_not_waited_for_to_end(exchange_of: MakeExchange, hold: MakeHolding) -> None:
    async def scenario() -> None:
        await exchange.responseheaders()
        assert written(exchange, b"a", b"!", b"more", b"") == [b"failed"]
        await exchange.response()

    hold(b"a", b"!", b"never seen")
    exchange = exchange_of()
    translation = FakeTranslation(wants_lines=False)
    exchange.handler = Collected(exchange, CollectedCall("/v1/chat/completions", b"{}", translation))
    answer(exchange)
    asyncio.run(scenario())
    assert translation.fed == [(b"a", 100), (b"!", 101)]
    assert response_of(exchange) == (502, b"failed")
    assert exchange.flow.response is not None
    assert exchange.flow.response.headers["content-length"] == "6"


def test_where_no_head_can_be_held_all_is_translated_at_the_end(
    exchange_of: MakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cannot(*arguments: object) -> None:
        return None

    monkeypatch.setattr(held_heads, "hold", cannot)
    exchange = exchange_of()
    begin(exchange)
    assert exchange.flow.response is not None
    exchange.flow.response.raw_content = b"ab"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"translated ab")
