"""mitmproxy's servers, its real ones on real ports, and what is logged about them."""

from __future__ import annotations

import asyncio
import logging
import socket
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow
from tests.internals.helpers import master_with
from tests.wire.conftest import free_port

from ollama_lmstudio.internals import servers

with warnings.catch_warnings():
    # mitmproxy's filters are made with names that pyparsing has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from mitmproxy.addons.proxyserver import Proxyserver


def have_options(monkeypatch: pytest.MonkeyPatch, *modes: str, **changed: Any) -> Options:
    options = Options()
    options.update(mode=list(modes), **changed)
    monkeypatch.setattr(ctx, "options", options, raising=False)
    return options


@pytest.mark.parametrize(
    ("modes", "changed", "address"),
    [
        (["regular"], {}, None),
        (["reverse:http://h:1@127.0.0.1:5"], {"listen_host": "h", "listen_port": 6}, ("127.0.0.1", 5)),
        (["reverse:http://h:1@5"], {"listen_host": "h"}, ("h", 5)),
        (["reverse:http://h:1"], {"listen_port": 6}, ("", 6)),
        (["regular@7", "reverse:http://h:1@8"], {}, ("", 8)),
    ],
)
def test_the_address_of_a_reverse_mode(
    modes: list[str], changed: dict[str, Any], address: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_options(monkeypatch, *modes, **changed)
    assert servers.reverse_address() == address


def test_servers_are_started_and_say_why_they_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_port()
    told: list[str] = []
    log = servers.FailureLog(told.append)

    async def scenario() -> None:
        proxyserver = Proxyserver()
        master_with(monkeypatch, proxyserver=proxyserver)
        have_options(monkeypatch, f"reverse:http://h:1@127.0.0.1:{free}")
        assert await servers.start()
        assert (servers.failures(), told) == ({}, [])
        assert servers.is_serving()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            have_options(monkeypatch, f"reverse:http://h:1@127.0.0.1:{port}")
            assert not await servers.start()
            assert told == list(servers.failures()), "the text is the one that is logged"
            assert list(servers.failures().values()) == [port]
            assert f"failed to listen on 127.0.0.1:{port} with" in told[0]
        have_options(monkeypatch)
        assert await servers.start(), "no mode, no server"
        assert servers.failures() == {}
        assert not servers.is_serving()

    log.install()
    try:
        asyncio.run(scenario())
    finally:
        log.remove()


def test_only_flows_of_a_reverse_mode_are_ours() -> None:
    flow = tflow.tflow()
    for spec, is_reverse in (("regular", False), ("socks5", False), ("reverse:http://h:1@5", True)):
        flow.client_conn.proxy_mode = ProxyMode.parse(spec)
        assert servers.is_reverse(flow) is is_reverse


def test_without_a_proxyserver_there_is_nothing_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    master_with(monkeypatch)
    assert asyncio.run(servers.start())
    assert servers.failures() == {}
    assert not servers.is_serving()
    master_with(monkeypatch, proxyserver=SimpleNamespace(servers=[SimpleNamespace(is_running=False)]))
    assert servers.failures() == {}, "no exception is known"


def test_errors_are_held_back_while_the_filter_is_there(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    log, logger = servers.FailureLog(told.append), logging.getLogger(servers.FailureLog.LOGGER)
    log.install()
    try:
        logger.error("%s", "one")
        logger.warning("two")
        logging.getLogger("mitmproxy.addons.other").error("three")
    finally:
        log.remove()
    logger.error("four")
    assert told == ["one"]
    assert caplog.messages == ["two", "three", "four"]


def test_the_log_of_servers_is_that_of_their_module() -> None:
    assert Proxyserver.__module__ == servers.FailureLog.LOGGER
