"""The README says what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from ollama_lmstudio import cli, options

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_tables_are_those_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tests" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    assert readme.rendered(README) == README, "run python tests/readme.py"


def test_two_commands_come_first() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert "ollama-lmstudio-proxy --demo" in blocks[0]
    assert blocks[1].rstrip().endswith("pytest")


def test_every_option_is_explained_by_the_tool(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.command(["--help"], {})
    said = capsys.readouterr().out
    assert [option.name for option in options.OPTIONS if f"--{option.name}" not in said] == []
