"""mitmproxy's private API: it is where we look for it, and where it is not, only a refinement is lost."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from mitmproxy import contentviews, ctx, hooks, http, io
from mitmproxy.addons import export, intercept, serverplayback
from mitmproxy.connection import Client
from mitmproxy.net.http import http1
from mitmproxy.options import Options
from mitmproxy.proxy import context as proxy_context
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy import server as proxy_server
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode, HttpStream, _http1
from mitmproxy.test import tflow

from ollama_lmstudio.internals import connections, headers, held_heads, interception, interface, playback
from ollama_lmstudio.internals.connections import ErrorPages
from ollama_lmstudio.internals.held_heads import Arrived

with warnings.catch_warnings():
    # mitmproxy's filters are made with names that pyparsing has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from mitmproxy.addons.proxyserver import Proxyserver


def have_addons(monkeypatch: pytest.MonkeyPatch, **addons: Any) -> None:
    monkeypatch.setattr(ctx, "master", SimpleNamespace(addons=addons), raising=False)


def live_context() -> proxy_context.Context:
    return proxy_context.Context(tflow.tclient_conn(), Options())


# What is pinned


def test_layers_queue_the_events_that_come_while_they_are_paused() -> None:
    made = layers.TCPLayer(live_context())
    assert type(made._paused_event_queue) is deque
    assert made._paused is None
    assert "self._paused_event_queue.append(" in inspect.getsource(layer.Layer.handle_event)


def test_an_http_layer_has_streams() -> None:
    assert HttpLayer(live_context(), HTTPMode.transparent).streams == {}
    assert "flow" in HttpStream.__annotations__


def test_a_connection_handler_has_transports_with_writers() -> None:
    class Handler(proxy_server.ConnectionHandler):
        async def handle_hook(self, hook: Any) -> None:
            raise AssertionError

    handler = Handler(live_context())
    assert handler.transports == {}
    assert "layer" in vars(handler)
    assert proxy_server.ConnectionIO().writer is None


def test_the_proxyserver_has_connections_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    proxyserver = Proxyserver()
    have_addons(monkeypatch, proxyserver=proxyserver)
    assert connections.by_id() is proxyserver.connections
    handler: Any = SimpleNamespace()
    with proxyserver.register_connection("an id", handler):
        assert connections.by_id() == {"an id": handler}


def test_the_events_of_an_answer_have_the_names_we_look_for() -> None:
    for name in ("ResponseData", "ResponseEndOfMessage", "ResponseProtocolError", "RequestProtocolError"):
        assert inspect.isclass(getattr(http_layers, name))


def test_error_pages_are_made_by_one_function() -> None:
    assert list(inspect.signature(_http1.make_error_response).parameters) == ["status_code", "message"]
    assert "make_error_response(" in inspect.getsource(_http1.Http1Server.send)


# 1. Error pages


def page(status: int, message: str) -> bytes:
    return f"{status} {message}".encode()


def test_error_pages_are_replaced_and_restored() -> None:
    original = _http1.make_error_response
    assert b"<html>" in original(502, "gone")
    pages = ErrorPages()
    try:
        assert pages.install(page)
        assert _http1.make_error_response(502, "gone") == b"502 gone"
        assert _http1.make_error_response(400) == b"400 "
        # Again, as when the addon is loaded anew: the original is not forgotten.
        assert pages.install(lambda status, message: b"other")
        assert _http1.make_error_response(502, "gone") == b"other"
    finally:
        pages.remove()
    assert _http1.make_error_response is original
    pages.remove()
    assert _http1.make_error_response is original


def test_error_pages_that_are_made_elsewhere_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = ErrorPages()
    for elsewhere in (None, SimpleNamespace()):
        monkeypatch.setattr(connections, "_http1", elsewhere)
        assert not pages.install(page)
        pages.remove()


# 2. The last bytes


def connect(monkeypatch: pytest.MonkeyPatch, client: Client, handler: Any) -> None:
    monkeypatch.setattr(connections, "by_id", lambda: {client.id: handler})


def test_the_last_bytes_are_written_and_the_connection_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = tflow.tflow()
    written: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transports = {flow.client_conn: proxy_server.ConnectionIO(reader=reader, writer=writer)}
        connect(monkeypatch, flow.client_conn, SimpleNamespace(transports=transports))
        written.extend(connections.write_last(flow, data) for data in (b"bye", b"again"))

    async def scenario() -> bytes:
        async with await asyncio.start_server(serve, "127.0.0.1") as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            received = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            await writer.wait_closed()
            return received

    assert asyncio.run(scenario()) == b"bye"
    assert written == [True, False]


@pytest.mark.parametrize(
    "writer",
    [
        None,
        object(),
        Mock(**{"is_closing.return_value": True}),
        *[Mock(**{"is_closing.return_value": False, "write.side_effect": error}) for error in (OSError, RuntimeError)],
    ],
)
def test_a_client_that_has_left_is_not_written_to(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = tflow.tflow()
    transports = {flow.client_conn: SimpleNamespace(writer=writer)}
    connect(monkeypatch, flow.client_conn, SimpleNamespace(transports=transports))
    assert not connections.write_last(flow, b"bye")


@pytest.mark.parametrize("handler", [SimpleNamespace(), SimpleNamespace(transports={})])
def test_a_connection_that_cannot_be_found(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = tflow.tflow()
    connect(monkeypatch, flow.client_conn, handler)
    assert not connections.write_last(flow, b"bye")
    asyncio.run(connections.drop_idle(flow))
    monkeypatch.setattr(connections, "by_id", dict)
    assert not connections.write_last(flow, b"bye")
    asyncio.run(connections.drop_idle(flow))


@pytest.mark.parametrize(
    "addons", [{}, {"proxyserver": SimpleNamespace()}, {"proxyserver": SimpleNamespace(connections=[])}], ids=str
)
def test_without_a_proxyserver_there_are_no_connections(
    addons: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    have_addons(monkeypatch, **addons)
    assert connections.by_id() == {}
    assert not connections.write_last(tflow.tflow(), b"bye")
    assert asyncio.run(held_heads.hold(tflow.tflow(), lambda: 0, lambda arrived: True)) is None


# 3. Holding an answer

FEED = http_layers.ResponseData(1, b"data")
END = http_layers.ResponseEndOfMessage(1)


class Held:
    """A flow that is paused in a hook, the way mitmproxy keeps it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flow = tflow.tflow()
        context = proxy_context.Context(self.flow.client_conn, Options())
        self.layer = HttpLayer(context, HTTPMode.transparent)
        self.stream = HttpStream(context.fork(), 1)
        self.stream.flow = self.flow
        self.stream._paused = layer.Paused(command=None, generator=None)  # type: ignore[arg-type]
        self.layer.streams[1] = self.stream
        connect(monkeypatch, self.flow.client_conn, SimpleNamespace(layer=self.layer))
        self.times = iter(range(10, 1000))

    def clock(self) -> int:
        return next(self.times)

    def hold(self, enough: Callable[[Arrived], bool], *events: Any, timeout: float | None = 5) -> Arrived | None:
        """Hold, while the events come one by one."""

        async def scenario() -> Arrived | None:
            holding = asyncio.create_task(held_heads.hold(self.flow, self.clock, enough, timeout))
            for event in events:
                await asyncio.sleep(0)
                self.stream._paused_event_queue.append(event)
            return await holding

        return asyncio.run(scenario())


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


def test_an_answer_is_held_until_enough_has_come(held: Held) -> None:
    arrived = held.hold(lambda arrived: len(arrived.body) >= 8, FEED, FEED)
    assert arrived is not None
    assert arrived.data == [(10, b"data"), (11, b"data")]
    assert not arrived.over


def test_what_came_before_counts(held: Held) -> None:
    held.stream._paused_event_queue.extend([FEED, END])
    arrived = held.hold(lambda arrived: False)
    assert arrived is not None
    assert (arrived.body, arrived.ended_at) == (b"data", 11)


def test_the_events_stay_in_the_queue(held: Held) -> None:
    held.stream._paused_event_queue.append(FEED)
    held.hold(lambda arrived: False, FEED, END)
    assert list(held.stream._paused_event_queue) == [FEED, FEED, END]


def protocol_error(made_by: type) -> Any:
    # Its codes are other types from version to version.
    return object.__new__(made_by)


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (protocol_error(http_layers.ResponseProtocolError), "server_gone"),
        (protocol_error(http_layers.RequestProtocolError), "client_gone"),
        (END, "ended_at"),
    ],
    ids=["server", "client", "end"],
)
def test_nothing_is_waited_for_when_it_is_over(event: Any, name: str, held: Held) -> None:
    arrived = held.hold(lambda arrived: False, FEED, event)
    assert arrived is not None
    assert arrived.over
    assert getattr(arrived, name)
    assert arrived.body == b"data"


def test_other_events_are_no_answer(held: Held) -> None:
    arrived = held.hold(lambda arrived: True, object())
    assert arrived == Arrived()


def test_an_answer_is_not_held_longer_than_allowed(held: Held) -> None:
    arrived = held.hold(lambda arrived: False, FEED, timeout=0.05)
    assert arrived is not None
    assert arrived.body == b"data"
    assert not arrived.over


@pytest.mark.parametrize("spoil", ["other flow", "not paused", "no queue", "no streams", "no layers", "no layer"])
def test_an_answer_that_cannot_be_held(spoil: str, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    match spoil:
        case "other flow":
            held.stream.flow = tflow.tflow()
        case "not paused":
            held.stream._paused = None
        case "no streams":
            del held.layer.streams
        case "no layers":
            monkeypatch.setattr(held_heads, "http_layers", None)
        case "no layer":
            connect(monkeypatch, held.flow.client_conn, SimpleNamespace())
        case "no queue":
            del held.stream._paused_event_queue
    assert asyncio.run(held_heads.hold(held.flow, held.clock, lambda arrived: False, 5)) is None


# 4. Silence


def test_silence_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options()
    monkeypatch.setattr(ctx, "options", options, raising=False)
    if "tcp_timeout" not in options:  # before mitmproxy 12
        monkeypatch.setattr(proxy_server, "TCP_TIMEOUT", 600)
    for seconds in (7200, 60):
        connections.allow_silence(seconds)
        assert (options.tcp_timeout if "tcp_timeout" in options else vars(proxy_server)["TCP_TIMEOUT"]) == 7200


def test_a_mitmproxy_that_knows_no_silence_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctx, "options", {}, raising=False)
    monkeypatch.delattr(proxy_server, "TCP_TIMEOUT", raising=False)
    connections.allow_silence(7200)
    assert not hasattr(proxy_server, "TCP_TIMEOUT")


# 5. Idle connections


def test_idle_connections_to_lm_studio_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = tflow.tflow()
    client, idle = Mock(), Mock()
    transports = {
        flow.client_conn: SimpleNamespace(writer=client),
        "idle": SimpleNamespace(writer=idle),
        "opening": SimpleNamespace(writer=None),
    }
    connect(monkeypatch, flow.client_conn, SimpleNamespace(transports=transports))

    async def scenario() -> int:
        turns = 0

        async def see_the_end() -> None:
            nonlocal turns
            for _ in range(3):
                turns += 1
                await asyncio.sleep(0)
            del transports["idle"], transports["opening"]

        seeing = asyncio.create_task(see_the_end())
        await connections.drop_idle(flow)
        assert list(transports) == [flow.client_conn], "the end was waited for"
        await seeing
        return turns

    assert asyncio.run(scenario()) == 3
    idle.close.assert_called_once_with()
    client.close.assert_not_called()


def test_a_connection_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = tflow.tflow()
    transports = {flow.client_conn: SimpleNamespace(writer=None), "stuck": SimpleNamespace(writer=Mock())}
    connect(monkeypatch, flow.client_conn, SimpleNamespace(transports=transports))
    asyncio.run(asyncio.wait_for(connections.drop_idle(flow), 5))
    assert len(transports) == 2


SECRETS = {"Authorization": "Bearer s3cret", "X-Loopback-Secret": "s3same"}


def sealed() -> headers.SealedHeaders:
    return headers.SealedHeaders(((b"Host", b"h"), (b"authorization", b"old")), SECRETS)


def test_the_wire_gets_the_secret() -> None:
    request = http.Request.make("POST", "http://h/", b"x")
    request.headers = sealed()
    head = http1.assemble_request_head(request)
    assert b"authorization: Bearer s3cret\r\n" in head
    assert b"X-Loopback-Secret: s3same\r\n" in head
    assert b"old" not in head


def test_whatever_shows_headers_gets_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctx, "options", SimpleNamespace(export_preserve_original_ip=False), raising=False)
    flow = tflow.tflow()
    flow.request.headers = sealed()
    assert flow.request.headers["Authorization"] == "Bearer ***"
    shown = [
        repr(flow.request.headers),
        repr(flow.request.headers.fields),
        str(dict(flow.request.headers)),
        repr(flow.get_state()),
        repr(bytes(flow.request.headers.copy())),
        repr(bytes(flow.copy().request.headers)),
        export.curl_command(flow),
        repr(export.raw_request(flow)),
    ]
    with (tmp_path / "flows").open("wb") as file:
        io.FlowWriter(file).add(flow)
    shown.append(repr((tmp_path / "flows").read_bytes()))
    for text in shown:
        assert "s3cret" not in text
        assert "s3same" not in text


def test_secrets_are_forgotten() -> None:
    headers = sealed()
    headers.forget()
    assert b"s3" not in bytes(headers)


def test_what_somebody_else_puts_there_is_sent() -> None:
    headers = sealed()
    headers["Authorization"] = "Basic mine"
    assert b"authorization: Basic mine\r\n" in bytes(headers)
    del headers["X-Loopback-Secret"]
    assert b"Loopback" not in bytes(headers)


def master_with(monkeypatch: pytest.MonkeyPatch, **addons: Any) -> Mock:
    master = Mock()
    master.addons.get = addons.get
    master.addons.trigger_event = AsyncMock()
    master.addons.handle_lifecycle = AsyncMock()
    monkeypatch.setattr(ctx, "master", master, raising=False)
    return master


@pytest.mark.parametrize("stops", [True, False])
def test_an_intercept_filter_is_asked(stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    master_with(monkeypatch, intercept=SimpleNamespace(should_intercept=lambda flow: stops))
    assert interception.is_stopped(tflow.tflow()) is stops
    master_with(monkeypatch)
    assert not interception.is_stopped(tflow.tflow())


def test_mitmproxys_own_addon_can_be_asked() -> None:
    assert list(inspect.signature(intercept.Intercept.should_intercept).parameters) == ["self", "f"]


def test_a_paused_request_waits_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    master = master_with(monkeypatch)
    flow = tflow.tflow()

    async def pause() -> None:
        waiting = asyncio.create_task(interception.wait_for_user(flow))
        await asyncio.sleep(0.01)
        assert flow.intercepted
        assert not waiting.done()
        flow.resume()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(pause())
    (call,) = master.addons.trigger_event.await_args_list
    assert isinstance(call.args[0], hooks.UpdateHook)


def test_a_flow_is_not_reverted_while_it_streams() -> None:
    flow = tflow.tflow(resp=True)
    assert flow.response is not None
    interception.keep_what_streams(flow)
    flow.live = True
    flow.backup()
    flow.comment = "edited"
    flow.response.stream = True
    flow.revert()
    assert (flow.comment, flow.response.stream) == ("edited", True)
    flow.response.stream = False
    flow.revert()
    assert flow.comment == ""


def test_a_paused_flow_that_is_killed_ends() -> None:
    killed: list[http.HTTPFlow] = []
    flow = tflow.tflow()
    flow.live = True
    interception.end_when_killed(flow, killed.append)

    async def kill() -> None:
        flow.intercept()
        waiting = asyncio.create_task(flow.wait_for_resume())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        flow.kill()
        await asyncio.wait_for(waiting, 5)
        flow.intercept()
        await asyncio.wait_for(flow.wait_for_resume(), 5)

    asyncio.run(kill())
    assert killed == [flow]
    assert not flow.intercepted
    assert not flow.killable


def test_every_pause_of_a_flow_is_told() -> None:
    told: list[int] = []
    flow, times = tflow.tflow(), iter([100, 103, 200, 207])
    interception.watch_pauses(flow, lambda: next(times), told.append)

    async def pause() -> None:
        await flow.wait_for_resume()
        assert told == []
        for _ in range(2):
            flow.intercept()
            asyncio.get_running_loop().call_later(0.01, flow.resume)
            await asyncio.wait_for(flow.wait_for_resume(), 5)

    asyncio.run(pause())
    assert told == [3, 7]


@pytest.mark.parametrize("failed", [True, False])
def test_a_flow_is_shown_and_paused_by_nobody(failed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    master = master_with(monkeypatch)
    flow = tflow.tflow(resp=not failed, err=failed)

    async def stop(event: Any) -> None:
        flow.intercept()

    master.addons.handle_lifecycle.side_effect = stop
    asyncio.run(interface.show_flow(flow))
    told = [type(call.args[0]).__name__ for call in master.addons.handle_lifecycle.await_args_list]
    assert told == ["HttpRequestHeadersHook", "HttpErrorHook" if failed else "HttpResponseHook"]
    assert not flow.intercepted


def test_the_recording_is_what_server_replay_has(monkeypatch: pytest.MonkeyPatch) -> None:
    served = serverplayback.ServerPlayback()
    first, second, other = tflow.tflow(resp=True), tflow.tflow(resp=True), tflow.tflow(resp=True)
    served.flowmap = {b"same": [first, second], b"other": [other]}
    master_with(monkeypatch, serverplayback=served)
    assert playback.recorded_flows() == [first, second, other]
    playback.prefer_recorded(second)
    assert served.flowmap[b"same"] == [second, first]
    master_with(monkeypatch)
    assert playback.recorded_flows() == []


def test_a_view_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = contentviews
    if hasattr(contentviews, "registry"):
        registry = type(api.registry)()
        monkeypatch.setattr(api, "registry", registry)
        registry.register(SimpleNamespace(name="Some View"))
        interface.remove_view("Some View")
        assert list(registry) == []
    else:
        views = [SimpleNamespace(name="Some View")]
        monkeypatch.setattr(api, "views", views)
        interface.remove_view("Some View")
        assert views == []
    interface.remove_view("Some View")


@pytest.mark.parametrize("running", [[], [False], [False, True]])
def test_it_is_known_whether_a_port_is_served(running: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(Proxyserver(), "servers")
    assert list(Proxyserver().servers) == []
    master_with(
        monkeypatch, proxyserver=SimpleNamespace(servers=[SimpleNamespace(is_running=is_on) for is_on in running])
    )
    assert interface.is_serving() is any(running)
    master_with(monkeypatch)
    assert not interface.is_serving()
