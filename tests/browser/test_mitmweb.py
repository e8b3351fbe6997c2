"""mitmweb in a real browser: what a person sees of an exchange, and what they can do with it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.clients.environments import Process
from tests.wire.conftest import CHAT, EMBEDDER, HI, THINKING, Proxy, content_of, ndjson, sim_thread_at
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.inspect.render import ANSWER_TO_COME
from ollama_lmstudio.sim import Sim, content, reasoning, sleep, wait

pytestmark = pytest.mark.browser

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"

# Where the README's picture goes, if it is to be made anew:
# README_PICTURE=.github/mitmweb.png pytest tests/browser -k picture
PICTURE = os.environ.get("README_PICTURE", "")
PICTURE_BYTES = 200_000
# The addresses that people know are in it.
LMSTUDIO_PORT, PORT = (1234, 11434) if PICTURE else (0, 0)

SYSTEM = {"role": "system", "content": "You are a helpful assistant. Be brief."}
QUESTION = {"role": "user", "content": "Why is the sky blue?"}
THOUGHTS = "The user asks about Rayleigh scattering. One sentence is enough."
ANSWER = (
    "Air scatters short, blue wavelengths of sunlight far more than long, red ones, so blue reaches us from all over."
)


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    with sim_thread_at(LMSTUDIO_PORT) as sim:
        sim.set(auth={TOKEN})
        yield sim


@pytest.fixture(scope="module")
def started(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web]]:
    options = {"lmstudio_token": TOKEN, "own_calls": "all"}
    state = tmp_path_factory.mktemp("state")
    with mitmweb(lmstudio.url, options=options, state_dir=state, port=PORT) as found:
        yield found


@pytest.fixture
def person(installed: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> Iterator[Process]:
    """A person who has opened mitmweb's page; nothing is paused before and after."""
    _, web = started
    lmstudio.clear()
    installed("visit", web.url)
    yield installed
    web.option(intercept="")
    assert installed("errors") == []


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def ask(proxy: Proxy, question: str = "hi") -> httpx.Response:
    with proxy.client() as client:
        return client.post("/api/chat", json={"model": CHAT, "messages": [{"role": "user", "content": question}]})


def said(text: str) -> list[str]:
    return [f"{' ' if number else ''}{word}" for number, word in enumerate(text.split())]


@pytest.fixture(scope="module")
def chat(started: tuple[Proxy, Web], lmstudio: Sim) -> str:
    """A streamed chat, among others; how its line in the list begins."""
    proxy, web = started
    steps = [
        sleep(0.2),
        *(step for word in said(THOUGHTS) for step in (reasoning(word), sleep(0.02))),
        *(step for word in said(ANSWER) for step in (content(word), sleep(0.02))),
    ]
    lmstudio.script(steps, match=QUESTION["content"])
    body = {
        "model": "qwen3:8b",
        "messages": [SYSTEM, QUESTION],
        "options": {"temperature": 0.3, "num_ctx": 8192},
        "think": True,
    }
    with proxy.client() as client:
        client.get("/api/version").raise_for_status()
        client.get("/api/tags").raise_for_status()
        client.post("/api/show", json={"model": "qwen3:8b"}).raise_for_status()
        ndjson(client.post("/api/chat", json=body))
        client.post("/api/embed", json={"model": EMBEDDER.partition("-v")[0], "input": ["sky", "sea"]})
        client.post("/api/chat", json={"model": "llama5", "messages": [QUESTION]})
        client.get("/api/ps").raise_for_status()
    web.flow(lambda flow: flow["comment"].startswith('"Why is') and "tok/s" in flow["comment"])
    # The page shows two spaces as one.
    return '"Why is the sky blue?" [thinking] qwen3:8b'


def test_the_list_tells_what_each_exchange_was(person: Process, chat: str) -> None:
    lines = person("listed")
    for text in (
        chat,
        "tok/s, first token",
        "version 0.40.5",
        "tags 8 models",
        "(bridge) model list 8 models",
        "show qwen3:8b",
        "2 texts, 768 dimensions",
    ):
        assert any(text in line for line in lines), lines
    assert any("✗ 404 model 'llama5' not found \"Why is the sky blue?\"" in line for line in lines)


def test_an_exchange_is_found(person: Process, chat: str) -> None:
    person("fill", "Search", '~comment "sky blue.*qwen3"')
    (line,) = person("listed")
    assert chat in line
    person("choose", chat)
    assert ANSWER[:60] in person("shown", "done reason")["text"]
    person("fill", "Search", "")


def test_an_exchange_is_understood_without_another_click(person: Process, chat: str) -> None:
    person("choose", chat)
    shown = person("shown", "done reason")
    assert shown["view"] == "Ollama"
    for text in (
        "━━ POST /api/chat",
        f"system: {SYSTEM['content']}",
        f"user: {QUESTION['content']}",
        f"model: qwen3:8b -> {THINKING}",
        "not sent: num_ctx 8192",
        THOUGHTS,
        ANSWER[:60],
        "tok/s",
        "first token: ",
        "load: ",
        "done reason: stop",
    ):
        assert text in shown["text"]


def test_the_answer_has_a_tab_of_its_own(person: Process, chat: str) -> None:
    person("choose", chat)
    person("tab", "Response")
    shown = person("shown", ANSWER[:60])
    assert shown["view"] == "Ollama"
    assert "━━ POST" not in shown["text"]


def test_an_answer_shows_up_while_somebody_looks(
    person: Process, started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, seen: threading.Event
) -> None:
    proxy, web = started
    lmstudio.script([content("slow"), wait(seen), content(" but sure")], match="wait")
    answer = background.submit(ask, proxy, "wait")
    web.flow(lambda flow: flow["comment"].endswith(f'"wait"  {CHAT}') and flow.get("response"))
    person("choose", f'"wait" {CHAT}')
    assert "slow but sure" not in person("shown", f"━━ {ANSWER_TO_COME}")["text"]
    person("tab", "Response")
    shown = person("shown", "━━ Answer so far: 200")["text"]
    assert "assistant: slow" in shown
    assert "but sure" not in shown
    seen.set()
    # Nothing is clicked any more.
    assert "done reason: stop" in person("shown", "slow but sure")["text"]
    assert content_of(ndjson(answer.result())) == "slow but sure"


def test_the_raw_side(person: Process, chat: str) -> None:
    person("choose", chat)
    person("view", "LM Studio")
    assert '"include_usage": true' in person("shown", "━━ POST /v1/chat/completions")["text"]
    person("tab", "Response")
    person("view", "LM Studio")
    text = person("shown", "━━ LM Studio's answer: 200")["text"]
    assert '"delta":{"role":"assistant","reasoning_content":"The"}' in text


def test_the_picture(person: Process, chat: str, tmp_path: Path) -> None:
    person("choose", chat)
    person("shown", "done reason")
    path = tmp_path / "mitmweb.png"
    person("picture", str(path))
    with Image.open(path) as image:
        assert image.size == (2800, 1960)
        small = Path(PICTURE or tmp_path / "small.png")
        image.convert("RGB").quantize(64).save(small, optimize=True)
    assert 20_000 < small.stat().st_size < PICTURE_BYTES


REQUEST = {"model": CHAT, "messages": HI}
CALL = {**REQUEST, "stream": True, "stream_options": {"include_usage": True}}
# What is stopped: with which filter, how often, and what there is to edit.
STOPPED = {
    "the client's request": ("~u /api/chat", 1, REQUEST),
    "the call": ("~u chat/completions & ~q", 1, CALL),
    "the call and the answer": ("~u chat/completions", 2, CALL),
}


@pytest.mark.parametrize(("intercept", "stops", "body"), STOPPED.values(), ids=STOPPED)
def test_a_request_is_stopped_edited_and_let_go(
    person: Process,
    started: tuple[Proxy, Web],
    background: ThreadPoolExecutor,
    intercept: str,
    stops: int,
    body: dict[str, Any],
) -> None:
    proxy, web = started
    stop(person, started, intercept)
    answer = background.submit(ask, proxy)
    web.paused()
    (line,) = person("stopped")
    assert line.startswith("waits for you")
    what = f'"hi" {CHAT}'
    assert what in " ".join(line.split())
    person("choose", what)
    text = person("shown", ANSWER_TO_COME)["text"]
    assert "user: hi" in text
    assert ("━━ Sent to LM Studio" in text) == (body is CALL)
    edited = {**body, "messages": [{"role": "user", "content": "edited"}]}
    assert json.loads(person("edit", json.dumps(edited))) == body
    person("shown", "text of 2 -> 6 characters" if body is CALL else "user: edited")
    person("press", "Resume")
    if stops == 2:
        web.flow(lambda flow: flow["intercepted"] and flow.get("response"))
        assert len(person("stopped")) == 1
        person("tab", "Response")
        person("shown", "You said: edited")
        person("press", "Resume")
    assert content_of(ndjson(answer.result())) == "You said: edited"


def stop(person: Process, started: tuple[Proxy, Web], intercept: str) -> None:
    """Write an intercept filter into its field."""
    proxy, web = started
    person("fill", "Intercept", intercept)
    proxy.wait_for(lambda: web.http.get("/options").json()["intercept"]["value"] == intercept)


@pytest.mark.parametrize("intercept", ["~u /api/chat", "~u chat/completions"])
def test_a_stopped_request_is_aborted(
    person: Process,
    started: tuple[Proxy, Web],
    lmstudio: Sim,
    background: ThreadPoolExecutor,
    intercept: str,
) -> None:
    proxy, web = started
    stop(person, started, intercept)
    answer = background.submit(ask, proxy)
    web.paused()
    # Not by the question: until the page shows this row, that would find an earlier one.
    person("choose", "waits for you")
    person("press", "Abort")
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result()
    person("choose", "Connection killed, after")
    assert not any(request.path == "/v1/chat/completions" for request in lmstudio.requests)


def test_an_edited_call_is_replayed_and_its_answer_translated_again(
    person: Process, started: tuple[Proxy, Web], lmstudio: Sim
) -> None:
    proxy, web = started
    ask(proxy)
    web.flow(lambda flow: flow["comment"].startswith(f'"hi"  {CHAT}  '))
    lmstudio.clear()
    person("choose", f'"hi" {CHAT} ')
    edited = {**CALL, "messages": [{"role": "user", "content": "asked again"}]}
    assert json.loads(person("edit", json.dumps(edited))) == CALL
    person("press", "Replay")
    proxy.wait_for(lambda: any(request.path == "/v1/chat/completions" for request in lmstudio.requests))
    web.flow(lambda flow: flow["comment"].endswith(", replay"))
    # The page may have asked for the body while there was none.
    person("visit", web.url)
    person("choose", ", replay")
    person("tab", "Response")
    assert person("shown", "You said: asked again")["view"] == "Ollama"


def test_the_command_bar(person: Process, started: tuple[Proxy, Web], chat: str, tmp_path: Path) -> None:
    assert "8 models: read it in the list" in person("command", "ollama.models")
    person("choose", "(bridge) models")
    assert f"{THINKING}:latest: " in person("shown", THINKING)["text"]
    file = tmp_path / "chat.md"
    assert "1 of 1 exchanges are in" in person("command", f"ollama.export \"~comment 'sky blue.*qwen3'\" {file}")
    assert ANSWER in file.read_text(encoding="utf-8")


def test_no_secret_is_on_the_page(person: Process, started: tuple[Proxy, Web], chat: str) -> None:
    _, web = started
    person("choose", chat)
    assert TOKEN not in json.dumps(web.flows())
    for name in ("Request", "Response"):
        person("tab", name)
        for view in ("Ollama", "LM Studio"):
            person("view", view)
            assert TOKEN not in person("shown", "━━")["text"]
