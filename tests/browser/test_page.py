"""The conversation page in a real browser: what a person sees of many exchanges, and of one."""

from __future__ import annotations

import csv
import json
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mitmproxy import http, io
from mitmproxy.tools.web import app as mitmweb_app
from tests.browser.conftest import BROWSERS
from tests.clients.environments import NodeClient, Process, PythonClient, running
from tests.inspect.conftest import PNG, chunk, dumps, flow_of, line, record, snapshot, sse
from tests.inspect.conftest import ndjson as ndjson_bytes
from tests.wire.conftest import CHAT, EMBEDDER, THINKING, VISION, Proxy, content_of, free_port, models, ndjson
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.record.arrivals import Arrivals
from ollama_lmstudio.sim import Sim, SimThread, content, error, reasoning, sleep, tool_call, wait, words

pytestmark = pytest.mark.browser

HAS_LOGIN = hasattr(mitmweb_app, "AuthRequestHandler")
KEYS = {"alice": "sk-alice-1f6b", "bob": "sk-bob-77aa"}
SYSTEM = {"role": "system", "content": "You are a helpful assistant. Be brief."}
CODE = "def add(a, b):\n    return a + b  # <b>not bold</b>"
MARKDOWN = f"""# A heading

Some *emphasis*, **weight**, `code` and [a link](https://example.com/).

- one
- two

| left | right |
|:-----|------:|
| 1    | 2     |

> quoted

```python
{CODE}
```
"""
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Process]:
    """The browser, and what drives it."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the path")
    with running(PythonClient("conversation_page.py", ("playwright==1.65.2",), (executable, *axe())), "") as process:
        yield process


def axe() -> tuple[str, ...]:
    """Return where axe-core is, which checks what people with a screen reader meet; nothing where it cannot be had."""
    try:
        folder = NodeClient("", ("axe-core@4.14.1",)).installed()
    except pytest.skip.Exception:
        return ()
    return (str(folder / "node_modules" / "axe-core" / "axe.min.js"),)


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    with SimThread(models=models()) as sim:
        yield sim


@pytest.fixture(scope="module")
def started(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web]]:
    state = tmp_path_factory.mktemp("state")
    keys = [part for name, key in KEYS.items() for part in ("--set", f"api_keys={name}={key}")]
    with mitmweb(lmstudio.url, *keys, options={"own_calls": "all"}, state_dir=state) as found:
        yield found


@pytest.fixture
def proxy(started: tuple[Proxy, Web]) -> Proxy:
    return started[0]


@pytest.fixture
def person(browser: Process, started: tuple[Proxy, Web], lmstudio: Sim) -> Iterator[Process]:
    """A person who has opened the page, on which there is nothing yet."""
    _, web = started
    web.http.post("/clear").raise_for_status()
    lmstudio.clear()
    lmstudio.scripts.clear()
    browser("visit", web.conversations)
    # What a page before this one had still asked for is no affair of this one.
    browser("asked")
    browser("errors")
    yield browser
    # Whatever is done, nothing but this mitmweb is asked, and the page has no error.
    base = str(web.http.base_url).rstrip("/")
    assert [url for url in browser("asked") if not url.startswith((f"{base}/", "blob:", "data:", "about:"))] == []
    assert browser("errors") == []


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def ask(
    proxy: Proxy,
    said: str | list[Any],
    path: str = "/api/chat",
    *,
    key: str = "alice",
    agent: str = "one/1",
    **body: Any,
) -> httpx.Response:
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    with proxy.client(headers={"User-Agent": agent, "X-Api-Key": KEYS[key]}) as client:
        return client.post(path, json={"model": CHAT, "messages": messages, **body})


def rows(web: Web) -> dict[str, dict[str, Any]]:
    """Return what the page has of each exchange of a client, by what was asked."""
    answers = [web.http.get(f"/ollama/exchanges/{flow['id']}") for flow in web.flows()]
    found = [answer.json()["row"] for answer in answers if answer.status_code == 200]
    return {row["prompt"]: row for row in found if "prompt" in row}


@contextmanager
def held(lmstudio: Sim, match: str, *before: Any, after: tuple[Any, ...] = ()) -> Iterator[threading.Event]:
    """Let an answer stop in its middle, until the event that this gives is set, or the block ends."""
    event = threading.Event()
    lmstudio.script([*before, wait(event), *after], match=match)
    try:
        yield event
    finally:
        event.set()


# 1: the exchanges


def test_exchanges_come_without_a_click_and_the_newest_is_first(person: Process, proxy: Proxy) -> None:
    assert "No exchanges yet" in person("evaluate", "document.body.innerText")
    ask(proxy, "the first")
    person("line", "the first")
    ask(proxy, "the second")
    person("line", "the second")
    found = person("lines", 2)
    assert [text.partition(" ")[0:1] and ("second" in text) for text in found] == [True, False]
    for text in (CHAT, "by alice", "tok"):
        assert text in found[0]


def test_a_conversation_is_one_line(person: Process, proxy: Proxy) -> None:
    """With the same opening messages, of the same client."""
    messages: list[Any] = [SYSTEM, {"role": "user", "content": "open"}]
    for text in ("second turn", "third turn"):
        answer = content_of(ndjson(ask(proxy, messages)))
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": text}]
    ask(proxy, messages)
    ask(proxy, messages[:2], agent="two/2")
    ask(proxy, "something else")
    found = person("lines", 3)
    assert ["something else" in found[0], "open" in found[1], "third turn" in found[2]] == [True] * 3
    assert "3" in person("unfold", "third turn")
    found = person("lines", 5)
    assert ["third turn" in found[2], "second turn" in found[3], "open" in found[4]] == [True] * 3
    # And by the keyboard alone.
    person("choose", "third turn")
    person("focus", "listbox")
    person("press", "Space")
    person("lines", 3)


def test_what_runs_says_so(person: Process, proxy: Proxy, lmstudio: Sim, background: ThreadPoolExecutor) -> None:
    with held(lmstudio, "slow", content("One", " two"), after=(content(" three"),)) as last:
        answer = background.submit(ask, proxy, "slow")
        person("line", "tokens")
        person("choose", "slow")
        assert "three" not in person("shown", "One two")
        assert person("evaluate", "document.querySelector('article[aria-busy=true]') !== null")
        assert person("evaluate", "document.title").startswith("(1)")
        last.set()
        person("shown", "One two three")
        answer.result()
    person("wait_for", "!document.querySelector('[aria-busy=true]') && !document.title.startsWith('(')")
    person("shown", "done reason")


def test_the_bars_have_one_scale_and_their_parts_a_name(
    person: Process, proxy: Proxy, started: tuple[Proxy, Web], lmstudio: Sim
) -> None:
    lmstudio.script([sleep(0.4), content(*["a "] * 20), sleep(0.6), content("b")], match="long one")
    ask(proxy, "long one")
    ask(proxy, "short one")
    # The last part is known when the answer has ended.
    person("wait_for", "[...document.querySelectorAll('nav svg')].every(one => /in all/.test(one.ariaLabel))")
    long, short = person("line", "long one"), person("line", "short one")
    known = rows(started[1])
    for bar, row in ((long, known["long one"]), (short, known["short one"])):
        end = max(part["begin"] + part["width"] for part in bar["parts"])
        bar["scale"] = end / row["total"]
        assert all(part["width"] > 0 for part in bar["parts"])
        assert "first token after" in bar["bar"]
        assert "in all" in bar["bar"]
    assert short["scale"] == pytest.approx(long["scale"], rel=0.1, abs=2 / known["short one"]["total"])
    assert {"generation", "pause"} <= {part["name"] for part in long["parts"]}
    # What is told apart has another colour, and each is named above the list.
    colors = {part["name"]: part["color"] for part in long["parts"]}
    assert len(set(colors.values())) == len(colors)
    heading = person("evaluate", "document.querySelector('nav').innerText")
    for text in ("load", "prompt", "answer", "longest pause", "bars are"):
        assert text in heading


def test_failures_are_loud(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    lmstudio.script([content("Half an"), error("the model has crashed")], match="crash")
    ask(proxy, "is it there", model="no-such")
    ask(proxy, "crash")
    ask(proxy, "fine")
    fine = person("line", "fine")
    for asked, says in (("is it there", "✗ 404 model 'no-such' not found"), ("crash", "the model has crashed")):
        line = person("line", asked)
        assert says in line["text"]
        assert line["back"] != fine["back"]
        person("choose", asked)
        person("shown", says.removeprefix("✗ 404 "))
        assert person("evaluate", "document.querySelectorAll('main [role=alert]').length") == 1


# Finding


def test_search_finds_what_was_said(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    lmstudio.script([content("The ca", "t sat, ", "日", "本")], match="animals")
    lmstudio.script([reasoning("A gi", "raffe?"), content("ok")], match="thoughts")
    ask(proxy, "animals")
    ask(proxy, "thoughts", model=THINKING)
    ask(proxy, "other things")
    person("lines", 3)
    for text, found in {
        "CAT SAT": "animals",
        "日本": "animals",
        "giraffe": "thoughts",
        "other": "other things",
    }.items():
        person("write", "Search what was said", "zebra")
        person("lines", 0)
        person("write", "Search what was said", text)
        assert found in person("lines", 1)[0]
    person("write", "Search what was said", "zebra")
    assert person("lines", 0) == []
    person("wait_for", "document.querySelector('nav').innerText.includes('lets none through')")
    # What comes meanwhile is found too.
    ask(proxy, "a zebra")
    assert "a zebra" in person("lines", 1)[0]
    person("write", "Search what was said", "")
    person("lines", 4)


def test_each_filter(person: Process, proxy: Proxy) -> None:
    ask(proxy, "by alice")
    ask(proxy, "of gemma", model=VISION)
    ask(proxy, "by bob", key="bob")
    ask(proxy, "by another program", agent="two/2")
    ask(proxy, "refused", model="no-such")
    person("lines", 5)
    for label, option, count in (
        ("all models", VISION.partition("/")[2], 1),
        ("all clients", "two/2", 1),
        ("all keys", "bob", 1),
        ("all keys", "alice", 4),
    ):
        assert option in person("options", label)
        person("select", label, option)
        person("lines", count)
        person("select", label, "")
        person("lines", 5)
    person("check", "failures")
    assert "refused" in person("lines", 1)[0]
    person("check", "failures")
    # What the bridge asks by itself is not shown unless it is wanted.
    with proxy.client(headers={"X-Api-Key": KEYS["alice"]}) as client:
        client.get("/api/tags").raise_for_status()
    person("lines", 6)
    person("check", "the bridge's own")
    person("line", "(bridge) model list")
    person("check", "the bridge's own")
    person("lines", 6)


# 2: a thread


def test_markdown_is_rendered_and_raw_at_a_key(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    lmstudio.script([words(MARKDOWN)], match="markdown")
    ask(proxy, "markdown")
    person("choose", "markdown")
    person("shown", "A heading")
    tags = person("evaluate", "[...new Set([...document.querySelectorAll('article *')].map(one => one.localName))]")
    assert {"em", "strong", "code", "ul", "li", "table", "td", "blockquote", "pre", "a"} <= set(tags)
    assert "b" not in tags
    link = "(() => { const a = document.querySelector('article a'); return [a.href, a.rel, a.target] })()"
    href, rel, target = person("evaluate", link)
    assert (href, target) == ("https://example.com/", "_blank")
    assert {"noopener", "noreferrer"} <= set(rel.split())
    person("press", "r")
    person(
        "wait_for", "text => [...document.querySelectorAll('main pre')].some(one => one.textContent === text)", MARKDOWN
    )
    person("press", "r")
    person("shown", "A heading")
    person("wait_for", "document.querySelector('article table') !== null")


def test_code_is_copied(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    lmstudio.script([words(MARKDOWN)], match="markdown")
    ask(proxy, "markdown")
    person("choose", "markdown")
    person("shown", "A heading")
    person("click", "button", "Copy")
    person("shown", "Copied")
    assert person("clipboard") == f"{CODE}\n"


def test_thinking_is_folded(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    lmstudio.script([reasoning("They want", " a colour."), content("Blue.")], match="sky")
    ask(proxy, "sky", model=THINKING, think=True)
    person("choose", "sky")
    person("shown", "Blue.")
    assert person("folded", "They want a colour.")
    person("reveal", "thinking")
    assert "They want a colour." in person("shown", "They want a colour.")


def test_a_picture_is_seen(person: Process, proxy: Proxy) -> None:
    ask(proxy, [{"role": "user", "content": "what is this", "images": [PNG]}], model=VISION)
    person("choose", "what is this")
    person("shown", "image/png, 1 × 1 pixels")
    person("wait_for", "document.querySelector('main img')?.complete")
    image = (
        "(() => { const i = document.querySelector('main img'); return [i.naturalWidth, i.naturalHeight, i.alt] })()"
    )
    width, height, alt = person("evaluate", image)
    assert (width, height) == (1, 1)
    assert "Picture" in alt


def test_a_tool_call_has_its_result_beneath(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    lmstudio.script([tool_call("weather", {"city": "Rome"})], match="weather in Rome", times=1)
    lmstudio.script([content("It is mild.")], match="degrees")
    messages: list[Any] = [{"role": "user", "content": "weather in Rome"}]
    (call,) = [
        call for line in ndjson(ask(proxy, messages, tools=[TOOL])) for call in line["message"].get("tool_calls", [])
    ]
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": '{"degrees": 18}'},
    ]
    ask(proxy, messages, tools=[TOOL])
    person("line", "degrees")
    person("choose", "degrees")
    # All that the conversation has, each thing once.
    person("tab", "Conversation")
    text = person("shown", "came back")
    text = text[text.index("weather in Rome") :]
    assert text.index("weather in Rome") < text.index('"city": "Rome"') < text.index("came back") < text.index("18")
    assert text.count('"degrees": 18') == 1
    cards = "[...document.querySelectorAll('[aria-label=\"Tool call weather\"]')].map(one => one.innerText)"
    (card,) = person("evaluate", cards)
    assert '"degrees": 18' in card
    # The schema is there for who wants it.
    person("tab", "Thread")
    assert "1 tool: weather" in person("shown", "1 tool")
    person("reveal", "1 tool")
    person("reveal", "weather(city")
    assert "Tell the weather of a city" in person("shown", '"required"')


def test_what_is_new_is_marked_and_what_repeats_is_folded(person: Process, proxy: Proxy) -> None:
    messages: list[Any] = [SYSTEM, {"role": "user", "content": "the opening"}]
    ask(proxy, messages)
    messages += [{"role": "assistant", "content": "an answer"}, {"role": "user", "content": "the sequel"}]
    ask(proxy, messages)
    person("choose", "the sequel")
    person("shown", "3 earlier messages")
    assert person("folded", "an answer")
    new = "[...document.querySelectorAll('article')].filter(one => /new/.test(one.querySelector('h3').innerText))"
    assert person("evaluate", f"{new}.map(one => one.innerText.includes('the sequel'))") == [True]
    person("reveal", "3 earlier messages")
    person("shown", "an answer")


# 3: the timeline


def test_the_arrival_of_each_token(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    tokens = ["Alpha", " beta", " gamma", " delta", " epsilon"]
    steps = [step for token in tokens for step in (sleep(0.6 if token == " delta" else 0.02), content(token))]
    lmstudio.script(steps, match="letters")
    ask(proxy, "letters")
    person("choose", "letters")
    person("tab", "Timeline")
    person("wait_for", "document.querySelector('figure svg') !== null")
    assert "5 tokens" in person("evaluate", "document.querySelector('figure svg').getAttribute('aria-label')")
    person("hover", 0.99, 0.5)
    assert "Token 5 at" in person("point", "Token 5")
    assert "epsilon" in person("point", "Token 5")
    person("hover", 0.06, 0.5)
    assert "Alpha" in person("point", "Token 1 ")
    # And by the keys alone.
    person("focus", "img", "Tokens over time")
    person("press", "Home", "ArrowRight", "ArrowRight", "ArrowRight")
    told = person("point", "Token 4")
    assert "delta" in told
    # Of the 600 ms, what came late before it is missing.
    assert re.search(r"(\d{3} ms|\d\.\d s) after the one before", told)
    person("press", "End", "ArrowRight")
    person("point", "Token 5")
    person("press", "ArrowLeft", "PageUp")
    person("point", "Token 1 ")
    # The gap is marked, and told in words.
    assert "without a token" in person("evaluate", "document.querySelector('figure').textContent")
    person("reveal", "the longest")
    assert "before delta" in " ".join(person("shown", "from").split())


def test_two_answers_are_laid_over_each_other(
    person: Process, proxy: Proxy, started: tuple[Proxy, Web], lmstudio: Sim
) -> None:
    lmstudio.script([content("a", " b", " c")], match="three letters")
    lmstudio.script([content("a", " b")], match="two letters")
    ask(proxy, "three letters")
    ask(proxy, "two letters")
    person("choose", "two letters")
    person("tab", "Timeline")
    other = rows(started[1])["three letters"]["id"]
    person("select", "Lay another answer over it:", other)
    person("wait_for", "document.querySelectorAll('figure svg path').length === 2")
    for count in (3, 2):
        person("wait_for", "n => document.querySelector('figure svg').ariaLabel.includes(`${n} tokens`)", count)
    assert person("chosen_tab") == ["Compare"]
    # The keys of the plot go on where there is one line again.
    person("hover", 0.9, 0.4)
    person("press", "3")
    person("wait_for", "document.querySelectorAll('figure svg path').length === 1")
    person("focus", "img", "Tokens over time")
    person("press", "ArrowRight")
    person("point", "Token")


# 4: both sides


def test_both_sides_have_tabs_of_their_own(person: Process, proxy: Proxy) -> None:
    ask(proxy, "sides", options={"num_ctx": 4096, "seed": 3})
    person("choose", "sides")
    person("tab", "Client")
    text = person("shown", "POST /api/chat")
    assert '"num_ctx": 4096' in text
    assert "/v1/chat/completions" not in text
    person("tab", "Changes")
    text = person("shown", "Changed on the way")
    assert "num_ctx" in text
    person("tab", "LM Studio")
    text = person("shown", "POST /v1/chat/completions")
    assert '"seed": 3' in text
    assert "num_ctx" not in text
    person("tab", "Events")
    text = person("shown", "as LM Studio sent them")
    assert "[DONE]" in text
    assert re.search(r"\n1\s+\d+\.\d\s", text)


# 5: ask again


def test_ask_again(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    lmstudio.script([content("The first answer.")], match="the question", times=1)
    messages = [SYSTEM, {"role": "user", "content": "the question"}]
    ask(proxy, messages, options={"temperature": 0.1})
    person("choose", "the question")
    person("tab", "Ask again")
    person("shown", "Nothing is sent before")
    assert person("value", "Temperature") == "0.1"
    assert person("value", "System text") == SYSTEM["content"]
    assert person("value", "Its text") == "the question"
    before = [json.loads(request.body) for request in lmstudio.requests if request.method == "POST"]
    person("wait_for", "n => document.querySelector('[name=model]').options.length > n", 2)
    # Only those that can be asked.
    assert not [name for name in person("options", "Model") if EMBEDDER in name]
    person("select", "Model", VISION)
    person("write", "Temperature", "0.9")
    person("write", "System text", "Be long.")
    person("write", "Its text", "another question")
    # Nothing has been sent yet.
    assert len([request for request in lmstudio.requests if request.method == "POST"]) == len(before)
    with held(lmstudio, "another question", content("The second"), after=(content(" one."),)) as last:
        person("click", "button", "Ask LM Studio")
        text = person("shown", "The second")
        assert "The first answer." in text
        assert "one." not in text
        assert person("chosen_tab") == ["Compare"]
        last.set()
        text = person("shown", "The second one.")
    assert "The first answer." in text
    body = json.loads([request.body for request in lmstudio.requests if request.method == "POST"][-1])
    assert body["model"] == VISION
    assert body["temperature"] == 0.9
    assert body["messages"] == [
        {"role": "system", "content": "Be long."},
        {"role": "user", "content": "another question"},
    ]
    person(
        "wait_for",
        "[...document.querySelectorAll('tr')].some(one => /^done reason\\s+stop\\s+stop/.test(one.innerText))",
    )
    assert len([request for request in lmstudio.requests if request.path == "/v1/chat/completions"]) == 2


def test_what_is_typed_is_not_lost_while_others_come(person: Process, proxy: Proxy) -> None:
    ask(proxy, "draft")
    person("choose", "draft")
    person("tab", "Ask again")
    person("write", "Its text", "half a sen")
    ask(proxy, "meanwhile")
    person("line", "meanwhile")
    assert person("value", "Its text") == "half a sen"
    # Keys are text here.
    person("focus", "textbox", "Its text")
    person("press", "End", "j", "k", "r", "1")
    assert person("value", "Its text") == "half a senjkr1"
    assert person("chosen_tab") == ["Ask again"]


# 6: numbers


def test_the_numbers_of_each_model(person: Process, proxy: Proxy) -> None:
    for _ in range(3):
        ask(proxy, "one two three")
    ask(proxy, "four", model=VISION)
    ask(proxy, "five", model='no-such, "quoted"')
    person("lines", 5)
    person("press", "n")
    text = person("shown", "Copy as CSV")
    for heading in ("requests", "errors", "first token", "speed", "context used"):
        assert heading in text
    person("click", "button", "Copy as CSV")
    head, *found = csv.reader(person("clipboard").splitlines())
    assert head[:3] == ["model", "requests", "errors"]
    assert found[0][:3] == [CHAT, "3", "0"]
    assert ['no-such, "quoted"', "1", "1"] in [line[:3] for line in found]
    assert all(len(line) == len(head) for line in found)
    assert float(found[0][head.index("first_token_median_ms")]) > 0
    assert int(found[0][head.index("answer_tokens")]) > 0
    # They are of what the list shows.
    person("check", "failures")
    person("gone", VISION.partition("/")[2])
    person("press", "n")
    person("wait_for", "!document.querySelector('main h2')")


# 7: how it is used


def test_by_the_keyboard(person: Process, proxy: Proxy) -> None:
    for text in ("the oldest", "the middle", "the newest"):
        ask(proxy, text)
        person("line", text)

    def selected() -> list[bool]:
        return [person("line", text)["selected"] == "true" for text in ("the newest", "the middle", "the oldest")]

    person("press", "j")
    person("shown", "You said: the newest")
    person("press", "j")
    person("shown", "You said: the middle")
    assert selected() == [False, True, False]
    person("press", "k", "k")
    person("shown", "You said: the newest")
    person("press", "Enter")
    assert person("evaluate", "document.activeElement.getAttribute('role')") == "tabpanel"
    for key, name in (("3", "Timeline"), ("7", "Events"), ("1", "Thread")):
        person("press", key)
        person("wait_for", "name => document.querySelector('[role=tab][aria-selected=true]')?.innerText === name", name)
    # A tab that this one has not is not chosen: there is always one that is.
    for key in ("2", "9"):
        person("press", key)
        assert person("chosen_tab") == ["Thread"]
    person("press", "/")
    assert person("evaluate", "document.activeElement.type") == "search"
    person("press", "j", "Escape")
    assert person("evaluate", "document.activeElement.type") != "search"


def test_on_a_narrow_screen_one_thing_at_a_time(person: Process, proxy: Proxy) -> None:
    ask(proxy, "narrow")
    person("screen", 700)
    person("line", "narrow")
    visible = "name => document.querySelector(name).getBoundingClientRect().width > 0"
    assert [person("evaluate", visible, name) for name in ("nav", "main")] == [True, False]
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert person("evaluate", fits)
    person("choose", "narrow")
    person("shown", "You said: narrow")
    assert [person("evaluate", visible, name) for name in ("nav", "main")] == [False, True]
    for name in person("tabs"):
        person("tab", name)
        assert person("evaluate", fits), name
    person("press", "Escape")
    person("wait_for", "document.querySelector('nav').getBoundingClientRect().width > 0")


# Each text that is seen, with its contrast to what is behind it, where that is less than it should be.
CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
    const rgba = color => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], back) => [r, g, b].map((value, at) => value * a + back[at] * (1 - a));
    const luminance = color => color.map(value => value / 255).map(
        value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
    ).reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = element => {
        const chain = [];
        for (let one = element; one; one = one.parentElement) chain.unshift(getComputedStyle(one).backgroundColor);
        return chain.reduce((back, color) => over(rgba(color), back), rgba("Canvas").slice(0, 3));
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement, style = getComputedStyle(element);
        if (!node.data.trim() || !element.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
        const back = behind(element);
        const isSvg = element instanceof SVGElement;
        const text = luminance(over(rgba(isSvg ? style.fill : style.color), back)), ground = luminance(back);
        const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        const size = parseFloat(style.fontSize), isBold = style.fontWeight >= 700;
        if (ratio < (size >= 24 || (isBold && size >= 18.66) ? 3 : 4.5)) {
            const name = `${element.localName}.${element.getAttribute("class")}`;
            found.push(`${ratio.toFixed(2)}: ${name}: ${node.data.trim().slice(0, 40)}`);
        }
    }
    return [...new Set(found)];
}"""


@pytest.fixture
def everything(person: Process, proxy: Proxy, lmstudio: Sim) -> Process:
    """A person who sees exchanges of every kind."""
    lmstudio.script([reasoning("Hm."), words(MARKDOWN), tool_call("weather", {"city": "Rome"})], match="everything")
    lmstudio.script([content("a"), sleep(0.3), content("b")], match="gap")
    messages = [
        SYSTEM,
        {"role": "user", "content": "open", "images": [PNG]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "x"}}}],
        },
        {"role": "tool", "tool_name": "weather", "content": "18"},
        {"role": "assistant", "content": "It is 18."},
        {"role": "user", "content": "everything"},
    ]
    ask(proxy, messages, model=THINKING, tools=[TOOL], think=True, options={"num_ctx": 100, "temperature": 0.5})
    # Another one each time: what was said before is taken for an attempt to say it again.
    gap = [SYSTEM, {"role": "user", "content": f"gap {secrets.token_hex(4)}"}]
    ask(proxy, gap, agent="two/2", key="bob")
    more = [*gap, {"role": "assistant", "content": "ab"}, {"role": "user", "content": "gap again"}]
    ask(proxy, more, agent="two/2", key="bob")
    ask(proxy, "cut off", options={"num_predict": 1})
    ask(proxy, "failed", model="no-such")
    person("lines", 4)
    return person


LOOKED_AT = ("Thread", "Timeline", "Client", "Changes", "LM Studio", "Events", "Ask again")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(everything: Process, scheme: str) -> None:
    everything("screen", 1400, 980, scheme)
    for text in ("everything", "gap", "cut off", "failed"):
        everything("choose", text)
        for name in LOOKED_AT:
            everything("tab", name)
            everything("wait_for", "document.querySelector('[role=tabpanel]').innerText.length > 20")
            everything("evaluate", "document.querySelectorAll('main details').forEach(one => one.open = true)")
            assert everything("evaluate", CONTRASTS) == [], (text, name)
    everything("press", "n")
    everything("shown", "Copy as CSV")
    assert everything("evaluate", CONTRASTS) == []


@pytest.mark.parametrize("width", [1400, 700])
def test_with_a_screen_reader(everything: Process, width: int) -> None:
    if not axe():
        pytest.skip("axe-core cannot be installed")
    everything("screen", width)
    # Where there is room for one thing only, the list has no main part beside it.
    assert [text for text in everything("axe") if "landmark-one-main" not in text] == []
    for text in ("everything", "failed"):
        everything("choose", text)
        for name in LOOKED_AT:
            everything("tab", name)
            everything("wait_for", "document.querySelector('[role=tabpanel]').innerText.length > 20")
            everything("evaluate", "document.querySelectorAll('main details').forEach(one => one.open = true)")
            assert everything("axe") == [], (text, name)
        everything("press", "Escape")
    everything("press", "n")
    everything("shown", "Copy as CSV")
    assert everything("axe") == []


def test_the_landmarks(everything: Process) -> None:
    everything("choose", "everything")
    found = everything(
        "evaluate",
        "['header', 'nav', 'main', '[role=search]', 'h1', 'html[lang]'].map(one => !!document.querySelector(one))",
    )
    assert found == [True] * 6
    unnamed = """[...document.querySelectorAll('button, a, input, select, textarea, img, [role=img], [role=listbox]')]
        .filter(one => !(one.textContent || one.ariaLabel || one.alt || one.labels?.length))
        .filter(one => !one.querySelector('img')?.alt)
        .map(one => one.outerHTML.slice(0, 80))"""
    assert everything("evaluate", unnamed) == []


# When mitmweb goes


def test_it_connects_again(browser: Process, lmstudio: Sim, tmp_path: Path) -> None:
    """To a mitmweb that was started anew, which knows no login of before: that is said then."""
    lmstudio.scripts.clear()
    port = str(free_port())
    arguments = ("--web-port", port, "--set", "web_password=word") if HAS_LOGIN else ("--web-port", port)
    with mitmweb_at(lmstudio, tmp_path, *arguments) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        browser("visit", f"http://127.0.0.1:{port}/ollama/?token=word")
        ask(proxy, "before")
        browser("choose", "before")
    browser("status", "mitmweb is not there")
    with mitmweb_at(lmstudio, tmp_path, *arguments) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        if HAS_LOGIN:
            browser("status", "asks for its login")
            browser("visit", f"http://127.0.0.1:{port}/ollama/?token=word")
        browser("connected")
        # What there was is no longer there.
        browser("wait_for", "!document.querySelector('nav').innerText.includes('before')")
        ask(proxy, "after")
        browser("line", "after")
    browser("leave")
    # The browser has told of each attempt.
    assert [text for text in browser("errors") if not re.search("WebSocket|Failed to load resource", text)] == []


@contextmanager
def mitmweb_at(lmstudio: Sim, state: Path, *arguments: str) -> Iterator[Proxy]:
    arguments = ("--no-web-open-browser", "--web-host", "127.0.0.1", *arguments)
    with Proxy(lmstudio.url, *arguments, tool="mitmweb", state_dir=state) as proxy:
        yield proxy


# What is hostile

HIT = "window.isHit=1"
HOSTILE = [
    f"<script>{HIT}</script>",
    f"<ScRiPt/x>{HIT}</sCrIpT >",
    f"<img src=x onerror={HIT}>",
    f"<img src='x' onerror='{HIT}'//",
    f"<svg onload={HIT}><animate onbegin={HIT} attributeName=x></svg>",
    f"<svg><a xlink:href='javascript:{HIT}'><text y=20>click</text></a></svg>",
    f"<math><mtext><table><mglyph><style><img src onerror={HIT}></style></mglyph></table></mtext></math>",
    "<iframe srcdoc='<script>parent.isHit=1</script>'></iframe>",
    "<iframe src=javascript:parent.isHit=1>",
    f"<object data=javascript:{HIT}></object><embed src=javascript:{HIT}>",
    f"<details open ontoggle={HIT}>x</details>",
    f"<input autofocus onfocus={HIT}>",
    f"<form action=javascript:{HIT}><button>go</button></form>",
    f"<body onload={HIT}><base href=http://127.0.0.1:1/>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:1/meta'>",
    "<link rel=stylesheet href=http://127.0.0.1:1/x.css><style>@import 'http://127.0.0.1:1/y.css'</style>",
    f"</style></script></title></textarea></pre></code><img src=x onerror={HIT}>",
    f"--><img src=x onerror={HIT}><!-- -- -->",
    f"<![CDATA[<img src=x onerror={HIT}>]]>",
    f"[click](javascript:{HIT}) [click](JaVaScRiPt:{HIT}) [click](java&#115;cript:{HIT})",
    f"[click](javascript&colon;{HIT}) [click](&#x6A;avascript:{HIT}) [click](\tjavascript:{HIT})",
    f"[click](vbscript:{HIT}) [click](file:///etc/passwd) [click](blob:null/x) [click](//127.0.0.1:1/x)",
    "[click](data:text/html;base64,PHNjcmlwdD5wYXJlbnQuaXNIaXQ9MTwvc2NyaXB0Pg==)",
    f"<javascript:{HIT}> <data:text/html,x> <vbscript:x> <https://example.com/?{HIT}>",
    f"[one]\n\n[one]: javascript:{HIT}\n[two]: data:text/html,x 'title'",
    f'[click](https://example.com/"onmouseover="{HIT})',
    f'[click](https://example.com/ "title\\" onmouseover=\'{HIT}\'")',
    "![picture](http://127.0.0.1:1/pixel.png) ![picture](https://127.0.0.1:1/pixel.png 'x')",
    f"![x](javascript:{HIT}) ![x](data:image/svg+xml,<svg/onload={HIT}>) ![x](exchanges/../again)",
    f'![a](http://127.0.0.1:1/"onerror="{HIT}) ![<img src=x onerror={HIT}>](x)',
    "${window.isHit=1} {{window.isHit=1}} #{window.isHit=1} <%= window.isHit=1 %>",
    "<!--?lit$123456789$--> lit$123456789$ <?lit$123456789$?> ?lit$1$",
    "&lt;script&gt;window.isHit=1&lt;/script&gt; &#60;img src=x onerror=window.isHit=1&#62;",
    "\\u003cscript\\u003ewindow.isHit=1\\u003c/script\\u003e \\x3cimg src=x onerror=window.isHit=1\\x3e",
    f'```html" onmouseover="{HIT}\n<script>{HIT}</script>\n```',
    f"``` <img/src=x/onerror={HIT}>\nx\n```\n~~~~ ${{{HIT}}}\nnever closed",
    f"| <img src=x onerror={HIT}> | b |\n|:-:|\n| [x](javascript:{HIT}) | <script>{HIT}</script> |",
    f"`<script>{HIT}</script>` ``</code><img src=x onerror={HIT}>``",
    "\u202e)1=tiHsi.wodniw(:tpircsavaj\u202c \u2066a\u2069 \u200b\ufeff \x00\x07\x1b[31m \ud800 \udfff \u2028",
    "> " * 400 + "deep",
    "".join(f"{' ' * level}- {level}\n" for level in range(300)),
    "[" * 3000 + "x" + "](y)" * 3000,
    "*" * 5000 + "a" + "_" * 5000,
    "<" * 3000 + "a" + ">" * 3000,
    f"constructor __proto__ toString hasOwnProperty <b id=state>x</b><a id=isHit href=javascript:{HIT}>",
    f"[^1]: <script>{HIT}</script>\n\nTerm\n: <img src=x onerror={HIT}>\n\n- [ ] <input onfocus={HIT}>",
]
assert len(HOSTILE) >= 30

ELEMENTS = (
    "a article aside b blockquote body br button circle code dd details div dl dt em figcaption figure form h1 h2 h3 h4"
    " h5 h6 header hr img input label li line main mark nav noscript ol option p path pre rect s section select small"
    " span strong summary svg table tbody td text textarea th thead time title tr ul"
)
# What is on the page that should not be, of whatever was said.
LIVE = """(elements) => {
    const found = window.isHit ? ["a script has run"] : [];
    for (const one of document.body.querySelectorAll("*")) {
        if (!elements.includes(one.localName)) found.push(`an element ${one.localName}`);
        if (one.localName === "svg" && !["bar", "histogram"].some(name => one.classList.contains(name)) &&
            !one.closest("figure.plot")) found.push("an svg");
        for (const {name, value} of one.attributes) {
            if (name.startsWith("on") || name === "srcdoc" || (name === "style" && /url|expression/.test(value))) {
                found.push(`${name}=${value}`);
            }
            if (["href", "src", "action", "formaction", "data", "xlink:href"].includes(name)) {
                const isLink = one.localName === "a" && one.rel.includes("noreferrer") &&
                    /^(?:https?:\\/\\/|mailto:)/i.test(value);
                const isOurs = value === "/" || /^\\/#\\/flows\\/[0-9a-f-]+\\/request$/.test(value) ||
                    /^exchanges\\/[0-9a-f-]+\\/files\\/\\d+\\/\\d+$/.test(value);
                if (!isOurs && !isLink) found.push(`${name}=${value}`);
            }
        }
    }
    if (document.head.children.length !== window.headSize) found.push("something in the head");
    return [...new Set(found)];
}"""


# Looks at one exchange after the other, and there at one tab after the other, by their keys; gives what is live where.
SURVEY = """async ([ids, tabs, elements]) => {
    const look = LIVE, found = {};
    const until = async isSo => {
        for (let left = 1000; !isSo(); left -= 1) {
            if (!left) throw new Error(`never so: ${isSo}, ${location.hash}`);
            await new Promise(requestAnimationFrame);
        }
    };
    const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    const panel = () => document.querySelector("[role=tabpanel]")?.innerText ?? "Loading";
    for (const [number, id] of ids.entries()) {
        location.hash = id;
        await until(() => document.querySelector(`main a[href*="${id}"]`) && panel() !== "Loading");
        for (const keys of tabs) {
            [...keys].forEach(press);
            await new Promise(requestAnimationFrame);
            await until(() => panel().length > 20);
            for (const one of document.querySelectorAll("details")) one.open = true;
            const problems = look(elements);
            if (problems.length) found[`${number} ${keys}`] = problems;
        }
    }
    return found;
}""".replace("LIVE", LIVE)


def hostile_flow(number: int, text: str) -> http.HTTPFlow:
    """Return an exchange of which everything that somebody else writes is hostile."""
    call = {"id": text, "type": "function", "function": {"name": text, "arguments": json.dumps({text: text})}}
    schema = {"type": "object", "properties": {text: {"type": text, "description": text}}}
    tool = {"type": "function", "function": {"name": text, "description": text, "parameters": schema}}
    body = {
        "model": text,
        "messages": [
            {"role": "system", "content": text},
            {"role": "user", "content": text, "images": [text, PNG]},
            {"role": text, "content": text},
            {"role": "assistant", "content": text, "thinking": text, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": text, "content": text},
            {
                "role": "user",
                "content": [{"type": text, "text": text}, {"type": "image_url", "image_url": {"url": text}}],
            },
        ],
        "tools": [tool],
        "options": {text: text, "temperature": text},
        text: text,
    }
    events = sse(
        chunk(reasoning_content=text),
        chunk(content=text),
        chunk(tool_calls=[{"index": 0, "id": text, "function": {"name": text, "arguments": text}}]),
        {"error": {"message": text}},
        chunk("stop"),
    )
    lines = ndjson_bytes(
        line(text, thinking=text),
        line("", tool_calls=[{"function": {"name": text, "arguments": {text: text}}}]),
        line(done=True, reason=text),
    )
    arrivals = Arrivals()
    size = 0
    for at, event in enumerate(events.split(b"\n\n")[:-1]):
        size = len(event) + 2
        arrivals.sizes.append(size)
        arrivals.times.append(at * 100_000_000)
    name = text.encode("utf-8", "replace").decode().replace("\x00", "")
    kept = record(
        dumps(body),
        model=name,
        upstream_model=name,
        key=name,
        prompt=name,
        answer=name,
        signs=name,
        error=name if number % 2 else "",
        purpose=name,
        conversation=str(number),
        headers=(("User-Agent", name.replace("\n", "")), (name.replace("\n", ""), name)),
        dropped=(name,),
        upstream=events,
        upstream_size=len(events),
        upstream_headers=(("Content-Type", "text/event-stream"), ("X-Header", name)),
        response_size=len(lines),
        limit=10_000_000,
        arrivals=arrivals.packed(0),
    )
    flow = flow_of(snapshot(kept, response=lines))
    flow.id = f"{number:08x}-0000-0000-0000-000000000000"
    flow.request.timestamp_start = 1_700_000_000.0 + number
    return flow


@pytest.fixture(scope="module")
def hostile(browser: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, list[str], str]]:
    """A person who opens a file of hostile exchanges; their ids, and the address of the page."""
    path = tmp_path_factory.mktemp("hostile") / "flows"
    flows = [hostile_flow(number, text) for number, text in enumerate(HOSTILE)]
    with path.open("wb") as file:
        writer = io.FlowWriter(file)
        for flow in flows:
            writer.add(flow)
    proxy = Proxy(None, "-n", "-r", str(path), *Web.arguments(), tool="mitmweb", state_dir=path.parent)
    proxy.start(wait=False)
    try:
        web = Web(proxy)
        proxy.wait_for(lambda: len(web.flows()) == len(HOSTILE))
        yield browser, [flow.id for flow in flows], web.conversations
        web.http.close()
    finally:
        proxy.stop()


def live(person: Process) -> list[str]:
    person("evaluate", "document.querySelectorAll('details').forEach(one => one.open = true)")
    return list(person("evaluate", LIVE, ELEMENTS.split()))


def test_nothing_that_was_said_is_live(hostile: tuple[Process, list[str], str]) -> None:
    person, ids, url = hostile
    person("visit", url)
    person("errors")
    person("evaluate", "window.headSize = document.head.children.length")
    person("wait_for", "document.querySelectorAll('[role=option]').length > 5")
    person("asked")
    # Each tab, and the thread as it was said.
    found = person("evaluate", SURVEY, [ids, ["1", "r", "r3", "4", "5", "6", "7", "8"], ELEMENTS.split()])
    assert {(where, HOSTILE[int(where.split()[0])][:200]): what for where, what in found.items()} == {}
    person("press", "n")
    assert live(person) == []
    base = url.partition("/ollama/")[0]
    assert [one for one in person("asked") if not one.startswith((f"{base}/ollama/", f"ws{base[4:]}/"))] == []
    assert person("evaluate", "location.pathname") == "/ollama/"
    # There is no LM Studio, whose models could be asked.
    assert [text for text in person("errors") if "/ollama/models" not in text] == []


def test_nothing_that_is_being_said_is_live(person: Process, proxy: Proxy, lmstudio: Sim) -> None:
    """Token by token, with the chain as it is: what is half of a text may be something else."""
    person("evaluate", "window.headSize = document.head.children.length")
    tokens = [piece for text in HOSTILE[:39] for piece in (text[:7], text[7:20], text[20:], "\n\n")]
    tokens = [token.encode("utf-8", "replace").decode() for token in tokens]
    parts = [content(*tokens[:40]), content(*tokens[40:90]), content(*tokens[90:])]
    events = [threading.Event() for _ in parts]
    lmstudio.script(
        [step for part, event in zip(parts, events, strict=True) for step in (part, wait(event))], match="hostile"
    )
    text = HOSTILE[0]
    with ThreadPoolExecutor(1) as background:
        answer = background.submit(ask, proxy, f"hostile {text}", agent=text)
        try:
            person("line", "tokens")
            person("choose", "hostile")
            for token, event in zip((tokens[38], tokens[88], tokens[-2]), events, strict=True):
                person(
                    "wait_for",
                    "text => document.querySelector('article.answer').textContent.includes(text)",
                    token.strip()[:5],
                )
                assert live(person) == []
                event.set()
        finally:
            for event in events:
                event.set()
        answer.result()
    person("shown", "done reason")
    assert live(person) == []
    for name in ("Timeline", "Client", "Events", "Ask again"):
        person("tab", name)
        person("wait_for", "document.querySelector('[role=tabpanel]').innerText.length > 20")
        assert live(person) == []
