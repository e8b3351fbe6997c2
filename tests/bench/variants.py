"""The processes that are measured: the stand-in for LM Studio, plain mitmproxy, and mitmproxy with the addon."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tests.balancers.programs import BRIDGES
from tests.balancers.programs import command as balancer_command
from tests.bench.client import MODEL, PACED, Dialect, LMStudio, Ollama, Variant, run

from ollama_lmstudio.sim import Prompt, Sim, SimModel, Step, content, sleep

START_SECONDS = 60
# How often a proxy that starts is asked whether it answers.
POLL_SECONDS = 0.005
# A start that compiles the addon anew each time is not the one that users see.
COMPILE_ALWAYS = "PYTHONDONTWRITEBYTECODE"

PLAIN_SCRIPT = """\
def responseheaders(flow):
    flow.response.stream = True
"""
VERSIONS = "import sys, mitmproxy.version as m; print(m.VERSION, '/', '%d.%d' % sys.version_info[:2])"


# The stand-in


def answer(tokens: int, interval: float) -> Any:
    """Make the stand-in's generator: all tokens at once, or one every `interval` seconds."""
    at_once = [content(*[" token"] * tokens)]

    def paced() -> Iterator[Step]:
        while True:
            yield sleep(interval)
            yield content(f"@{time.monotonic_ns()}@")

    def generate(prompt: Prompt, model: SimModel) -> Iterable[Step]:
        return paced() if prompt.last_user == PACED else at_once

    return generate


class Pipe(Protocol):
    """An end of a pipe between two processes, whose class each system has its own of."""

    def send(self, obj: int | None, /) -> None: ...

    def recv(self) -> Any: ...


async def serve(pipe: Pipe, parallel: int, tokens: int, interval: float) -> None:
    """Serve the stand-in with a loaded model that takes `parallel` requests at once.

    Send its port when it does; after that, send the number of requests since the last time whenever something is sent.
    """
    async with Sim([SimModel(MODEL)], generator=answer(tokens, interval)) as sim:
        sim.load(MODEL).parallel = parallel
        pipe.send(int(sim.url.rpartition(":")[2]))
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(len(sim.requests))
            sim.clear()


def run_server(*arguments: Any) -> None:
    """Be the stand-in's process."""
    asyncio.run(serve(*arguments))


@dataclass(frozen=True)
class StandIn:
    """The stand-in's process."""

    port: int
    pid: int
    pipe: Pipe

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> int:
        """Return how many requests came since this was asked last; they are forgotten."""
        self.pipe.send(None)
        return int(self.pipe.recv())


@contextmanager
def stand_in(parallel: int, tokens: int, interval: float) -> Iterator[StandIn]:
    """Run the stand-in in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_server, args=(theirs, parallel, tokens, interval), daemon=True)
    process.start()
    try:
        if not ours.poll(START_SECONDS):
            raise SystemExit("the stand-in did not start")
        port = int(ours.recv())
        assert process.pid is not None
        yield StandIn(port, process.pid, ours)
    finally:
        process.terminate()
        process.join()


# The proxies


@dataclass(frozen=True)
class Recipe:
    """How to start a proxy: `python` is that of its environment; `{port}` in the arguments stands for its port."""

    name: str
    line: int
    dialect: type[Dialect]
    python: Path
    script: Path
    arguments: tuple[str, ...]


def recipes(pythons: list[Path], scripts: dict[str, Path], url: str, folder: Path) -> list[Recipe]:
    """Return for each environment plain mitmproxy and mitmproxy with each of the addons, which are given by name."""
    plain = folder / "plain.py"
    plain.write_text(PLAIN_SCRIPT)
    # The user's own config.yaml is not to be measured.
    private = ("--set", f"confdir={folder / 'mitmproxy'}")
    reverse = ("--mode", f"reverse:{url}@127.0.0.1:{{port}}", "--set", "connection_strategy=lazy")
    bridge = ("--set", "listen=127.0.0.1:{port}", "--set", f"lmstudio_url={url}")
    made = []
    for line, python in enumerate(pythons):
        made.append(Recipe("plain", line, LMStudio, python, plain, (*private, *reverse)))
        for name, script in scripts.items():
            state = ("--set", f"state_dir={folder / f'{name}-{line}'}")
            made.append(Recipe(name, line, Ollama, python, script.resolve(), (*private, *bridge, *state)))
    return made


def balanced_recipes(python: Path, script: Path, url: str, folder: Path) -> list[Recipe]:
    """Return as many bridges as the ready configurations of balancers name; they share a state directory."""
    one = next(recipe for recipe in recipes([python], {"addon": script}, url, folder) if recipe.name == "addon")
    arguments = [argument.replace("addon-0", "bridges") for argument in one.arguments]
    return [replace(one, name=f"bridge {n}", arguments=tuple(arguments)) for n in range(1, len(BRIDGES) + 1)]


def _children(pid: int) -> tuple[int, ...]:
    """Return the processes that a process has started; none where there is no /proc."""
    try:
        return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return ()


@contextmanager
def balancer(program: str, bridges: list[Variant], folder: Path) -> Iterator[Variant]:
    """Run a balancer with the ready configuration in front of bridges."""
    port = free_port()
    own = folder / program
    own.mkdir()
    command = balancer_command(program, own, port, [bridge.port for bridge in bridges])
    if command is None:
        raise SystemExit(f"{program} is not installed")
    with (own / "log").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    variant = Variant(program, bridges[0].line, port, Ollama, process.pid)
    try:
        begun = time.monotonic()
        while run(variant, Ollama.version()).problems():
            if process.poll() is not None or time.monotonic() - begun > START_SECONDS:
                raise SystemExit(f"{program} did not start:\n{(own / 'log').read_text()}")
            time.sleep(POLL_SECONDS)
        behind = (pid for bridge in bridges for pid in bridge.pids)
        yield replace(variant, behind=(*_children(process.pid), *behind))
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def versions(python: Path) -> str:
    """Return the versions of mitmproxy and Python of an environment. Raises SystemExit if it has no mitmproxy."""
    try:
        return subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as e:
        raise SystemExit(f"{python} is not the Python of an environment with mitmproxy: {e}") from None


@contextmanager
def proxy(recipe: Recipe, folder: Path) -> Iterator[Variant]:
    """Run mitmdump on a free port; it has answered when it is given."""
    port = free_port()
    # Not the resolved path: the Python of an environment is a link to one outside.
    mitmdump = recipe.python.absolute().with_name("mitmdump")
    arguments = [argument.format(port=port) for argument in recipe.arguments]
    log = folder / f"{recipe.name}-{recipe.line}.log"
    with log.open("w") as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            [mitmdump, "-s", recipe.script, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != COMPILE_ALWAYS},
        )
    variant = Variant(recipe.name, recipe.line, port, recipe.dialect, process.pid)
    try:
        version = recipe.dialect.version()
        while run(variant, version).problems():
            if process.poll() is not None or time.monotonic() - begun > START_SECONDS:
                raise SystemExit(f"{recipe.name} did not start:\n{log.read_text()}")
            time.sleep(POLL_SECONDS)
        yield replace(variant, start_seconds=time.monotonic() - begun)
    finally:
        process.terminate()
        process.wait()


def machine() -> str:
    """Describe the machine, as far as it tells."""
    try:
        model = Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0]
    except OSError:
        model = ""
    return f"{os.cpu_count()} x {model}" if model else f"{os.cpu_count()} processors"
