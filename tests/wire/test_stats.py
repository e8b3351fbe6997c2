"""The statistics of real exchanges: at the end of mitmdump, and by command."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from mitmproxy import flowfilter
from tests.wire.conftest import CHAT, EMBEDDER, HI, NO_TOOLS, Proxy, StartProxy, ndjson, needs_sigterm, read_flows
from tests.wire.test_startup import copy_of_addon, touch
from tests.wire.web import Web

from ollama_lmstudio.sim import Sim


def ask_all(proxy: Proxy) -> None:
    """Ask in several ways: Ollama's streamed and whole, OpenAI's, embeddings, and for a model that is not there."""
    with proxy.client() as client:
        for stream in (True, False):
            client.post("/api/chat", json={"model": CHAT, "messages": HI, "stream": stream}).raise_for_status()
        client.post("/v1/chat/completions", json={"model": CHAT, "messages": HI}).raise_for_status()
        client.post("/api/embed", json={"model": EMBEDDER, "input": "hi"}).raise_for_status()
        assert client.post("/api/chat", json={"model": "nosuch", "messages": HI}).status_code == 404
        client.post("/api/show", json={"model": CHAT}).raise_for_status()


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the cells of a table by the model's name; two spaces part them."""
    rows = (re.split(r" {2,}", line.strip()) for line in text.splitlines())
    return {cells[-1]: cells[:-1] for cells in rows}


@needs_sigterm
def test_they_are_told_at_the_end(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url)
    ask_all(proxy)
    assert proxy.stop() == 0
    told = proxy.log.partition("5 requests since ")[2]
    rows = rows_of(told)
    requests, errors, first_token, p95, _speed, prompt, answer, loads = rows[CHAT]
    assert (requests, errors, loads) == ("3", "0", "1")
    assert first_token.endswith(("ms", "s"))
    assert p95.endswith(("ms", "s"))
    assert int(prompt) > 0
    assert int(answer) > 0
    assert rows[EMBEDDER][:2] == ["1", "0"]
    assert rows["nosuch"][:2] == ["1", "1"]


def test_nothing_is_told_where_nothing_was_asked(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        client.get("/api/tags").raise_for_status()
    assert proxy.stop() == 0
    assert "since" not in proxy.log


@needs_sigterm
def test_a_load_without_a_prompt_counts_as_one(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        client.post("/api/generate", json={"model": NO_TOOLS}).raise_for_status()
        ndjson(client.post("/api/chat", json={"model": NO_TOOLS, "messages": HI}))
    assert proxy.stop() == 0
    assert rows_of(proxy.log)[NO_TOOLS][-1] == "1"


def test_as_csv(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy = start_proxy(sim.url, *Web.arguments(), tool="mitmweb")
    web = Web(proxy)
    file = tmp_path / "stats.csv"
    try:
        assert web.command("ollama.stats")["value"] == ["no model has been asked yet"]
        ask_all(proxy)
        assert web.command("ollama.stats", str(file)) == {"value": [f"3 models in {file}"]}
        assert "is there already" in web.command("ollama.stats", str(file))["error"]
    finally:
        web.http.close()
    with file.open(newline="") as text:
        rows = {row["model"]: row for row in csv.DictReader(text)}
    assert {name: (row["requests"], row["errors"]) for name, row in rows.items()} == {
        CHAT: ("3", "0"),
        EMBEDDER: ("1", "0"),
        "nosuch": ("1", "1"),
    }
    assert float(rows[CHAT]["first_token_median_ms"]) > 0


@needs_sigterm
def test_a_script_that_is_loaded_anew_tells_them_and_begins_again(
    sim: Sim, start_proxy: StartProxy, tmp_path: Path
) -> None:
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script)
    ask_all(proxy)
    assert "requests since" not in proxy.log
    touch(script)
    proxy.wait_for_log("5 requests since ")
    proxy.wait_for(proxy.answers)
    with proxy.client() as client:
        client.post("/api/embed", json={"model": EMBEDDER, "input": "hi"}).raise_for_status()
    assert proxy.stop() == 0
    assert "1 request since " in proxy.log.partition("5 requests since ")[2]


def test_the_time_of_a_request_is_found(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    file = tmp_path / "flows"
    proxy = start_proxy(sim.url, "-w", str(file))
    ask_all(proxy)
    proxy.stop()
    flows = read_flows(file)
    times = [str(flow.metadata["ollama_at"]) for flow in flows]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text) for text in times)
    found = flowfilter.parse(f'~meta "^ollama_at: .* {times[0][11:16]}"')
    assert found is not None
    assert found(flows[0])
