"""What is answered at once: by the bridge itself, or from a recording."""

from __future__ import annotations

import asyncio

import pytest
from mitmproxy import http
from mitmproxy.addons.serverplayback import ServerPlayback
from mitmproxy.test import tflow
from tests.exchanges.conftest import MakeExchange, kept, response_of

from ollama_lmstudio.exchanges.answered import Answered, ServerReplayed
from ollama_lmstudio.outcomes import Response
from ollama_lmstudio.record.record import Numbers, Record
from ollama_lmstudio.record.recording import RecordedAnswer


@pytest.mark.parametrize(("method", "body"), [("GET", b'{"a":1}'), ("HEAD", b"")])
def test_a_response_of_the_bridges_own(exchange_of: MakeExchange, method: str, body: bytes) -> None:
    exchange = exchange_of(method=method)
    exchange.cors_headers = (("Access-Control-Allow-Origin", "http://app"),)
    exchange.handler = Answered(exchange, Response.json({"a": 1}))
    asyncio.run(exchange.request())
    assert response_of(exchange) == (200, body)
    assert exchange.flow.response is not None
    assert exchange.flow.response.headers["access-control-allow-origin"] == "http://app"
    assert exchange.flow.response.headers["content-length"] == "7"
    exchange.flow.intercept()
    assert not exchange.flow.intercepted, "it has only one side to be stopped at: its response"
    asyncio.run(exchange.responseheaders())
    exchange.flow.intercept()
    assert exchange.flow.intercepted
    asyncio.run(exchange.response())
    assert kept(exchange).kind == "answer"


def test_a_recorded_answer_keeps_its_record(exchange_of: MakeExchange, master: object) -> None:
    recorded = tflow.tflow(resp=True)
    recorded.request = http.Request.make("POST", "http://then:1/v1/x?q", b"call", http.Headers(a="b"))
    playback = ServerPlayback()
    other = tflow.tflow(resp=True)
    playback.flowmap = {b"key": [other, recorded]}
    vars(master)["addons"]["serverplayback"] = playback
    record = Record(kind="call", path="/api/chat", model="then", numbers=Numbers(total=5))
    exchange = exchange_of()
    exchange.handler = ServerReplayed(exchange, RecordedAnswer(recorded, record))
    asyncio.run(exchange.request())
    request = exchange.flow.request
    assert (request.url, request.headers["a"], request.raw_content) == ("http://then:1/v1/x?q", "b", b"call")
    assert playback.flowmap[b"key"] == [recorded, other]
    exchange.flow.response = http.Response.make(200, b"then")
    asyncio.run(exchange.response())
    assert (kept(exchange).model, kept(exchange).numbers) == ("then", Numbers(total=5))
