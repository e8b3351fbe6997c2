"""Real exchanges of a conversation are found by one filter, and shown as one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy import flowfilter
from tests.wire.conftest import CHAT, HI, VISION, Proxy, models, read_flows
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.sim import Sim, SimThread

NEXT = [*HI, {"role": "assistant", "content": "You said: hi"}, {"role": "user", "content": "and now?"}]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[Proxy, httpx.Client]]:
    with (
        SimThread(models=models()) as sim,
        Proxy(sim.url, "-w", str(tmp_path / "flows"), state_dir=tmp_path) as proxy,
        proxy.client() as client,
    ):
        yield proxy, client


def generate(client: httpx.Client, prompt: str, **fields: Any) -> Any:
    body = {"model": CHAT, "prompt": prompt, "stream": False, **fields}
    return client.post("/api/generate", json=body).raise_for_status().json()


def chat(client: httpx.Client, messages: list[dict[str, str]], path: str = "/api/chat", model: str = CHAT) -> None:
    body = {"model": model, "messages": messages, "stream": False}
    client.post(path, json=body).raise_for_status()


def test_the_saved_flows_of_one_conversation_have_its_id(client: tuple[Proxy, httpx.Client], tmp_path: Path) -> None:
    proxy, asker = client
    context = generate(asker, "hello")["context"]
    chat(asker, HI)
    chat(asker, NEXT, model=VISION)
    generate(asker, "more", context=context)
    chat(asker, NEXT, "/v1/chat/completions")
    chat(asker, HI, "/v1/chat/completions")
    asker.post("/api/show", json={"model": CHAT}).raise_for_status()
    proxy.stop()
    flows = [flow for flow in read_flows(tmp_path / "flows") if flow.metadata.get("ollama_method") == "POST"]
    ids = [flow.metadata.get("ollama_conversation") for flow in flows]
    assert [ids.index(id_) for id_ in ids] == [0, 1, 1, 0, 1, 5, 6]
    assert ids[-1] is None
    found = flowfilter.parse(f'~meta "ollama_conversation: {ids[1]}"')
    assert found is not None
    assert [flow for flow in flows if found(flow)] == [flows[1], flows[2], flows[4]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web, Sim]]:
    state = tmp_path_factory.mktemp("state")
    with SimThread(models=models()) as sim, mitmweb(sim.url, state_dir=state) as (proxy, web):
        yield proxy, web, sim


def report(web: Web, command: str) -> str:
    """Return what the row of a command's report shows, on both tabs."""
    flow = web.flow(lambda flow: flow["comment"].startswith(f"(bridge) {command}"))
    shown = web.view(flow, "request")
    assert shown == web.view(flow, "response")
    return shown.partition("\n")[2]


def test_the_thread(started: tuple[Proxy, Web, Sim]) -> None:
    proxy, web, _ = started
    with proxy.client() as client:
        chat(client, HI)
        chat(client, NEXT, model=VISION)
        chat(client, [{"role": "user", "content": "something else"}])
    (said,) = web.command("ollama.conversation", f"~comment {VISION.partition('/')[2]}")["value"]
    assert ", 2 exchanges: " in said
    assert said.endswith(": read it in the list, under (bridge) conversation")
    shown = report(web, "conversation")
    places = [shown.index(text) for text in ("user: hi", CHAT, VISION, "user: and now?", "You said: and now?")]
    assert places[1] < places[0] < places[2] < places[3] < places[4]
    assert shown.count("user: hi") == 1
    assert "something else" not in shown
    assert "tok/s" in shown or "tokens" in shown


def test_a_flow_that_is_no_chat_has_no_thread(started: tuple[Proxy, Web, Sim]) -> None:
    _, web, _ = started
    assert "none of these flows is a chat" in web.command("ollama.conversation", "~m GET")["error"]


def test_a_report_is_no_exchange(started: tuple[Proxy, Web, Sim], tmp_path: Path) -> None:
    proxy, web, _ = started
    with proxy.client() as client:
        chat(client, HI)
    web.command("ollama.stats")
    assert "asked  failed" in report(web, "stats")
    answer = web.command("ollama.export", "~comment stats", str(tmp_path / "x.sh"))
    assert answer["value"][0] == "nothing was written"
    flow = web.flow(lambda flow: flow["comment"].startswith("(bridge) stats"))
    assert flow["marked"]
