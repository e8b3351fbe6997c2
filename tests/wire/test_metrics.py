"""/metrics of a real process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.wire.conftest import CHAT, HI, Proxy, StartProxy

from ollama_lmstudio.sim import Sim

pytest.importorskip("prometheus_client", reason="the library of the extra `metrics` is not installed")

KEY = "sk-alice-1f6b"


def samples(text: str) -> dict[str, float]:
    """Give what is told of the bridge, without its prefix."""
    found = re.findall(r"^ollama_lmstudio_(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_what_is_asked_is_counted(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url, options={"api_keys": f"alice={KEY}", "metrics": "local"})

    def told() -> dict[str, float]:
        with proxy.client(headers={"x-api-key": KEY}) as client:
            return samples(client.get("/metrics").raise_for_status().text)

    with proxy.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        before = client.get("/metrics")
        assert before.headers["content-type"].startswith("text/plain; version=")
        client.post("/api/chat", json={"model": CHAT, "messages": HI}).raise_for_status()
        client.post("/v1/chat/completions", json={"model": CHAT, "messages": HI}).raise_for_status()
        assert client.post("/api/chat", json={"model": "made-up", "messages": HI}).status_code == 404
        assert client.get("/no/such/path").status_code == 404
        sim.set(token_delay=0.5)
        with client.stream("POST", "/api/chat", json={"model": CHAT, "messages": HI}) as stream:
            lines = stream.iter_lines()
            next(lines)
            under_way = told()
            assert (under_way["streams_in_progress"], under_way["upstream_requests_in_progress"]) == (1, 1)
            sim.set(token_delay=0.0)
            assert len([*lines]) > 1
        proxy.wait_for(lambda: told()["streams_in_progress"] == 0)
    with proxy.client() as client:
        assert client.get("/metrics").status_code == 401
    found = told()
    labels = f'endpoint="/api/chat",key="alice",model="{CHAT}",status="200"'
    assert found[f"requests_total{{{labels}}}"] == 2
    assert found[f"requests_total{{{labels.replace('/api/chat', '/v1/chat/completions')}}}"] == 1
    assert found['requests_total{endpoint="/api/chat",key="alice",model="",status="404"}'] == 1
    assert found['requests_total{endpoint="(other)",key="alice",model="",status="404"}'] == 1
    assert found['requests_total{endpoint="/metrics",key="",model="",status="401"}'] == 1
    # Of what came at once, as one object on /v1, no first token is known.
    assert found[f'first_token_seconds_count{{model="{CHAT}"}}'] == 2
    assert found[f'answer_tokens_total{{key="alice",model="{CHAT}"}}'] > 3
    assert found['upstream_errors_total{reason="no_answer",source="bridge"}'] == 0
    assert "made-up" not in str(found)
    assert KEY not in str(found)
    # Whoever polls it does not fill the terminal: only what is not as before has a line.
    proxy.wait_for(lambda: re.findall(r"/metrics +(\d+)", proxy.log) == ["401", "200"])
    _check_with_promtool(proxy)


def _check_with_promtool(proxy: Proxy) -> None:
    """Have Prometheus' own tool look at names, units and help, where it is installed."""
    if (promtool := shutil.which("promtool")) is None:
        return
    with proxy.client(headers={"x-api-key": KEY}) as client:
        text = client.get("/metrics").text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_errors_of_lmstudio_and_a_script_that_is_loaded_anew(start_proxy: StartProxy, tmp_path: Path) -> None:
    script = tmp_path / "ollama.py"
    addon = Path(__file__).parents[2] / "addon"
    source = (addon / "ollama.py").read_text(encoding="utf-8").partition("from __future__ import annotations")[2]
    script.write_text(f"import sys\nsys.path.insert(0, {str(addon)!r})\n{source}", encoding="utf-8", newline="")
    proxy = start_proxy("http://127.0.0.1:9", options={"metrics": "network"}, script=script)
    with proxy.client(headers={"x-forwarded-for": "192.0.2.1"}) as client:

        def failed() -> float:
            found = samples(client.get("/metrics").raise_for_status().text)
            return found['upstream_errors_total{reason="no_answer",source="bridge"}']

        for _ in range(3):
            assert client.post("/api/chat", json={"model": CHAT, "messages": HI}).status_code == 503
        before = failed()
        assert before >= 3
        os.utime(script, (later := time.time() + 5, later))
        # A registry of its own: what the new code counts begins anew, and no name is there twice.
        proxy.wait_for(lambda: failed() < before)
    assert "Traceback" not in proxy.log
