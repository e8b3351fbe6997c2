"""The binary: built by PyInstaller in an environment of its own, and driven as those do who have nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.clients.environments import PythonClient
from tests.wire.conftest import CHAT, HI, ROOT, START_SECONDS, Proxy, content_of, free_port, ndjson

from ollama_lmstudio import __version__

pytestmark = pytest.mark.binary

BUILD_SECONDS = 900
END_SECONDS = 20
# What the binary is built of is what the other tests run on.
PACKAGES = ("mitmproxy", "httpx", "pydantic", "platformdirs", "h11", "tornado", "pillow")
SPEC = ROOT / ".github" / "ollama-lmstudio-proxy.spec"


class Builder(PythonClient):
    """An environment with PyInstaller."""

    def build(self, work: Path) -> Path:
        """Build the binary; return its path."""
        python = self.command(self.installed(), work)[0]
        folders = ("--distpath", str(work / "dist"), "--workpath", str(work / "work"))
        command = [python, "-I", "-m", "PyInstaller", "--noconfirm", *folders, str(SPEC)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, cwd=work, env=environment)
        assert done.returncode == 0, done.stderr[-5000:]
        (built,) = (work / "dist").iterdir()
        return built


@pytest.fixture(scope="session")
def binary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binary, built once for all of these tests; or the one that `--binary PATH` names."""
    given: str | None = request.config.getoption("--binary")
    if given is None:
        pytest.skip("it takes minutes to build: --binary build builds and tests it, --binary PATH tests that")
    if given != "build":
        return Path(given).resolve()
    packages = (f"{name}=={metadata.version(name)}" for name in PACKAGES)
    return Builder("", ("pyinstaller==6.22.3", *packages)).build(tmp_path_factory.mktemp("binary"))


class Serving(Proxy):
    """A process of the binary, with the stand-in and a state directory; what it unpacks goes to `temporary`."""

    def __init__(self, binary: Path, work: Path, *arguments: str) -> None:
        super().__init__(None)
        self.temporary = work / "temporary"
        self.temporary.mkdir(exist_ok=True)
        self.environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))
        listen = ("--listen", f"127.0.0.1:{self.port}")
        self.command = [str(binary), "--demo", *listen, "--state-dir", str(work / "state"), *arguments]


def run(binary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the binary to its end."""
    return subprocess.run([str(binary), *arguments], capture_output=True, text=True, timeout=START_SECONDS)


def names(client: httpx.Client) -> list[str]:
    """Return the names of the models that are listed."""
    listed: Any = client.get("/api/tags").json()
    return [model["name"] for model in listed["models"]]


def test_it_says_what_it_is_made_of(binary: Path) -> None:
    told = run(binary, "--version")
    lines = told.stdout.splitlines()
    assert (told.returncode, told.stderr) == (0, "")
    assert lines[0] == f"ollama-lmstudio-proxy {__version__}"
    for name in ("mitmproxy", "Python", "tornado", "cryptography", "mitmproxy_rs", "pyinstaller"):
        assert any(line.startswith(f"  {name} ") for line in lines), name
    assert "readline" not in told.stdout
    texts = run(binary, "--licenses").stdout
    assert "Permission is hereby granted" in texts
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in texts
    assert "markdown-it " in texts


def test_it_says_its_flags(binary: Path) -> None:
    told = run(binary, "--help")
    assert told.returncode == 0
    assert "--lmstudio-url" in told.stdout


def test_the_doctor_comes(binary: Path) -> None:
    told = run(binary, "--doctor", "--listen", f"127.0.0.1:{free_port()}", "--lmstudio-url", "http://127.0.0.1:9")
    assert told.returncode == 1
    assert f"ollama-lmstudio-proxy {__version__}" in told.stdout
    assert "Traceback" not in told.stdout + told.stderr


def test_chats_and_aliases(binary: Path, tmp_path: Path) -> None:
    with Serving(binary, tmp_path) as proxy, proxy.client() as client:
        assert f"{CHAT}:latest" in names(client)
        lines = ndjson(client.post("/api/chat", json={"model": CHAT, "messages": HI}))
        assert content_of(lines)
        assert lines[-1]["done"] is True
        assert client.post("/api/copy", json={"source": CHAT, "destination": "mine"}).status_code == 200
    assert "Traceback" not in proxy.log
    with Serving(binary, tmp_path) as proxy, proxy.client() as client:
        assert "mine:latest" in names(client)


def test_the_page_of_mitmweb(binary: Path, tmp_path: Path) -> None:
    port = free_port()
    with Serving(binary, tmp_path, "--web", "--set", "web_open_browser=false", "--web-port", str(port)) as proxy:
        page = proxy.wait_for_log(rf"http://127\.0\.0\.1:{port}/\S*")
        with httpx.Client(trust_env=False) as browser:
            assert browser.get(f"http://127.0.0.1:{port}/flows").status_code == 403
            answer = browser.get(page)
            assert answer.status_code == 200
            scripts = [part.partition('"')[0] for part in answer.text.split('src="')[1:]]
            assert scripts
            for script in scripts:
                assert browser.get(httpx.URL(page).join(script)).status_code == 200, script
            for name in ("", "static/main.js", "static/vendor/markdown-it/markdown-it.js"):
                assert browser.get(httpx.URL(page).join(f"/ollama/{name}")).status_code == 200, name


def test_ctrl_c_ends_it_and_leaves_nothing(binary: Path, tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("there is no Ctrl-C to send")
    proxy = Serving(binary, tmp_path)
    # A terminal sends the signal to each of its processes: to what unpacks, and to what serves.
    proxy.command = [
        sys.executable,
        "-c",
        "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])",
        *proxy.command,
    ]
    proxy.start()
    assert list(proxy.temporary.glob("_MEI*"))
    os.killpg(proxy.process.pid, signal.SIGINT)
    # What unpacks passes the signal on, so that it comes twice; the second may come when Python is at its end.
    assert proxy.process.wait(END_SECONDS) in (0, -signal.SIGINT)
    assert "Traceback" not in proxy.log
    assert not list(proxy.temporary.iterdir())
