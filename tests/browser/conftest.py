"""The browser, and what drives it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import pytest
from tests.clients.environments import Process, PythonClient, running

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def installed() -> Iterator[Process]:
    """The browser, and what drives it."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the path")
    with running(PythonClient("browser.py", ("playwright==1.65.2",), (executable,)), "") as process:
        yield process


@pytest.fixture
def seen() -> Iterator[threading.Event]:
    """What is set when a person has seen the begin of an answer, whose rest may wait for that."""
    event = threading.Event()
    yield event
    event.set()
