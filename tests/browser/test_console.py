"""The real console in a pseudo terminal: what a person sees there, key by key."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.wire.conftest import CHAT, content_of, models, ndjson

from ollama_lmstudio.inspect.render import ANSWER_TO_COME
from ollama_lmstudio.sim import Sim, SimThread, content, wait

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

from tests.browser.terminal import Terminal, console, run

pytestmark = pytest.mark.browser

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"


@pytest.fixture
def lmstudio() -> Iterator[Sim]:
    with SimThread(models=models(), auth={TOKEN}) as sim:
        yield sim


# A person who writes "edited" for "hi".
EDITOR = f"""\
#!{sys.executable}
import pathlib, sys
file = pathlib.Path(sys.argv[1])
file.write_text(file.read_text().replace('"hi"', '"edited"'))
"""


@pytest.fixture
def started(lmstudio: Sim, tmp_path: Path) -> Iterator[tuple[Terminal, str]]:
    """The console, which has asked for the list of models; and the bridge's URL. No key is ever on the screen."""
    editor = tmp_path / "editor"
    editor.write_text(EDITOR)
    editor.chmod(0o700)
    # The other tests of the console start mitmproxy's own program.
    command = ("ollama-lmstudio-proxy", "--console")
    with console(lmstudio, tmp_path, command=command, editor=shlex.quote(str(editor)), lmstudio_token=TOKEN) as (
        terminal,
        url,
    ):
        yield terminal, url
    assert TOKEN.encode() not in terminal.everything


def ask(url: str) -> httpx.Response:
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        return client.post("/api/chat", json={"model": "Llama3.2:3b", "messages": [{"role": "user", "content": "hi"}]})


def ask_and_stop(
    terminal: Terminal, url: str, intercept: str, background: ThreadPoolExecutor
) -> Future[httpx.Response]:
    """Ask, and wait until the request is in the list, stopped by a filter."""
    run(terminal, f"set intercept '{intercept}'")
    terminal.see(f"[i:{intercept}]")
    answer = background.submit(ask, url)
    # Before the request has been read, the list has nothing to say of it but mitmproxy's own words.
    terminal.wait(lambda: "POST" in terminal.text or "Llama3.2:3b" in terminal.text, "the request in the list")
    return answer


def test_an_exchange_is_seen_from_both_sides(started: tuple[Terminal, str], tmp_path: Path) -> None:
    terminal, url = started
    ndjson(ask(url))
    terminal.see('200 "hi"  Llama3.2:3b')
    terminal.press("G\r")
    terminal.see("[m:auto]", "━━ POST /api/chat", f"model: Llama3.2:3b -> {CHAT}", "You said: hi", "done reason: stop")
    terminal.press("\t")
    terminal.wait(lambda: "━━ POST" not in terminal.text, "the other tab")
    terminal.see("application/x-ndjson", "━━ Answer: 200 OK", "You said: hi")
    terminal.press("m")
    terminal.pick("lm studio")
    terminal.see("[m:lm studio]", "━━ LM Studio's answer: 200", "gap ms  says", 'content "You"')
    run(terminal, "console.flowview.mode.set ollama")
    terminal.see("[m:ollama]", "━━ Answer: 200 OK")
    run(terminal, f"ollama.export @focus {tmp_path / 'chat.md'}")
    terminal.see("1 of 1 exchanges are in")
    terminal.press("q")
    run(terminal, "ollama.models")
    terminal.see(f"{CHAT}:latest: ", "completion tools")
    terminal.press("q")
    assert "You said: hi" in (tmp_path / "chat.md").read_text()


def test_an_answer_shows_up_while_it_comes(started: tuple[Terminal, str], lmstudio: Sim, seen: threading.Event) -> None:
    terminal, url = started
    lmstudio.script([content("slow"), wait(seen), content(" but sure")])
    with ThreadPoolExecutor(1) as background:
        answer = background.submit(ask, url)
        terminal.see('200 "hi"  Llama3.2:3b')
        terminal.press("G\r")
        terminal.see("━━ POST /api/chat")
        terminal.press("\t")
        terminal.see("━━ Answer so far: 200 OK", "assistant: slow")
        assert not answer.done()
        seen.set()
        # No key is pressed any more.
        terminal.see("━━ Answer: 200 OK", "assistant: slow but sure")
        assert content_of(ndjson(answer.result())) == "slow but sure"


@pytest.mark.parametrize("intercept", ["~u /api/chat & ~q", "~u chat/completions & ~q"])
def test_a_request_is_stopped_edited_and_let_go(started: tuple[Terminal, str], intercept: str) -> None:
    terminal, url = started
    with ThreadPoolExecutor(1) as background:
        answer = ask_and_stop(terminal, url, intercept, background)
        terminal.press("G\r")
        terminal.see("Request intercepted", f"━━ {ANSWER_TO_COME}", "user: hi")
        terminal.press("e")
        terminal.pick("request-body")
        terminal.see("text of 2 -> 6 characters" if "completions" in intercept else "user: edited")
        terminal.press("a")
        assert content_of(ndjson(answer.result())) == "You said: edited"
    terminal.press("\t")
    terminal.see("━━ Answer: 200 OK", "You said: edited")


@pytest.mark.parametrize("intercept", ["~u /api/chat", "~u chat/completions"])
def test_a_stopped_request_is_killed(started: tuple[Terminal, str], lmstudio: Sim, intercept: str) -> None:
    terminal, url = started
    with ThreadPoolExecutor(1) as background:
        answer = ask_and_stop(terminal, url, intercept, background)
        terminal.press("GX")
        with pytest.raises(httpx.RemoteProtocolError):
            answer.result()
    terminal.see("Killed 1 flows.")
    assert not any(request.path == "/v1/chat/completions" for request in lmstudio.requests)
