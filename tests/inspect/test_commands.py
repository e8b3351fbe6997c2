"""The commands, as far as no server is needed for them."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest
from mitmproxy.addons import view
from mitmproxy.test import taddons
from tests.inspect.conftest import flow_of, snapshot

from ollama_lmstudio import options
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
        commands = Commands(lambda: services, lambda coroutine: coroutine.close(), Statistics(0))
        flows = view.View()
        with taddons.context(flows, commands) as context:
            flows.add([flow_of(snapshot())])
            context.master.commands.execute(f"ollama.export @focus {tmp_path}/a.sh")

    asyncio.run(run())
    assert f"{address}api/chat" in shlex.split((tmp_path / "a.sh").read_text())
