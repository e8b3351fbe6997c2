"""What the doctor sees: real ports, a real stand-in for LM Studio."""

from __future__ import annotations

import asyncio
import http.server
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.wire.conftest import free_port

from ollama_lmstudio import container, options
from ollama_lmstudio.inspect import doctor
from ollama_lmstudio.inspect.doctor import Finding
from ollama_lmstudio.internals import presence
from ollama_lmstudio.internals.presence import Presence
from ollama_lmstudio.keys import NOBODY, Keyring
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.services import Services
from ollama_lmstudio.sim import SimModel, SimThread
from ollama_lmstudio.state.aliases import Alias, AliasStore
from ollama_lmstudio.translate.names import Resolver

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"


def examine(
    url: str,
    state_dir: Path | str,
    *,
    serving: bool | None = None,
    aliases: Mapping[str, Alias] | None = None,
    **changed: Any,
) -> list[Finding]:
    # What listens on Ollama's port of this machine does not matter.
    defaults = {option.name: option.default for option in options.OPTIONS} | {"listen": f"0.0.0.0:{free_port()}"}
    settings = options.parse(defaults | {"lmstudio_url": url, "state_dir": str(state_dir)} | changed)

    async def look() -> list[Finding]:
        client = Client(url, settings.lmstudio_token or None)
        cache, store = CatalogCache(client, 300, Resolver), AliasStore(settings.state_dir.data)
        services = Services(settings, client, cache, store, keys=Keyring(settings.api_keys))
        if aliases:
            services.aliases.change(lambda kept: kept.update(aliases))
        try:
            return await doctor.examine(services, serving=serving)
        finally:
            await client.aclose()

    return asyncio.run(look())


def told(found: list[Finding], verdict: str) -> str:
    return "\n".join(finding.text for finding in found if finding.verdict == verdict)


@contextmanager
def server(answers: dict[str, bytes]) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path, b"")
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


def answering(monkeypatch: pytest.MonkeyPatch, **who: Presence) -> None:
    """Say who answers at the addresses of this machine; nobody does at others."""

    async def at(host: str, port: int) -> Presence:
        return who.get("v6" if ":" in host else "v4", Presence.NOBODY)

    monkeypatch.setattr(presence, "at", at)


def test_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, v4=Presence.THIS)
    with SimThread(models=[SimModel("m", loaded=True), SimModel("n")], auth={TOKEN}) as sim:
        found = examine(sim.url, tmp_path, lmstudio_token=TOKEN, listen="127.0.0.1:1", serving=True)
    assert told(found, "problem") == ""
    assert f"LM Studio 0.4.0 or newer answers at {sim.url}" in told(found, "ok")
    assert "it lists 2 models" in told(found, "ok")
    assert "loaded: m" in told(found, "note")
    assert "it asks for a token, and takes the one in lmstudio_token" in told(found, "ok")
    assert "this machine only" in told(found, "ok")
    assert f"{tmp_path} can be written" in told(found, "ok")
    assert TOKEN not in "\n".join(map(str, found))


def test_lmstudio_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setattr(container, "MARKS", [mark])
    found = examine("http://127.0.0.1:9", tmp_path)
    assert "not reachable at http://127.0.0.1:9" in told(found, "problem")
    assert "set api_key" in told(found, "note")
    mark.touch()
    assert container.NO_KEY in told(examine("http://127.0.0.1:9", tmp_path), "note")


def test_named_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("alice=sk-1\n", newline="")
    file.chmod(0o666)
    found = examine("http://127.0.0.1:9", tmp_path, api_keys=["bob=sk-2", str(file)])
    assert "asks for a key, one of api_keys: bob, alice" in told(found, "ok")
    assert "everybody" not in told(found, "note")
    if os.name == "posix":
        assert f"others on this machine may read or change {file}" in told(found, "note")
    file.write_text("", newline="")
    assert NOBODY in told(examine("http://127.0.0.1:9", tmp_path, api_keys=[str(file)]), "problem")


def test_a_token_that_is_missing_or_not_needed(tmp_path: Path) -> None:
    with SimThread(models=[SimModel("m")], auth={TOKEN}) as sim:
        assert told(examine(sim.url, tmp_path), "problem") == "LM Studio asks for a token: set lmstudio_token"
    with SimThread(models=[SimModel("m")]) as sim:
        assert "it asks for no token" in told(examine(sim.url, tmp_path), "ok")
        found = examine(sim.url, tmp_path, lmstudio_token=TOKEN)
        assert "the one in lmstudio_token is not needed" in told(found, "note")


def test_an_alias_whose_model_is_gone(tmp_path: Path) -> None:
    aliases = {"a": Alias("terse:latest", "m", 0, 0), "b": Alias("lost:latest", "gone", 0, 0)}
    with SimThread(models=[SimModel("m")]) as sim:
        found = examine(sim.url, tmp_path, aliases=aliases)
    assert "it does not have gone, which the alias lost:latest stands for" in told(found, "note")
    assert "terse" not in told(found, "note")


def test_lmstudio_url_is_the_bridge_itself(tmp_path: Path) -> None:
    found = examine("http://localhost:11499", tmp_path, listen="0.0.0.0:11499")
    assert "lmstudio_url is this bridge's own address, http://localhost:11499" in told(found, "problem")


def test_a_token_that_is_refused(tmp_path: Path) -> None:
    with SimThread(models=[SimModel("m")], auth={TOKEN}) as sim:
        found = examine(sim.url, tmp_path, lmstudio_token="sk-lm-abcdefgh:00000000000000000000")
    assert "check the option lmstudio_token" in told(found, "problem")
    assert "0000" not in "\n".join(map(str, found))


@pytest.mark.parametrize(
    ("answers", "verdict", "text"),
    [
        ({"/": b"Ollama is running"}, "problem", "taken by an Ollama server"),
        ({"/": b"Ollama is running", "/health": b'{"proxy_version":"1"}'}, "ok", "this bridge's already"),
        ({"/health": b'{"error":"unauthorized"}'}, "ok", "this bridge's already"),
        (
            {"/health": b'{"error":{"message":"An LM Studio API token is required"}}'},
            "problem",
            "taken by another program",
        ),
        ({"/": b"hello"}, "problem", "taken by another program"),
    ],
)
def test_who_has_the_port(answers: dict[str, bytes], verdict: str, text: str, tmp_path: Path) -> None:
    with server(answers) as port:
        found = examine("http://127.0.0.1:9", tmp_path, listen=f"127.0.0.1:{port}")
    assert f"port {port} is {text}" in told(found, verdict)


def test_a_port_that_is_free(tmp_path: Path) -> None:
    with server({}) as port:
        pass
    assert f"port {port} is free" in told(examine("http://127.0.0.1:9", tmp_path, listen=f"127.0.0.1:{port}"), "ok")


def test_a_port_that_should_be_served(tmp_path: Path) -> None:
    with server({}) as port:
        pass
    found = examine("http://127.0.0.1:9", tmp_path, listen=f"127.0.0.1:{port}", serving=False)
    assert f"port {port} is not served: the log says why" in told(found, "problem")


def test_the_doctor_of_a_process_that_serves_asks_its_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, v4=Presence.THIS, v6=Presence.THIS)
    found = examine("http://127.0.0.1:9", tmp_path, listen="[::]:11499", serving=True)
    assert "port 11499 is served by this process" in told(found, "ok")
    assert "11499" not in told(found, "problem")
    # Its sockets are open, and nobody gets there.
    answering(monkeypatch)
    found = examine("http://127.0.0.1:9", tmp_path, listen="0.0.0.0:11499", serving=True)
    assert "port 11499 is not reached: nobody answers at 127.0.0.1:11499" in told(found, "problem")


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ({"/": b"Ollama is running"}, "taken by an Ollama server"),
        ({"/": b"Ollama is running", "/health": b'{"proxy_version":"1"}'}, "taken by another bridge: stop it"),
        ({"/": b"hello"}, "taken by another program"),
    ],
)
def test_another_program_has_the_port_that_is_served(
    answers: dict[str, bytes], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a system lets one program listen on 0.0.0.0 and another on 127.0.0.1."""
    answering(monkeypatch, v4=Presence.ANOTHER)
    with server(answers) as port:
        for listen in (f"0.0.0.0:{port}", f"[::1]:{port}"):
            found = examine("http://127.0.0.1:9", tmp_path, listen=listen, serving=True)
            assert f"127.0.0.1:{port} is {text}" in told(found, "problem")
        found = examine("http://127.0.0.1:9", tmp_path, listen=f"192.0.2.1:{port}", serving=True)
        assert "127.0.0.1" not in told(found, "problem").replace("http://127.0.0.1:9", "")


def test_another_program_has_the_port_of_the_other_loopback_address(tmp_path: Path) -> None:
    with server({"/": b"Ollama is running"}) as port:
        found = examine("http://127.0.0.1:9", tmp_path, listen=f"[::1]:{port}")
    assert f"port {port} is free" in told(found, "ok")
    assert f"127.0.0.1:{port} is taken by an Ollama server" in told(found, "problem")


def test_a_refusal_that_takes_two_seconds_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows tries a connection that is refused again and again."""

    async def refuse(*_: Any) -> None:
        await asyncio.sleep(2)
        raise ConnectionRefusedError(10061, "the target machine actively refused it")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refuse)
    found = examine("http://127.0.0.1:9", tmp_path, listen="127.0.0.1:11499")
    assert "port 11499 is free" in told(found, "ok")
    assert "LM Studio is not reachable at http://127.0.0.1:9" in told(found, "problem")


def test_nothing_is_made(tmp_path: Path) -> None:
    found = examine("http://127.0.0.1:9", tmp_path / "a" / "state")
    assert f"{tmp_path / 'a' / 'state'} can be written" in told(found, "ok")
    assert not list(tmp_path.iterdir())


def test_the_directories_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is moved by looking."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    former = tmp_path / "cache" / "ollama-lmstudio-proxy"
    AliasStore(former).change(lambda kept: kept.update(a=Alias("a", "m", 1, 1)))
    before = sorted(tmp_path.rglob("*"))
    found = examine("http://127.0.0.1:9", "")
    assert f"the directory of aliases {tmp_path / 'data' / former.name} can be written" in told(found, "ok")
    assert f"the directory of uploaded files {former} can be written" in told(found, "ok")
    assert f"aliases are still in {former}: the bridge moves them when it starts" in told(found, "note")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_state_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "state"):
        found = examine("http://127.0.0.1:9", directory)
        assert f"{directory} cannot be written" in told(found, "problem")


@pytest.mark.parametrize(
    ("sim_version", "text"),
    [
        ("0.4.25", "0.4.22 or newer"),
        ("0.4.0", "0.4.0 or newer"),
        ("0.3.30", "0.3.16 or newer"),
        ("0.3.10", "0.3.6 or newer"),
        ("0.3.5", "before 0.3.6"),
    ],
)
def test_the_version_of_lmstudio(sim_version: str, text: str, tmp_path: Path) -> None:
    with SimThread(models=[SimModel("m")], version=sim_version) as sim:
        if sim_version == "0.4.25":
            asyncio.run(_ask(sim.url))
        assert f"LM Studio {text}" in told(examine(sim.url, tmp_path), "ok")


async def _ask(url: str) -> None:
    client = Client(url)
    await client.post("/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    await client.aclose()
