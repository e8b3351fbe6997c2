"""Connections: mitmproxy keeps them where they are looked for, and without them only a refinement is lost."""

from __future__ import annotations

import asyncio
import inspect
import socket
import warnings
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from mitmproxy import ctx
from mitmproxy.options import Options
from mitmproxy.proxy import server as proxy_server
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.test import tflow
from tests.internals.helpers import connect, live_context, master_with

from ollama_lmstudio.internals import connections, held_heads
from ollama_lmstudio.internals.connections import ErrorPages

with warnings.catch_warnings():
    # mitmproxy's filters are made with names that pyparsing has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from mitmproxy.addons.proxyserver import Proxyserver


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
    master_with(monkeypatch, proxyserver=proxyserver)
    assert connections.by_id() is proxyserver.connections
    handler: Any = SimpleNamespace()
    with proxyserver.register_connection("an id", handler):
        assert connections.by_id() == {"an id": handler}


@pytest.mark.parametrize(
    "addons", [{}, {"proxyserver": SimpleNamespace()}, {"proxyserver": SimpleNamespace(connections=[])}], ids=str
)
def test_without_a_proxyserver_there_are_no_connections(
    addons: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    master_with(monkeypatch, **addons)
    assert connections.by_id() == {}
    assert not connections.write_last(tflow.tflow(), b"bye")
    assert asyncio.run(held_heads.hold(tflow.tflow(), lambda: 0, lambda arrived: True)) is None


def test_error_pages_are_made_by_one_function() -> None:
    assert list(inspect.signature(_http1.make_error_response).parameters) == ["status_code", "message"]
    assert "make_error_response(" in inspect.getsource(_http1.Http1Server.send)


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


def test_what_waits_for_a_client_that_reads_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        ours, clients = socket.socketpair()
        with clients:
            _, writer = await asyncio.open_connection(sock=ours)
            flow = tflow.tflow()
            assert not connections.has_unsent(flow)
            handler = SimpleNamespace(transports={flow.client_conn: proxy_server.ConnectionIO(writer=writer)})
            connect(monkeypatch, flow.client_conn, handler)
            assert not connections.has_unsent(flow)
            writer.write(bytes(1 << 24))
            assert connections.has_unsent(flow)
            writer.transport.abort()

    asyncio.run(scenario())


@pytest.mark.parametrize("waiting", [b"", b"before, "])
def test_windows_sends_the_last_bytes_and_the_fin_at_once(waiting: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CORK", None)
    monkeypatch.setattr(connections, "FIN_IS_LATE", True)
    flow = tflow.tflow()
    flow.client_conn.tls = False
    ours, clients = socket.socketpair()
    with ours, clients:
        ours.setblocking(False)
        transport = SimpleNamespace(_buffer=bytearray(waiting) or None)
        writer = Mock(**{"is_closing.return_value": False, "get_extra_info.return_value": ours}, transport=transport)
        handler = SimpleNamespace(transports={flow.client_conn: SimpleNamespace(writer=writer)})
        connect(monkeypatch, flow.client_conn, handler)
        assert connections.write_last(flow, b"bye")
        clients.settimeout(5)
        received = b"".join(iter(lambda: clients.recv(100), b""))
    assert received == waiting + b"bye"
    assert transport._buffer is None
    writer.write.assert_not_called()
    writer.close.assert_called_once()


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
        *[
            Mock(
                **{
                    "is_closing.return_value": False,
                    "write.side_effect": error,
                    "get_extra_info.return_value.dup.side_effect": error,
                }
            )
            for error in (OSError, RuntimeError)
        ],
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
    ("version", "connection", "closes"),
    [
        ("HTTP/1.1", "", False),
        ("HTTP/1.1", "keep-alive", False),
        ("HTTP/1.1", "close", True),
        ("HTTP/1.0", "", True),
        ("HTTP/1.0", "keep-alive", False),
    ],
)
def test_whether_a_connection_ends_with_its_request(version: str, connection: str, closes: bool) -> None:
    request = tflow.tflow().request
    request.http_version = version
    if connection:
        request.headers["Connection"] = connection
    assert connections.closes(request) is closes


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


@pytest.mark.parametrize(("requests", "is_idle"), [({}, True), ({1: "a stream"}, False), (None, True)], ids=str)
def test_a_connection_without_a_request_is_idle(
    monkeypatch: pytest.MonkeyPatch, requests: dict[int, Any] | None, is_idle: bool
) -> None:
    """None: it is so new that there is no HTTP on it."""
    context = live_context()
    if requests is not None:
        layer = http_layers.HttpLayer(context, http_layers.HTTPMode.regular)
        layer.streams = requests
        assert layer in context.layers
    writer = Mock()
    client = context.client
    handler = SimpleNamespace(
        client=client, layer=SimpleNamespace(context=context), transports={client: SimpleNamespace(writer=writer)}
    )
    connect(monkeypatch, client, handler)
    assert connections.close_idle() is not is_idle
    assert writer.close.called is is_idle


def test_what_cannot_be_told_to_be_idle_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    client, writer = live_context().client, Mock()
    handler = SimpleNamespace(client=client, transports={client: SimpleNamespace(writer=writer)})
    connect(monkeypatch, client, handler)
    assert connections.close_idle()
    writer.close.assert_not_called()
