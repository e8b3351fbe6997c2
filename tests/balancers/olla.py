"""Olla in front of LM Studios: the real one where it is installed, and a small one that does what it does to a bridge.

The small one has Olla's own lists, made of those of its machines; it sends a request on by the `model` of its body, and
one without to any machine; the client's credentials stay behind, and a stream that breaks off ends as if it were whole.
Its errors are text, in Olla's words.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from tests.wire.conftest import ROOT, free_port, http_client

CONFIGURATION = ROOT / "configs" / "balancers" / "olla.yaml"
PREFIX = "/olla/lmstudio"
# How often machines are looked at, in s.
CHECK_SECONDS = 0.1
START_SECONDS = 60
# Not passed on, in one direction or the other.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade"}
CREDENTIALS = {"authorization", "cookie", "x-api-key", "x-auth-token", "proxy-authorization"}


@dataclass
class Olla:
    """An Olla that serves, at what a bridge has as `lmstudio_url`."""

    url: str

    def lists(self, *keys: str) -> bool:
        """Return whether it lists exactly these models."""
        with http_client() as client:
            try:
                rows = client.get(f"{self.url}/v1/models").json()["data"]
            except (httpx.HTTPError, ValueError, KeyError):
                return False
        return sorted(row["id"] for row in rows) == sorted(keys)


def configured(port: int, urls: Sequence[str]) -> str:
    """Return the ready configuration with other addresses."""
    text = CONFIGURATION.read_text()
    machines = re.findall(r"^ +url: (.*)$", text, re.MULTILINE)
    assert len(machines) == len(urls)
    for former, url in zip(machines, urls, strict=True):
        text = text.replace(f"url: {former}\n", f"url: {url}\n")
    assert "  port: 40114\n" in text
    return text.replace("  port: 40114\n", f"  port: {port}\n")


@contextmanager
def real_olla(folder: Path, urls: Sequence[str], **_: Any) -> Iterator[Olla]:
    """Run the real one, with the ready configuration."""
    program = shutil.which("olla")
    if program is None:
        pytest.skip("olla is not installed: go install github.com/thushan/olla@latest")
    port = free_port()
    path = folder / "olla.yaml"
    path.write_text(configured(port, urls))
    with (folder / "olla.log").open("wb") as log:
        process = subprocess.Popen([program, "--config", str(path)], cwd=folder, stdout=log, stderr=log)
    try:
        olla = Olla(f"http://127.0.0.1:{port}{PREFIX}")
        with http_client() as client:
            end = time.monotonic() + START_SECONDS
            while True:
                with suppress(httpx.HTTPError):
                    if client.get(f"{olla.url}/v1/models").json().get("data"):
                        break
                assert process.poll() is None, (folder / "olla.log").read_text()
                assert time.monotonic() < end
                time.sleep(CHECK_SECONDS)
        yield olla
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def small_olla(folder: Path, urls: Sequence[str], **settings: Any) -> Iterator[Olla]:
    """Run the small one."""
    small = _SmallOlla(dict(zip(("one", "two"), urls, strict=True)), **settings)
    started = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=[small.serve(started)], daemon=True)
    thread.start()
    assert started.wait(START_SECONDS)
    try:
        yield Olla(f"http://127.0.0.1:{small.port}{PREFIX}")
    finally:
        small.stop()
        thread.join(10)


@dataclass
class _Machine:
    name: str
    url: str
    models: list[dict[str, Any]] = field(default_factory=list)
    is_up: bool = False

    def has(self, model: str) -> bool:
        return any(row["id"] == model for row in self.models)


class _SmallOlla:
    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        header_seconds: float = 1800,
        most_requests: int | None = None,
        most_bytes: int = 1 << 30,
        keeps_lengths: bool = True,
    ) -> None:
        self.machines = [_Machine(name, url) for name, url in urls.items()]
        self.header_seconds = header_seconds
        self.most_requests = most_requests
        self.most_bytes = most_bytes
        self.left_out = HOP_BY_HOP if keeps_lengths else HOP_BY_HOP | {"content-length"}
        self.port = 0
        self.turns = itertools.count()
        self.http: httpx.AsyncClient
        self._stop: Callable[[], object] = lambda: None

    async def serve(self, started: threading.Event) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        timeout = httpx.Timeout(None, connect=2, read=self.header_seconds)
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as self.http:
            await self._look()
            application = tornado.web.Application([(r"(/.*)", _Handler, {"olla": self})], log_function=lambda _: None)
            sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
            self.port = sockets[0].getsockname()[1]
            server = tornado.httpserver.HTTPServer(application, max_body_size=1 << 32, max_buffer_size=1 << 32)
            server.add_sockets(sockets)
            started.set()
            while not stopped.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), CHECK_SECONDS)
                await self._look()
            server.stop()
            await server.close_all_connections()

    def stop(self) -> None:
        self._stop()

    async def _look(self) -> None:
        await asyncio.gather(*map(self._look_at, self.machines))

    async def _look_at(self, machine: _Machine) -> None:
        try:
            machine.models = (await self.http.get(f"{machine.url}/api/v0/models", timeout=2)).json()["data"]
            machine.is_up = True
        except (httpx.HTTPError, ValueError, KeyError):
            machine.is_up = False

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The models of the machines that are up, the first machine's entry of those that several have."""
        rows = [row for machine in self.machines if machine.is_up for row in machine.models]
        return list({row["id"]: row for row in reversed(rows)}.values())

    def has_turn(self) -> bool:
        """Return whether the client may send one more request."""
        return self.most_requests is None or next(self.turns) < self.most_requests


class _Handler(tornado.web.RequestHandler):
    def initialize(self, olla: _SmallOlla) -> None:
        self.olla = olla
        self._work: asyncio.Task[None] | None = None

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.clear_header("Content-Type")

    def compute_etag(self) -> None:
        """Olla has none."""

    def on_connection_close(self) -> None:
        if self._work is not None:
            self._work.cancel()

    async def get(self, path: str) -> None:
        if path in (f"{PREFIX}/v1/models", f"{PREFIX}/api/v1/models"):
            rows = [
                {"id": row["id"], "object": "model", "owned_by": "olla", "created": int(time.time())}
                for row in self.olla.listed
            ]
        elif path == f"{PREFIX}/api/v0/models":
            kept = ("max_context_length", "id", "object", "type", "publisher", "arch", "quantization", "state")
            rows = [{key: row[key] for key in kept if row.get(key)} for row in self.olla.listed]
        else:
            await self.post(path)
            return
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"object": "list", "data": rows}, separators=(",", ":")) + "\n")

    async def post(self, path: str) -> None:
        self._work = asyncio.ensure_future(self._pass_on(path))
        with suppress(asyncio.CancelledError):
            await self._work

    async def _pass_on(self, path: str) -> None:
        olla = self.olla
        if not path.startswith(f"{PREFIX}/"):
            self._refuse(HTTPStatus.NOT_FOUND, "404 page not found")
            return
        if not olla.has_turn():
            self.set_header("Retry-After", "60")
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "Too Many Requests")
            return
        if len(self.request.body) > olla.most_bytes:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request body too large")
            return
        model = self._model()
        known = [machine for machine in olla.machines if not model or machine.has(model)]
        able = [machine for machine in known if machine.is_up]
        if not able:
            if model:
                status = HTTPStatus.SERVICE_UNAVAILABLE if known else HTTPStatus.NOT_FOUND
                self._refuse(status, "model_unavailable" if known else "model_not_found")
            else:
                self._refuse(HTTPStatus.NOT_FOUND, "No lm-studio endpoints available")
            return
        problem = ""
        at = next(olla.turns) % len(able)
        for machine in (*able[at:], *able[:at]):
            try:
                await self._ask(machine, path.removeprefix(PREFIX))
            except httpx.TransportError as e:
                machine.is_up = False
                problem = str(e) or "net/http: timeout awaiting response headers"
            else:
                return
        self._refuse(HTTPStatus.BAD_GATEWAY, f"Proxy error: all endpoints failed with connection errors: {problem}")

    def _model(self) -> str:
        try:
            body = json.loads(self.request.body)
        except ValueError:
            return ""
        name = body.get("model") if isinstance(body, dict) else None
        return name if isinstance(name, str) else ""

    async def _ask(self, machine: _Machine, path: str) -> None:
        headers = {
            name: value
            for name, value in self.request.headers.get_all()
            if name.lower() not in HOP_BY_HOP | CREDENTIALS | {"content-length", "host"}
        }
        headers |= {"X-Proxied-By": "Olla/v0.0.0", "Via": "1.1 olla/v0.0.0", "X-Real-IP": "127.0.0.1"}
        query = f"?{self.request.query}" if self.request.query else ""
        request = self.olla.http.build_request(
            self.request.method or "POST", f"{machine.url}{path}{query}", headers=headers, content=self.request.body
        )
        response = await self.olla.http.send(request, stream=True)
        try:
            self.set_status(response.status_code)
            for name, value in response.headers.multi_items():
                if name.lower() not in self.olla.left_out:
                    self.set_header(name, value)
            self.set_header("X-Olla-Endpoint", machine.name)
            self.set_header("X-Olla-Backend-Type", "lm-studio")
            # Go ends the body as it should, whatever has become of the machine's.
            with suppress(httpx.TransportError):
                async for data in response.aiter_raw():
                    self.write(data)
                    await self.flush()
            self.finish()
        finally:
            await response.aclose()

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{text}\n")
