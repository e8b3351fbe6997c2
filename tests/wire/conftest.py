"""A real mitmdump process with the addon, and the stand-in for LM Studio behind it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
import pytest
from mitmproxy import http, io
from tests.strict.ways import Socket, attach

from ollama_lmstudio.sim import Reasoning, Sim, SimDownload, SimModel, SimThread, embedder, gpt_oss

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "addon" / "ollama.py"
START_SECONDS = 60
KILLED_ON_WINDOWS = 1
needs_proc = pytest.mark.skipif(
    # Wine has the files of the system under it, which know nothing of Wine's processes.
    sys.platform == "win32" or not Path("/proc/self/net/tcp").is_file(),
    reason="this system has no /proc, or not Linux's",
)
needs_sigterm = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no SIGTERM: what is ended there is killed, and tells nothing"
)
# In place of the directories of who runs the tests, whose aliases would be used, and moved.
NOBODYS = Path(tempfile.gettempdir()) / f"ollama-lmstudio-proxy-tests-{os.getpid()}"

CHAT = "llama-3.2-3b-instruct"
VISION = "google/gemma-3-4b"
THINKING = "qwen/qwen3-8b"
GPT_OSS = "openai/gpt-oss-20b"
NO_TOOLS = "plain"
CODER = "qwen2.5-coder-7b-instruct"
EMBEDDER = "text-embedding-nomic-embed-text-v1.5"
UNSCALED_EMBEDDER = "text-embedding-unscaled"
DOWNLOADABLE = "ibm/granite-4-micro"

HI = [{"role": "user", "content": "hi"}]


def models() -> list[SimModel]:
    """The models that the tests ask for."""
    return [
        SimModel(key=CHAT),
        SimModel(key=VISION, vision=True, publisher="google"),
        SimModel(key=THINKING, publisher="qwen", reasoning=Reasoning(("off", "on"), "on")),
        gpt_oss(GPT_OSS),
        SimModel(key=NO_TOOLS, tools=False),
        SimModel(key=CODER),
        embedder(EMBEDDER),
        embedder(UNSCALED_EMBEDDER, unit_norm=False, dimensions=16, max_context_length=8),
    ]


# No system takes these for connections that go out, of which there are many while the tests run: such a port would
# often be taken between the moment it is looked for and the moment it is served on. (RFC 6335's dynamic ports begin at
# 49152, Linux' at 32768.)
SERVED_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Give a port that nobody listens on."""
    while True:
        # Not by `random`, which Hypothesis seeds alike in each process.
        port = SERVED_PORTS[secrets.randbelow(len(SERVED_PORTS))]
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


# httpx makes one for each client, which takes longer than most requests; nothing here is asked by HTTPS.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(**arguments: Any) -> httpx.Client:
    """Give a client of servers on this machine."""
    return httpx.Client(**{"verify": NO_TLS, "trust_env": False, **arguments})


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[None]:
    """Let a server answer in a thread, until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


def ndjson(response: httpx.Response) -> list[dict[str, Any]]:
    """Give the lines of a streamed answer; each ends with a newline."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("\n")
    return [json.loads(line) for line in response.text[:-1].split("\n")]


def content_of(lines: Sequence[dict[str, Any]]) -> str:
    """Give the text of a chat's lines."""
    return "".join(line["message"]["content"] for line in lines)


def thinking_of(lines: Sequence[dict[str, Any]]) -> str:
    """Give what the model thought in a chat's lines."""
    return "".join(line["message"].get("thinking", "") for line in lines)


def read_flows(path: Path) -> list[http.HTTPFlow]:
    """Read a file that mitmproxy saved."""
    with path.open("rb") as file:
        return [flow for flow in io.FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]


@dataclass
class RawAnswer:
    """An answer as it went over the wire. `closed` is whether the server closed the connection after it."""

    head: bytes
    body: bytes
    closed: bool

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.head.split(b" ", 2)[1])

    def header(self, name: str) -> str | None:
        """Give the value of a header, or None."""
        for line in self.head.decode().split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None

    @property
    def json(self) -> Any:
        """The body of an answer with a length."""
        assert len(self.body) == int(self.header("content-length") or -1)
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        """The lines of a chunked body that ends as it should, with nothing after its end."""
        assert self.header("transfer-encoding") == "chunked"
        rest, body = self.body, b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body, end, rest = body + rest[:length], rest[length : length + 2], rest[length + 2 :]
            assert end == b"\r\n"
            if not length:
                break
        assert rest == b""
        assert body.endswith(b"\n")
        return [json.loads(line) for line in body.decode()[:-1].split("\n")]


def post_bytes(path: str, body: Any, *, version: str = "1.1", headers: str = "") -> bytes:
    """Write a POST of JSON."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    return head.encode() + data


class Process(Protocol):
    """What the tests use of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...


class Proxy:
    """One process of mitmproxy's tools with the addon; `with` starts and stops it."""

    # Whether it may be forked from a process that has imported mitmproxy.
    may_fork = True
    process: Process

    def __init__(
        self,
        lmstudio_url: str | None,
        *arguments: str,
        options: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        tool: str = "mitmdump",
        script: Path = SCRIPT,
        state_dir: Path | None = None,
        port: int = 0,
    ) -> None:
        self.port = port or free_port()
        # What a test leaves under way is not waited for when it has ended.
        settings = {"listen": f"127.0.0.1:{self.port}", "drain_seconds": "0"}
        if lmstudio_url:
            settings["lmstudio_url"] = lmstudio_url
        if state_dir:
            settings["state_dir"] = str(state_dir)
        settings |= options or {}
        self.command: Sequence[str] = [
            str(Path(sys.executable).parent / tool),
            "-s",
            str(script),
            *(part for name, value in settings.items() for part in ("--set", f"{name}={value}")),
            *arguments,
        ]
        own = {"OLLAMA_API_KEY", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_ORIGINS", "LMSTUDIO_TOKEN", "LM_API_TOKEN"}
        self.environment = {k: v for k, v in os.environ.items() if k not in own} | {"PYTHONUNBUFFERED": "1"}
        self.environment |= {"XDG_DATA_HOME": str(NOBODYS), "XDG_CACHE_HOME": str(NOBODYS)}
        self.environment |= environment or {}
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = ROOT
        self._lines: list[str] = []
        self._reader: threading.Thread | None = None

    def start(self, *, wait: bool = True) -> Proxy:
        """Start it; with `wait`, until it answers."""
        self.process = self._process()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            if wait:
                self.wait_for(self.answers)
        except BaseException:
            self.process.kill()
            raise
        return self

    def _process(self) -> Process:
        if sys.platform == "linux" and self.may_fork:
            from tests.wire.starter import TOOLS, Forked

            program = Path(self.command[0])
            if program.parent == Path(sys.executable).parent and program.name in TOOLS:
                return Forked(self.command, self.environment, self.folder)
        return subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            text=True,
            errors="replace",
            cwd=self.folder,
        )

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.append(line)

    def answers(self) -> bool:
        """Whether it serves already."""
        assert self.process.poll() is None, f"the process ended:\n{self.log}"
        try:
            with self.client() as client:
                answer = client.get("/")
        except httpx.TransportError:
            return False
        return answer.status_code == 401 or answer.text == "Ollama is running"

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return "".join(self._lines)

    def wait_for(self, condition: Callable[[], Any], seconds: float = START_SECONDS) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain; the log:\n{self.log}"
            time.sleep(0.05)

    def wait_for_log(self, pattern: str, seconds: float = START_SECONDS) -> str:
        """Wait until the log holds a pattern; give what matched."""
        self.wait_for(lambda: re.search(pattern, self.log), seconds)
        found = re.search(pattern, self.log)
        assert found is not None
        return found[0]

    def stop(self) -> int:
        """End it as a service manager would; give its exit status. On Windows, it is killed, which is no failure."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self._reader:
                self._reader.join(5)
        return 0 if sys.platform == "win32" and status == KILLED_ON_WINDOWS else status

    def connect(self) -> Socket:
        """Open a bare connection to this server; the strict reader reads its answers when it is closed."""
        return Socket(self.port)

    def raw(self, request: bytes) -> RawAnswer:
        """Send bytes and read one answer as it goes over the wire."""
        with self.connect() as sock:
            sock.sendall(request)
            data = b""
            while b"\r\n\r\n" not in data:
                received = sock.recv(65536)
                assert received, f"no whole head: {data!r}"
                data += received
            head, _, body = data.partition(b"\r\n\r\n")
            answer = RawAnswer(head, body, closed=False)
            while not _is_whole(answer):
                received = sock.recv(65536)
                if not received:
                    answer.closed = True
                    break
                answer.body += received
            return answer

    def client(self, **arguments: Any) -> httpx.Client:
        """Give a client of this server, under which the strict reader reads every answer."""
        settings = {"base_url": self.url, "timeout": 20, "event_hooks": {"response": [attach]}}
        return http_client(**settings | arguments)

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _is_whole(answer: RawAnswer) -> bool:
    """Whether an answer that tells where it ends has ended."""
    length = answer.header("content-length")
    if length is not None:
        return len(answer.body) >= int(length)
    return answer.header("transfer-encoding") == "chunked" and answer.body.endswith(b"0\r\n\r\n")


class _SimAt(Sim):
    """A stand-in that serves on a port of choice."""

    wanted_port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, sock: socket.socket | None = None) -> None:
        await super().start(host, self.wanted_port, sock=sock)


def sim_thread_at(port: int, on_disk: Sequence[SimModel] = ()) -> SimThread:
    """Make a stand-in in a thread, to be entered, that serves on this port."""
    thread = SimThread()
    thread.sim = sim = _SimAt(on_disk or models())
    sim.wanted_port = port
    return thread


@pytest.fixture
def started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the tools as a user does, with all their imports."""
    monkeypatch.setattr(Proxy, "may_fork", False)


class StartProxy(Protocol):
    """Start a Proxy that the test does not have to stop."""

    def __call__(self, lmstudio_url: str | None, *arguments: str, wait: bool = True, **settings: Any) -> Proxy: ...


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """Start processes of their own, with a state directory of their own; what still runs at the end is stopped."""
    with ExitStack() as stack:

        def start(lmstudio_url: str | None, *arguments: str, wait: bool = True, **settings: Any) -> Proxy:
            proxy = Proxy(lmstudio_url, *arguments, state_dir=tmp_path / "state", **settings)
            proxy.start(wait=wait)
            stack.callback(lambda: proxy.stop() if proxy.process.poll() is None else None)
            return proxy

        yield start


@pytest.fixture(scope="session")
def shared_sim() -> Iterator[Sim]:
    with SimThread(models=models(), downloads=[SimDownload(DOWNLOADABLE)]) as sim:
        yield sim


@pytest.fixture(scope="session")
def shared_proxy(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(shared_sim.url, state_dir=tmp_path_factory.mktemp("state")) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        yield proxy


@pytest.fixture
def sim(shared_sim: Sim) -> Iterator[Sim]:
    """LM Studio, with nothing loaded, nothing scripted, nothing recorded and no faults."""
    clear(shared_sim)
    yield shared_sim
    clear(shared_sim)
    assert not shared_sim.failures


def clear(sim: Sim, auth: set[str] | None = None) -> None:
    """Leave nothing of what a test has done to a stand-in that others use too."""
    sim.faults.clear()
    sim.scripts.clear()
    sim.set(
        jit=True,
        auto_evict=True,
        auth=auth,
        cors=False,
        separate_reasoning=True,
        counts_tokens=True,
        cached_tokens=None,
        token_delay=0.0,
        coalesce=1,
    )
    for instance in sim.instances:
        sim.unload(instance.id)
    sim.clear()


@pytest.fixture
def proxy(shared_proxy: Proxy, sim: Sim) -> Proxy:
    """The addon, in front of `sim`; it knows the model list already."""
    return shared_proxy


@pytest.fixture
def client(proxy: Proxy, sim: Sim) -> Iterator[httpx.Client]:
    """A client of the addon, which knows LM Studio's models already."""
    with proxy.client() as client:
        client.get("/api/tags").raise_for_status()
        sim.clear()
        yield client
