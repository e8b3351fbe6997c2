"""Each of the ready configurations, started with the command line tool and with mitmproxy's own."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.wire.conftest import CHAT, HI, ROOT, Proxy, free_port, models, read_flows
from tests.wire.web import Web

from ollama_lmstudio.sim import Sim, SimThread

CONFIGS = ROOT / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
LISTEN = re.compile(r"^listen: (.*):11434$", re.MULTILINE)


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    with SimThread(models=models()) as sim:
        yield sim


def start(name: str, upstream: str, home: Path, *arguments: str, tool: str = "", own: bool = True) -> Proxy:
    """Start what a configuration is for, on another port: `own` with the command line tool."""
    # Where `~` is: on Windows it is the second.
    proxy = Proxy(None, environment={"HOME": str(home), "USERPROFILE": str(home)})
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    host = LISTEN.search(text)
    assert host is not None
    if own:
        flags = ["--config", name, "--listen", f"{host[1]}:{proxy.port}"]
        flags += ["--web"] if tool == "mitmweb" else []
        proxy.command = [str(Path(proxy.command[0]).parent / "ollama-lmstudio-proxy"), *flags]
    else:
        confdir = home / ".mitmproxy"
        confdir.mkdir()
        config = LISTEN.sub(rf"listen: \1:{proxy.port}", text).replace("http://localhost:1234", upstream)
        (confdir / "config.yaml").write_text(config, encoding="utf-8")
        proxy.command = [str(Path(proxy.command[0]).parent / (tool or "mitmdump")), "-s", str(ROOT / "addon/ollama.py")]
    url = [] if "lmstudio_url" in text and not own else ["--set", f"lmstudio_url={upstream}"]
    proxy.command = [*proxy.command, *url, "--set", f"state_dir={home / 'state'}", *arguments]
    return proxy


both = pytest.mark.parametrize("own", [True, False], ids=["own", "mitmproxy"])


def test_every_configuration_is_tested_and_told() -> None:
    assert NAMES == ["debug", "lan", "local", "record", "replay"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
        assert f"--config {name}" in text
        assert f"| `{name}` |" in readme


@both
def test_local(lmstudio: Sim, tmp_path: Path, own: bool) -> None:
    with start("local", lmstudio.url, tmp_path, own=own) as proxy, proxy.client() as client:
        assert client.post("/api/chat", json={"model": CHAT, "messages": HI}).status_code == 200
        assert "everybody on this network" not in proxy.log
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((_own_address(), proxy.port), timeout=5).close()


def _own_address() -> str:
    """Give an address of this machine that is not the one that is served on."""
    return "127.0.0.2"


@both
def test_lan(lmstudio: Sim, tmp_path: Path, own: bool) -> None:
    with start("lan", lmstudio.url, tmp_path, own=own) as proxy, proxy.client() as client:
        assert client.get("/api/tags").status_code == 401
        assert client.get("/api/tags", headers={"Authorization": "Bearer change-me"}).status_code == 200
        socket.create_connection((_own_address(), proxy.port), timeout=5).close()
        assert "change-me" not in proxy.log


@both
def test_debug(lmstudio: Sim, tmp_path: Path, own: bool) -> None:
    proxy = start("debug", lmstudio.url, tmp_path, *Web.arguments(), tool="mitmweb", own=own)
    with proxy, proxy.client() as client:
        web = Web(proxy)
        assert client.post("/api/chat", json={"model": CHAT, "messages": HI}).status_code == 200
        flow = web.flow(lambda flow: flow["request"]["path"] == "/v1/chat/completions" and flow["comment"])
        assert CHAT in flow["comment"]
        assert "comment" in web.http.get("/options").json()["web_columns"]["value"]
        web.http.close()


@both
def test_record(lmstudio: Sim, tmp_path: Path, own: bool) -> None:
    with start("record", lmstudio.url, tmp_path, own=own) as proxy, proxy.client() as client:
        client.get("/api/tags")
        client.get("/api/version")
        for text in ("hi", "What does GET /api/version tell?\nollama_path: /api/version\n"):
            body = {"model": CHAT, "messages": [{"role": "user", "content": text}]}
            assert client.post("/api/chat", json=body).status_code == 200
    (file,) = (tmp_path / "ollama-recordings").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.mitm", file.name)
    paths = [flow.metadata["ollama_path"] for flow in read_flows(file)]
    assert paths.count("/api/chat") == 2
    assert "/api/tags" in paths
    assert not {"/", "/api/version"} & set(paths)


@both
def test_replay(lmstudio: Sim, tmp_path: Path, own: bool) -> None:
    recording = tmp_path / "flows"
    with Proxy(lmstudio.url, "-w", str(recording), state_dir=tmp_path) as proxy, proxy.client() as client:
        recorded = client.post("/api/chat", json={"model": CHAT, "messages": HI})
    nowhere = f"http://127.0.0.1:{free_port()}"
    with (
        start("replay", nowhere, tmp_path, "--server-replay", str(recording), own=own) as proxy,
        proxy.client() as client,
    ):
        for _ in range(2):
            assert client.post("/api/chat", json={"model": CHAT, "messages": HI}).text == recorded.text


def test_no_key_of_mitmproxys_is_in_the_checkout() -> None:
    assert not list(CONFIGS.glob("mitmproxy-*"))
    assert shutil.which("git") is None or not list(ROOT.glob("*/mitmproxy-ca*"))
