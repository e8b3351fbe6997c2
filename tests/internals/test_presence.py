"""Who answers at a port: mitmproxy's list of connections, and real sockets."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.proxy import server as proxy_server
from tests.internals.helpers import master_with
from tests.wire.conftest import free_port

from ollama_lmstudio.internals import presence
from ollama_lmstudio.internals.presence import Presence


@pytest.mark.parametrize(("is_ours", "who"), [(True, Presence.THIS), (False, Presence.ANOTHER)])
def test_who_answers(
    is_ours: bool, who: Presence, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client's lines are not logged; those of others are."""
    ended = asyncio.Event()
    connected: dict[str, Any] = {"another": SimpleNamespace(client=SimpleNamespace(peername=("127.0.0.1", 1)))}
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("mitmproxy.proxy.server")
    assert proxy_server.logger is logger

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = SimpleNamespace(peername=writer.get_extra_info("peername"))
        if is_ours:
            connected["id"] = SimpleNamespace(client=client)
            logger.info("client connect", extra={"client": client.peername})
        logger.info("another's", extra={"client": ("127.0.0.1", 1)})
        await reader.read()
        if is_ours:
            logger.info("client disconnect", extra={"client": client.peername})
            del connected["id"]
        writer.close()
        ended.set()

    async def scenario() -> Presence:
        monkeypatch.setattr(presence, "LOOKS", 20)
        async with await asyncio.start_server(serve, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            found = await presence.at("127.0.0.1", port)
            await ended.wait()
            return found

    master_with(monkeypatch, proxyserver=SimpleNamespace(connections=connected))
    assert asyncio.run(scenario()) is who
    assert caplog.messages == ["another's"]
    caplog.clear()
    logger.info("client connect", extra={"client": ("127.0.0.1", 2)})
    assert caplog.messages == ["client connect"]


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    master_with(monkeypatch)
    assert asyncio.run(presence.at("127.0.0.1", free_port())) is Presence.NOBODY

    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(presence, "DIAL_SECONDS", 0.05)
    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", hang)
    assert asyncio.run(presence.at("127.0.0.1", 1)) is Presence.NOBODY


def test_where_no_port_is_left_to_ask_from_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Portless(socket.socket):
        def bind(self, _: object) -> None:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    master_with(monkeypatch)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        stand_in = SimpleNamespace(socket=Portless, SOCK_STREAM=socket.SOCK_STREAM)
        monkeypatch.setattr(presence, "socket", stand_in)
        assert asyncio.run(presence.at("127.0.0.1", port)) is Presence.NOBODY
