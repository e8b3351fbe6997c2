"""The files in .github say what is so, and the workflow for tests may not do more than test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ruamel.yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
if not GITHUB.is_dir():
    pytest.skip("an sdist has no .github", allow_module_level=True)
CI: dict[str, Any] = ruamel.yaml.YAML(typ="safe", pure=True).load((GITHUB / "workflows" / "ci.yml").read_text())


def anchors(text: str) -> set[str]:
    return {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("name", ["SECURITY.md", "CONTRIBUTING.md"])
def test_what_is_linked_and_named_is_there(name: str) -> None:
    text = (GITHUB / name).read_text()
    for file, anchor in re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", text):
        target = (GITHUB / file).resolve()
        assert target.is_file()
        assert not anchor or anchor in anchors(target.read_text())
    for file in re.findall(r"(?:tests|\.ci)/[\w/.]+\w", text):
        assert (ROOT / file).exists(), file


def test_the_workflow_only_reads() -> None:
    assert CI["permissions"] == {"contents": "read"}
    for job in CI["jobs"].values():
        assert "permissions" not in job
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_the_workflow_tests_what_is_promised() -> None:
    matrix = CI["jobs"]["fast"]["strategy"]["matrix"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None
    assert matrix["python"][0] == oldest[1]
    assert {system.partition("-")[0] for system in matrix["system"]} == {"ubuntu", "macos", "windows"}
    commands = [step["run"] for step in CI["jobs"]["whole"]["steps"] if "run" in step]
    assert commands[0] == ".ci/run"
    assert all((ROOT / path).is_file() for path in re.findall(r"configs/\S+", " ".join(commands)))
    assert sys.platform == "win32" or os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed; .ci/run builds it")
def test_actionlint_finds_nothing() -> None:
    files = map(str, (GITHUB / "workflows").glob("*.yml"))
    done = subprocess.run(["actionlint", *files], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
