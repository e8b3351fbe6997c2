"""What mitmdump prints: one line an exchange, and whose output it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, HI, ROOT, Proxy, StartProxy, content_of, ndjson, post_bytes, read_flows
from tests.wire.web import Web

from ollama_lmstudio.sim import Sim, close, content, sleep

if sys.platform == "win32":
    pytest.skip("pipes and terminals are others there", allow_module_level=True)

GONE = "LM Studio closed the connection before its answer was finished"
# What mitmproxy prints by itself.
ITS_OWN = re.compile(r"client (dis)?connect|server (dis)?connect|Streaming response| << |HTTP/1.1")


def chat(client: httpx.Client, **fields: object) -> httpx.Response:
    """Ask for an answer."""
    return client.post("/api/chat", json={"model": CHAT, "messages": HI, **fields})


def line_of(proxy: Proxy, what: str) -> str:
    """Wait for the line of an exchange; give it without its time."""
    line = proxy.wait_for_log(rf"(?m)^\d\d:\d\d:\d\d .*{what}.*$")
    return line[len("16:49:26 ") :]


def test_one_line_an_exchange(start_proxy: StartProxy, sim: Sim) -> None:
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        client.get("/api/tags").raise_for_status()
        ndjson(chat(client))
        chat(client, model="no-such")
        chat(client, stream=False).raise_for_status()
        client.post("/v1/chat/completions", json={"model": CHAT, "messages": HI}).raise_for_status()
    said = r'"hi" -> "You said: hi"  (\S+ tok/s, )?first token \S+ m?s, \d+ \+ \d+ tokens'
    assert re.fullmatch(rf"/api/chat      {CHAT}  200  {said}", line_of(proxy, CHAT))
    assert line_of(proxy, "/api/tags ") == "/api/tags                        200  8 models"
    assert (
        line_of(proxy, "no-such") == f"/api/chat      {'no-such':{len(CHAT)}}  404  model 'no-such' not found  \"hi\""
    )
    line = line_of(proxy, "/v1/chat")
    assert re.fullmatch(rf'/v1/chat/completions  {CHAT}  200  "hi" -> "You said: hi"  \d+ \+ \d+ tokens', line)
    assert len(re.findall(r"(?m)^\d\d:\d\d:\d\d /api/chat ", proxy.log)) == 3
    assert not ITS_OWN.search(proxy.log)
    assert "\x1b" not in proxy.log
    # The list of models was asked for, which changes nothing; so was a load, which does not pass through here.
    assert "(bridge)" not in proxy.log


def test_mitmwebs_terminal_has_the_lines_too(start_proxy: StartProxy, sim: Sim) -> None:
    proxy = start_proxy(sim.url, *Web.arguments(), tool="mitmweb")
    with proxy.client() as client:
        ndjson(chat(client))
        chat(client, model="no-such")
    assert line_of(proxy, "no-such").endswith("  404  model 'no-such' not found  \"hi\"")
    assert line_of(proxy, CHAT).startswith(f'/api/chat      {CHAT}  200  "hi" -> "You said: hi"')
    assert not ITS_OWN.search(proxy.log)


def test_what_breaks_says_so(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    path = tmp_path / "flows"
    proxy = start_proxy(sim.url, "-w", str(path))
    sim.script([content("Once "), content("upon "), close()])
    with proxy.client() as client:
        chat(client)
    assert line_of(
        proxy, CHAT
    ) == f'/api/chat      {CHAT}  200  {GONE}, after 2 tokens  "hi" -> "Once upon"  {{}}'.format(
        proxy.wait_for_log("first token .*")
    )
    proxy.stop()
    assert has_end(path)


def test_a_client_that_leaves(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    path = tmp_path / "flows"
    proxy = start_proxy(sim.url, "-w", str(path))
    sim.script([content("Once "), sleep(20), content("upon ")])
    with marked(cut=True), proxy.connect() as sock:
        sock.sendall(post_bytes("/api/chat", {"model": CHAT, "messages": HI}))
        while b"Once" not in sock.recv(65536):
            pass
    assert f'{CHAT}  200  Client disconnected, after 1 token  "hi" -> "Once"' in line_of(proxy, "Client")
    proxy.stop()
    assert has_end(path)


def has_end(path: Path) -> bool:
    """Whether the response of the saved chat has an end: mitmweb would count its time for ever."""
    (flow,) = [flow for flow in read_flows(path) if flow.request.path == "/v1/chat/completions"]
    assert flow.response is not None
    return flow.response.timestamp_end is not None


@pytest.mark.parametrize("level", ["error", "warn", "debug"])
def test_levels(start_proxy: StartProxy, sim: Sim, level: str) -> None:
    proxy = start_proxy(sim.url, options={"termlog_verbosity": level})
    with proxy.client() as client:
        ndjson(chat(client))
        chat(client, model="no-such")
    line_of(proxy, "404")
    assert ("You said: hi" in proxy.log) is (level == "debug")
    assert bool(ITS_OWN.search(proxy.log)) is (level == "debug")


@pytest.mark.parametrize(
    ("arguments", "its_own"),
    [(["--flow-detail", "1"], True), (["-v"], True), (["--set", "flow_detail=1"], True), (["-q"], False)],
)
def test_who_asks_for_mitmproxys_output_gets_it(
    start_proxy: StartProxy, sim: Sim, arguments: list[str], its_own: bool
) -> None:
    proxy = start_proxy(sim.url, *arguments)
    with proxy.client() as client:
        ndjson(chat(client))
        chat(client, model="no-such")
    proxy.stop()
    assert bool(re.search(r"POST http\S+/v1/chat/completions.*\n(.*\n)*.* << .*200 OK", proxy.log)) is its_own
    assert ("client connect" in proxy.log) is its_own
    assert not re.search(r"(?m)^\d\d:\d\d:\d\d ", proxy.log)


def test_the_config_file_may_ask_for_it(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("flow_detail: 1\n")
    proxy = start_proxy(sim.url, options={"confdir": str(tmp_path)})
    with proxy.client() as client:
        ndjson(chat(client))
    proxy.wait_for_log(" << .*200 OK")


def test_a_saved_file_prints_the_same(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    path = tmp_path / "flows"
    proxy = start_proxy(sim.url, "-w", str(path))
    with proxy.client() as client:
        ndjson(chat(client))
    line = line_of(proxy, CHAT)
    at = proxy.log[proxy.log.index(line) - len("16:49:26 ") :][:8]
    proxy.stop()
    reader = start_proxy(None, "-n", "-r", str(path), wait=False)
    assert line_of(reader, CHAT) == line
    assert f"{at} {line}" in reader.log


def test_a_replayed_flow_has_a_line(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    path = tmp_path / "flows"
    proxy = start_proxy(sim.url, "-w", str(path))
    with proxy.client() as client:
        ndjson(chat(client))
    line_of(proxy, CHAT)
    proxy.stop()
    again = start_proxy(sim.url, "--client-replay", str(path), wait=False)
    assert re.search(r'200  "hi" -> "You said: hi"  .*, replay$', line_of(again, "said.*replay"))


def test_serving_goes_on_when_nobody_reads_any_more(sim: Sim, tmp_path: Path) -> None:
    proxy = Proxy(sim.url, state_dir=tmp_path)
    reader, writer = os.pipe()
    proxy.process = process = subprocess.Popen(
        proxy.command,
        stdout=writer,
        stderr=subprocess.DEVNULL,
        env=proxy.environment,
        cwd=ROOT,
        text=True,
        errors="replace",
    )
    os.close(writer)
    try:
        proxy.wait_for(proxy.answers)
        os.close(reader)
        with proxy.client() as client:
            for _ in range(3):
                assert content_of(ndjson(chat(client))) == "You said: hi"
            assert chat(client, model="no-such").status_code == 404
            # mitmproxy would end here: it cannot print a warning.
            client.get("/api/tags", headers={"Host": "evil.example.com"})
            assert content_of(ndjson(chat(client))) == "You said: hi"
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(10)
