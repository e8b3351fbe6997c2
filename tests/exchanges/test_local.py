"""A request that the loopback service answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.flow import Error
from tests.exchanges.conftest import MakeExchange, answer, error_of, kept, response_of, written

from ollama_lmstudio.exchanges import loopback
from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.exchanges.local import Local
from ollama_lmstudio.internals import connections
from ollama_lmstudio.outcomes import LocalStream


async def lines() -> AsyncGenerator[Mapping[str, object], None]:
    yield {"status": "success"}


@pytest.fixture
def service(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> loopback.Loopback:
    """A loopback service that never starts its server."""
    monkeypatch.setattr(bridge.loopback, "_start", lambda: None)
    bridge.loopback.port = 4242
    return bridge.loopback


def local(exchange: Exchange) -> LocalStream:
    job = LocalStream(lines(), streaming=True)
    exchange.handler = Local(exchange, job)
    return job


def test_the_request_goes_to_the_loopback_service_once(exchange_of: MakeExchange, service: loopback.Loopback) -> None:
    exchange = exchange_of(path="/api/pull", body=b'{"model":"m"}')
    job = local(exchange)
    asyncio.run(exchange.request())
    first = dict(exchange.flow.request.headers)
    asyncio.run(exchange.request())
    request = exchange.flow.request
    assert dict(request.headers) == first
    assert (request.url, request.raw_content) == ("http://127.0.0.1:4242/api/pull", b'{"model":"m"}')
    assert request.headers[loopback.SECRET_HEADER] == "***"
    sent = {name: value for name, _, value in (line.partition(b": ") for line in bytes(request.headers).split(b"\r\n"))}
    headers: Any = {name.decode(): value.decode() for name, value in sent.items()}
    assert headers[loopback.SECRET_HEADER] == service.secret
    assert service.take(headers) == (job, ("t0ken",))


def test_its_response_passes_through(exchange_of: MakeExchange, service: loopback.Loopback) -> None:
    exchange = exchange_of(path="/api/pull")
    local(exchange)
    asyncio.run(exchange.request())
    answer(exchange, headers=http.Headers(content_type="application/x-ndjson", transfer_encoding="chunked"))
    asyncio.run(exchange.responseheaders())
    # ollama-rs reads one line of a chunk, and two may come at once.
    first, second = b'{"status":"verifying"}\n', b'{"status":"success"}\n'
    assert written(exchange, first + second, b"") == [first, second]
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, first + second)
    assert (kept(exchange).status, kept(exchange).upstream) == (0, b""), "LM Studio has said nothing"


def test_a_service_that_stops(
    exchange_of: MakeExchange, service: loopback.Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "write_last", lambda *_: True)
    exchange = exchange_of(path="/api/pull")
    local(exchange)
    asyncio.run(exchange.request())
    ticket = exchange.flow.request.headers[loopback.TICKET_HEADER]
    exchange.flow.error = Error("gone")
    exchange.error()
    assert response_of(exchange)[0] == 503
    assert error_of(response_of(exchange)) == loopback.STOPPED
    assert service.take({loopback.SECRET_HEADER: service.secret, loopback.TICKET_HEADER: ticket}) is None, "forgotten"
