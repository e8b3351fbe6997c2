"""The real console in a pseudo terminal: what a person sees there, key by key."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.wire.conftest import CHAT, HI, SCRIPT, free_port, models

from lmstudio_sim import SimThread

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

COLUMNS, LINES = 140, 50
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

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._descriptor, keys.encode())

    def see(self, *texts: str) -> str:
        """Look at the screen until it shows all of these."""
        return self.wait(lambda: all(text in self.text for text in texts), f"{texts} on the screen")

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
def console(*arguments: str) -> Iterator[Terminal]:
    """Start mitmproxy's console in a terminal, and end it as a person does."""
    program = str(Path(sys.executable).parent / "mitmproxy")
    process, descriptor = pty.fork()
    if process == 0:
        # The console asks the terminal for its colours, and this one has few.
        os.environ["TERM"] = "xterm-256color"
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


def test_the_console(tmp_path: Path) -> None:
    port = free_port()
    with SimThread(models=models(), auth={TOKEN}) as sim:
        options = {
            "listen": f"127.0.0.1:{port}",
            "lmstudio_url": sim.url,
            "lmstudio_token": TOKEN,
            "state_dir": str(tmp_path),
            "confdir": str(tmp_path),
        }
        settings = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
        with console("-s", str(SCRIPT), *settings) as terminal:
            terminal.see("/api/v1/models")  # the list of models is asked for at the start
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                client.post("/api/chat", json={"model": "Llama3.2:3b", "messages": HI}).raise_for_status()
            terminal.see("/v1/chat/completions")
            terminal.press("G")
            terminal.press("\r")
            terminal.see("# POST /api/chat", f"model: Llama3.2:3b -> {CHAT}", "You said: hi", "done reason: stop")
            terminal.press("\t")
            terminal.see("application/x-ndjson", "# Answer: 200 OK", "You said: hi")
            _run(terminal, 'console.flowview.mode.set "lm studio"')
            terminal.see("# LM Studio's answer: 200", "data: {")
            _run(terminal, "console.flowview.mode.set ollama")
            terminal.see("# Answer: 200 OK")
            _run(terminal, f"ollama.export @focus {tmp_path / 'chat.md'}")
            terminal.see("1 of 1 exchanges are in")
            terminal.press("q")
            _run(terminal, "ollama.models")
            terminal.see(f"{CHAT}:latest: ", "completion tools")
            terminal.press("q")
        assert TOKEN.encode() not in terminal.everything
    assert "You said: hi" in (tmp_path / "chat.md").read_text()


def _run(terminal: Terminal, command: str) -> None:
    terminal.press(":")
    terminal.see("Command:") if "Command:" in terminal.text else terminal.read(0.5)
    terminal.press(f"{command}\r")
