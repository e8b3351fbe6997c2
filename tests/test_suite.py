"""The tests themselves: they are collected on every system, and pass on a machine that is busy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

FILES = sorted(Path(__file__).parent.rglob("*.py"))
POSIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}


def imported(tree: ast.Module) -> Iterator[str]:
    """Return what a module imports on Windows when it is loaded: all up to where it is skipped there."""
    for node in tree.body:
        if isinstance(node, ast.If) and "win32" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os\nimport pty", ["os", "pty"]),
        ('import os\nif sys.platform == "win32":\n    pytest.skip("")\nimport pty', ["os"]),
        ("from tty import setraw\ndef test():\n    import pty", ["tty"]),
    ],
)
def test_what_is_imported_on_windows(source: str, expected: list[str]) -> None:
    assert list(imported(ast.parse(source))) == expected


def test_every_module_can_be_loaded_on_windows() -> None:
    assert [path for path in FILES if POSIX_ONLY & set(imported(ast.parse(path.read_text(encoding="utf-8"))))] == []


def test_no_property_is_checked_against_the_clock() -> None:
    assert settings.default is not None
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "settings":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert "deadline" not in given, path
                assert "too_slow" in given.get("suppress_health_check", "too_slow"), path
