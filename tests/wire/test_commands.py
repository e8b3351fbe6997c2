"""The commands, as mitmweb's command bar runs them; and what the command line tool says of the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.wire.conftest import CHAT, EMBEDDER, HI, THINKING, Proxy, free_port, models, ndjson
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.inspect.commands import Commands
from ollama_lmstudio.sim import Sim, SimThread

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"
NAMES = [
    f"ollama.{name}"
    for name in ("aliases", "conversation", "doctor", "export", "models", "repeat", "stats", "unload", "view")
]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web, Sim]]:
    state, options = tmp_path_factory.mktemp("state"), {"lmstudio_token": TOKEN, "own_calls": "all"}
    with (
        SimThread(models=models(), auth={TOKEN}) as sim,
        mitmweb(sim.url, options=options, state_dir=state) as (proxy, web),
    ):
        yield proxy, web, sim


def run(web: Web, name: str, *arguments: str) -> list[str]:
    """Run a command; its value, which every interface shows line by line."""
    answer = web.command(name, *arguments)
    assert "error" not in answer, answer
    value: list[str] = answer["value"]
    assert all(isinstance(line, str) for line in value)
    return value


def read(web: Web, name: str, *arguments: str) -> list[str]:
    """Run a command; the lines that a person reads: what the command bar shows, or in the list what that points to."""
    before = {flow["id"] for flow in web.flows()}
    (said,) = run(web, name, *arguments)
    if "under (bridge) " not in said:
        return [said]
    label = f"(bridge) {name.partition('.')[2]}"
    assert said.endswith(f"under {label}")
    # A call of the bridge itself may have the same name.
    flow = web.flow(lambda flow: flow["id"] not in before and flow["request"]["host"] == name)
    assert flow["comment"].startswith(label)
    _, *lines = web.view(flow, "request").split("\n")
    assert web.view(flow, "response").split("\n")[1:] == lines
    return lines


def test_each_has_help(started: tuple[Proxy, Web, Sim]) -> None:
    _, web, _ = started
    known = web.http.get("/commands").json()
    assert sorted(name for name in known if name.startswith("ollama.")) == NAMES
    for name in NAMES:
        assert known[name]["help"].endswith(".")
        assert getattr(Commands, name.partition(".")[2]).__doc__


def test_models(started: tuple[Proxy, Web, Sim]) -> None:
    _, web, sim = started
    instance = sim.load(CHAT)
    run(web, "ollama.models")
    web._proxy.wait_for(lambda: any("loaded" in line for line in read(web, "ollama.models")))
    assert run(web, "ollama.models") == ["8 models: read it in the list, under (bridge) models"]
    lines = {line.partition(": ")[0]: line for line in read(web, "ollama.models")}
    assert lines[f"{CHAT}:latest"] == f"{CHAT}:latest: Q4_K_M 2.0 GB completion tools, loaded (131072 tokens)"
    assert "thinking" in lines[f"{THINKING}:latest"]
    assert "embedding" in lines[f"{EMBEDDER}:latest"]
    sim.unload(instance.id)


def test_aliases(started: tuple[Proxy, Web, Sim]) -> None:
    proxy, web, _ = started
    assert run(web, "ollama.aliases") == ["there are no aliases: `ollama cp MODEL NAME` makes one"]
    with proxy.client() as client:
        client.post("/api/create", json={"model": "terse", "from": CHAT, "system": "One word."}).raise_for_status()
        assert run(web, "ollama.aliases") == [f"terse:latest -> {CHAT} (system)"]
        assert any(line.startswith(f"terse:latest -> {CHAT}: ") for line in read(web, "ollama.models"))
        client.request("DELETE", "/api/delete", json={"model": "terse"}).raise_for_status()


def test_unload(started: tuple[Proxy, Web, Sim]) -> None:
    proxy, web, sim = started
    sim.load(CHAT)
    assert read(web, "ollama.unload", "Llama3.2:3b") == [f"{CHAT} is unloaded"]
    assert not sim.instances
    proxy.wait_for_log(f"{CHAT} is unloaded")
    assert read(web, "ollama.unload", "nosuch") == ["nosuch is not unloaded: model 'nosuch' not found"]
    proxy.wait_for_log("nosuch is not unloaded: model 'nosuch' not found")


def test_doctor(started: tuple[Proxy, Web, Sim]) -> None:
    proxy, web, sim = started
    lines = read(web, "ollama.doctor")
    assert f"answers at {sim.url}" in "\n".join(lines)
    assert not [line for line in lines if "problem" in line]
    proxy.wait_for_log("doctor: all is well")
    assert f"answers at {sim.url}" in proxy.log
    sim.fault(path="/api/v1/models", times=1, pre_error=(500, "application/json", '{"error":"out of order"}'))
    assert "problem: out of order" in read(web, "ollama.doctor")[1]
    proxy.wait_for_log("doctor: 1 problem\n")
    assert "doctor: problem: out of order" in proxy.log


@pytest.fixture(scope="module")
def exchanged(started: tuple[Proxy, Web, Sim]) -> str:
    """A chat to export; a filter that finds it."""
    proxy, web, _ = started
    with proxy.client(headers={"Authorization": "Bearer clients-own"}) as client:
        ndjson(client.post("/api/chat", json={"model": CHAT, "messages": HI}))
    web.flow(lambda flow: flow["comment"].startswith(f'"hi"  {CHAT}  '))
    return f"~comment '^.hi.  {CHAT}  '"


@pytest.mark.parametrize("suffix", ["md", "jsonl", "sh"])
def test_export(started: tuple[Proxy, Web, Sim], exchanged: str, tmp_path: Path, suffix: str) -> None:
    _, web, _ = started
    path = tmp_path / f"out.{suffix}"
    assert run(web, "ollama.export", exchanged, str(path)) == [f"1 of 1 exchanges are in {path}"]
    text = path.read_text(encoding="utf-8")
    assert "You said: hi" in text or suffix == "sh"
    for secret in (TOKEN, "clients-own", "***"):
        assert secret not in text
    if suffix == "jsonl":
        assert json.loads(text)["messages"] == [*HI, {"role": "assistant", "content": "You said: hi"}]
    if suffix == "sh":
        command = text.replace("http://localhost:", "http://127.0.0.1:")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=20)
        assert json.loads(done.stdout.splitlines()[-1])["done"] is True


def test_export_loses_nothing(started: tuple[Proxy, Web, Sim], exchanged: str, tmp_path: Path) -> None:
    _, web, _ = started
    path = tmp_path / "out.jsonl"
    run(web, "ollama.export", exchanged, str(path))
    before = path.read_text(encoding="utf-8")
    assert web.command("ollama.export", exchanged, str(path)) == {
        "error": f"{path} is there already: to add to it, give +{path}"
    }
    assert path.read_text(encoding="utf-8") == before
    run(web, "ollama.export", exchanged, f"+{path}")
    assert path.read_text(encoding="utf-8") == before * 2
    assert "should end with one of" in web.command("ollama.export", exchanged, str(tmp_path / "x.pdf"))["error"]
    assert "cannot be written" in web.command("ollama.export", exchanged, str(tmp_path / "no" / "x.md"))["error"]


def test_export_says_what_it_leaves_out(started: tuple[Proxy, Web, Sim], exchanged: str, tmp_path: Path) -> None:
    _, web, _ = started
    path = tmp_path / "out.jsonl"
    written, *left_out = run(web, "ollama.export", "~all", str(path))
    assert f"exchanges are in {path}" in written
    assert any(line.endswith("left out: it is no conversation") for line in left_out)
    assert run(web, "ollama.export", "~marker :gear:", str(tmp_path / "own.sh"))[0] == "nothing was written"
    assert not (tmp_path / "own.sh").exists()


def diagnose(*arguments: str, environment: dict[str, str] | None = None) -> Any:
    tool = Path(sys.executable).parent / "ollama-lmstudio-proxy"
    command = [str(tool), "--doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_command_line_tool_says_the_same(started: tuple[Proxy, Web, Sim], tmp_path: Path) -> None:
    _, _, sim = started
    common = ("--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{free_port()}")
    done = diagnose("--lmstudio-url", sim.url, "--lmstudio-token", TOKEN, *common)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"answers at {sim.url}" in done.stdout
    done = diagnose("--lmstudio-url", f"http://127.0.0.1:{free_port()}", *common)
    assert done.returncode == 1
    assert "problem: LM Studio is not reachable" in done.stdout
    assert diagnose("--listen", "nowhere").returncode == 2


@pytest.mark.parametrize("given", [{}, {"api_key": "k"}])
def test_a_bridge_that_serves_is_known(given: dict[str, str], tmp_path: Path) -> None:
    with Proxy(f"http://127.0.0.1:{free_port()}", options=given, state_dir=tmp_path) as proxy:
        done = diagnose("--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{proxy.port}")
    assert f"ok: port {proxy.port} is this bridge's already" in done.stdout
