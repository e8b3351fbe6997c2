"""A call whose response is translated when it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from mitmproxy import http
from tests.exchanges.conftest import (
    EVENTS,
    TOKEN,
    FakeTranslation,
    Holding,
    MakeExchange,
    answer,
    error_of,
    flow_of,
    kept,
    response_of,
)

from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.buffered import Buffered
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.internals import connections
from ollama_lmstudio.lmstudio.catalog import Model
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.outcomes import Call

JSON = http.Headers(content_type="application/json")
NOT_LOADED = b'{"error":{"message":"No models loaded. Please load a model in the developer page."}}'


def call(exchange: Exchange, **named: Any) -> FakeTranslation:
    translation = FakeTranslation()
    exchange.handler = Buffered(exchange, Call("/v1/embeddings", b'{"model":"k"}', translation, "k", "n", **named))
    return translation


def test_the_request_becomes_the_call(exchange_of: MakeExchange) -> None:
    flow = flow_of(
        "PUT", "/api/embed", b"client's", "HTTP/1.0", user_agent="app/1", origin="http://app", authorization="client's"
    )
    exchange = exchange_of(flow)
    exchange.recorder.record.query = "a=1"
    call(exchange)
    asyncio.run(exchange.request())
    request = exchange.flow.request
    assert (request.method, request.url) == ("POST", "http://lmstudio:1234/prefix/v1/embeddings?a=1")
    assert (request.http_version, request.raw_content) == ("HTTP/1.1", b'{"model":"k"}')
    assert dict(request.headers) == {
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
        "User-Agent": "app/1",
        "Accept-Encoding": "identity",
        "Host": "lmstudio:1234",
        "Content-Length": "13",
        "Authorization": "Bearer ***",
    }
    assert f"Authorization: Bearer {TOKEN}".encode() in bytes(request.headers)
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    assert TOKEN.encode() not in bytes(request.headers), "once it has been sent, nobody needs it"


def test_the_response_is_translated(exchange_of: MakeExchange, bridge: Bridge) -> None:
    released: list[str] = []
    exchange = exchange_of()
    translation = call(exchange, release=lambda: released.append("k"))
    answer(exchange, headers=JSON)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    assert not exchange.flow.response.stream
    exchange.flow.response.raw_content = b"vectors"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"translated vectors")
    assert len(translation.fed) == 1
    record = kept(exchange)
    assert (record.status, record.upstream, record.response_size) == (200, b"vectors", 18)
    assert record.numbers is not None
    assert (record.numbers.done_reason, record.numbers.first_token) == ("stop", 7)
    assert released == ["k"]


def refuse(exchange: Exchange, hold: Callable[..., Holding], body: bytes, *, ended: bool = True) -> None:
    """Let LM Studio refuse the call, as it does where it does not load models on demand."""
    hold(body, ended=ended)
    answer(exchange, 404, JSON)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    exchange.flow.response.raw_content = body
    asyncio.run(exchange.response())


class LMStudio:
    """Answer calls of the bridge's own."""

    def __init__(self, bridge: Bridge) -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.loads = 0
        self.status = 200
        self.error: LMStudioError | None = None
        bridge.services.client = cast(Any, self)

    async def load(self) -> None:
        self.loads += 1
        if self.error:
            raise self.error

    async def post(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        self.calls.append((path, body))
        return self.status, "application/json", b"second"


@pytest.mark.parametrize(("status", "on_demand"), [(200, False), (500, True)])
def test_a_model_that_is_not_loaded_on_demand_is_loaded_and_called_again(
    exchange_of: MakeExchange, bridge: Bridge, hold: Callable[..., Holding], status: int, on_demand: bool
) -> None:
    lmstudio = LMStudio(bridge)
    lmstudio.status = status
    exchange = exchange_of()
    call(exchange, reload=lmstudio.load)
    refuse(exchange, hold, NOT_LOADED)
    assert lmstudio.calls == [("/v1/embeddings", b'{"model":"k"}')]
    assert response_of(exchange) == (status, b"translated second")
    assert (kept(exchange).status, kept(exchange).upstream) == (status, b"second")
    assert asyncio.run(bridge.services.lifetimes.on_demand(Model("k"))) is on_demand


def test_a_load_that_fails_is_the_answer(
    exchange_of: MakeExchange, bridge: Bridge, hold: Callable[..., Holding]
) -> None:
    lmstudio = LMStudio(bridge)
    lmstudio.error = LMStudioError(503, "no memory")
    exchange = exchange_of()
    call(exchange, reload=lmstudio.load)
    refuse(exchange, hold, NOT_LOADED)
    assert lmstudio.calls == []
    assert (response_of(exchange)[0], error_of(response_of(exchange))) == (503, "no memory")
    assert kept(exchange).upstream == NOT_LOADED


@pytest.mark.parametrize(("body", "ended"), [(b'{"error":"bad input"}', True), (NOT_LOADED, False)])
def test_any_other_refusal_is_translated(
    exchange_of: MakeExchange, bridge: Bridge, hold: Callable[..., Holding], body: bytes, ended: bool
) -> None:
    lmstudio = LMStudio(bridge)
    exchange = exchange_of()
    call(exchange, reload=lmstudio.load)
    refuse(exchange, hold, body, ended=ended)
    assert (lmstudio.loads, response_of(exchange)) == (0, (404, b"translated " + body))


def test_a_response_that_is_whole_already_is_not_waited_for(exchange_of: MakeExchange) -> None:
    exchange = exchange_of()
    call(exchange)
    answer(exchange, 200, EVENTS, b"from another addon")
    asyncio.run(exchange.responseheaders())
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"translated from another addon")


def test_lm_studio_is_gone(exchange_of: MakeExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[bytes] = []
    monkeypatch.setattr(connections, "write_last", lambda flow, data: last.append(data))
    exchange = exchange_of()
    call(exchange)
    exchange.error()
    message = "LM Studio is not reachable at http://lmstudio:1234/prefix"
    assert response_of(exchange)[0] == 503
    assert error_of(response_of(exchange)).startswith(message)
    assert last[0].startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert last[0].endswith(response_of(exchange)[1])


def test_the_time_for_which_the_user_held_the_call_is_not_measured(exchange_of: MakeExchange) -> None:
    exchange = exchange_of()
    translation = call(exchange)
    began = exchange.recorder.started_ns
    exchange.paused(50)
    assert (translation.held, exchange.recorder.started_ns - began) == (50, 50)
