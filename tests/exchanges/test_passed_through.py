"""A request on one of LM Studio's own APIs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.flow import Error
from tests.exchanges.conftest import EVENTS, TOKEN, MakeExchange, answer, flow_of, kept, response_of, written

from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.exchanges.passed_through import PassedThrough
from ollama_lmstudio.internals import connections
from ollama_lmstudio.outcomes import Passthrough

PATH = "/v1/chat/completions"


def passed(exchange: Exchange, **named: Any) -> None:
    passthrough = Passthrough(PATH, b'{"model":"k"}', model="k", asked="n", **named)
    exchange.recorder.set_outcome(passthrough)
    exchange.handler = PassedThrough(exchange, passthrough)


def test_the_request_goes_on_without_what_is_between_client_and_bridge(exchange_of: MakeExchange) -> None:
    flow = flow_of(
        "PATCH",
        PATH,
        b"{}",
        connection="close, X-Hop,,x-other ",
        x_hop="1",
        x_other="2",
        origin="http://app",
        if_none_match="x",
        x_own="1",
        x_api_key="key",
    )
    exchange = exchange_of(flow)
    passed(exchange)
    asyncio.run(exchange.request())
    request = exchange.flow.request
    assert (request.method, request.url) == ("PATCH", f"http://lmstudio:1234/prefix{PATH}")
    assert dict(request.headers) == {
        "x-own": "1",
        "content-length": "13",
        "Accept-Encoding": "identity",
        "Host": "lmstudio:1234",
        "Authorization": "Bearer ***",
    }
    assert exchange.close_connection


def test_a_header_that_is_set_stays_where_it_was_and_is_there_once(exchange_of: MakeExchange) -> None:
    exchange = exchange_of(flow_of(path=PATH))
    exchange.flow.request.headers.fields = (
        (b"HOST", b"bridge"),
        (b"accept-encoding", b"gzip"),
        (b"X-Own", b"1"),
        (b"Accept-Encoding", b"br"),
        (b"Transfer-Encoding", b"chunked"),
    )
    passed(exchange)
    asyncio.run(exchange.request())
    assert exchange.flow.request.headers.fields[:-1] == (
        (b"HOST", b"lmstudio:1234"),
        (b"accept-encoding", b"identity"),
        (b"X-Own", b"1"),
        (b"Content-Length", b"13"),
    )


@pytest.mark.parametrize(("version", "chunked"), [("HTTP/1.1", True), ("HTTP/1.0", True), ("HTTP/1.1", False)])
def test_the_body_passes_through(exchange_of: MakeExchange, version: str, chunked: bool) -> None:
    released: list[int] = []
    exchange = exchange_of(flow_of(path=PATH, version=version))
    exchange.cors_headers = (("Access-Control-Allow-Origin", "http://app"),)
    passed(exchange, release=lambda: released.append(1))
    headers = http.Headers(
        EVENTS.fields, x_own="1", access_control_allow_origin="*", keep_alive="5", connection="X-Hop", x_hop="1"
    )
    headers["transfer-encoding" if chunked else "content-length"] = "chunked" if chunked else "5000"
    answer(exchange, headers=headers)
    if not chunked:
        assert exchange.flow.response is not None
        exchange.flow.response.headers["content-length"] = "5000"
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    found = dict(exchange.flow.response.headers)
    assert (found["x-own"], found["Access-Control-Allow-Origin"]) == ("1", "http://app")
    assert not {"keep-alive", "x-hop"}.intersection(found)
    assert found["X-Accel-Buffering"] == "no"
    assert ("Transfer-Encoding" in found) is (chunked and version == "HTTP/1.1")
    assert (found.get("Connection") == "close") is (version == "HTTP/1.0")
    assert written(exchange, b"data: 1\n\n", b"", b"data: 2\n\n") == [b"data: 1\n\n", b"data: 2\n\n"]
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"data: 1\n\ndata: 2\n\n")
    assert (kept(exchange).kind, kept(exchange).upstream, released) == ("relay", b"", [1]), "it is kept once"


def buffered(exchange: Exchange, status: int, body: bytes) -> None:
    answer(exchange, status, http.Headers(content_type="application/json", etag="x"))
    assert exchange.flow.response is not None
    exchange.flow.response.headers["content-length"] = str(len(body))
    asyncio.run(exchange.responseheaders())
    assert not exchange.flow.response.stream
    exchange.flow.response.raw_content = body
    asyncio.run(exchange.response())


def test_a_body_is_changed(exchange_of: MakeExchange) -> None:
    exchange = exchange_of(path=PATH)
    passed(exchange, rewrite=lambda body: body.replace(b"k", b"name"))
    buffered(exchange, 200, b"k" * 5000)
    assert response_of(exchange) == (200, b"name" * 5000)
    assert exchange.flow.response is not None
    assert dict(exchange.flow.response.headers) == {"content-type": "application/json", "content-length": "20000"}


def test_a_path_that_lm_studio_does_not_have_is_a_404(exchange_of: MakeExchange) -> None:
    exchange = exchange_of(path="/v1/nothing")
    passed(exchange)
    buffered(exchange, 200, b'{"error":"Unexpected endpoint or method. (GET /v1/nothing)"}')
    assert response_of(exchange) == (404, b"404 page not found")


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_said_of_the_token_does_not_repeat_it(exchange_of: MakeExchange, status: int) -> None:
    exchange = exchange_of(path=PATH)
    passed(exchange)
    buffered(exchange, status, b'{"error":"bad %s"}' % TOKEN.encode() + b" " * 5000)
    assert response_of(exchange)[0] == status
    assert TOKEN.encode() not in response_of(exchange)[1]
    assert TOKEN.encode() not in kept(exchange).upstream


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/chat/completions", lambda error: error["error"]["message"]),
        ("/api/v0/models", lambda error: error["error"]),
    ],
)
def test_lm_studio_is_gone(exchange_of: MakeExchange, monkeypatch: pytest.MonkeyPatch, path: str, message: Any) -> None:
    last: list[bytes] = []
    monkeypatch.setattr(connections, "write_last", lambda flow, data: last.append(data))
    exchange = exchange_of(path=path)
    passed(exchange)
    exchange.flow.error = Error("gone")
    exchange.error()
    status, body = response_of(exchange)
    assert status == 503
    assert "not reachable" in str(message(json.loads(body)))
    assert last[0].endswith(body)


@pytest.mark.parametrize(
    ("content_type", "body", "last"),
    [
        ("text/event-stream", b"data: 1\n\n", b'event: error\ndata: {"error": {"message": "LM Studio closed'),
        ("text/event-stream", b"data: [DONE]\n\n", b"0\r\n\r\n"),
        ("application/octet-stream", b"data: 1\n\n", b""),
    ],
)
def test_only_a_stream_that_breaks_has_more_than_what_lm_studio_sent(
    exchange_of: MakeExchange, monkeypatch: pytest.MonkeyPatch, content_type: str, body: bytes, last: bytes
) -> None:
    ends: list[bytes] = []
    monkeypatch.setattr(connections, "write_last", lambda flow, data: ends.append(data))
    exchange = exchange_of(path=PATH)
    passed(exchange)
    answer(exchange, headers=http.Headers(content_type=content_type, transfer_encoding="chunked"))
    asyncio.run(exchange.responseheaders())
    written(exchange, body)
    exchange.flow.error = Error("gone")
    exchange.flow.server_conn.timestamp_tcp_setup = 1.0
    exchange.error()
    assert response_of(exchange) == (200, body)
    assert last in b"".join(ends)
    assert bool(ends) is bool(last)
