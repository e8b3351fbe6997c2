"""Consoles and pipes that do not have every character, as Windows' in the West, and processes without any."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import HI, Proxy, StartProxy, free_port

from ollama_lmstudio.sim import SimModel, SimThread

# What the variables of Python itself say is heeded at the start of a process only.
pytestmark = pytest.mark.usefixtures("started_anew")

CHINESE = "qwen/通义千问-7b"
EMOJI = "llama-🦙-3b"
FAULTS = ("Traceback", "UnicodeEncodeError", "Logging error")


def encoding(name: str) -> dict[str, str]:
    """Give the environment in which Python writes in an encoding."""
    return {"PYTHONIOENCODING": name, "PYTHONUTF8": "0"}


def run(*arguments: str, environment: dict[str, str], shell: str = "") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ollama_lmstudio", *arguments]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.run(command, capture_output=True, timeout=60, env={**os.environ, **environment}, check=False)


def test_any_text_is_printed(start_proxy: StartProxy) -> None:
    with SimThread(models=[SimModel(CHINESE), SimModel(EMOJI)]) as sim:
        proxy = start_proxy(sim.url, environment=encoding("cp1252"))

        def chat(model: Any) -> int:
            with proxy.client() as client:
                # JSON's escapes may hold half of a surrogate pair.
                body = json.dumps({"model": model, "messages": HI, "stream": False})
                return client.post("/api/chat", content=body).status_code

        # Whether these are names that Ollama takes is not the matter here.
        assert {chat(model) for model in (CHINESE, EMOJI, "无此模型", "\ud83e")} <= {200, 400, 404}
        proxy.wait_for_log(r"\?{4}-7b")
        proxy.wait_for_log(r"llama-\?-3b")
    assert proxy.process.poll() is None
    assert not [fault for fault in FAULTS if fault in proxy.log]


@pytest.mark.parametrize("name", ["cp1252", "ascii"])
def test_the_doctor_prints_any_name(name: str, tmp_path: Path) -> None:
    with SimThread(models=[SimModel(CHINESE, loaded=True), SimModel(EMOJI)]) as sim:
        common = ("--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{free_port()}", "--lmstudio-url", sim.url)
        done = run("--doctor", *common, environment=encoding(name))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"loaded: qwen/????-7b" in done.stdout


def test_help_and_errors_are_printed() -> None:
    for arguments, status in ((["--help"], 0), (["--version"], 0), (["--listen", "🦙"], 2), (["--listne", "模"], 2)):
        done = run(*arguments, environment=encoding("ascii"))
        assert done.returncode == status
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no shell that closes the streams")
def test_a_process_without_streams_serves(tmp_path: Path) -> None:
    assert run("--version", environment={}, shell=">&- 2>&-").returncode == 0
    proxy = Proxy(None, state_dir=tmp_path)
    arguments = ["--demo", "--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{proxy.port}"]
    command = [sys.executable, "-m", "ollama_lmstudio", *arguments]
    with subprocess.Popen(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], text=True) as proxy.process:
        try:
            proxy.wait_for(proxy.answers)
            with proxy.client() as client:
                model = client.get("/api/tags").json()["models"][0]["name"]
                answer = client.post("/api/chat", json={"model": model, "messages": HI, "stream": False})
            assert answer.status_code == httpx.codes.OK
        finally:
            proxy.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 20
        while proxy.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert proxy.process.poll() is not None
