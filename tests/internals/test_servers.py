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
from tests.internals.helpers import master_with
from tests.wire.conftest import free_port

from ollama_lmstudio.internals import servers

with warnings.catch_warnings():
    # mitmproxy's filters are made with names that pyparsing has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from mitmproxy.addons.proxyserver import Proxyserver
    from mitmproxy.proxy import mode_servers


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

    log.install()
    try:
        asyncio.run(scenario())
    finally:
        log.remove()


def test_without_a_proxyserver_there_is_nothing_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    master_with(monkeypatch)
    assert asyncio.run(servers.start())
    assert servers.failures() == {}
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


@pytest.mark.parametrize("running", [[], [False], [False, True]])
def test_it_is_known_whether_a_port_is_served(running: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(Proxyserver(), "servers")
    assert list(Proxyserver().servers) == []
    master_with(
        monkeypatch, proxyserver=SimpleNamespace(servers=[SimpleNamespace(is_running=is_on) for is_on in running])
    )
    assert servers.is_serving() is any(running)
    master_with(monkeypatch)
    assert not servers.is_serving()


@pytest.mark.parametrize("listen_host", ["", "127.0.0.1"])
def test_the_start_of_a_server_without_a_port_is_cancelled(listen_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a `listen_host` the port may be bound already, and would stay so."""
    port = free_port()

    async def scenario() -> bool:
        proxyserver = Proxyserver()
        master_with(monkeypatch, proxyserver=proxyserver)
        have_options(monkeypatch, "regular", listen_host=listen_host, listen_port=port)
        starting = asyncio.ensure_future(proxyserver.setup_servers())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        servers.cancel_start()
        await starting
        is_bound = servers.is_serving()
        have_options(monkeypatch)
        await servers.start()
        return is_bound

    told: list[str] = []
    log = servers.FailureLog(told.append)
    log.install()
    try:
        assert asyncio.run(scenario()) is bool(listen_host)
    finally:
        log.remove()
    assert set(told) <= {""}, "to stop what does not run is an error without a text"
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_lines_about_servers_are_held_back(caplog: pytest.LogCaptureFixture) -> None:
    held = [True]
    log, logger = servers.StartedLog(lambda: held[0]), logging.getLogger(servers.StartedLog.LOGGER)
    caplog.set_level(logging.INFO)
    log.install()
    try:
        logger.info("one")
        logger.warning("two")
        held[0] = False
        logger.info("three")
        held[0] = True
    finally:
        log.remove()
    logger.info("four")
    assert caplog.messages == ["two", "three", "four"]


def test_the_log_of_started_servers_is_that_of_their_module() -> None:
    assert mode_servers.__name__ == servers.StartedLog.LOGGER
    assert mode_servers.ServerInstance.start.__qualname__ == "ServerInstance.start"


def close_listener(server: Any) -> None:
    """Close a server's first socket as asyncio's Proactor loop does when accepting fails."""
    part = server._servers[0]
    sock = part._sockets[0]
    loop: Any = asyncio.get_running_loop()
    if hasattr(loop, "_accept_futures"):
        loop._accept_futures[sock.fileno()].cancel()
    else:
        loop._remove_reader(sock.fileno())
    sock.close()


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def test_a_port_that_was_closed_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    free, other = free_port(), free_port()
    modes = [f"reverse:http://h:1@127.0.0.1:{port}" for port in (free, other)]

    async def scenario() -> None:
        proxyserver = Proxyserver()
        master_with(monkeypatch, proxyserver=proxyserver)
        have_options(monkeypatch, *modes)
        assert await servers.start()
        reopening = servers.Reopening()
        assert await reopening.look() == ([], [])
        running = list(proxyserver.servers)
        close_listener(running[0])
        assert servers.is_closed(running[0])
        assert not await answers(free)
        assert await answers(other)
        assert await reopening.look() == ([free], [])
        assert await answers(free)
        assert list(proxyserver.servers) == running
        assert await reopening.look() == ([], [])

        # Another program is quicker.
        close_listener(running[0])
        with socket.create_server(("127.0.0.1", free)):
            opened, failed = await reopening.look()
            assert opened == []
            assert [f"failed to listen on 127.0.0.1:{free} with" in message for message in failed] == [True]
            assert await reopening.look() == ([], []), "told once"
        assert await reopening.look() == ([free], [])
        assert await answers(free)

        # What was stopped stays so.
        have_options(monkeypatch, modes[1])
        close_listener(running[0])
        close_listener(running[1])
        await servers.start()
        assert await reopening.look() == ([other], [])
        assert not await answers(free)
        await running[1].stop()
        assert not servers.is_closed(running[1])
        assert await reopening.look() == ([], [])

    asyncio.run(scenario())


def test_a_port_that_was_closed_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        proxyserver = Proxyserver()
        master_with(monkeypatch, proxyserver=proxyserver)
        have_options(monkeypatch, f"reverse:http://h:1@127.0.0.1:{free_port()}")
        await servers.start()
        assert servers.is_serving()
        close_listener(next(iter(proxyserver.servers)))
        assert not servers.is_serving()

    asyncio.run(scenario())


def test_without_a_proxyserver_no_port_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    master_with(monkeypatch)
    assert asyncio.run(servers.Reopening().look()) == ([], [])
    master_with(monkeypatch, proxyserver=SimpleNamespace(servers=[SimpleNamespace(is_running=False)]))
    assert asyncio.run(servers.Reopening().look()) == ([], [])


def test_a_port_that_is_free_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = free_port()
        assert servers.free_port(["127.0.0.1"], [port, free]) == free
        assert servers.free_port(["127.0.0.1"], [port, 65536]) is None
        assert servers.free_port(["::1", "127.0.0.1"], [port, free]) == free, "another program has it at the second"
        assert servers.free_port(["::1", "192.0.2.1"], [port]) == port, "this machine does not have the second"
