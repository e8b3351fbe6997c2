"""mitmweb's list in a real browser, narrow and wide, while exchanges wait and run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from tests.clients.environments import Process
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, EMBEDDER, Proxy, models
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.sim import Sim, SimDownload, SimThread, content, sleep

pytestmark = pytest.mark.browser

WIDTHS = (700, 1400)
SLOW, PULLED = "slow/big-70b", "slow/model"
# At the narrow width, so many characters of a line have to be seen.
CHARACTERS = 35


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    slow = replace(models()[0], key=SLOW, load_seconds=30)
    with SimThread(models=[*models(), slow], downloads=[SimDownload(PULLED, seconds=30)], jit=False) as sim:
        yield sim


@pytest.fixture(scope="module")
def started(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web]]:
    state = tmp_path_factory.mktemp("state")
    with mitmweb(lmstudio.url, state_dir=state, options={"load_timeout_seconds": "60"}) as found:
        yield found


def post(proxy: Proxy, path: str, body: dict[str, Any]) -> None:
    """Ask, and let the answer be cut where the process ends before it."""
    with proxy.client(timeout=60) as client:
        client.post(path, json=body)


def chat(text: str, model: str = CHAT) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


# How the lines begin of what runs.
RUNNING = {
    "a load": r'loading big-70b, \d+ s\s+"hi"',
    "a load of the bridge's own": r"\(bridge\) load\s+loading big-70b, \d+ s",
    "the user": r'waits for you\s+"hold"',
    "a download": r"\d+ %, \S+( MB)? of 2.3 GB\s+pull ",
    "a stream": r"\d+ tokens, \d+(\.\d+)? tok/s\s+",
    "a stream that is passed through": r'\d+(\.\d+)? kB\s+"stream"',
}


@pytest.fixture(scope="module")
def running(started: tuple[Proxy, Web], lmstudio: Sim) -> Iterator[None]:
    """Something in each state, and other exchanges that have ended."""
    proxy, web = started
    lmstudio.script([step for _ in range(300) for step in (content("word "), sleep(0.1))], match="stream")
    lmstudio.load(CHAT)
    post(proxy, "/api/chat", {**chat("hi"), "stream": False})
    post(proxy, "/api/chat", chat("hi", "no-such-model"))
    post(proxy, "/api/embed", {"model": EMBEDDER, "input": ["a", "b"]})
    web.option(intercept="~bq hold & ~q")
    with ThreadPoolExecutor(8) as background, marked(cut=True):
        for path, body in (
            ("/api/chat", chat("hi", SLOW)),
            ("/api/chat", chat("hold")),
            ("/api/pull", {"model": PULLED}),
            ("/api/chat", chat("stream")),
            ("/v1/chat/completions", {**chat("stream"), "stream": True}),
        ):
            background.submit(post, proxy, path, body)
        yield
        web.option(intercept="")
        for flow in web.flows():
            web.kill(flow)


@pytest.fixture
def person(installed: Process, started: tuple[Proxy, Web], running: None) -> Iterator[Process]:
    """A person who has opened mitmweb's page."""
    _, web = started
    installed("visit", web.url)
    yield installed
    assert installed("errors") == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("state", RUNNING)
def test_what_runs_says_what_it_waits_for(person: Process, started: tuple[Proxy, Web], width: int, state: str) -> None:
    proxy, _ = started
    person("resize", width)
    beginning = re.compile(RUNNING[state])
    proxy.wait_for(lambda: any(beginning.match(text) for text in person("seen", "comment")))
    first = next(text for text in person("seen", "comment") if beginning.match(text))
    # Nothing is clicked: the page itself shows that it goes on.
    if state != "the user":
        proxy.wait_for(lambda: first not in person("seen", "comment"))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_is_wide_where_it_says_most(person: Process, started: tuple[Proxy, Web], width: int) -> None:
    proxy, web = started
    person("resize", width)
    # All of it is seen, or so much.
    enough = CHARACTERS * (width // WIDTHS[0])

    def shows_what_is_told() -> bool:
        """The page follows the flows by a moment, and what runs is told anew each second."""
        told = [flow["comment"] for flow in web.flows() if "tok/s" in flow["comment"] or flow["marked"] == "❌"]
        comments = [text for text in person("seen", "comment") if text]
        return bool(told) and all(
            any(told_of == text or (told_of.startswith(text) and len(text) >= enough) for text in comments)
            for told_of in told
        )

    proxy.wait_for(shows_what_is_told)
    comments = person("seen", "comment")
    assert any("tok/s" in text for text in comments)
    assert any(re.fullmatch(r"[\d-]{10} [\d:.]{12}", text) for text in person("seen", "timestamp"))
    assert not [text for text in comments if text.startswith("(bridge) model list")]
    assert person("seen", "method") == []
