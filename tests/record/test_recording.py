"""Which recorded exchange answers a request."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.flow import Error
from mitmproxy.test import tflow

from ollama_lmstudio.outcomes import Request
from ollama_lmstudio.record import recording
from ollama_lmstudio.record.record import Numbers, Record

BODY = b'{"model": "m", "stream": false}'


def recorded(body: bytes = BODY, **changes: Any) -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    record = Record(
        kind="call", method="POST", path="/api/chat", request=body, request_size=len(body), numbers=Numbers()
    )
    for name, value in changes.items():
        setattr(record, name, value)
    record.save(flow.metadata)
    return flow


def asked(body: bytes = BODY, method: str = "POST", path: str = "/api/chat", query: str = "") -> Request:
    return Request(method, path, query, {}, body, 0)


@pytest.mark.parametrize("body", [BODY, b'{"stream":false,"model":"m"}', b' {"model":"m","stream":false}\n'])
def test_the_same_request(body: bytes) -> None:
    other, wanted = recorded(b'{"model":"other"}'), recorded()
    found = recording.find([other, wanted], asked(body))
    assert found is not None
    assert found.flow is wanted
    assert found.record.request == BODY


@pytest.mark.parametrize(
    "incoming",
    [
        asked(b'{"model":"m"}'),
        asked(b'{"model":"m","stream":true}'),
        asked(b"not JSON"),
        asked(path="/api/generate"),
        asked(method="PUT"),
        asked(query="a=1"),
    ],
)
def test_another_request(incoming: Request) -> None:
    assert recording.find([recorded()], incoming) is None


def test_the_same_bytes_that_are_no_json() -> None:
    assert recording.find([recorded(b"\xff")], asked(b"\xff")) is not None


def test_what_is_not_whole_answers_nobody() -> None:
    assert recording.find([recorded(request_size=999)], asked()) is None
    assert recording.find([recorded(response_size=999)], asked()) is None
    assert recording.find([recorded(numbers=None)], asked()) is None
    broken = recorded()
    broken.error = Error("Client disconnected.")
    assert recording.find([broken], asked()) is None
    # The user has made it shorter.
    assert recording.find([recorded(response_size=999, limit=1000)], asked()) is not None
    unanswered, empty = recorded(), recorded()
    unanswered.response = None
    assert empty.response is not None
    empty.response.raw_content = None
    assert recording.find([unanswered, empty, tflow.tflow(resp=True)], asked()) is None


def test_a_request_becomes_the_recorded_call() -> None:
    flow, then = tflow.tflow(), recorded()
    then.request.host, then.request.port, then.request.path = "lmstudio", 1234, "/v1/chat/completions"
    then.request.raw_content = b"call"
    recording.become(flow, then)
    for name in ("method", "scheme", "host", "port", "path", "headers", "raw_content"):
        assert getattr(flow.request, name) == getattr(then.request, name)
    assert flow.request.headers is not then.request.headers
