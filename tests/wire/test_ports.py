"""The port while a process serves: closed by the system, or shared with another program."""

from __future__ import annotations

import re
import socket
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.wire.conftest import StartProxy, free_port, needs_ipv6, served
from tests.wire.test_commands import read
from tests.wire.web import Web

from ollama_lmstudio.sim import Sim

# Closes the sockets that are listened on, as asyncio does on Windows when a client resets its connection.
CLOSING = """
import asyncio
from mitmproxy import ctx

def requestheaders(flow):
    if flow.request.path != "/close-the-port":
        return
    loop = asyncio.get_running_loop()
    for server in ctx.master.addons.get("proxyserver").servers:
        for part in server._servers:
            for sock in part._sockets:
                if hasattr(loop, "_accept_futures"):
                    loop._accept_futures[sock.fileno()].cancel()
                else:
                    loop._remove_reader(sock.fileno())
                sock.close()
"""


# Lets another program listen on the same port, as Windows and macOS do by themselves.
SHARING = """
import asyncio

create_server = asyncio.base_events.BaseEventLoop.create_server

def create_shared_server(*args, **kwargs):
    return create_server(*args, **kwargs, reuse_port=True)

asyncio.base_events.BaseEventLoop.create_server = create_shared_server
"""
OLLAMA = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\nOllama is running"


@contextmanager
def another_program(host: str, port: int, answer: bytes) -> Iterator[None]:
    """Serve this answer on a port that others may have, too."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        allow_reuse_port = True
        daemon_threads = True

    with served(Server((host, port), Handler)):
        yield


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")
@needs_ipv6
def test_another_program_has_the_port_for_this_machine(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    script = tmp_path / "sharing.py"
    script.write_text(SHARING)
    port = free_port()
    with another_program("127.0.0.1", port, OLLAMA), another_program("::1", port, b"hello"):
        options = {"listen": f"0.0.0.0:{port}"}
        more = ("-s", str(script), *Web.arguments())
        proxy = start_proxy(sim.url, *more, options=options, port=port, tool="mitmweb", wait=False)
        said = "{}:{} is taken by {}, and clients on this machine that go there do not reach this bridge: "
        for host, program in (("127.0.0.1", "an Ollama server"), ("[::1]", "another program")):
            proxy.wait_for_log(re.escape(said.format(host, port, program)))
        web = Web(proxy)
        lines = read(web, "ollama.doctor")
        web.http.close()
    assert f"problem: 127.0.0.1:{port} is taken by an Ollama server: stop it, or choose another with listen" in lines
    assert f"problem: [::1]:{port} is taken by another program: choose another with listen" in lines
    assert "Stop that program, or serve on another port: --set listen=HOST:PORT" in proxy.log
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize("listen", ["0.0.0.0:{}", "[::]:{}", "localhost:{}"])
@needs_ipv6
def test_a_bridge_that_is_reached_is_said_to_be(listen: str, sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    port = free_port()
    options = {"listen": listen.format(port)}
    proxy = start_proxy(sim.url, *Web.arguments(), options=options, port=port, tool="mitmweb")
    web = Web(proxy)
    lines = read(web, "ollama.doctor")
    web.http.close()
    assert f"port {port} is served by this process" in "\n".join(lines)
    assert not [line for line in lines if "problem" in line]
    assert "do not reach" not in proxy.log
    assert "client connect" not in proxy.log


def test_a_port_that_the_system_closes_is_opened_again(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    script = tmp_path / "closing.py"
    script.write_text(CLOSING)
    proxy = start_proxy(sim.url, "-s", str(script))
    again = rf"port {proxy.port}\. It is open again(?s:.*)"
    for times in (1, 2):
        with proxy.client() as client:
            assert client.get("/close-the-port").status_code == 404
            assert client.get("/api/version").status_code == 200, "the connection goes on"
        proxy.wait_for_log(again * times)
        with proxy.client() as client:
            assert client.get("/api/version").status_code == 200
    assert "Traceback" not in proxy.log
