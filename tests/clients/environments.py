"""Real clients: each with its libraries in a place of its own, each a process that does what it is asked.

The libraries are in the user's cache, outside of the checkout: a virtual environment for those in Python, a folder of
npm's for those in JavaScript. They are installed once for a set of packages and an interpreter. Two runs at once may
both install it: each into a folder of its own, and the first that is done is kept. Where nothing can be installed the
tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import pytest

SCRIPTS = Path(__file__).parent
INSTALL_SECONDS = 300
ANSWER_SECONDS = 60

# What of it is used is compiled then, which takes a fraction of the time.
PIP = ("install", "--quiet", "--disable-pip-version-check", "--retries=1", "--no-compile")
NPM = (
    *("install", "--loglevel=error", "--no-audit", "--no-fund", "--ignore-scripts"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000"),
)

# What a client sees of this process's variables: no proxy, no address, no key.
VARIABLES = ("HOME", "LANG", "PATH", "SYSTEMROOT", "TEMP", "TMPDIR")


@dataclass(frozen=True)
class Client(ABC):
    """A script in this folder, what its registry has to give for it, and what the script is told after the URL."""

    script: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    @abstractmethod
    def platform(self) -> str:
        """What the packages are installed for."""

    @abstractmethod
    def install(self, folder: Path) -> None:
        """Install the packages into a new folder."""

    @abstractmethod
    def command(self, folder: Path, work: Path) -> list[str]:
        """Give the command that runs the script with what is in `folder`. `work` is empty, and for its use."""

    def installed(self) -> Path:
        """Give the folder that holds the packages; install them if there is none yet."""
        cache = platformdirs.user_cache_path("ollama-lmstudio-proxy-tests")
        folder = cache / "-".join((*self.packages, self.platform)).replace("==", "-").replace("@", "-")
        if not folder.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                made = Path(temporary) / "made"
                self.install(made)
                try:
                    made.rename(folder)
                except OSError:
                    if not folder.exists():
                        raise
        return folder


class PythonClient(Client):
    """A client for this interpreter."""

    @property
    def platform(self) -> str:
        """This interpreter, wherever it is."""
        return f"{sys.implementation.cache_tag}-{zlib.crc32(f'{sys.version} {sys.base_exec_prefix}'.encode()):08x}"

    def install(self, folder: Path) -> None:
        """Make a virtual environment, with this one's pip."""
        _execute([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        _execute([sys.executable, "-m", "pip", "--python", str(self._python(folder)), *PIP, *self.packages])

    def command(self, folder: Path, work: Path) -> list[str]:
        """Nothing but the virtual environment is looked into."""
        return [str(self._python(folder)), "-I", str(SCRIPTS / "run.py"), str(SCRIPTS / self.script)]

    def _python(self, folder: Path) -> Path:
        return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


class NodeClient(Client):
    """A client for Node.js."""

    platform = "npm"

    def install(self, folder: Path) -> None:
        """Let npm do it; no package may run anything of its own."""
        _find("node")
        folder.mkdir()
        _execute([_find("npm"), *NPM, "--prefix", str(folder), *self.packages])

    def command(self, folder: Path, work: Path) -> list[str]:
        """Copy the script: Node.js looks for modules beside it and in the folders above, and nowhere else."""
        (work / "node_modules").symlink_to(folder / "node_modules", target_is_directory=True)
        run, script = (str(shutil.copy(SCRIPTS / name, work)) for name in ("run.mjs", self.script))
        return [_find("node"), run, script]


def _find(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"{program} is not on the path")


def _execute(command: Sequence[str]) -> None:
    """Do a part of an installation, or skip the test with what it said first: that tells what went wrong."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as e:
        said = (e.stderr or e.stdout).partition("\n")[0]
        pytest.skip(f"{command[-1]} cannot be installed: {said}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[-1]} cannot be installed within {INSTALL_SECONDS} s")


class Process:
    """A running client."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._start()

    def _start(self) -> None:
        environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Let the client do something; give what it made of it. Fails if the client does."""
        if not self.is_alive:
            self.end()
            self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(ANSWER_SECONDS, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps([function, *arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line, f"the client ended, or gave no answer within {ANSWER_SECONDS} s"
        answer = json.loads(line)
        assert "raised" not in answer, answer["raised"]
        return answer["result"]

    def end(self) -> None:
        """Close its standard input, which is its end."""
        self._process.communicate(timeout=ANSWER_SECONDS)


@contextmanager
def running(client: Client, url: str) -> Iterator[Process]:
    """Run a client of the server at this URL, or skip the test if it cannot be had."""
    folder = client.installed()
    with tempfile.TemporaryDirectory() as work:
        process = Process([*client.command(folder, Path(work)), url, *client.arguments])
        try:
            yield process
        finally:
            process.end()
