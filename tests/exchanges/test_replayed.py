"""A call that the user replays: it is translated for the flow alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from mitmproxy import http
from mitmproxy.flow import Error
from tests.exchanges.conftest import FakeTranslation, Holding, MakeExchange, answer, kept, response_of, written

from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.exchanges.replayed import Replayed
from ollama_lmstudio.internals import connections
from ollama_lmstudio.outcomes import StreamedCall


def replayed(exchange: Exchange, status: int = 200) -> FakeTranslation:
    translation = FakeTranslation()
    exchange.client_request = None
    exchange.handler = Replayed(exchange, StreamedCall("/v1/chat/completions", b"{}", translation))
    answer(exchange, status)
    asyncio.run(exchange.responseheaders())
    return translation


def test_the_translation_becomes_the_flows_response(exchange_of: MakeExchange) -> None:
    exchange = exchange_of()
    replayed(exchange)
    assert written(exchange, b"a", b": ping", b"b", b"") == [], "nobody waits for it"
    assert exchange.flow.response is not None
    assert exchange.flow.response.headers["content-type"] == "application/x-ndjson"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"<a>\n<b>\nend\n")
    assert kept(exchange).upstream == b"a: pingb"


def test_an_error_alone_gets_its_status(exchange_of: MakeExchange) -> None:
    exchange = exchange_of()
    replayed(exchange)
    written(exchange, b"!", b"")
    asyncio.run(exchange.response())
    assert response_of(exchange) == (502, b"error\n"), "the flow shows what the translation said"


def test_lines_before_an_error_stay(exchange_of: MakeExchange) -> None:
    exchange = exchange_of()
    replayed(exchange)
    written(exchange, b"a", b"!", b"")
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"<a>\nerror\n")


def test_a_refusal_is_shown(exchange_of: MakeExchange, hold: Callable[..., Holding]) -> None:
    hold(b"never waited for", ended=True)
    exchange = exchange_of()
    translation = replayed(exchange, 404)
    assert exchange.flow.response is not None
    exchange.flow.response.raw_content = b"no"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (404, b"translated no")
    assert len(translation.fed) == 1


@pytest.mark.parametrize("message", ["gone", Error.KILLED_MESSAGE])
def test_lm_studio_is_gone(exchange_of: MakeExchange, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    monkeypatch.setattr(connections, "write_last", lambda *_: pytest.fail("there is no client"))
    exchange = exchange_of()
    replayed(exchange)
    written(exchange, b"a")
    exchange.flow.error = Error(message)
    exchange.error()
    line = b"error: LM Studio closed the connection before its answer was finished\n"
    assert response_of(exchange) == (200, b"<a>\n" + line)


def test_a_replayed_response_that_is_no_stream(exchange_of: MakeExchange) -> None:
    exchange = exchange_of()
    translation = FakeTranslation()
    exchange.handler = Replayed(exchange, StreamedCall("/v1/x", b"{}", translation))
    answer(exchange, headers=http.Headers(content_type="application/json"))
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    assert not exchange.flow.response.stream
    exchange.flow.response.raw_content = b"{}"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"translated {}")
