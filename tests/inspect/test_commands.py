"""The commands, run as mitmproxy's prompt and mitmweb's command bar run them, with a stand-in for LM Studio."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from mitmproxy import exceptions, http
from mitmproxy.addons import view
from mitmproxy.log import ALERT
from mitmproxy.test import taddons, tflow
from tests.inspect.conftest import dumps, exchange, flow_of, record
from tests.wire.conftest import CHAT, EMBEDDER, free_port, models

from lmstudio_sim import Sim, SimThread
from ollama_lmstudio import options
from ollama_lmstudio.endpoints.base import Services
from ollama_lmstudio.inspect.commands import Commands
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.state.aliases import Alias, AliasStore

TOKEN = "sk-lm-abcdefgh:12345678901234567890"


class Prompt:
    """A tool's prompt: it executes lines, and has what is said in the log."""

    def __init__(self, master: Any, services: Services, caplog: pytest.LogCaptureFixture) -> None:
        self.services = services
        self.master = master
        self._caplog = caplog

    def execute(self, line: str) -> Any:
        """Execute a line; give its value."""
        return self.master.commands.execute(line)

    def add(self, *flows: http.HTTPFlow) -> None:
        """Add flows to the tool's list; the first one is in focus."""
        self.master.addons.get("view").add(flows)

    def said(self, level: int = ALERT) -> list[str]:
        """Give what has been said in the log."""
        return [entry.getMessage() for entry in self._caplog.records if entry.levelno == level]

    async def hear(self, level: int = ALERT, after: int = 0) -> str:
        """Wait until something is said, after so many things; give it."""
        for _ in range(500):
            if len(self.said(level)) > after:
                return self.said(level)[-1]
            await asyncio.sleep(0.02)
        raise AssertionError("nothing was said")


class Open(Protocol):
    def __call__(self, **given: Any) -> Any: ...


@pytest.fixture
def sim() -> Iterator[Sim]:
    with SimThread(models=models()) as sim:
        yield sim


@pytest.fixture
def open_prompt(sim: Sim, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Open:
    """Open a prompt in the running event loop, of a bridge with the given options."""
    caplog.set_level(logging.INFO)

    @asynccontextmanager
    async def opened(**given: Any) -> AsyncIterator[Prompt]:
        values = {option.name: option.default for option in options.OPTIONS}
        settings = options.parse(values | {"lmstudio_url": sim.url, "state_dir": str(tmp_path / "state")} | given)
        client = Client(str(settings.lmstudio_url), settings.lmstudio_token or None)
        services = Services(settings, client, CatalogCache(client, 300), AliasStore(settings.state_dir))
        commands = Commands(lambda: services)
        with taddons.context(view.View(), commands) as context:
            try:
                yield Prompt(context.master, services, caplog)
            finally:
                commands.done()
                services.life.stop()
                await client.aclose()

    return opened


def add_alias(services: Services, name: str, target: str = CHAT) -> None:
    def edit(aliases: dict[str, Alias]) -> None:
        aliases[f"registry.ollama.ai/library/{name}:latest"] = Alias(f"{name}:latest", target, 0, 0)

    services.aliases.change(edit)


def test_models(sim: Sim, open_prompt: Open) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            add_alias(prompt.services, "terse")
            assert prompt.execute("ollama.models") == ["LM Studio is being asked: its models come in the event log."]
            table = await prompt.hear()
            assert table.split("\n")[0].split() == [
                "name", "size", "parameters", "quantization", "context", "can",
            ]  # fmt: skip
            assert "\nterse:latest " in table
            assert f"\n{EMBEDDER}:latest " in table
            assert prompt.execute("ollama.models") == table.split("\n")
            sim.load(CHAT)
            assert prompt.execute("ollama.models") == table.split("\n")
            changed = await prompt.hear(after=1)
            (row,) = [row for row in changed.split("\n") if row.startswith(f"{CHAT}:latest ")]
            assert f"{CHAT} (" in row

    asyncio.run(run())


def test_aliases(open_prompt: Open) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            assert prompt.execute("ollama.aliases") == ["There are no aliases."]
            add_alias(prompt.services, "terse")
            assert prompt.execute("ollama.aliases") == [f"terse:latest -> {CHAT}"]

    asyncio.run(run())


@pytest.mark.parametrize("name", [CHAT, CHAT.upper(), "llama3.2:3b", "terse"])
def test_unload(name: str, sim: Sim, open_prompt: Open) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            add_alias(prompt.services, "terse")
            sim.load(CHAT)
            assert prompt.execute(f"ollama.unload {name}") is None
            assert await prompt.hear() == f"{CHAT} is unloaded."
            assert not sim.instances

    asyncio.run(run())


def test_unload_of_what_is_not_loaded_or_not_known(open_prompt: Open) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            prompt.execute(f"ollama.unload {CHAT}")
            assert await prompt.hear() == f"{CHAT} is not loaded."
            prompt.execute("ollama.unload nope")
            assert await prompt.hear(logging.ERROR) == "model 'nope' not found"

    asyncio.run(run())


def test_errors_are_said_without_secrets(open_prompt: Open) -> None:
    async def run() -> None:
        async with open_prompt(lmstudio_url=f"http://127.0.0.1:{free_port()}", lmstudio_token=TOKEN) as prompt:
            prompt.execute(f"ollama.unload {TOKEN}")
            assert "LM Studio is not reachable" in await prompt.hear(logging.ERROR)
            assert TOKEN not in "".join(prompt.said(logging.ERROR))

    asyncio.run(run())


def test_doctor(sim: Sim, open_prompt: Open) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            at_once = prompt.execute("ollama.doctor")
            assert at_once[-1] == "LM Studio is being asked: the whole report comes in the event log."
            report = (await prompt.hear()).split("\n")
            assert f"LM Studio answers at {sim.url}" in report[0]
            assert report[-len(at_once) + 1 :] == at_once[:-1]
            # No server of mitmproxy's runs in this test.
            assert any(line.startswith("problem  The bridge does not serve") for line in report)

    asyncio.run(run())


CHAT_FLOW = exchange()
FAILED = exchange(record(numbers=None), response=dumps({"error": "no such model"}), status=404)


@pytest.mark.parametrize(
    ("suffix", "begin"),
    [
        (".md", "## POST `/api/chat`\n"),
        (".MD", "## POST `/api/chat`\n"),
        (".sh", "curl --no-buffer http://localhost:11434/api/chat "),
        (".jsonl", '{"messages": ['),
        (" curl", "curl --no-buffer http://localhost:11434/api/chat "),
        (".txt jsonl", '{"messages": ['),
    ],
)
def test_export(suffix: str, begin: str, open_prompt: Open, tmp_path: Path) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            prompt.add(flow_of(CHAT_FLOW))
            path = tmp_path / f"exchanges{suffix.partition(' ')[0]}"
            assert prompt.execute(f"ollama.export @focus {tmp_path}/exchanges{suffix}") is None
            assert path.read_text().startswith(begin)
            assert prompt.said() == [f"1 exchange written to {path}."]

    asyncio.run(run())


def test_export_of_several(open_prompt: Open, tmp_path: Path) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            prompt.add(flow_of(CHAT_FLOW), flow_of(FAILED), flow_of(CHAT_FLOW), tflow.tflow(resp=True))
            path = tmp_path / "all.jsonl"
            prompt.execute(f"ollama.export @all {path}")
            assert prompt.said() == [f"2 exchanges written to {path}, 2 not: it did not end well."]
            assert [len(json.loads(line)["messages"]) for line in path.read_text().splitlines()] == [5, 5]
            prompt.execute(f"ollama.export @all {tmp_path}/all.md")
            assert (tmp_path / "all.md").read_text().count("\n## POST ") == 2

    asyncio.run(run())


REFUSED: dict[str, tuple[str, str]] = {
    "no format": ("@all DIR/x.txt", "Name the file *.md, *.markdown, *.sh, *.jsonl, or give a format: markdown, curl"),
    "an unknown format": ("@all DIR/x.md pdf", "Invalid choice"),
    "no flows": ("@marked DIR/x.md", "There are no flows to write"),
    "nothing to write": ('"~c 404" DIR/x.jsonl', "Nothing to write, 1 not: it did not end well"),
    "no such directory": ("@all DIR/none/x.md", "No such file or directory"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_export_is_refused(arguments: str, message: str, open_prompt: Open, tmp_path: Path) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            prompt.add(flow_of(CHAT_FLOW), flow_of(FAILED))
            with pytest.raises(exceptions.CommandError, match=message.replace("*", r"\*")):
                prompt.execute(f"ollama.export {arguments.replace('DIR', str(tmp_path))}")

    asyncio.run(run())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:5", "http://127.0.0.1:5/"), ("[::]:5", "http://localhost:5/"), ("[::1]:5", "http://[::1]:5/")],
)
def test_export_has_the_bridges_address(listen: str, address: str, open_prompt: Open, tmp_path: Path) -> None:
    async def run() -> None:
        async with open_prompt(listen=listen) as prompt:
            prompt.add(flow_of(CHAT_FLOW))
            prompt.execute(f"ollama.export @focus {tmp_path}/x.sh")
            assert address in (tmp_path / "x.sh").read_text()
            prompt.master.options.listen_port = 6
            prompt.execute(f"ollama.export @focus {tmp_path}/x.sh")
            assert address.replace(":5/", ":6/") in (tmp_path / "x.sh").read_text()

    asyncio.run(run())


def test_a_bridge_that_is_not_configured() -> None:
    class Bridge:
        services: Services

    async def run() -> None:
        with taddons.context(Commands(lambda: Bridge().services)) as context:
            for name in ("models", "aliases", "doctor", "unload x"):
                with pytest.raises(exceptions.CommandError, match="not been configured"):
                    context.master.commands.execute(f"ollama.{name}")

    asyncio.run(run())


def test_every_command_has_help(open_prompt: Open) -> None:
    async def run() -> None:
        async with open_prompt() as prompt:
            commands = {name: c for name, c in prompt.master.commands.commands.items() if name.startswith("ollama.")}
            assert set(commands) == {
                "ollama.aliases",
                "ollama.doctor",
                "ollama.export",
                "ollama.export.formats",
                "ollama.models",
                "ollama.unload",
            }
            assert all(found.help for found in commands.values())
            assert commands["ollama.export"].signature_help() == "ollama.export flows path form"

    asyncio.run(run())


SCRIPT = """
import os
from ollama_lmstudio import options
from ollama_lmstudio.endpoints.base import Services
from ollama_lmstudio.inspect.commands import Commands
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.state.aliases import AliasStore

values = {option.name: option.default for option in options.OPTIONS}
settings = options.parse(values | {"lmstudio_url": os.environ["SIM"], "state_dir": os.environ["STATE"]})
client = Client(str(settings.lmstudio_url))
services = Services(settings, client, CatalogCache(client, 300), AliasStore(settings.state_dir))
addons = [Commands(lambda: services)]
"""


def test_mitmweb_runs_them(sim: Sim, tmp_path: Path) -> None:
    """A real mitmweb, asked in the way its command bar asks it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    port, password = free_port(), secrets.token_hex(8)
    arguments = ["-s", tmp_path / "script.py", "-n", "--web-port", port, "--no-web-open-browser"]
    arguments += ["--set", f"web_password={password}"]
    environment = os.environ | {"SIM": sim.url, "STATE": str(tmp_path)}
    with subprocess.Popen(
        [Path(sys.executable).parent / "mitmweb", *map(str, arguments)], stdout=subprocess.DEVNULL, env=environment
    ) as web:
        try:
            # Mitmweb wants the same text in a header and a cookie; the cookie's name is another one on mitmproxy 12.
            twice = "0" * 32
            cookies = f"_xsrf={twice}; _mitmproxy_xsrf={twice}"
            headers = {"Authorization": f"Bearer {password}", "X-XSRFToken": twice, "Cookie": cookies}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
                _wait_for(lambda: "ollama.doctor" in client.get("/commands").json())
                assert _post(client, "ollama.aliases") == ["There are no aliases."]
                _post(client, "ollama.models")
                _post(client, "ollama.doctor")
                _wait_for(lambda: f"LM Studio answers at {sim.url}" in client.get("/events").text)
                events = [event["message"] for event in client.get("/events").json()]
                assert any(f"{CHAT}:latest" in message for message in events)
        finally:
            web.terminate()


def _post(client: httpx.Client, name: str) -> Any:
    return client.post(f"/commands/{name}", json={"arguments": []}).raise_for_status().json()["value"]


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end
        time.sleep(0.1)
