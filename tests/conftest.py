"""What the tests share."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: a busy one must not fail a test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# What takes longest begins first, so that no process is left with it at the end.
LONGEST = (
    "test_install",
    "wire/test_life",
    "wire/test_clients",
    "wire/test_states",
    "load",
    "wire/test_startup",
    "browser",
    "balancers",
    "bench",
    "test_windows",
    "state/test_aliases",
    "wire",
)
# The tests wait more than they calculate: for processes that start, for browsers, for what takes its time.
PROCESSES_PER_CPU = 2

# Modules are compiled once for all processes, also where Python is told to keep no bytecode: to compile the addon takes
# longer than all else that a process does to start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts."""
    return PROCESSES_PER_CPU * (os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Load a share of the tests' files first: in a fresh clone, each process would compile all of them."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.getoption("file_or_dir"):
        return
    tests = Path(__file__).parent
    number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted(tests.rglob("test_*.py"))[number::count]:
        # One that fails is loaded again where tests are collected, which tells of it.
        with suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(tests.parent).with_suffix("").parts))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files; hide a module of the console's library that Windows cannot load, and Hypothesis looks for."""
    if sys.platform == "win32":
        sys.modules.pop("urwid.display.curses", None)

    def place(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(LONGEST) if f"tests/{name}" in item.nodeid), len(LONGEST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Leave what was collected out of what the garbage collector looks through: it stays to the end."""
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order of the files: pytest-xdist would sort them by their number of tests."""
    config.option.loadscopereorder = False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags of the tests that take minutes: of the binary, which is built, and of the load."""
    parser.addoption("--load", action="store_true", help="let the tests of tests/load/ take minutes, not seconds")
    parser.addoption("--binary", metavar="build|PATH", help="build the binary and test it, or test that at PATH")
