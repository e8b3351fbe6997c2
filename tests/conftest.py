"""What the tests share."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: a busy one must not fail a test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems() -> None:
    """Hide a module of the console's library that Windows cannot load: Hypothesis looks at all modules there are."""
    if sys.platform == "win32":
        sys.modules.pop("urwid.display.curses", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag of the tests of the binary, which takes minutes to build."""
    parser.addoption("--binary", metavar="build|PATH", help="build the binary and test it, or test that at PATH")
