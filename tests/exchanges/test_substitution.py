"""Answers of a model that was not asked for, where a real LM Studio would be hard to bring to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from mitmproxy import http
from tests.exchanges.conftest import (
    FakeTranslation,
    Holding,
    MakeExchange,
    answer,
    error_of,
    flow_of,
    kept,
    response_of,
    written,
)

from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.collected import Collected
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.exchanges.passed_through import PassedThrough
from ollama_lmstudio.exchanges.replayed import Replayed
from ollama_lmstudio.exchanges.streamed import Streamed
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.outcomes import Outcome, Passthrough, Response, StreamedCall

CHAT = "/v1/chat/completions"
ANOTHER = "LM Studio answered with another model in place of k: load k and ask again"


class Catalog:
    """A list that has the model `k`, under this id alone, and cannot be read if `error` is set."""

    def __init__(self, bridge: Bridge) -> None:
        self.error: LMStudioError | None = None
        self.models = {"k"}
        bridge.services.catalog = cast(Any, self)

    async def confirm(self, asked: str, answered: str) -> bool:
        if self.error:
            raise self.error
        return asked == answered

    async def has(self, id_: str) -> bool:
        if self.error:
            raise self.error
        return id_ in self.models


class LMStudio:
    """Answer the calls of the bridge's own."""

    def __init__(self, bridge: Bridge, model: str) -> None:
        self.calls: list[str] = []
        self.model = model
        bridge.services.client = cast(Any, self)

    async def post(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        self.calls.append(path)
        return 200, "application/json", json.dumps({"model": self.model, "choices": []}).encode()


@pytest.fixture
def catalog(bridge: Bridge) -> Catalog:
    return Catalog(bridge)


def streamed_call(model: str = "", **named: Any) -> tuple[StreamedCall, FakeTranslation]:
    translation = FakeTranslation()
    translation.model = model
    return StreamedCall(CHAT, b"{}", translation, "k", "n", **named), translation


def decides(exchange: Exchange, outcome: Outcome) -> None:
    async def decide_again() -> Outcome:
        return outcome

    exchange.decide_again = decide_again


@pytest.mark.usefixtures("catalog")
def test_a_replay_shows_the_error_and_not_the_answer(exchange_of: MakeExchange) -> None:
    exchange = exchange_of()
    exchange.client_request = None
    call, _ = streamed_call("another")
    exchange.handler = Replayed(exchange, call)
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    written(exchange, b"a", b"b", b"")
    asyncio.run(exchange.response())
    assert (response_of(exchange)[0], error_of(response_of(exchange))) == (502, ANOTHER)


@pytest.mark.usefixtures("catalog")
def test_a_replay_of_what_was_passed_through(exchange_of: MakeExchange) -> None:
    exchange = exchange_of(flow_of(path=CHAT))
    exchange.client_request = None
    exchange.handler = PassedThrough(exchange, Passthrough(CHAT, b"{}", model="k", asked="n"))
    answer(exchange, headers=http.Headers(content_type="application/json"))
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    exchange.flow.response.raw_content = b'{"model":"another","choices":[]}'
    asyncio.run(exchange.response())
    status, body = response_of(exchange)
    assert (status, json.loads(body)["error"]["message"]) == (502, ANOTHER)


@pytest.mark.parametrize("handler", [Streamed, Collected])
def test_another_model_twice_is_an_error(
    exchange_of: MakeExchange,
    bridge: Bridge,
    catalog: Catalog,
    hold: Callable[..., Holding],
    handler: type[Streamed] | type[Collected],
) -> None:
    released: list[str] = []
    lmstudio = LMStudio(bridge, "another")
    hold(b"a", ended=True)
    exchange = exchange_of()
    first, _ = streamed_call("another", release=lambda: released.append("first"))
    second, _ = streamed_call(release=lambda: released.append("second"))

    async def decide_again() -> Outcome:
        assert released == ["first"], "what decides may wait for a model to be free"
        return second

    exchange.decide_again = decide_again
    exchange.handler = handler(exchange, first)
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    body = b"".join(written(exchange, b"a", b""))
    asyncio.run(exchange.response())
    assert exchange.flow.response is not None
    assert exchange.flow.response.status_code == 502
    assert json.loads(body)["error"] == ANOTHER
    assert lmstudio.calls == [CHAT], "it is called once more, and not again"
    assert released == ["first", "second"], "each model is released once"


def test_while_the_list_cannot_be_read_another_id_is_not_believed(
    exchange_of: MakeExchange, catalog: Catalog, hold: Callable[..., Holding]
) -> None:
    catalog.error = LMStudioError(503, "away")
    hold(b"a")
    exchange = exchange_of()
    call, _ = streamed_call("another")
    decides(exchange, Response.error(503, "away"))
    exchange.handler = Streamed(exchange, call)
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    assert exchange.flow.response.status_code == 503
    assert written(exchange, b"a") == [b'{"error":"away"}']
    asyncio.run(exchange.response())
    assert (kept(exchange).kind, kept(exchange).upstream) == ("answer", b"")


@pytest.mark.parametrize(("models", "error", "status"), [({"k"}, 0, 200), (set(), 0, 404), (set(), 503, 200)])
def test_a_head_that_has_to_go_before_the_first_event(
    exchange_of: MakeExchange,
    catalog: Catalog,
    hold: Callable[..., Holding],
    models: set[str],
    error: int,
    status: int,
) -> None:
    """What is sent is a 200, unless the list says that LM Studio had no such model when the call came."""
    catalog.models = models
    catalog.error = LMStudioError(error, "away") if error else None
    hold()
    exchange = exchange_of()
    call, _ = streamed_call()
    decides(exchange, Response.error(404, "gone"))
    exchange.handler = Streamed(exchange, call)
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    assert exchange.flow.response.status_code == status


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize("handler", [Streamed, PassedThrough])
def test_whatever_goes_wrong_the_wrong_answer_is_not_told(
    exchange_of: MakeExchange, hold: Callable[..., Holding], handler: type[Streamed] | type[PassedThrough]
) -> None:
    hold(b'data: {"model":"another"}\n\n')
    exchange = exchange_of(flow_of(path=CHAT))

    async def decide_again() -> Outcome:
        raise RuntimeError("a bug")

    exchange.decide_again = decide_again
    call, _ = streamed_call("another")
    passthrough = Passthrough(CHAT, b"{}", model="k", asked="n")
    exchange.handler = Streamed(exchange, call) if handler is Streamed else PassedThrough(exchange, passthrough)
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    assert exchange.flow.response.status_code == 500
    assert b"internal error" in b"".join(written(exchange, b"data"))
