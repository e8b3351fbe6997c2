"""Answers and LM Studio's side of them in the real console."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.wire.conftest import content_of, ndjson

from ollama_lmstudio.inspect.render import ANSWER_TO_COME
from ollama_lmstudio.sim import Sim, content, wait

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

from tests.browser import test_console
from tests.browser.terminal import Terminal
from tests.browser.test_console import ask

pytestmark = pytest.mark.browser

lmstudio, started = test_console.lmstudio, test_console.started


def test_one_key_shows_when_each_event_came(started: tuple[Terminal, str]) -> None:
    terminal, url = started
    ndjson(ask(url))
    terminal.see('200 "hi"  Llama3.2:3b')
    terminal.press("G\r\t")
    terminal.see("[m:auto]", "Answer: 200 OK", "You said: hi")
    terminal.press("o")
    terminal.see("[m:auto]", "LM Studio's answer: 200", "at ms  gap ms  says", 'role "assistant", content "You"')
    terminal.press("o")
    terminal.see("Answer: 200 OK", "You said: hi")
    # Both are the first ones in the menu too.
    terminal.press("m")
    terminal.see("1) auto", "2) ollama", "3) lm studio")
    terminal.press("3")
    terminal.see("[m:lm studio]", "LM Studio's answer: 200")


def test_a_request_is_shown_anew_when_its_answer_has_ended(
    started: tuple[Terminal, str], lmstudio: Sim, seen: threading.Event
) -> None:
    terminal, url = started
    # A model that has answered is known to be loaded: no call of the bridge's own becomes the last line of the list.
    ask(url)
    lmstudio.script([content("slow"), wait(seen), content(" but sure")], times=1)
    with ThreadPoolExecutor(1) as background:
        answer = background.submit(ask, url)
        terminal.wait(lambda: terminal.text.count('"hi"  Llama3.2:3b') == 2, "the second request")
        terminal.press("G\r")
        terminal.see(ANSWER_TO_COME)
        seen.set()
        # No key is pressed any more.
        terminal.see("Answer: 200 OK", "slow but sure", "done reason: stop")
        assert ANSWER_TO_COME not in terminal.text
        assert content_of(ndjson(answer.result())) == "slow but sure"
