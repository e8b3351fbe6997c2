"""The console's list, and mitmdump's lines, in a pseudo terminal of two widths."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.wire.conftest import CHAT, ROOT, SCRIPT, Proxy, free_port, models

from ollama_lmstudio.sim import SimThread, close, content, sleep

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

import pty

from tests.browser import test_console
from tests.browser.test_console import Terminal, console

pytestmark = pytest.mark.browser

GONE = "LM Studio closed the connection"
QUESTION = [{"role": "user", "content": "Why is the sky blue, and not green?"}]
BREAK = [{"role": "user", "content": "Break, please"}]


def ask(url: str) -> None:
    """Ask for an answer, for one of a model that is not there, and for one that breaks."""
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        client.get("/api/tags")
        for model, messages in ((CHAT, QUESTION), ("no-such", QUESTION), (CHAT, BREAK)):
            client.post("/api/chat", json={"model": model, "messages": messages})


@pytest.fixture
def lmstudio() -> Iterator[SimThread]:
    thread = SimThread(models=models())
    with thread as sim:
        sim.script([content("Because"), sleep(0.1), content(" it is.")], match="sky")
        sim.script([content("Because"), close()], match="Break")
        yield thread


@pytest.mark.parametrize("columns", [80, 120])
def test_a_row_tells_what_an_exchange_was(
    lmstudio: SimThread, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_console, "COLUMNS", columns)
    port = free_port()
    options = {
        "listen": f"127.0.0.1:{port}",
        "lmstudio_url": lmstudio.sim.url,
        "state_dir": str(tmp_path),
        "own_calls": "all",
    }
    sets = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    with console("-s", str(SCRIPT), *sets, editor="true") as terminal:
        terminal.see("model list")
        ask(f"http://127.0.0.1:{port}")
        text = terminal.see(GONE)
        show(terminal, f"console-{columns}")
        (chat,) = [line for line in text.splitlines() if ' 200 "Why is the sky blue, and ..."' in line]
        assert f' 200 "Why is the sky blue, and ..."  {CHAT[:12]}' in chat
        assert re.search(r" \d\S* tok/s\W*$", chat)
        for row in (
            " 404 model 'no-such' not found  \"Why is",
            f" 200 {GONE} before",
            " 200 (bridge) model list  8 models",
            " 200 tags  8 models",
        ):
            assert row in text
        # The flow itself is shown as mitmproxy shows it.
        terminal.press("g")
        terminal.press("\r")
        terminal.see("/v1/models")
        terminal.press("q")
        terminal.see(GONE)


@contextmanager
def mitmdump(proxy: Proxy) -> Iterator[Terminal]:
    """Start mitmdump in a terminal."""
    ours, theirs = pty.openpty()
    terminal = Terminal(ours)
    process = subprocess.Popen(
        proxy.command,
        stdout=theirs,
        stderr=theirs,
        env=proxy.environment,
        cwd=ROOT,
        text=True,
    )
    os.close(theirs)
    try:
        yield terminal
    finally:
        process.terminate()
        process.wait(10)
        os.close(ours)


@pytest.mark.parametrize("environment", [{"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.parametrize("columns", [80, 120])
def test_lines_fit_into_the_terminal(
    lmstudio: SimThread, columns: int, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_console, "COLUMNS", columns)
    proxy = Proxy(lmstudio.sim.url, state_dir=tmp_path, environment=environment)
    for name in ("COLUMNS", "LINES"):
        proxy.environment.pop(name, None)
    with mitmdump(proxy) as terminal:
        terminal.see("serves Ollama's API")
        ask(proxy.url)
        text = terminal.see("LM Studio closed")
        show(terminal, f"mitmdump-{columns}")
    lines = [line for line in text.splitlines() if "/api/chat" in line]
    # A line that were wrapped would be two.
    assert [line[9:18] for line in lines] == ["/api/chat"] * 3
    assert all(len(line) < columns for line in lines)
    assert re.search(rf'{CHAT[:13]}\S+  200  "Why is .*  \d\S* tok/s$', lines[0])
    has_colours = b"\x1b[31m404\x1b[0m" in terminal.everything
    assert has_colours is (environment == {"TERM": "xterm"})


def show(terminal: Terminal, name: str) -> None:
    """Keep the screen, where somebody wants to look at it."""
    if folder := os.environ.get("SHOTS"):
        Path(folder, f"{name}.txt").write_text(terminal.text)
