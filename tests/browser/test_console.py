"""The real console in a pseudo terminal: what a person sees there, key by key."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.wire.conftest import CHAT, content_of, free_port, models, ndjson

from ollama_lmstudio.inspect.render import ANSWER_TO_COME
from ollama_lmstudio.sim import Sim, SimThread, content, sleep

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

import fcntl
import pty
import select
import struct
import termios

import httpx
import pyte

pytestmark = pytest.mark.browser

COLUMNS, LINES = 120, 40
SECONDS = 30
TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"


class Terminal:
    """A program in a terminal, and the screen that a person looks at."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.everything = b""
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def last(self) -> str:
        """The last lines of the screen that are not empty: messages, and the prompt."""
        return next((line for line in reversed(self.text.splitlines()) if line), "")

    def colour(self, text: str) -> str:
        """Return the colour of a text that the screen shows."""
        row, line = next((row, line) for row, line in enumerate(self._screen.display) if text in line)
        return str(self._screen.buffer[row][line.index(text)].fg)

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._descriptor, keys.encode())

    def see(self, *texts: str) -> str:
        """Look at the screen until it shows all of these."""
        return self.wait(lambda: all(text in self.text for text in texts), f"{texts} on the screen")

    def pick(self, entry: str) -> None:
        """Press the key of an entry of the menu."""
        text = self.see(f") {entry} ")
        self.press(text[text.index(f") {entry} ") - 1])

    def wait(self, condition: Callable[[], bool], what: str = "") -> str:
        """Look at the screen until something is so."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.text}"
            self.read(0.1)
        return self.text

    def read(self, seconds: float) -> None:
        """Take what the program writes; its end is no error."""
        if select.select([self._descriptor], [], [], seconds)[0]:
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:
                return
            self.everything += data
            self._stream.feed(data)


@contextmanager
def console(*arguments: str, editor: str, tool: str = "mitmproxy") -> Iterator[Terminal]:
    """Start mitmproxy's console in a terminal, and end it as a person does."""
    program = str(Path(sys.executable).parent / tool)
    process, descriptor = pty.fork()
    if process == 0:
        # The console asks the terminal for its colours, and this one has few.
        os.environ["TERM"] = "xterm-256color"
        os.environ["MITMPROXY_EDITOR"] = editor
        os.execv(program, [program, *arguments])
    terminal = Terminal(descriptor)
    try:
        yield terminal
        ended = False

        def has_ended() -> bool:
            nonlocal ended
            ended = ended or os.waitpid(process, os.WNOHANG)[0] == process
            return ended

        for _ in range(4):
            terminal.press("q")
            terminal.read(0.3)
        terminal.press("y")
        terminal.wait(has_ended, "the end")
        process = 0
    finally:
        if process:
            os.kill(process, 9)
            os.waitpid(process, 0)
        os.close(descriptor)


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
    port = free_port()
    editor = tmp_path / "editor"
    editor.write_text(EDITOR)
    editor.chmod(0o700)
    options = {
        "listen": f"127.0.0.1:{port}",
        "lmstudio_url": lmstudio.url,
        "lmstudio_token": TOKEN,
        "state_dir": str(tmp_path),
        "confdir": str(tmp_path),
        "own_calls": "all",
    }
    settings = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    # The other tests of the console start mitmproxy's own program.
    with console("--console", *settings, editor=shlex.quote(str(editor)), tool="ollama-lmstudio-proxy") as terminal:
        terminal.see("(bridge) model list")
        yield terminal, f"http://127.0.0.1:{port}"
    assert TOKEN.encode() not in terminal.everything


def ask(url: str) -> httpx.Response:
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        return client.post("/api/chat", json={"model": "Llama3.2:3b", "messages": [{"role": "user", "content": "hi"}]})


def run(terminal: Terminal, command: str) -> None:
    """Type a command."""
    terminal.press(":")
    terminal.wait(lambda: terminal.last.startswith(":"), "the prompt")
    terminal.press(f"{command}\r")


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


def test_an_answer_shows_up_while_it_comes(started: tuple[Terminal, str], lmstudio: Sim) -> None:
    terminal, url = started
    lmstudio.script([content("slow"), sleep(6), content(" but sure")])
    with ThreadPoolExecutor(1) as background:
        answer = background.submit(ask, url)
        terminal.see('200 "hi"  Llama3.2:3b')
        terminal.press("G\r")
        terminal.see("━━ POST /api/chat")
        terminal.press("\t")
        terminal.see("━━ Answer so far: 200 OK", "assistant: slow")
        assert not answer.done()
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
