"""Real requests that are asked again: what reaches LM Studio, and both answers in one view."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http, io
from tests.wire.conftest import CHAT, EMBEDDER, VISION, Proxy, models
from tests.wire.web import Flow, Web, mitmweb

from ollama_lmstudio.inspect import render_answer
from ollama_lmstudio.inspect import snapshot as snapshots
from ollama_lmstudio.sim import Sim, SimThread, content, sleep

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
FIRST = "Air scatters short, blue wavelengths far more than long, red ones."
SECOND = "Air scatters blue light."


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web, Sim]]:
    state = tmp_path_factory.mktemp("state")
    with SimThread(models=models()) as sim, mitmweb(sim.url, state_dir=state) as (proxy, web):
        yield proxy, web, sim


@pytest.fixture
def web(started: tuple[Proxy, Web, Sim]) -> Iterator[Web]:
    """An empty list."""
    _, web, sim = started
    web.command("view.clear")
    sim.clear()
    sim.scripts.clear()
    yield web
    assert not sim.failures


def ask(started: tuple[Proxy, Web, Sim], path: str = "/api/chat", **body: Any) -> Flow:
    """Ask something; return its flow."""
    proxy, web, _ = started
    with proxy.client() as client:
        client.post(path, json={"model": CHAT, **body})
    return web.flow(lambda flow: flow["request"]["method"] == "POST" and flow.get("response", {}).get("timestamp_end"))


def repeated(web: Web, first: Flow, *changes: str) -> Flow:
    """Ask again what a flow asked; return the flow of that, when it has ended."""
    (said,) = web.command("ollama.repeat", "~m POST & ! ~marker :gear: & ! ~replayq", *changes)["value"]
    assert said == "1 request asked again: the answers are compared under Response"
    return web.flow(lambda flow: flow["id"] != first["id"] and flow["is_replay"] and ended(flow))


def ended(flow: Flow) -> bool:
    return bool(flow.get("error") or (flow.get("response") or {}).get("timestamp_end")) and "replay" in flow["comment"]


def calls(sim: Sim) -> list[Any]:
    """Return the bodies that reached LM Studio's models."""
    return [json.loads(request.body) for request in sim.requests if request.method == "POST"]


def test_another_model_and_other_options(started: tuple[Proxy, Web, Sim], web: Web) -> None:
    _, _, sim = started
    sim.script([content(FIRST)], match=QUESTION[0]["content"])
    first = ask(started, messages=QUESTION, options={"seed": 1, "temperature": 0.3}, stream=True)
    sim.scripts.clear()
    sim.script([content(SECOND)], match=QUESTION[0]["content"])
    second = repeated(web, first, f"model={VISION.partition('/')[2]}", "temperature=0")
    before, now = calls(sim)
    assert now == before | {"model": VISION, "temperature": 0}
    shown = web.view(second, "response")
    title, head, *_ = shown.split("\n")[1:]
    assert title.startswith("━━ Asked again ")
    assert head.split() == ["before", "now"]
    table = shown.partition("\nanswer before: ")[0].split("\n")
    rows = {line[:11].strip(): line[11:].split() for line in table}
    assert rows["model"] == [CHAT, "gemma-3-4b"]
    assert rows["temperature"] == ["0.3", "0"]
    assert len(rows["first token"]) == 4
    assert shown.index(FIRST) < shown.index(SECOND)
    # The client's own request, as it is after the changes.
    request = web.view(second, "request")
    assert "━━ POST /api/chat" in request
    assert "temperature" in request
    # The first one is as it was.
    assert FIRST in web.view(first, "response")
    assert "Asked again" not in web.view(first, "response")


def test_the_flow_is_linked_and_a_saved_file_tells_the_same(
    started: tuple[Proxy, Web, Sim], web: Web, tmp_path: Path
) -> None:
    _, _, sim = started
    sim.script([content("yes")], match=QUESTION[0]["content"])
    first = ask(started, messages=QUESTION, stream=False)
    second = repeated(web, first, "seed=7")
    path = tmp_path / "one.flow"
    web.command("save.file", f"~meta 'ollama_repeats: {first['id']}'", str(path))
    with path.open("rb") as file:
        (saved,) = io.FlowReader(file).stream()
    assert isinstance(saved, http.HTTPFlow)
    assert saved.id == second["id"]
    snapshot = snapshots.of(saved)
    assert snapshot is not None
    shown = render_answer.ollama_response(snapshot)
    assert "answers: both are the same" in shown


def test_an_answer_as_one_object_that_takes_its_time(started: tuple[Proxy, Web, Sim], web: Web) -> None:
    _, _, sim = started
    sim.script([content("slow"), sleep(2.5), content(" but sure")], match=QUESTION[0]["content"])
    second = repeated(web, ask(started, messages=QUESTION, stream=False), "seed=7")
    assert second["response"]["contentLength"]
    assert json.loads(web.content(second, "response"))["message"]["content"] == "slow but sure"
    assert "answers: both are the same" in web.view(second, "response")


def test_a_model_that_is_not_there_is_shown_in_the_flow(started: tuple[Proxy, Web, Sim], web: Web) -> None:
    second = repeated(web, ask(started, messages=QUESTION), "model=nosuch")
    assert second["response"]["status_code"] == 404
    shown = web.view(second, "response")
    assert re.search(r"\nYou said: Why is the sky blue\?  model 'nosuch' not found\n", shown)


def test_openais_api(started: tuple[Proxy, Web, Sim], web: Web) -> None:
    _, _, sim = started
    first = ask(started, "/v1/chat/completions", messages=QUESTION, temperature=1)
    second = repeated(web, first, "temperature=0.5", "max_tokens=3")
    before, now = calls(sim)
    assert now == before | {"temperature": 0.5, "max_tokens": 3}
    assert second["response"]["status_code"] == 200
    assert "max_tokens" in web.view(second, "response", "Ollama")


def test_a_request_that_was_refused_can_be_asked_of_a_model_that_is_there(
    started: tuple[Proxy, Web, Sim], web: Web
) -> None:
    first = ask(started, model="nosuch", messages=QUESTION)
    assert first["response"]["status_code"] == 404
    second = repeated(web, first, f"model={CHAT}")
    assert second["response"]["status_code"] == 200
    assert re.search(r"\nmodel 'nosuch' not found  You said: Why is the sky blue\?\n", web.view(second, "response"))


def test_several_one_after_the_other_and_what_is_left_out(started: tuple[Proxy, Web, Sim], web: Web) -> None:
    proxy, _, sim = started
    ask(started, messages=QUESTION)
    ask(started, messages=[{"role": "user", "content": "hi"}])
    ask(started, "/api/show")
    ask(started, "/api/embed", model=EMBEDDER, input="hi")
    sim.clear()
    said = web.command("ollama.repeat", "~m POST & ! ~marker :gear:", "seed=7")["value"]
    assert said == [
        "3 requests asked again: the answers are compared under Response",
        "1 left out: it asks no model",
    ]
    proxy.wait_for(lambda: sum(ended(flow) for flow in web.flows()) == 3)
    assert [call.get("seed") for call in calls(sim)] == [7, 7, None]


@pytest.mark.parametrize(
    ("flows", "change", "error"),
    [
        ("~m GET", "seed=1", "nothing can be asked again: it asks no model"),
        ("~c 999", "seed=1", "nothing can be asked again: there is no such flow"),
        ("~all", "seed", "'seed' should be NAME=VALUE, such as model=qwen3 or temperature=0.2"),
    ],
)
def test_errors(started: tuple[Proxy, Web, Sim], web: Web, flows: str, change: str, error: str) -> None:
    proxy, _, _ = started
    with proxy.client() as client:
        client.get("/api/version").raise_for_status()
    web.flow(lambda flow: flow["comment"].startswith("version"))
    assert web.command("ollama.repeat", flows, change) == {"error": error}
