"""SIGTERM: what is under way may end, nothing new is taken."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from tests.wire.conftest import START_SECONDS, Proxy, StartProxy
from tests.wire.test_startup import copy_of_addon, touch
from tests.wire.web import Web

from ollama_lmstudio.exchanges.exchange import STOPPED
from ollama_lmstudio.sim import Sim, content, sleep

if sys.platform == "win32":
    pytest.skip("Windows has no SIGTERM", allow_module_level=True)

from tests.wire.test_stopping import END_SECONDS, Asking, chat

VERSION = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
# A stream of two seconds, and an answer that begins after one.
PACED = [part for n in range(10) for part in (content(f"{n} "), sleep(0.2))]
LATE = [sleep(1), content("late")]
ENDLESS = [part for n in range(200) for part in (content(f"{n} "), sleep(0.2))]


def terminate(proxy: Proxy) -> float:
    """Send SIGTERM; give the time."""
    proxy.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def is_refused(proxy: Proxy) -> bool:
    try:
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def ended(proxy: Proxy) -> float:
    """Wait for a good end; give the time."""
    assert proxy.process.wait(START_SECONDS) == 0
    at = time.monotonic()
    proxy.stop()
    for word in ("Traceback", "Exception", "CancelledError"):
        assert word not in proxy.log, proxy.log
    return at


def own_tool(proxy: Proxy) -> None:
    """Let a proxy be started with the command line tool."""
    script = proxy.command.index("-s")
    proxy.command = [sys.executable, "-m", "ollama_lmstudio", *proxy.command[script + 2 :]]


@pytest.mark.parametrize("tool", ["mitmdump", "mitmweb", "own"])
def test_a_stream_may_end_and_nothing_new_is_taken(sim: Sim, tmp_path: Path, tool: str) -> None:
    web = Web.arguments() if tool == "mitmweb" else []
    options = {"drain_seconds": "60"}
    proxy = Proxy(sim.url, *web, tool="mitmweb" if web else "mitmdump", state_dir=tmp_path, options=options)
    if tool == "own":
        own_tool(proxy)
    with proxy:
        sim.script(PACED, times=1)
        sim.script(LATE)
        idle, stream = Asking(proxy, VERSION), Asking(proxy, chat())
        proxy.wait_for(lambda: b"version" in idle.received and b'"content":"' in stream.received)
        late = Asking(proxy, chat(stream=False))
        proxy.wait_for(lambda: sim.active == 2)
        # Asks for more on the same connection, while its answer comes.
        stream.socket.sendall(VERSION)
        terminate(proxy)
        proxy.wait_for(lambda: is_refused(proxy))
        assert idle.end().status == 200
        assert proxy.process.poll() is None
        whole = late.end()
        assert (whole.status, whole.header("connection")) == (200, "close")
        assert whole.json["message"]["content"] == "late"
        answer = stream.end()
        at = time.monotonic()
        # The second request was not taken: the connection has been closed after the first.
        assert "".join(line["message"]["content"] for line in answer.lines) == "0 1 2 3 4 5 6 7 8 9 "
        assert answer.lines[-1]["done"] is True
        # As soon as it has ended, long before drain_seconds.
        assert ended(proxy) - at < END_SECONDS
    assert "2 that are under way may take 60 s (option drain_seconds)" in proxy.log


def test_what_does_not_end_in_time_is_told_so(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Also where the script has been loaded anew since a stream began."""
    sim.script(ENDLESS)
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script, options={"drain_seconds": "1"})
    before = Asking(proxy, chat())
    proxy.wait_for(lambda: b'"content":"' in before.received)
    touch(script)
    proxy.wait_for(lambda: proxy.log.count("serves Ollama's API") == 2)
    stream = Asking(proxy, chat())
    proxy.wait_for(lambda: b'"content":"' in stream.received)
    at = terminate(proxy)
    assert stream.end().lines[-1] == before.end().lines[-1] == {"error": STOPPED}
    assert time.monotonic() - at >= 1
    assert ended(proxy) - at < 1 + END_SECONDS
    assert "2 that are under way may take 1 s" in proxy.log


@pytest.mark.parametrize(
    ("number", "reload"), [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True)]
)
def test_a_second_signal_ends_at_once(
    sim: Sim, start_proxy: StartProxy, tmp_path: Path, number: signal.Signals, reload: bool
) -> None:
    """Also where the script has been loaded anew in between."""
    sim.script(ENDLESS)
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script, options={"drain_seconds": "60"})
    stream = Asking(proxy, chat())
    proxy.wait_for(lambda: b'"content":"' in stream.received)
    terminate(proxy)
    proxy.wait_for(lambda: is_refused(proxy))
    if reload:
        touch(script)
        proxy.wait_for(lambda: proxy.log.count("Loading script") == 2)
    at = time.monotonic()
    proxy.process.send_signal(number)
    assert stream.end().lines[-1] == {"error": STOPPED}
    assert ended(proxy) - at < END_SECONDS
