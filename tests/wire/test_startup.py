"""Starting, reloading and ending a real mitmdump or mitmweb with the addon."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.strict.reader import marked
from tests.wire.conftest import (
    CHAT,
    EMBEDDER,
    HI,
    ROOT,
    START_SECONDS,
    Proxy,
    StartProxy,
    content_of,
    free_port,
    models,
    ndjson,
    needs_ipv6,
    needs_sigterm,
    post_bytes,
    served,
)

from ollama_lmstudio import lazy
from ollama_lmstudio.sim import Sim, SimThread, content, wait


def chat(proxy: Proxy) -> str:
    """Have a chat; give the answer's text."""
    with proxy.client() as client:
        return content_of(ndjson(client.post("/api/chat", json={"model": CHAT, "messages": HI})))


@contextlib.contextmanager
def taken(port: int, answer: bytes | None = None, host: str = "127.0.0.1") -> Iterator[None]:
    """Take a port of this machine, if nobody has it; what listens gives one answer to every GET, if any."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            pass

    if answer is None:
        with socket.socket() as sock:
            # That somebody else has it is just as well.
            with contextlib.suppress(OSError):
                sock.bind(("0.0.0.0", port))
                sock.listen()
            yield
        return

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with served(Server((host, port), Handler)):
        yield


def copy_of_addon(directory: Path) -> Path:
    """Copy the addon and give its script."""
    addon = directory / "addon"
    shutil.copytree(ROOT / "addon", addon, ignore=shutil.ignore_patterns("__pycache__"))
    return addon / "ollama.py"


def change(file: Path, old: str, new: str) -> None:
    """Change a file's text, and its time, also where that is coarse."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    touch(file)


def touch(file: Path) -> None:
    """Give a file a time it has not had."""
    later = file.stat().st_mtime + 2
    os.utime(file, (later, later))


# A script that says which modules are loaded when somebody asks for the version. Of those that are loaded when they are
# used, the class tells.
LOADED_MODULES = """\
import sys
from pathlib import Path

def response(flow):
    if flow.request.path != "/api/version":
        return
    classes = {name: object.__getattribute__(module, "__class__").__name__ for name, module in sys.modules.items()}
    loaded = [name for name, of_class in classes.items() if of_class != "_LazyModule"]
    Path(__file__).with_suffix(".txt").write_text("\\n".join(loaded))
"""


def loaded_modules(proxy: Proxy, script: Path) -> set[str]:
    """Give the modules that are loaded now: in the end, nobody is asked where Windows kills the process."""
    with proxy.client() as client:
        assert client.get("/api/version").status_code == 200
    return set(script.with_suffix(".txt").read_text().split())


# Where it serves


@pytest.mark.usefixtures("started_anew")
def test_the_script_alone_serves(sim: Sim) -> None:
    """No option but the port, which cannot be the usual one in a test; nor can LM Studio's."""
    with Proxy(None) as proxy:
        proxy.wait_for_log(r"serves Ollama's API in front of LM Studio at http://localhost:1234")
        with proxy.client() as client:
            assert client.get("/api/version").status_code == 200
        assert "Traceback" not in proxy.log
    with Proxy(sim.url) as proxy:
        assert chat(proxy) == "You said: hi"


def test_the_port_of_mitmproxy_is_taken(sim: Sim, start_proxy: StartProxy) -> None:
    with taken(8080):
        proxy = start_proxy(sim.url)
        proxy.wait_for_log(r"\(\d+ models\)")
        assert chat(proxy) == "You said: hi"
        assert "8080" not in proxy.log
        assert proxy.stop() == 0


def test_a_mode_given_by_the_user_wins(sim: Sim, start_proxy: StartProxy) -> None:
    port = free_port()
    proxy = start_proxy(
        None,
        "--mode",
        f"reverse:{sim.url}@127.0.0.1:{port}",
        options={"lmstudio_url": sim.url, "listen": f"0.0.0.0:{free_port()}"},
        wait=False,
    )
    listen, proxy.port, proxy.url = proxy.port, port, f"http://127.0.0.1:{port}"
    proxy.wait_for(proxy.answers)
    assert chat(proxy) == "You said: hi"
    assert "everybody on this network" not in proxy.log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listen), 1)


@needs_ipv6
@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ({"listen": "[::1]:{}"}, ["::1"]),
        ({"listen": "[::]:{}"}, ["::1", "127.0.0.1"]),
        ({"listen_host": "::", "listen_port": "{}"}, ["::1", "127.0.0.1"]),
        ({"listen": "[0:0:0:0:0:0:0:1]:{}"}, ["::1"]),
    ],
)
def test_ipv6(sim: Sim, start_proxy: StartProxy, settings: dict[str, str], hosts: list[str]) -> None:
    port = free_port()
    proxy = start_proxy(sim.url, options={name: text.format(port) for name, text in settings.items()}, wait=False)
    proxy.wait_for_log(r"\(\d+ models\)")
    for host in hosts:
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        with proxy.client(base_url=url) as client:
            assert client.get("/api/version").json().keys() == {"version"}
            body = {"model": CHAT, "messages": HI}
            assert content_of(ndjson(client.post("/api/chat", json=body))) == "You said: hi"
    if "127.0.0.1" not in hosts:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)
    assert "Traceback" not in proxy.log


@needs_ipv6
def test_ipv6_with_the_command_line_tool(sim: Sim, tmp_path: Path) -> None:
    proxy = Proxy(sim.url)
    given = ("--listen", f"[::1]:{proxy.port}", "--lmstudio-url", sim.url, "--state-dir", str(tmp_path))
    proxy.command = [sys.executable, "-m", "ollama_lmstudio", *given]
    proxy.url = f"http://[::1]:{proxy.port}"
    with proxy:
        assert chat(proxy) == "You said: hi"


class _SimAt(Sim):
    """A stand-in that serves on an address of choice."""

    at: tuple[str, int]

    async def start(self, host: str = "", port: int = 0, *, sock: socket.socket | None = None) -> None:
        await super().start(*self.at, sock=sock)


@contextlib.contextmanager
def sim_at(host: str, port: int) -> Iterator[Sim]:
    """Serve a stand-in on an address."""
    thread = SimThread()
    thread.sim = sim = _SimAt(models())
    sim.at = (host, port)
    with thread:
        yield sim


@needs_ipv6
def test_localhost_is_dialled_on_ipv4_first_and_then_on_ipv6(start_proxy: StartProxy) -> None:
    port = free_port()
    with sim_at("::1", port) as second:
        with sim_at("127.0.0.1", port) as first:
            proxy = start_proxy(f"http://localhost:{port}")
            proxy.wait_for_log(r"\(\d+ models\)")
            assert chat(proxy) == "You said: hi"
            assert {request.header("host") for request in first.requests} == {f"localhost:{port}"}
            assert not second.requests
        with proxy.client() as client:
            assert client.get("/health").status_code == 200
        assert chat(proxy) == "You said: hi"
        assert {"/api/v1/models", "/v1/chat/completions"} <= {request.path for request in second.requests}
        assert {request.header("host") for request in second.requests} == {f"localhost:{port}"}


@pytest.mark.parametrize("path", ["/v1", "/api/v1/", "/api/v0"])
def test_the_path_of_an_api_is_taken_off_lmstudios_address(sim: Sim, start_proxy: StartProxy, path: str) -> None:
    proxy = start_proxy(sim.url + path)
    proxy.wait_for_log(rf"LM Studio at {sim.url} (has answered )?\(\d+ models\)")
    with proxy.client() as client:
        assert client.get("/api/tags").json()["models"]
    assert chat(proxy) == "You said: hi"
    told = f"lmstudio_url is the address of LM Studio's server, without {path.rstrip('/')}: using {sim.url}"
    assert " ".join(proxy.log.split()).count(told) == 1


@needs_ipv6
def test_an_ipv6_address_that_is_taken(sim: Sim) -> None:
    proxy = Proxy(sim.url)
    proxy.command = [part.replace("listen=127.0.0.1", "listen=[::1]") for part in proxy.command]
    with taken(proxy.port, b"Ollama is running", "::1"):
        proxy.start(wait=False)
        assert proxy.process.wait(START_SECONDS) == 1
    proxy.wait_for_log(rf"An Ollama server, or another bridge.*--set listen=\[::1\]:{proxy.port + 1}")


def test_an_address_given_by_the_user_wins(sim: Sim, start_proxy: StartProxy) -> None:
    port = free_port()
    proxy = start_proxy(
        sim.url,
        *("-p", str(port), "--listen-host", "127.0.0.1"),
        options={"listen": f"0.0.0.0:{free_port()}"},
        wait=False,
    )
    listen, proxy.port, proxy.url = proxy.port, port, f"http://127.0.0.1:{port}"
    proxy.wait_for(proxy.answers)
    # Everything that is said of the address is said of this one.
    assert "everybody on this network" not in proxy.log
    assert chat(proxy) == "You said: hi"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listen), 1)


@pytest.mark.parametrize("is_ollama", [True, False])
def test_the_port_is_taken(sim: Sim, is_ollama: bool) -> None:
    proxy = Proxy(sim.url)
    with taken(proxy.port, b"Ollama is running" if is_ollama else b"something else"):
        proxy.start(wait=False)
        proxy.wait_for(lambda: proxy.process.poll() == 1)
        proxy.wait_for_log(rf":{proxy.port}\b.*address already in use")
    assert ("An Ollama server, or another bridge" in proxy.log) is is_ollama
    assert "Traceback" not in proxy.log


# Options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lmstudio_url", "ftp://x"),
        ("max_buffer_size", "3"),
        ("load_timeout_seconds", "soon"),
        ("enable_chunk_recovery", "maybe"),
    ],
)
def test_a_wrong_value(start_proxy: StartProxy, name: str, value: str) -> None:
    proxy = start_proxy(None, options={name: value}, wait=False)
    proxy.wait_for(lambda: proxy.process.poll() == 1)
    proxy.wait_for_log(rf"{name}: .*({value}|[Bb]oolean)")


def test_an_option_that_is_misspelt(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url, "--set", f"lmstudio_urll={sim.url}")
    proxy.wait_for_log("lmstudio_urll: there is no such option, did you mean lmstudio_url")


def test_variables(sim: Sim, start_proxy: StartProxy) -> None:
    sim.set(auth={"of-lmstudio"})
    environment = {
        "OLLAMA_API_KEY": "of-ollama",
        "LMSTUDIO_TOKEN": "of-lmstudio",
        "OLLAMA_ORIGINS": "http://a.b,http://c.d",
    }
    proxy = start_proxy(sim.url, environment=environment)
    with proxy.client() as client:
        assert client.get("/api/tags").status_code == 401
        for origin in ("http://a.b", "http://c.d"):
            response = client.get("/api/tags", headers={"Authorization": "Bearer of-ollama", "Origin": origin})
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == origin
    assert "of-lmstudio" not in proxy.log
    assert "of-ollama" not in proxy.log


def test_a_prefix_of_the_url(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(f"{sim.url}/under/")
    with proxy.client() as client:
        # The stand-in has nothing there; what counts is where it was asked.
        client.get("/v1/models")
        assert client.get("/api/tags").status_code == 502
    assert {request.path.split("/")[1] for request in sim.requests} == {"under"}
    assert "/under/v1/models" in {request.path for request in sim.requests}


# Life


def test_changed_code_is_loaded(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    script = copy_of_addon(tmp_path)
    package = script.parent / "ollama_lmstudio" / "endpoints" / "version.py"
    proxy = start_proxy(sim.url, script=script)

    def told() -> str:
        with proxy.client() as client, marked(foreign=True):
            return client.get("/").text

    assert told() == "Ollama is running"
    for text in ("First change", "Second change"):
        old = "Ollama is running" if text.startswith("First") else "First change"
        change(package, f'b"{old}"', f'b"{text}"')
        touch(script)
        proxy.wait_for(lambda text=text: told() == text, 10)  # type: ignore[misc]
        assert chat(proxy) == "You said: hi"
    assert "Traceback" not in proxy.log
    assert "rror" not in proxy.log


@pytest.mark.parametrize("ends", [False, pytest.param(True, marks=needs_sigterm)], ids=["mended", "ended"])
def test_a_script_that_is_loaded_anew_with_a_wrong_option_serves_nothing_until_it_is_right(
    sim: Sim, start_proxy: StartProxy, tmp_path: Path, ends: bool
) -> None:
    script, folder = copy_of_addon(tmp_path), tmp_path / "keys"
    folder.mkdir()
    (folder / "team").write_text("alice=sk-alice\n")
    proxy = start_proxy(sim.url, script=script, options={"api_keys": str(folder / "team")})
    proxy.wait_for_log(r"\(\d+ models\)")

    def status() -> int:
        with proxy.client(headers={"x-api-key": "sk-alice"}) as client:
            return client.get("/api/tags").status_code

    assert status() == 200
    folder.rename(tmp_path / "away")
    touch(script)
    proxy.wait_for_log("api_keys: entry 1 is neither NAME=KEY nor the path of a file")
    proxy.wait_for_log("an option that it cannot use: nothing is served until it can")

    def is_closed() -> bool:
        try:
            assert status() == 503
        except httpx.TransportError as e:
            return isinstance(e, httpx.ConnectError)
        return False

    proxy.wait_for(is_closed)
    if ends:
        proxy.process.send_signal(signal.SIGTERM)
        assert proxy.process.wait(20) == 0
        assert "has no attribute" not in proxy.log
        return
    (tmp_path / "away").rename(folder)
    touch(script)
    proxy.wait_for(proxy.answers)
    assert status() == 200
    # What is done with files goes on, too.
    (folder / "team").write_text("bob=sk-bob\n")
    proxy.wait_for(lambda: status() == 401)
    assert "has no attribute" not in proxy.log


@pytest.mark.parametrize("how", ["a script with an error", "no script"])
def test_without_the_script_nothing_is_served(sim: Sim, start_proxy: StartProxy, tmp_path: Path, how: str) -> None:
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script, options={"api_key": "key"})
    proxy.wait_for_log(r"\(\d+ models\)")
    with proxy.client(headers={"x-api-key": "key"}) as client:
        sim.fault(token_delay=0.5)
        with (
            client.stream("POST", "/api/chat", json={"model": CHAT, "messages": HI}) as response,
            proxy.client() as idle,
        ):
            assert idle.get("/v1/models").status_code == 401
            lines = response.iter_lines()
            next(lines)
            source = script.read_text(encoding="utf-8")
            if how == "no script":
                script.unlink()
            else:
                script.write_text("(")
                touch(script)
            proxy.wait_for_log("nothing is served until it can")
            # What was under way ends well, and nobody else comes in.
            assert '"done":true' in list(lines)[-1]
            with pytest.raises(httpx.TransportError):
                idle.get("/v1/models")
        sim.faults.clear()
        with pytest.raises(httpx.ConnectError), proxy.client() as late:
            late.get("/v1/models")
        if how == "no script":
            return
        script.write_text(source, encoding="utf-8")
        touch(script)
        proxy.wait_for(proxy.answers)
        body = {"model": CHAT, "messages": HI}
        assert content_of(ndjson(client.post("/api/chat", json=body))) == "You said: hi"


def test_a_stream_goes_on_while_code_is_loaded(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script)
    sim.fault(token_delay=0.5)
    with (
        proxy.client() as client,
        client.stream("POST", "/api/chat", json={"model": CHAT, "messages": HI}) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        touch(script)
        assert '"done":true' in list(lines)[-1]
    sim.faults.clear()
    assert chat(proxy) == "You said: hi"
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize("stream", [True, False])
def test_code_is_loaded_before_an_answer_begins(
    sim: Sim, start_proxy: StartProxy, tmp_path: Path, stream: bool
) -> None:
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script)
    proxy.wait_for_log(r"\(\d+ models\)")
    loaded = threading.Event()
    sim.script([wait(loaded), content("late")])
    body = {"model": CHAT, "messages": HI, "stream": stream}
    with ThreadPoolExecutor(1) as background, proxy.client() as client:
        answer = background.submit(client.post, "/api/chat", json=body)
        proxy.wait_for(lambda: sim.active)
        touch(script)
        proxy.wait_for(lambda: len(re.findall(r"\(\d+ models\)", proxy.log)) == 2)
        assert not answer.done()
        loaded.set()
        if stream:
            assert content_of(ndjson(answer.result())) == "late"
        else:
            assert answer.result().json()["message"]["content"] == "late"
    assert "rror" not in proxy.log


def test_a_request_whose_body_comes_when_code_has_been_loaded(
    sim: Sim, start_proxy: StartProxy, tmp_path: Path
) -> None:
    """The old code ends what it began, with an endpoint that nobody has asked for before."""
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script)
    proxy.wait_for_log(r"\(\d+ models\)")
    body = {"model": EMBEDDER, "input": "a"}
    headers = "Expect: 100-continue\r\nConnection: close\r\n"
    head, _, sent = post_bytes("/api/embed", body, headers=headers).partition(b"\r\n\r\n")
    with proxy.connect() as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 100 "), "the head has come"
        touch(script)
        proxy.wait_for(lambda: len(re.findall(r"\(\d+ models\)", proxy.log)) == 2)
        sock.sendall(sent)
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert b"HTTP/1.1 200 " in answer
    assert b'"embeddings":[[' in answer
    assert "Traceback" not in proxy.log


@pytest.mark.usefixtures("started_anew")
def test_what_a_chat_does_not_need_is_not_loaded(sim: Sim, start_proxy: StartProxy, tmp_path: Path) -> None:
    other = tmp_path / "modules.py"
    other.write_text(LOADED_MODULES)
    proxy = start_proxy(sim.url, "-s", str(other))
    assert chat(proxy) == "You said: hi"
    loaded = loaded_modules(proxy, other)
    assert "ollama_lmstudio.endpoints.chat" in loaded
    assert not {f"ollama_lmstudio.{name}" for name in lazy.NAMES} & loaded
    assert not loaded & {"ollama_lmstudio.sim", "PIL", "hypothesis", "tornado"}


def test_it_ends_with_clients_connected(sim: Sim, start_proxy: StartProxy) -> None:
    sim.fault(hang="headers", times=1)
    proxy = start_proxy(sim.url)
    with proxy.client() as idle, proxy.connect() as waiting:
        idle.get("/api/version")
        waiting.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert proxy.stop() == 0
    assert "ollama_lmstudio" not in proxy.log


@needs_sigterm
def test_it_ends_in_the_middle_of_a_stream(sim: Sim, start_proxy: StartProxy) -> None:
    sim.fault(token_delay=0.5)
    proxy = start_proxy(sim.url)
    body = {"model": CHAT, "messages": HI}
    with marked(cut=True), proxy.client() as client, client.stream("POST", "/api/chat", json=body) as response:
        assert next(response.iter_raw())
        assert proxy.stop() == 0
    proxy.wait_for(lambda: not sim.active)
    assert "ollama_lmstudio" not in proxy.log


# Ways to start


def test_demo(start_proxy: StartProxy) -> None:
    pytest.importorskip("ollama_lmstudio.sim.demo")
    proxy = start_proxy(None, options={"demo": "true"})
    proxy.wait_for_log("DEMO: the answers come from the built-in stand-in")
    proxy.wait_for_log(r"\(\d+ models\)")
    with proxy.client() as client:
        models = [entry["name"] for entry in client.get("/api/tags").json()["models"]]
        assert f"{CHAT}:latest" in models
        body = {"model": CHAT, "messages": HI, "options": {"num_predict": 5}}
        assert content_of(ndjson(client.post("/api/chat", json=body)))
    assert proxy.stop() == 0
    assert "Traceback" not in proxy.log


@pytest.mark.usefixtures("started_anew")
def test_mitmweb(sim: Sim, start_proxy: StartProxy) -> None:
    web = free_port()
    proxy = start_proxy(
        sim.url, "--no-web-open-browser", options={"web_port": str(web), "web_host": "127.0.0.1"}, tool="mitmweb"
    )
    assert chat(proxy) == "You said: hi"
    with socket.create_connection(("127.0.0.1", web), 5):
        pass
    assert "Traceback" not in proxy.log
    assert proxy.stop() == 0
