"""A bridge without mitmproxy's servers, flows of mitmproxy's own test helpers, and a translation that can be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx, http
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

from ollama_lmstudio import options
from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.exchanges.registry import Exchanges
from ollama_lmstudio.internals import held_heads
from ollama_lmstudio.internals.held_heads import HeldBody
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.outcomes import NDJSON, Measured, Request, Response
from ollama_lmstudio.record.record import Record
from ollama_lmstudio.services import Clock

TOKEN = "t0ken"
EVENTS = http.Headers(content_type="text/event-stream")

MakeExchange = Callable[..., Exchange]


class Ticks(Clock):
    """A monotonic clock that goes on by one with each look at it."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic(self) -> int:
        self.now += 1
        return self.now


class FakeTranslation:
    """Translate chunk by chunk: `x` becomes the line `<x>`, `!` is an error, what begins with a colon is nothing; what
    begins with a `#` shows that the answer has begun, but gives a line at the end only.
    """

    def __init__(self, *, wants_lines: bool = True) -> None:
        self.wants_lines = wants_lines
        self.model = ""
        self.fed: list[tuple[bytes, int]] = []
        self.started = self.rejected = self.failed = False
        self.error: LMStudioError | None = None
        self.held = 0
        self.so_far = 0, 0
        self.loads: list[int] = []
        self._lines = 0
        self._delayed: list[bytes] = []

    def paused(self, duration: int) -> None:
        self.held += duration

    def loading(self, until: int) -> None:
        self.loads.append(until)

    def feed(self, data: bytes, at: int) -> list[bytes]:
        self.fed.append((data, at))
        if data.startswith(b":") or self.failed:
            return []
        self.started = True
        if data.startswith(b"#"):
            self._delayed.append(data)
            return []
        return self._fail(b"error\n") if data == b"!" else self._line(data)

    def _line(self, data: bytes) -> list[bytes]:
        self._lines += 1
        return [b"<%s>\n" % data] if self.wants_lines else []

    def _fail(self, line: bytes) -> list[bytes]:
        self.failed, self.rejected = True, not self._lines
        return [line] if self.wants_lines else []

    def flush(self, at: int) -> list[bytes]:
        self.fed.append((b"", at))
        if self.failed:
            return []
        lines = [line for data in self._delayed for line in self._line(data)]
        self.started = True
        if not self._lines:
            return self._fail(b"error\n")
        return [*lines, b"end\n"] if self.wants_lines else []

    def abort(self, error: LMStudioError) -> list[bytes]:
        return [] if self.failed else self._fail(b"error: %s\n" % error.message.encode())

    def begin_again(self) -> None:
        assert self.rejected
        self.failed = self.rejected = False
        self.error = None

    def translate(self, status: int, content_type: str, body: bytes, at: int) -> Response:
        self.fed.append((body, at))
        return Response(status, b"translated " + body, NDJSON)

    def fail(self, error: LMStudioError) -> Response:
        self.failed = True
        return Response.error(error.status, error.message)

    def response(self) -> Response:
        return Response(502, b"failed") if self.failed else Response(200, b"whole")

    def measured(self) -> Measured:
        return Measured(done_reason="stop", first_token=7)


class Holding:
    """Stand for mitmproxy's queue while a head is held: `chunks` come one by one, then what is said of the end."""

    def __init__(self, *chunks: bytes, ended: bool = False, server_gone: bool = False) -> None:
        self.chunks = chunks
        self.ended = ended
        self.server_gone = server_gone
        self.seconds: float | None = None

    async def hold(
        self,
        flow: http.HTTPFlow,
        clock: Callable[[], int],
        enough: Callable[[HeldBody], bool],
        timeout: float | None = None,
    ) -> HeldBody:
        self.seconds = timeout
        arrived = HeldBody()
        for number, chunk in enumerate(self.chunks, 100):
            arrived.data.append((number, chunk))
            if enough(arrived):
                return arrived
        arrived.ended_at = 200 if self.ended else 0
        arrived.server_gone = self.server_gone
        return arrived


@pytest.fixture(autouse=True)
def master(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let mitmproxy have no other addons."""
    master = SimpleNamespace(addons={})
    monkeypatch.setattr(ctx, "master", master, raising=False)
    return master


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Holding]:
    """Choose what comes while a head is held."""

    def choose(*chunks: bytes, **named: Any) -> Holding:
        holding = Holding(*chunks, **named)
        monkeypatch.setattr(held_heads, "hold", holding.hold)
        return holding

    return choose


@pytest.fixture
def labelled() -> list[http.HTTPFlow]:
    """The flows whose label was to be set."""
    return []


@pytest.fixture
def bridge(tmp_path: Path, labelled: list[http.HTTPFlow]) -> Bridge:
    """A bridge to an LM Studio that is never asked."""
    bridge = Bridge(lambda flow, record=None: labelled.append(flow))
    bridge.clock = Ticks()
    values = {option.name: option.default for option in options.OPTIONS}
    changed = {"state_dir": str(tmp_path), "lmstudio_token": TOKEN, "lmstudio_url": "http://lmstudio:1234/prefix"}
    settings = options.parse(values | changed)
    bridge.configure(settings, settings.lmstudio_url, insecure=False)
    return bridge


def flow_of(
    method: str = "POST", path: str = "/api/chat", body: bytes = b"{}", version: str = "HTTP/1.1", **headers: str
) -> http.HTTPFlow:
    """Make a client's flow, as mitmproxy has it when the request has come."""
    flow = tflow.tflow()
    flow.live = True
    flow.server_conn.timestamp_tcp_setup = None
    flow.client_conn.state = ConnectionState.OPEN
    flow.client_conn.proxy_mode = ProxyMode.parse("reverse:http://lmstudio:1234@11434")
    flow.request = http.Request.make(method, f"http://localhost:11434{path}", body, http.Headers((), **headers))
    flow.request.http_version = version
    return flow


@pytest.fixture
def exchanges(bridge: Bridge) -> Exchanges:
    """The exchanges that are under way: none yet."""
    return Exchanges(bridge)


@pytest.fixture
def exchange_of(exchanges: Exchanges) -> MakeExchange:
    """Begin an exchange, as one that has come in."""

    def begin(flow: http.HTTPFlow | None = None, **named: Any) -> Exchange:
        exchange = exchanges.begin(flow or flow_of(**named), Record())
        request = exchange.flow.request
        client_request = Request(request.method, request.path, "", {}, request.raw_content or b"", 1)
        exchange.client_request = client_request
        exchange.recorder.set_request(client_request)
        return exchange

    return begin


def answer(exchange: Exchange, status: int = 200, headers: http.Headers = EVENTS, body: bytes | None = None) -> None:
    """Let the head of LM Studio's response come, and all of its body if there is one."""
    exchange.flow.server_conn.timestamp_tcp_setup = 1.0
    exchange.flow.response = http.Response.make(status, b"", headers.copy())
    exchange.flow.response.headers.pop("content-length", None)
    exchange.flow.response.raw_content = body


def written(exchange: Exchange, *chunks: bytes) -> list[bytes]:
    """Return what is written to the client for the chunks that mitmproxy reads, which never is an empty chunk."""
    assert exchange.flow.response is not None
    stream: Any = exchange.flow.response.stream
    found: list[bytes] = [piece for chunk in chunks for piece in stream(chunk)]
    assert b"" not in found
    return found


def response_of(exchange: Exchange) -> tuple[int, bytes]:
    """Return status and body of the response that a client gets."""
    assert exchange.flow.response is not None
    return exchange.flow.response.status_code, exchange.flow.response.raw_content or b""


def kept(exchange: Exchange) -> Record:
    """Return what the flow keeps."""
    return Record.load(exchange.flow.metadata)


def error_of(response: Sequence[Any]) -> str:
    """Return the message of an error response."""
    message: str = json.loads(response[1])["error"]
    return message
