"""The bridge's own calls as flows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mitmproxy import http

from ollama_lmstudio.lmstudio.client import ClientCall
from ollama_lmstudio.record import internal_calls, record

EXCHANGE = ClientCall(
    method="POST",
    url="http://localhost:1234/prefix/api/v1/models/load?x=1",
    request_headers=(("Host", "localhost:1234"), ("Authorization", "***")),
    request_body=b'{"model":"m"}',
    status=200,
    response_headers=(("Content-Length", "2"), ("X-A", "1"), ("X-A", "2")),
    response_body=b"{}",
    started=1.0,
    ended=1.5,
    error=None,
)


def flow_of(call: ClientCall) -> http.HTTPFlow:
    flow = internal_calls.begun(call, 10_000)
    internal_calls.complete(flow, call)
    return flow


def test_a_call_that_has_begun() -> None:
    flow = internal_calls.begun(replace(EXCHANGE, status=None, ended=0.0), 4)
    kept = record.of(flow)
    assert kept is not None
    assert (kept.kind, kept.purpose, kept.numbers, kept.call_size) == ("own", "load", None, 13)
    assert (flow.request.raw_content, flow.response, flow.error) == (b'{"mo', None, None)


def test_a_call_that_was_answered() -> None:
    flow = flow_of(EXCHANGE)
    kept = record.of(flow)
    assert kept is not None
    assert (kept.kind, kept.purpose, kept.path, kept.status) == ("own", "load", "/prefix/api/v1/models/load", 200)
    assert kept.numbers is not None
    assert kept.numbers.total == 500_000_000
    assert (flow.request.host, flow.server_conn.address) == ("(bridge)", ("localhost", 1234))
    assert (flow.request.pretty_url, flow.request.raw_content) == (EXCHANGE.url, EXCHANGE.request_body)
    assert flow.request.headers.fields == ((b"Host", b"localhost:1234"), (b"Authorization", b"***"))
    assert flow.response is not None
    assert flow.response.raw_content == b"{}"
    assert flow.response.headers.fields == ((b"Content-Length", b"2"), (b"X-A", b"1"), (b"X-A", b"2"))
    assert flow.response.timestamp_end == 1.5
    assert flow.error is None
    assert not flow.live


def test_a_call_whose_path_does_not_tell_what_it_is_for() -> None:
    kept = record.of(flow_of(replace(EXCHANGE, purpose="load on demand")))
    assert kept is not None
    assert kept.purpose == "load on demand"


def test_a_call_that_was_not() -> None:
    flow = flow_of(replace(EXCHANGE, status=None, response_headers=(), response_body=b"", error="not reachable"))
    kept = record.of(flow)
    assert kept is not None
    assert (kept.status, kept.error) == (0, "not reachable")
    assert flow.response is None
    assert flow.error is not None
    assert flow.error.msg == "no answer"


@pytest.mark.parametrize(
    ("method", "path", "purpose"),
    [
        ("GET", "/api/v1/models", "model list"),
        ("GET", "/prefix/api/v0/models", "model list"),
        ("GET", "/v1/models", "model list"),
        ("POST", "/api/v1/models/load", "load"),
        ("POST", "/api/v1/models/unload", "unload"),
        ("POST", "/api/v1/models/download", "download"),
        ("GET", "/api/v1/models/download/status/job_1", "download progress"),
        ("POST", "/v1/chat/completions", "call asked again"),
        ("DELETE", "/x", "call"),
    ],
)
def test_purposes(method: str, path: str, purpose: str) -> None:
    assert internal_calls.purpose_of(method, path) == purpose


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("models/load", b'{"model": "qwen/qwen3-70b"}', "loading qwen3-70b"),
        ("models/unload", b'{"instance_id": "qwen/qwen3-70b:2"}', "unloading qwen3-70b:2"),
        ("models/load", b"[]", "waits for LM Studio"),
        ("models/download", b'{"model": "a/b"}', "waits for LM Studio"),
    ],
)
def test_what_a_call_waits_for(path: str, body: bytes, words: str) -> None:
    call = replace(EXCHANGE, url=f"http://localhost:1234/prefix/api/v1/{path}", request_body=body)
    assert internal_calls.waits_for(call) == words
