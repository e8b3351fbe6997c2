"""Texts and their structure as a person sees and copies them: in mitmweb's page, and in the console."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy import contentviews
from tests.clients.environments import Process
from tests.inspect.conftest import PNG, WEATHER, rule, said
from tests.wire.conftest import VISION, Proxy, models
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.sim import Sim, SimThread, content

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

from tests.browser.terminal import Terminal, console

pytestmark = pytest.mark.browser

IS_NEW = hasattr(contentviews, "Contentview")

PARAGRAPH = "A model writes a whole paragraph on one line. " * 44
TEXT = "\n".join(
    [
        "# Heading",
        "",
        "key: value # no comment",
        "\tindented by a tab",
        "trailing blanks  ",
        "",
        "",
        PARAGRAPH,
        "x" * 2000,
        "中文字 한글 👩‍👩‍👧 e\u0301",
        "\u202eright to left\u202c and \u2066isolated\u2069",
        "━━ Error ━━━━━━━━━━━━━━━━━━━━━━━━━━━━",
        "error: this is only said",
        "",
    ]
)
QUESTION = "First line\n\n\tsecond  "
MODEL = VISION.partition("/")[2]
SYSTEM = "You are helpful.\n" + "Think well. " * 20
MESSAGES = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "Look", "images": [PNG]},
    {"role": "assistant", "content": "A dot."},
    {"role": "user", "content": QUESTION},
]
BODY = {"model": MODEL, "messages": MESSAGES, "tools": [WEATHER], "stream": False}


def ask(url: str, **changed: Any) -> str:
    """Ask; return the answer."""
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        answer = client.post("/api/chat", json={**BODY, **changed}).raise_for_status()
    return str(answer.json()["message"]["content"])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web, Sim]]:
    state = tmp_path_factory.mktemp("state")
    with SimThread(models=models()) as sim, mitmweb(sim.url, state_dir=state) as (proxy, web):
        sim.script([content(TEXT)], match="First line")
        assert ask(proxy.url) == TEXT
        yield proxy, web, sim


@pytest.fixture
def person(installed: Process, started: tuple[Proxy, Web, Sim]) -> Iterator[Process]:
    """A person who has opened the page, and the exchange."""
    _, web, _ = started
    installed("visit", web.url)
    installed("choose", "First line")
    yield installed
    installed("resize", 1400, 980)
    web.option(intercept="")
    assert installed("errors") == []


def test_what_was_said_is_copied_as_it_was_said(person: Process) -> None:
    person("tab", "Response")
    person("shown", "trailing blanks")
    copied = person("copied")
    # The text has a rule itself: the view's own begin with another sign.
    begin, _, rest = copied.partition(TEXT)
    assert begin.startswith("██ ")
    assert begin.split("\n")[-2:] == ["░░ assistant ".ljust(38, "░"), ""]
    assert [line for line in rest.split("\n") if line.startswith("██")] == ["██ Numbers ".ljust(38, "█")]
    assert rest.startswith("\n")


def test_what_the_user_said_is_copied_as_it_was_said(person: Process) -> None:
    person("shown", "POST /api/chat")
    assert f"\n{QUESTION}\n" in person("copied")


@pytest.mark.parametrize("width", [1400, 700])
def test_long_lines_wrap_and_empty_ones_are_lines(person: Process, width: int) -> None:
    person("resize", width, 980)
    person("tab", "Response")
    person("shown", "trailing blanks")
    layout = person("layout")
    assert layout["fits"]
    heights = {line["text"].strip(): line["height"] for line in layout["lines"]}
    height = heights["# Heading"]
    assert heights[PARAGRAPH.strip()] > 10 * height
    assert heights["x" * 2000] > 10 * height
    # A rule is one line, in a narrow column too.
    assert heights[""] == heights["░░ assistant ".ljust(38, "░")] == height


def test_the_structure_shows_with_colours_and_without(person: Process) -> None:
    text = person("shown", "New in this request")["text"]
    lines = text.split("\n")
    headings = [line.strip("█ ") for line in lines if line.startswith("██")]
    assert headings[:4] == [
        "POST /api/chat",
        "New in this request, after 2 messages",
        "Options and tools",
        "Sent to LM Studio: POST /v1/chat/completions",
    ]
    assert headings[-3:] == ["Earlier: 2 messages", "System", "Tools: 1 schema"]
    for line in (
        "weather(city: string, unit?: string)  Tell the weather",
        "user [image/png, 1 x 1 pixels, 70 bytes]: Look",
        "system: 257 characters, below: You are helpful.",
    ):
        assert line in text
    assert text.count("You are helpful.") == 2
    assert text.index("second") < text.index("Tell the weather") < text.index("Look") < text.rindex("You are helpful.")
    shown = {line["text"].strip(): line for line in person("layout")["lines"]}
    # mitmweb 12 ignores what a view says of colours.
    assert shown["██ POST /api/chat ".ljust(38, "█")]["bold"] is not IS_NEW
    assert len(set(shown[f"model: {MODEL}"]["colors"])) == (0 if IS_NEW else 2)


def test_an_edit_is_seen_as_a_difference(person: Process, started: tuple[Proxy, Web, Sim]) -> None:
    proxy, web, _ = started
    web.option(intercept="~u /api/chat & ~q")
    question = [{"role": "user", "content": "hi"}]
    with ThreadPoolExecutor(1) as background:
        answer = background.submit(ask, proxy.url, messages=question, tools=[])
        web.paused()
        person("choose", "waits for you")
        person("shown", "user: hi")
        body = {**BODY, "messages": [{"role": "user", "content": "edited"}], "tools": []}
        person("edit", json.dumps(body))
        text = person("shown", "Edited by the user: the client's request")["text"]
        assert '-       "content": "hi"\n+       "content": "edited"\n' in text
        person("press", "Resume")
        assert answer.result() == "You said: edited"


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[Terminal, str, Sim]]:
    """The console, which has asked for the list of models; and the bridge's URL."""
    with SimThread(models=models()) as sim, console(sim, tmp_path) as (terminal, url):
        yield terminal, url, sim


def test_the_console_shows_the_same(terminal: tuple[Terminal, str, Sim]) -> None:
    screen, url, sim = terminal
    answer = "one  \n\n\ttwo\n# three\n" + "four " * 40
    sim.script([content(answer)], match="First line")
    assert ask(url) == answer
    screen.see("First line")
    screen.press("G\r")
    screen.see(rule("POST /api/chat"), rule("New in this request, after 2 messages"), "weather(city: string, unit?")
    kinds = (rule("POST /api/chat"), "client:", "python-httpx/")
    assert len({screen.colour(text) for text in kinds}) == len(kinds)
    screen.press("\t")
    screen.see(rule("Answer: 200 OK"), said("assistant", "").split("\n")[0], "# three")
    lines = [line.rstrip() for line in screen.text.split("\n")]
    at = lines.index("one")
    # What was said has one colour, whatever it looks like.
    assert len({screen.colour(text) for text in ("one", "two", "# three", "four")}) == 1
    # Long lines wrap.
    assert lines[at : at + 4] == ["one", "", "        two", "# three"]
    assert lines[at + 4].startswith("four four")
    assert lines[at + 5].startswith("four")
    assert lines[at + 6 : at + 8] == ["", rule("Numbers")]
