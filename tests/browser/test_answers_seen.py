"""Answers, their numbers and LM Studio's side of them, as a person sees them in mitmweb's page."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.clients.environments import Process
from tests.wire.conftest import CHAT, HI, Proxy, content_of, ndjson, sim_thread_at
from tests.wire.web import Flow, Web, mitmweb

from ollama_lmstudio.inspect.render import ANSWER_TO_COME
from ollama_lmstudio.sim import Disconnect, MidError, Sim, content, reasoning, sleep, wait

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    with sim_thread_at(0) as sim:
        sim.load(CHAT)
        yield sim


@pytest.fixture(scope="module")
def started(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web]]:
    state = tmp_path_factory.mktemp("state")
    with mitmweb(lmstudio.url, state_dir=state) as found:
        yield found


@pytest.fixture
def person(installed: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> Iterator[Process]:
    """A person who has opened mitmweb's page, whose list has one line."""
    proxy, web = started
    lmstudio.clear()
    web.http.post("/clear").raise_for_status()
    with proxy.client() as client:
        client.get("/api/version")
    installed("visit", web.url)
    yield installed
    assert installed("errors") == []


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def ask(proxy: Proxy, path: str = "/api/chat", **changed: Any) -> httpx.Response:
    with proxy.client() as client:
        return client.post(path, json={"model": CHAT, "messages": HI, "stream": True, **changed})


def is_chat(flow: Flow) -> bool:
    return str(flow["request"]["path"]).endswith("/chat/completions")


def has_ended(flow: Flow) -> bool:
    """Return whether an exchange with LM Studio is over, however."""
    response = flow.get("response") or {}
    return is_chat(flow) and bool(response.get("timestamp_end") or flow.get("error"))


def open_answer(person: Process, web: Web) -> None:
    """Choose the exchange, and the tab of its response."""
    web.flow(has_ended)
    # One look at the page's list: what distinguishes its line is not of interest here.
    person("choose", '"hi"')
    person("tab", "Response")


PAUSED = [reasoning("Hm"), content("It", " is"), sleep(1.2), content(" so.")]


def test_the_numbers_of_an_answer(person: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    proxy, web = started
    lmstudio.script(PAUSED, times=1)
    ndjson(ask(proxy))
    open_answer(person, web)
    text = person("shown", "done reason")["text"]
    for line in (
        "context: 9 of 131,072 tokens",
        "prompt: 5 tokens",
        "answer: 4 tokens",
        "done reason: stop",
    ):
        assert line in text
    assert re.search(r"longest pause: \d\.\d s, after 3 events, ", text)
    assert text.index("It is so.") < text.index("Numbers") < text.index("context: ")


def test_an_error_stands_first(person: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    proxy, web = started
    lmstudio.fault(times=1, token_delay=0.02, mid_error=MidError(after=2, message="the engine is gone"))
    ask(proxy)
    open_answer(person, web)
    text = person("shown", "the engine is gone")["text"]
    assert text.index("Error") < text.index("the engine is gone") < text.index("Answer up to the error: 200 OK")
    assert text.index("Answer up to the error: 200 OK") < text.index("You said")


def test_when_each_event_came(person: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    """Two clicks: the menu, whose first entries are the views of the bridge, and the view."""
    proxy, web = started
    lmstudio.script(PAUSED, times=1)
    ndjson(ask(proxy))
    open_answer(person, web)
    assert person("views")[:3] == ["auto", "ollama", "lm studio"]
    person("view", "LM Studio")
    shown = person("shown", "gap ms")
    assert shown["view"] == "LM Studio"
    lines = shown["text"].splitlines()
    (late,) = [line.split() for line in lines if line.endswith('content " so."')]
    assert (late[0], late[3:]) == ("4", ["content", '"', 'so."'])
    assert float(late[2].replace(",", "")) >= 1150
    # The raw text is below.
    assert sum('"content":" so."' in line for line in lines) == 1


def test_lm_studios_side_is_shown_first_for_all(person: Process, started: tuple[Proxy, Web]) -> None:
    proxy, web = started
    ndjson(ask(proxy))
    person("command", "ollama.view")
    try:
        open_answer(person, web)
        assert person("shown", "gap ms")["view"] == "LM Studio"
    finally:
        person("command", "ollama.view")
    person("tab", "Request")
    person("tab", "Response")
    assert person("shown", "done reason")["view"] == "Ollama"


def test_what_was_shown_of_a_request_is_not_untrue_when_it_has_ended(
    person: Process, started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, seen: threading.Event
) -> None:
    proxy, web = started
    lmstudio.script([content("slow"), wait(seen), content(" but sure")], times=1)
    answer = background.submit(ask, proxy)
    web.flow(lambda flow: is_chat(flow) and flow.get("response"))
    person("choose", '"hi"')
    assert "shown: see Response" in person("shown", ANSWER_TO_COME)["text"]
    seen.set()
    assert content_of(ndjson(answer.result())) == "slow but sure"
    web.flow(has_ended)
    # The page does not ask for it again, and need not.
    assert "will be" not in person("shown", "hi")["text"]
    person("tab", "Response")
    assert "done reason: stop" in person("shown", "slow but sure")["text"]
    person("tab", "Request")
    assert ANSWER_TO_COME not in person("shown", "slow but sure")["text"]


def test_a_stream_that_ends_without_another_byte_is_shown_as_it_ended(
    person: Process, started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, seen: threading.Event
) -> None:
    """What is shown while it comes has the same bytes; the page asks for a body again when they have changed."""
    proxy, web = started
    lmstudio.script([content("slow"), wait(seen)], times=1)
    lmstudio.fault(times=1, disconnect=Disconnect(after=1, how="end"))
    answer = background.submit(ask, proxy, "/v1/chat/completions")
    web.flow(lambda flow: is_chat(flow) and (flow.get("response") or {}).get("contentLength"))
    person("choose", '"hi"')
    person("tab", "Response")
    assert "slow" in person("shown", "Answer so far: 200")["text"]
    seen.set()
    answer.result()
    # Nothing is clicked any more.
    person("shown", "Answer: 200")
