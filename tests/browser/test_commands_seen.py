"""What a person reads of a command's result: in mitmweb's page, and in the console."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.clients.environments import Process
from tests.wire.conftest import CHAT, HI, VISION, Proxy, models
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.sim import Sim, SimThread, content

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

from tests.browser.terminal import Terminal, console, run

pytestmark = pytest.mark.browser

FIRST, SECOND = "Because of Rayleigh scattering, which blue light has more of than red.", "Blue scatters more."
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
GEMMA = VISION.partition("/")[2]


def chat(url: str, messages: list[dict[str, str]], model: str = CHAT) -> str:
    """Ask; return the answer."""
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        answer = client.post("/api/chat", json={"model": model, "messages": messages, "stream": False})
    return str(answer.raise_for_status().json()["message"]["content"])


def talk(url: str) -> None:
    """Have a conversation of two turns with two models, and another one."""
    said = chat(url, HI)
    chat(url, [*HI, {"role": "assistant", "content": said}, {"role": "user", "content": "and now?"}], GEMMA)
    chat(url, [{"role": "user", "content": "something else"}])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web, Sim]]:
    state = tmp_path_factory.mktemp("state")
    with SimThread(models=models()) as sim, mitmweb(sim.url, state_dir=state) as (proxy, web):
        talk(proxy.url)
        yield proxy, web, sim


@pytest.fixture
def person(installed: Process, started: tuple[Proxy, Web, Sim]) -> Iterator[Process]:
    """A person who has opened mitmweb's page."""
    _, web, _ = started
    installed("visit", web.url)
    yield installed
    assert installed("errors") == []


def test_a_command_says_one_sentence_and_the_list_has_the_rest(person: Process) -> None:
    result = person("command", "ollama.stats")
    assert "3 requests since" in result
    assert "\\" not in result
    person("choose", "(bridge) stats")
    shown = person("shown", "asked")["text"]
    lines = shown.splitlines()
    (head,) = (line for line in lines if "failed" in line)
    (row,) = (line for line in lines if CHAT in line)
    # Aligned: each heading ends where its numbers end.
    assert row[head.index("asked") : head.index("asked") + len("asked")].strip() == "2"
    assert row[head.index("failed") : head.index("failed") + len("failed")].strip() == "0"
    assert row.index(CHAT) == head.index("model")


def test_the_doctors_report_is_in_the_list(person: Process) -> None:
    assert "everything is being looked at" in person("command", "ollama.doctor")
    person("choose", "(bridge) doctor")
    shown = person("shown", "LM Studio")
    assert shown["view"] in ("Ollama", "No content")
    assert "answers at" in shown["text"]


def test_the_thread_of_a_conversation(person: Process) -> None:
    assert "2 exchanges" in person("command", f'ollama.conversation "~comment {GEMMA}"')
    person("choose", "(bridge) conversation")
    shown = person("shown", "and now?")["text"]
    places = [shown.index(text) for text in ("hi", "You said: hi", GEMMA, "and now?", "You said: and now?")]
    assert places == sorted(places)
    assert "something else" not in shown


def test_both_answers_are_in_one_view(person: Process, started: tuple[Proxy, Web, Sim]) -> None:
    proxy, web, sim = started
    sim.script([content(FIRST)], match=QUESTION[0]["content"])
    chat(proxy.url, QUESTION)
    sim.scripts.clear()
    sim.script([content(SECOND)], match=QUESTION[0]["content"])
    result = person("command", f'ollama.repeat "~bq sky" model={GEMMA} temperature=0')
    assert "1 request asked again" in result
    again = web.flow(lambda flow: flow["is_replay"] and (flow.get("response") or {}).get("timestamp_end"))
    sim.scripts.clear()
    assert again["response"]["status_code"] == 200
    person("visit", web.url)
    person("choose", "replay")
    person("tab", "Response")
    shown = person("shown", "Asked again")["text"]
    for text in (FIRST, SECOND, CHAT, GEMMA, "temperature", "first token"):
        assert text in shown
    assert shown.index(FIRST) < shown.index(SECOND)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[Terminal, str]]:
    """The console, and the bridge's URL."""
    with SimThread(models=models()) as sim, console(sim, tmp_path) as found:
        yield found


def test_the_console_opens_results(terminal: tuple[Terminal, str]) -> None:
    screen, url = terminal
    talk(url)
    run(screen, "ollama.stats")
    screen.see("3 requests since", "asked", CHAT)
    screen.press("q")
    # This one is known a little later.
    run(screen, "ollama.doctor")
    screen.see("all is well", "answers at", "ok: ")
    screen.press("q")
    run(screen, "ollama.unload nosuch")
    screen.see("nosuch is not unloaded: model 'nosuch' not found")


def test_the_console_shows_a_conversation_and_its_exchanges_alone(terminal: tuple[Terminal, str]) -> None:
    screen, url = terminal
    talk(url)
    run(screen, f"ollama.conversation '~comment {GEMMA}'")
    screen.see("2 exchanges", "You said: hi", "and now?", "You said: and now?")
    screen.press("q")
    screen.see("[f:~meta 'ollama_conversation: ")
    assert "(bridge) model list" not in screen.text


def test_the_console_compares_answers(terminal: tuple[Terminal, str]) -> None:
    screen, url = terminal
    chat(url, HI)
    run(screen, f"ollama.repeat '~m POST' model={GEMMA} seed=7")
    screen.see("1 request asked again")
    screen.press("q")
    run(screen, "set view_filter '~replayq'")
    screen.see("[f:~replayq]")
    screen.press("G\r")
    screen.see("POST")
    screen.press("\t")
    screen.see("Asked again", GEMMA, "seed", "both are the same")
