"""The port while a process serves: closed by the system, or shared with another program."""

from __future__ import annotations

from pathlib import Path

from tests.wire.conftest import StartProxy

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
                loop._remove_reader(sock.fileno())
                sock.close()
"""


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
