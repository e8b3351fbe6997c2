"""A pseudo terminal, and mitmproxy's console in one."""

from __future__ import annotations

import os
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte
from tests.wire.conftest import SCRIPT, free_port

from ollama_lmstudio.sim import Sim

if sys.platform == "win32":
    raise ImportError("there are no pseudo terminals")

import fcntl
import pty
import termios

COLUMNS, LINES = 120, 40
SECONDS = 30
# After so long without the prompt, it is asked for again.
PROMPT_SECONDS = 5


class Terminal:
    """A program in a terminal, and the screen that a person looks at."""

    def __init__(self, descriptor: int, columns: int = COLUMNS) -> None:
        self._descriptor = descriptor
        self._screen = pyte.Screen(columns, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.everything = b""
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))

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
def console(
    lmstudio: Sim,
    directory: Path,
    *,
    command: Sequence[str] = ("mitmproxy", "-s", str(SCRIPT)),
    editor: str = "true",
    columns: int = COLUMNS,
    **options: str,
) -> Iterator[tuple[Terminal, str]]:
    """Start mitmproxy's console with the addon in a terminal, and end it as a person does.

    Yields the terminal, which shows that LM Studio has been asked for its models, and the bridge's URL.
    """
    listen = f"127.0.0.1:{free_port()}"
    options = {"listen": listen, "lmstudio_url": lmstudio.url, "own_calls": "all", **options}
    options |= {"state_dir": str(directory), "confdir": str(directory)}
    arguments = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    program = str(Path(sys.executable).parent / command[0])
    process, descriptor = pty.fork()
    if process == 0:
        # The console asks the terminal for its colours, and this one has few.
        os.environ["TERM"] = "xterm-256color"
        os.environ["MITMPROXY_EDITOR"] = editor
        os.execv(program, [program, *command[1:], *arguments])
    terminal = Terminal(descriptor, columns)
    try:
        terminal.see("(bridge) model list")
        yield terminal, f"http://{listen}"
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


def run(terminal: Terminal, command: str) -> None:
    """Type a command."""
    terminal.press(":")
    pressed = time.monotonic()

    def prompts() -> bool:
        nonlocal pressed
        if terminal.last.startswith(":"):
            return True
        # A message that comes just then takes the prompt's place.
        if time.monotonic() - pressed > PROMPT_SECONDS:
            terminal.press("\x1b:")
            pressed = time.monotonic()
        return False

    terminal.wait(prompts, "the prompt")
    terminal.press(f"{command}\r")
