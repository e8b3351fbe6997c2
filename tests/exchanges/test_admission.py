"""Who comes in, and what becomes of a request."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.proxy.mode_specs import ProxyMode
from tests.exchanges.conftest import FakeTranslation, error_of, flow_of, kept, response_of

from ollama_lmstudio import access, compression, routes
from ollama_lmstudio.exchanges import admission
from ollama_lmstudio.exchanges.answered import Answered
from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.buffered import Buffered
from ollama_lmstudio.exchanges.collected import Collected
from ollama_lmstudio.exchanges.exchange import Exchange, Handler
from ollama_lmstudio.exchanges.local import Local
from ollama_lmstudio.exchanges.passed_through import PassedThrough
from ollama_lmstudio.exchanges.registry import Exchanges
from ollama_lmstudio.exchanges.replayed import Replayed
from ollama_lmstudio.exchanges.streamed import Streamed
from ollama_lmstudio.internals import connections, interception
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.outcomes import (
    INTERNAL_ERROR,
    Call,
    CollectedCall,
    LocalStream,
    Outcome,
    Passthrough,
    Request,
    Response,
    StreamedCall,
)
from ollama_lmstudio.record.record import Record


def admitted(bridge: Bridge, flow: http.HTTPFlow) -> Exchange:
    exchanges = Exchanges(bridge)
    admission.admit(flow, exchanges)
    return exchanges._by_flow[flow.id]


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch, bridge: Bridge) -> Callable[[Outcome | Exception], list[Request]]:
    """Choose what an endpoint makes of every request."""
    asked: list[Request] = []

    def choose(outcome: Outcome | Exception) -> list[Request]:
        async def endpoint(request: Request, services: object) -> Outcome:
            asked.append(request)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(routes, "find", lambda *_: endpoint)
        monkeypatch.setattr(bridge.loopback, "_start", lambda: None)
        return asked

    return choose


def call(kind: type[Call]) -> Call:
    return kind("/v1/x", b"{}", FakeTranslation(), "k", "n")


async def _lines() -> Any:
    yield {}


@pytest.mark.parametrize(
    ("outcome_of", "handler", "replay_handler"),
    [
        (lambda: Response(200), Answered, Answered),
        (lambda: call(Call), Buffered, Buffered),
        (lambda: call(CollectedCall), Collected, Replayed),
        (lambda: call(StreamedCall), Streamed, Replayed),
        (lambda: Passthrough("/v1/x", b""), PassedThrough, PassedThrough),
        (lambda: LocalStream(_lines(), True), Local, Local),
    ],
)
def test_each_outcome_has_its_handler(
    bridge: Bridge,
    outcome: Callable[..., list[Request]],
    outcome_of: Callable[[], Outcome],
    handler: type[Handler],
    replay_handler: type[Handler],
) -> None:
    asked = outcome(outcome_of())
    flow = flow_of(body=b'{"model":"n"}', x_own="1")
    exchange = admitted(bridge, flow)
    asyncio.run(exchange.request())
    assert type(exchange.handler) is handler
    assert (asked[0].path, asked[0].body, asked[0].headers["x-own"]) == ("/api/chat", b'{"model":"n"}', "1")

    outcome(outcome_of())
    again = flow_of()
    again.is_replay = "request"
    record = Record(kind="call", method="POST", path="/api/chat", request=b"asked", request_size=5, key="alice")
    record.save(again.metadata)
    exchange = admitted(bridge, again)
    asyncio.run(exchange.request())
    assert type(exchange.handler) is replay_handler
    assert exchange.record.key == "", "it is the user who asks now"
    assert asked[1].body == b"asked", "what the client sent, not what became of it"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OllamaError(404, "model 'x' not found"), 404, "model 'x' not found"),
        (LMStudioError(503, "no t0ken"), 503, "no ***"),
        (ValueError("a bug"), 500, "internal error of the proxy, see its log"),
    ],
)
def test_what_an_endpoint_raises_is_the_response(
    bridge: Bridge, outcome: Callable[..., list[Request]], error: Exception, status: int, message: str
) -> None:
    outcome(error)
    exchange = admitted(bridge, flow_of())
    asyncio.run(exchange.request())
    assert (response_of(exchange)[0], error_of(response_of(exchange))) == (status, message)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/models", {"message": INTERNAL_ERROR, "type": "api_error", "param": None, "code": None}),
        ("/v1/messages", {"type": "api_error", "message": INTERNAL_ERROR}),
        ("/api/v1/models", {"message": INTERNAL_ERROR, "type": "internal_error", "param": None, "code": None}),
    ],
)
def test_a_bug_is_told_in_the_shape_of_the_api(
    bridge: Bridge, outcome: Callable[..., list[Request]], path: str, error: dict[str, object]
) -> None:
    outcome(ValueError("a bug"))
    exchange = admitted(bridge, flow_of(path=path))
    asyncio.run(exchange.request())
    status, body = response_of(exchange)
    assert (status, json.loads(body)["error"]) == (500, error)


def test_secrets_leave_the_request_when_it_comes_in(bridge: Bridge) -> None:
    exchange = admitted(bridge, flow_of(authorization="Bearer key", cookie="a=b", x_own="1"))
    assert set(exchange.flow.request.headers) == {"x-own", "content-length"}
    assert kept(exchange).headers == (("x-own", "1"), ("content-length", "2"))


def test_headers_of_one_name_are_one_to_an_endpoint(bridge: Bridge) -> None:
    flow = flow_of()
    flow.request.headers.fields = ((b"X-Own", b"1"), (b"x-own", b"\xff"), (b"Cookie", b"a=b"), (b"cookie", b"c=d"))
    request = admitted(bridge, flow).client_request
    assert request is not None
    assert request.headers == {"x-own": "1, \udcff"}
    assert list(flow.request.headers.fields) == [(b"X-Own", b"1"), (b"x-own", b"\xff")]


@pytest.mark.parametrize("length", ["2", "100000", ""])
def test_who_may_not_come_in(bridge: Bridge, monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    last: list[bytes] = []

    def write_last(flow: http.HTTPFlow, data: bytes) -> bool:
        last.append(data)
        return True

    monkeypatch.setattr(connections, "write_last", write_last)
    flow = flow_of()
    flow.request.headers["host"] = "evil.com"
    flow.request.headers.pop("content-length", None)
    flow.request.headers["content-length" if length else "transfer-encoding"] = length or "chunked"
    exchange = admitted(bridge, flow)
    assert response_of(exchange)[0] == 403
    assert bool(last) is (length != "2"), "a large body is not read"
    assert bool(flow.error) is (length != "2")
    asyncio.run(exchange.request())
    assert type(exchange.handler) is Answered


def test_a_check_that_fails_lets_nobody_in(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(access, "check", fail)
    exchange = admitted(bridge, flow_of())
    assert response_of(exchange)[0] == 500
    asyncio.run(exchange.request())
    assert response_of(exchange)[0] == 500
    asyncio.run(exchange.response())


def test_without_settings_nobody_comes_in() -> None:
    """A script that is loaded anew with a wrong option closes the port, which takes a moment."""
    flow = flow_of(path="/v1/chat/completions", authorization="Bearer key")
    admission.admit(flow, Exchanges(Bridge(lambda flow, record=None: None)))
    assert flow.response is not None
    assert flow.response.status_code == 503
    assert "see its log" in flow.response.json()["error"]["message"]
    assert "authorization" not in flow.request.headers


def test_an_upload_is_sent_on_before_its_body_comes(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge.loopback, "_start", lambda: None)
    exchange = admitted(bridge, flow_of(path="/api/blobs/sha256:" + "0" * 64, body=b""))
    assert exchange.flow.request.stream is True
    assert exchange.flow.request.host == "127.0.0.1"
    headers = dict(exchange.flow.request.headers)
    asyncio.run(exchange.request())
    assert dict(exchange.flow.request.headers) == headers
    assert kept(exchange).kind == "served"


def test_what_the_user_makes_of_a_stopped_request(
    bridge: Bridge, outcome: Callable[..., list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def edit(flow: http.HTTPFlow) -> None:
        assert kept(exchange).request == b"before"
        flow.request.path, flow.request.raw_content = "/api/generate?a=1", b"after"

    monkeypatch.setattr(interception, "is_stopped", lambda flow: True)
    monkeypatch.setattr(interception, "wait_for_user", edit)
    asked = outcome(Passthrough("/v1/x", b""))
    exchange = admitted(bridge, flow_of(body=b"before"))
    asyncio.run(exchange.request())
    assert [(request.path, request.query, request.body) for request in asked] == [("/api/generate", "a=1", b"after")]
    assert kept(exchange).request == b"after"
    exchange.flow.intercept()
    assert not exchange.flow.intercepted, "it has one side only, which the user has seen"


def test_a_request_that_is_killed_while_it_waits_asks_no_endpoint(
    bridge: Bridge, outcome: Callable[..., list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kill(flow: http.HTTPFlow) -> None:
        flow.kill()

    monkeypatch.setattr(interception, "is_stopped", lambda flow: True)
    monkeypatch.setattr(interception, "wait_for_user", kill)
    asked = outcome(Response(200))
    exchange = admitted(bridge, flow_of())
    asyncio.run(exchange.request())
    assert (asked, exchange.flow.response) == ([], None)


def test_a_password_is_gone_before_anybody_looks(bridge: Bridge, outcome: Callable[..., list[Request]]) -> None:
    asked = outcome(Response(200))
    exchange = admitted(bridge, flow_of(path="/api/pull", body=b'{"model":"m","password":"hunter2"}'))
    asyncio.run(exchange.request())
    assert b"hunter2" not in asked[0].body + kept(exchange).request + (exchange.flow.request.raw_content or b"")
    assert b'"password": "***"' in asked[0].body


def test_a_body_is_decompressed_in_a_thread(
    bridge: Bridge, outcome: Callable[..., list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop = []
    decompress = compression.decompress

    def note(body: bytes, name: str, limit: int) -> bytes | None:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return decompress(body, name, limit)

    monkeypatch.setattr(compression, "decompress", note)
    asked = outcome(Response(200))
    flow = flow_of(path="/v1/chat/completions", content_encoding="gzip")
    flow.request.raw_content = gzip.compress(b'{"model":"m"}')
    asyncio.run(admitted(bridge, flow).request())
    assert (on_loop, asked[0].body) == ([False], b'{"model":"m"}')
    assert "content-encoding" not in flow.request.headers


def test_a_body_that_becomes_too_large(
    bridge: Bridge, outcome: Callable[..., list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> bytes:
        raise compression.TooLarge

    monkeypatch.setattr(compression, "decompress", too_large)
    asked = outcome(Response(200))
    exchange = admitted(bridge, flow_of(path="/v1/chat/completions", body=b"bomb", content_encoding="gzip"))
    asyncio.run(exchange.request())
    assert (asked, response_of(exchange)[0]) == ([], 413)
    asyncio.run(exchange.response())
    assert gzip.decompress(kept(exchange).request) == b"bomb"


@pytest.mark.parametrize("kind", ["own", "relay", "call"])
def test_a_replayed_call_goes_out_as_it_is(bridge: Bridge, kind: Any) -> None:
    flow = flow_of(path="/prefix/v1/models?x=1", body=b"edited")
    flow.is_replay = "request"
    Record(kind=kind, method="POST", path="/api/chat", request=b"cut", request_size=9, status=200).save(flow.metadata)
    exchange = admitted(bridge, flow)
    assert kept(exchange).status == 0, "what came back then is forgotten"
    asyncio.run(exchange.request())
    assert type(exchange.handler) is PassedThrough
    assert flow.request.url == "http://lmstudio:1234/prefix/v1/models"
    assert flow.request.raw_content == b"edited"


@pytest.mark.parametrize(
    ("body", "status"), [(b'{"cut', 400), (b'{"edited":"to less"}', 0), (b'\xef\xbb\xbf{"a":"\xff"}', 0)]
)
def test_a_request_that_is_not_kept_whole_cannot_be_replayed(bridge: Bridge, body: bytes, status: int) -> None:
    flow = flow_of(path="/v1/x", body=body)
    flow.is_replay = "request"
    Record(kind="relay", method="POST", path="/v1/x", call_size=5000).save(flow.metadata)
    exchange = admitted(bridge, flow)
    asyncio.run(exchange.request())
    assert (flow.response.status_code if flow.response else 0) == status
    if status:
        assert error_of(response_of(exchange)).startswith("this request of 5.0 kB is not kept whole")


@pytest.mark.parametrize(
    ("live", "replay", "known", "mode", "ours"),
    [
        (True, None, False, "reverse:http://x:1", True),
        (True, None, False, "regular", False),
        (False, None, True, "reverse:http://x:1", False),
        (True, "request", True, "regular", True),
        (True, "request", False, "regular", False),
        (True, "response", True, "regular", False),
    ],
)
def test_whose_flows_are_ours(live: bool, replay: Any, known: bool, mode: str, ours: bool) -> None:
    flow = flow_of()
    flow.live, flow.is_replay = live, replay
    flow.client_conn.proxy_mode = ProxyMode.parse(mode)
    if known:
        Record(kind="call", path="/api/chat").save(flow.metadata)
    assert admission.is_ours(flow) is ours


@pytest.mark.parametrize("path", ["/api/version", "/api/chat", "/v1/models"])
def test_what_was_on_its_way_when_a_drain_began_is_the_last_of_its_connection(bridge: Bridge, path: str) -> None:
    """It came on a connection that was kept, by a load balancer perhaps, which would pass an error on to its client."""
    exchanges = Exchanges(bridge)
    before = flow_of()
    admission.admit(before, exchanges)
    assert exchanges.drain() == 1
    assert exchanges._by_flow[before.id].close_connection
    flow = flow_of(path=path)
    admission.admit(flow, exchanges)
    assert flow.response is None
    assert isinstance(exchanges._by_flow[flow.id].handler, admission.Admitted)
    assert exchanges._by_flow[flow.id].close_connection


def test_what_cannot_be_admitted_keeps_no_key(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flow stays in the list and in files, too."""
    exchanges, flow = Exchanges(bridge), flow_of()
    flow.request.headers["Authorization"] = flow.request.headers["X-Api-Key"] = "sk-alice-1f6b"
    # As where the options could not be used.
    monkeypatch.delattr(bridge, "services")
    admission.admit(flow, exchanges)
    assert flow.response is not None
    assert flow.response.status_code == 500
    assert "sk-alice-1f6b" not in str(flow.get_state())
