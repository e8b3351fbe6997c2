"""The commands, as far as no server is needed for them."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from mitmproxy import exceptions
from mitmproxy.addons import view
from mitmproxy.test import taddons
from tests.inspect.conftest import flow_of, snapshot

from ollama_lmstudio import options
from ollama_lmstudio.inspect import commands
from ollama_lmstudio.inspect.commands import Commands
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.record.statistics import Statistics
from ollama_lmstudio.services import Services
from ollama_lmstudio.state.aliases import AliasStore
from ollama_lmstudio.translate.names import Resolver

ADDRESSES = [
    ("0.0.0.0:5", "http://localhost:5/"),
    ("[::]:5", "http://localhost:5/"),
    ("127.0.0.1:5", "http://localhost:5/"),
    ("192.168.1.2:5", "http://192.168.1.2:5/"),
    ("[fe80::1]:5", "http://[fe80::1]:5/"),
]


@pytest.mark.parametrize(("listen", "address"), ADDRESSES)
def test_an_exported_curl_command_has_the_bridges_address(listen: str, address: str, tmp_path: Path) -> None:
    async def run() -> None:
        values = {option.name: option.default for option in options.OPTIONS}
        settings = options.parse(values | {"listen": listen, "state_dir": str(tmp_path)})
        client = Client(str(settings.lmstudio_url))
        services = Services(settings, client, CatalogCache(client, 300, Resolver), AliasStore(settings.state_dir.data))
        added = Commands(lambda: services, lambda coroutine: coroutine.close(), Statistics(0))
        flows = view.View()
        with taddons.context(flows, added) as context:
            flows.add([flow_of(snapshot())])
            context.master.commands.execute(f"ollama.export @focus {tmp_path}/a.sh")

    asyncio.run(run())
    assert f"{address}api/chat" in shlex.split((tmp_path / "a.sh").read_text())


def test_what_is_written_is_the_same_on_every_system(tmp_path: Path) -> None:
    """A shell on Windows runs no script with CR LF, either."""
    commands._save("one\r\ntwo\n", tmp_path / "a", adds=False)
    commands._save("\ud800\u00e9\n", tmp_path / "a", adds=True)
    assert (tmp_path / "a").read_bytes() == b"one\r\ntwo\n\xef\xbf\xbd\xc3\xa9\n"
    with pytest.raises(exceptions.CommandError, match="is there already"):
        commands._save("", tmp_path / "a", adds=False)


@pytest.mark.parametrize("name", ["nul.md", "CON.sh", "com1.jsonl", "Aux .csv"])
def test_a_device_of_windows_is_no_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name != "nt":
        commands._save("", tmp_path / name, adds=False)
        monkeypatch.setattr(commands, "os", SimpleNamespace(name="nt"))
    for adds in (False, True):
        with pytest.raises(exceptions.CommandError, match="Windows has a device of this name"):
            commands._save("", tmp_path / name, adds=adds)
    commands._save("", tmp_path / f"x{name}", adds=False)
