"""mitmweb in a real browser: what a person sees of an exchange, and what they can do with it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.clients.environments import Process, PythonClient, running
from tests.wire.conftest import CHAT, HI, THINKING, Proxy, content_of, models, ndjson
from tests.wire.web import Web

from lmstudio_sim import Sim, SimThread, content, reasoning, sleep

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"
# Where the README's picture goes, if it is to be made anew.
PICTURE = "README_PICTURE"
PICTURE_BYTES = 200_000

SYSTEM = {"role": "system", "content": "You are a helpful assistant. Be brief."}
QUESTION = {"role": "user", "content": "Why is the sky blue?"}
THOUGHTS = "The user asks about Rayleigh scattering. One sentence is enough."
ANSWER = (
    "Air scatters short, blue wavelengths of sunlight far more than long, red ones, so blue reaches us from all over."
)


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    with SimThread(models=models(), auth={TOKEN}) as sim:
        yield sim


@pytest.fixture(scope="module")
def started(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web]]:
    options = {"lmstudio_token": TOKEN}
    state = tmp_path_factory.mktemp("state")
    with Proxy(lmstudio.url, *Web.arguments(), tool="mitmweb", options=options, state_dir=state) as proxy:
        proxy.wait_for_log(r"\d+ models at")
        web = Web(proxy)
        yield proxy, web
        web.http.close()


@pytest.fixture(scope="module")
def installed() -> Iterator[Process]:
    """The browser, and what drives it."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the path")
    with running(PythonClient("browser.py", ("playwright==1.65.2",), (executable,)), "") as process:
        yield process


@pytest.fixture
def person(installed: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> Iterator[Process]:
    """A person who has opened mitmweb's page; nothing is paused before and after."""
    _, web = started
    lmstudio.clear()
    installed("visit", web.url)
    yield installed
    web.option(intercept="")
    assert installed("errors") == []


def said(*words: str) -> list[str]:
    return [f"{' ' if number else ''}{word}" for number, word in enumerate(words)]


@pytest.fixture(scope="module")
def chat(started: tuple[Proxy, Web], lmstudio: Sim) -> str:
    """A streamed chat; how its line in the list begins."""
    proxy, web = started
    steps = [
        sleep(0.2),
        *(step for word in said(*THOUGHTS.split()) for step in (reasoning(word), sleep(0.02))),
        *(step for word in said(*ANSWER.split()) for step in (content(word), sleep(0.02))),
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
        client.post("/api/chat", json={"model": "llama5", "messages": [QUESTION]})
    web.flow(lambda flow: flow["comment"].startswith("chat qwen3:8b: "))
    return "chat qwen3:8b: "


def test_the_list_tells_what_each_exchange_was(person: Process, chat: str) -> None:
    lines = person("listed")
    for text in (
        chat,
        "tok/s, first token",
        "version: 0.33.0",
        "tags: 8 models",
        "model list: 8 models",
        "show qwen3:8b",
    ):
        assert any(text in line for line in lines), lines
    assert any("chat llama5: 404 model 'llama5' not found" in line and "404" in line for line in lines)


def test_an_exchange_is_understood_without_another_click(person: Process, chat: str) -> None:
    person("choose", chat)
    shown = person("shown", "done reason")
    assert shown["view"] == "Ollama"
    for text in (
        "# POST /api/chat",
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
    assert "# POST" not in shown["text"]


def test_the_raw_side(person: Process, chat: str) -> None:
    person("choose", chat)
    person("view", "LM Studio")
    assert '"include_usage": true' in person("shown", "# POST /v1/chat/completions")["text"]
    person("tab", "Response")
    person("view", "LM Studio")
    text = person("shown", "# LM Studio's answer: 200")["text"]
    assert '"delta":{"role":"assistant","reasoning_content":"The"}' in text


def test_the_picture(person: Process, chat: str, tmp_path: Path) -> None:
    person("choose", chat)
    person("shown", "done reason")
    path = Path(os.environ.get(PICTURE) or tmp_path / "mitmweb.png")
    person("picture", str(path))
    assert 20_000 < path.stat().st_size < PICTURE_BYTES


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def ask(proxy: Proxy) -> httpx.Response:
    with proxy.client() as client:
        return client.post("/api/chat", json={"model": CHAT, "messages": HI})


@pytest.mark.parametrize("intercept", ["~u /api/chat & ~q", "~u chat/completions & ~q"])
def test_a_request_is_stopped_edited_and_let_go(
    person: Process, started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, intercept: str
) -> None:
    proxy, web = started
    person("fill", "Intercept", intercept)
    proxy.wait_for(lambda: web.http.get("/options").json()["intercept"]["value"] == intercept)
    answer = background.submit(ask, proxy)
    paused = web.paused()
    asked: dict[str, Any] = json.loads(web.content(paused))
    assert ("stream" in asked) == ("completions" in intercept)
    asked["messages"] = [{"role": "user", "content": "edited in a browser"}]
    person("choose", f"chat {CHAT}")
    person("edit", json.dumps(asked))
    proxy.wait_for(lambda: "edited in a browser" in web.content(paused), 5)
    person("press", "Resume")
    assert content_of(ndjson(answer.result())) == "You said: edited in a browser"


def test_a_replay_is_translated_again(person: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    proxy, web = started
    ask(proxy)
    web.flow(lambda flow: flow["comment"].startswith(f"chat {CHAT}: "))
    lmstudio.clear()
    person("choose", f"chat {CHAT}: ")
    person("press", "Replay")
    proxy.wait_for(lambda: any(request.path == "/v1/chat/completions" for request in lmstudio.requests))
    web.flow(lambda flow: flow["comment"].endswith(", replay"))
    # The page may have asked for the body while there was none.
    person("visit", web.url)
    person("choose", ", replay")
    person("tab", "Response")
    assert person("shown", "You said: hi")["view"] == "Ollama"


def test_no_secret_is_on_the_page(person: Process, started: tuple[Proxy, Web], chat: str) -> None:
    _, web = started
    person("choose", chat)
    assert TOKEN not in json.dumps(web.flows())
    for name in ("Request", "Response"):
        person("tab", name)
        for view in ("Ollama", "LM Studio"):
            person("view", view)
            assert TOKEN not in person("shown", "#")["text"]
