"""The report on what keeps the bridge from working, with real servers behind it."""

from __future__ import annotations

import asyncio
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.wire.conftest import CHAT, Proxy, free_port, models

from lmstudio_sim import SimModel, SimThread
from ollama_lmstudio import options
from ollama_lmstudio.endpoints.base import Services
from ollama_lmstudio.inspect import doctor
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.state.aliases import Alias, AliasStore

TOKEN = "sk-lm-abcdefgh:12345678901234567890"


def examine(
    url: str, tmp_path: Path, *, serving: bool | None = True, aliases: tuple[str, ...] = (), **given: Any
) -> str:
    """Give the report of a bridge with these settings."""

    async def report() -> str:
        values = {option.name: option.default for option in options.OPTIONS} | {"lmstudio_url": url}
        values |= {"state_dir": str(tmp_path / "state"), "listen": f"127.0.0.1:{free_port()}"}
        settings = options.parse(values | given)
        client = Client(str(settings.lmstudio_url), settings.lmstudio_token or None)
        services = Services(settings, client, CatalogCache(client, 300), AliasStore(settings.state_dir))
        for name in aliases:
            services.aliases.change(lambda edit, name=name: edit.update({name: Alias(name, name, 0, 0)}))  # type: ignore[misc]
        try:
            findings = await doctor.examine(services, serving=serving)
        finally:
            await client.aclose()
        assert doctor.is_well(findings) == ("problem " not in "".join(f"{finding.level} " for finding in findings))
        return "\n".join(map(str, findings))

    return asyncio.run(report())


def test_all_is_well(tmp_path: Path) -> None:
    with SimThread(models=[SimModel(CHAT), SimModel("other")]) as sim:
        sim.load(CHAT)
        report = examine(sim.url, tmp_path)
    assert f"ok       LM Studio answers at {sim.url}: version 0." in report
    assert "ok       LM Studio asks for no token.\n" in report
    assert f"ok       2 models, loaded: {CHAT} (" in report
    assert "ok       The bridge serves.\n" in report
    assert f"ok       The state directory is {tmp_path / 'state'}: 0 aliases.\n" in report
    assert report.endswith("ok       Only this machine can ask, without a key.")
    assert "problem" not in report
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("0.4.25", "version 0.4.22 or newer"),
        ("0.4.20", "version 0.4.8 or newer"),
        ("0.4.3", "version 0.4.0 or newer"),
        ("0.3.20", "version 0.3.16 or newer"),
        ("0.3.10", "version 0.3.6 or newer"),
        ("0.3.0", "older than version 0.3.6"),
    ],
)
def test_versions(version: str, told: str, tmp_path: Path) -> None:
    with SimThread(models=models(), version=version) as sim:
        sim.load(CHAT, ttl=60)
        assert told in examine(sim.url, tmp_path)


def test_lm_studio_is_not_there(tmp_path: Path) -> None:
    report = examine(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert "problem  LM Studio is not reachable at " in report


def test_no_models(tmp_path: Path) -> None:
    with SimThread(models=[]) as sim:
        assert "problem  LM Studio has no models, or shows none" in examine(sim.url, tmp_path)


TOKENS = [
    ([TOKEN], "", "problem  LM Studio asks for a token: set the option lmstudio_token."),
    ([TOKEN], TOKEN, "ok       LM Studio asks for a token, and accepts the one in lmstudio_token."),
    ([TOKEN], f"{TOKEN}x", "problem  LM Studio answered 401, check the option lmstudio_token."),
    (None, TOKEN, "note     LM Studio asks for no token: the one in lmstudio_token is not needed."),
]


@pytest.mark.parametrize(("auth", "token", "told"), TOKENS)
def test_tokens(auth: list[str] | None, token: str, told: str, tmp_path: Path) -> None:
    with SimThread(models=models(), auth=auth) as sim:
        report = examine(sim.url, tmp_path, lmstudio_token=token)
    assert told in report
    assert not token or token not in report


def test_aliases_without_a_model(tmp_path: Path) -> None:
    with SimThread(models=models()) as sim:
        report = examine(sim.url, tmp_path, aliases=(CHAT, "gone"))
    assert ": 2 aliases." in report
    assert "note     LM Studio does not have gone, which the alias gone stands for.\n" in report
    assert f"have {CHAT}," not in report


def test_the_state_directory_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "state"):
        assert f"problem  The state directory {directory} cannot be written: " in examine(
            "http://127.0.0.1:1", tmp_path, state_dir=str(directory)
        )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_the_state_directory_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be made in" in examine("http://127.0.0.1:1", tmp_path)


def test_who_may_ask(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    report = examine(url, tmp_path, listen="0.0.0.0:11999", allowed_origins=["*"])
    assert "note     Everybody on this network can ask, on 0.0.0.0:11999" in report
    assert "note     Every web page can ask" in report
    report = examine(url, tmp_path, listen="0.0.0.0:11999", api_key="k")
    assert "ok       Clients need the key in api_key." in report


def test_lm_studios_address_is_the_bridges_own(tmp_path: Path) -> None:
    port = free_port()
    report = examine(f"http://localhost:{port}", tmp_path, listen=f"0.0.0.0:{port}")
    assert f"problem  lmstudio_url is this bridge's own address: http://localhost:{port}." in report


@contextmanager
def server(body: bytes) -> Iterator[int]:
    """Serve one body on all paths that end in a slash; give the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/") else 404)
            self.end_headers()
            self.wfile.write(body if self.path.endswith("/") else b"404 page not found")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


def test_who_answers() -> None:
    assert asyncio.run(doctor.who_answers(free_port())) == "nobody"
    with server(b"Ollama is running") as port:
        assert asyncio.run(doctor.who_answers(port)) == "ollama"
    with server(b"hello") as port:
        assert asyncio.run(doctor.who_answers(port)) == "other"


@pytest.mark.parametrize("given", [{}, {"api_key": "k"}])
def test_who_answers_knows_the_bridge(given: dict[str, str], tmp_path: Path) -> None:
    with Proxy(f"http://127.0.0.1:{free_port()}", options=given, state_dir=tmp_path) as proxy:
        assert asyncio.run(doctor.who_answers(proxy.port)) == "bridge"


def test_an_lm_studio_that_wants_a_token_is_no_bridge() -> None:
    with SimThread(models=models(), auth=[TOKEN]) as sim:
        assert asyncio.run(doctor.who_answers(int(sim.url.rpartition(":")[2]))) == "other"


def test_ports_where_this_process_does_not_serve(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert "problem  The bridge does not serve" in examine(url, tmp_path, serving=False)
    with server(b"Ollama is running") as port:
        report = examine(url, tmp_path, serving=None, listen=f"127.0.0.1:{port}")
    assert f"problem  An Ollama server answers on port {port}: stop it, or serve elsewhere" in report
    assert "is free.\n" in examine(url, tmp_path, serving=None)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line tool."""
    tool = Path(sys.executable).parent / "ollama-lmstudio-proxy"
    own = {"OLLAMA_API_KEY", "OLLAMA_ORIGINS", "LMSTUDIO_TOKEN", "LM_API_TOKEN"}
    inherited = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.run(
        [tool, "--doctor", *arguments], capture_output=True, text=True, timeout=30, env=inherited | environment
    )


def test_the_command_line_tool(tmp_path: Path) -> None:
    flags = ["--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{free_port()}"]
    with SimThread(models=models(), auth=[TOKEN]) as sim:
        well = run("--lmstudio_url", sim.url, *flags, LMSTUDIO_TOKEN=TOKEN)
        assert (well.returncode, well.stderr) == (0, "")
        assert "ok       LM Studio asks for a token, and accepts the one in lmstudio_token.\n" in well.stdout
        assert f"ok       {len(models())} models, none loaded.\n" in well.stdout
        ill = run(f"--lmstudio-url={sim.url}", *flags)
        assert ill.returncode == 1
        assert ill.stdout.startswith("problem  LM Studio asks for a token")


def test_the_command_line_tool_refuses_wrong_values() -> None:
    for given in (run("--listen", "x"), run(LMSTUDIO_TOKEN="ü")):
        assert given.returncode == 2
        assert "error: " in given.stderr


def test_a_bridge_that_runs_is_found(tmp_path: Path) -> None:
    with Proxy(f"http://127.0.0.1:{free_port()}", state_dir=tmp_path) as proxy:
        told = run("--listen", f"127.0.0.1:{proxy.port}")
    assert f"ok       The bridge answers on port {proxy.port}.\n" in told.stdout
