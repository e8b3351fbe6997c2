"""Blobs that clients leave here: through a real mitmdump."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.wire.conftest import CHAT, HI, Process, Proxy, StartProxy, needs_proc

from ollama_lmstudio.exchanges.loopback import SECRET_HEADER, TICKET_HEADER
from ollama_lmstudio.sim import Sim

LARGE = 300 * 2**20
PIECE = bytes(range(256)) * 4096


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def stored(tmp_path: Path) -> list[str]:
    """Give the names of all files that the addon has written."""
    return sorted(path.name for path in (tmp_path / "state").rglob("*") if path.is_file())


@pytest.fixture
def own(start_proxy: StartProxy, sim: Sim) -> Proxy:
    """A process with a state directory of its own."""
    return start_proxy(sim.url)


def test_upload(own: Proxy, sim: Sim, tmp_path: Path) -> None:
    data = b"a blob"
    digest = digest_of(data)
    path = f"/api/blobs/{digest}"
    sim.clear()
    with own.client() as client:
        missing = client.head(path)
        assert (missing.status_code, missing.headers["content-length"], missing.content) == (404, "102", b"")
        created = client.post(path, content=data)
        assert (created.status_code, created.content) == (201, b"")
        assert created.headers["content-length"] == "0"
        assert {name.lower() for name in created.headers} == {"content-length", "date"}
        assert stored(tmp_path) == [digest.replace(":", "-")]
        assert (tmp_path / "state" / "blobs" / digest.replace(":", "-")).read_bytes() == data

        present = client.head(path)
        assert (present.status_code, present.content) == (200, b"")
        assert "content-type" not in present.headers
        again = client.post(path, content=b"other bytes, which are not looked at")
        assert (again.status_code, again.content) == (200, b"")
        for same in (path.replace(":", "-"), path.replace(":", "%3A"), path.replace(digest[7:], digest[7:].upper())):
            assert client.head(same).status_code == 200
        # The connection goes on being used for LM Studio.
        assert client.post("/api/chat", json={"model": CHAT, "messages": HI}).status_code == 200
    assert [request.path for request in sim.requests if "blobs" in request.path] == []


def test_upload_in_chunks_and_empty(own: Proxy) -> None:
    pieces = [b"one", b"", b"two" * 100_000]
    with own.client() as client:
        assert client.post(f"/api/blobs/{digest_of(b''.join(pieces))}", content=iter(pieces)).status_code == 201
        assert client.post(f"/api/blobs/{digest_of(b'')}", content=b"").status_code == 201
        assert client.post(f"/api/blobs/{digest_of(b'')}").status_code == 200


@pytest.mark.parametrize("digest", ["sha256:1234", "md5:" + "0" * 64, "sha256-" + "g" * 64, "sha256:" + "0" * 65])
def test_no_digest(client: httpx.Client, digest: str) -> None:
    response = client.post(f"/api/blobs/{digest}", content=b"x" * 100_000)
    assert (response.status_code, response.json()) == (400, {"error": "invalid digest format"})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert client.head(f"/api/blobs/{digest}").status_code == 400


def test_mismatch_leaves_nothing(own: Proxy, tmp_path: Path) -> None:
    expected, found = digest_of(b"expected"), digest_of(b"sent")
    with own.client() as client:
        response = client.post(f"/api/blobs/{expected}", content=b"sent")
    assert response.status_code == 400
    assert response.json() == {"error": f'digest mismatch, expected "{expected}", got "{found}"'}
    assert stored(tmp_path) == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods(client: httpx.Client, method: str) -> None:
    response = client.request(method, f"/api/blobs/sha256:{'0' * 64}")
    assert (response.status_code, response.headers["allow"]) == (405, "HEAD, POST")


def test_origin(client: httpx.Client) -> None:
    origin = {"Origin": "http://localhost:3000"}
    response = client.post(f"/api/blobs/{digest_of(b'origin')}", content=b"origin", headers=origin)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (201, origin["Origin"])
    refused = client.post("/api/blobs/sha256:0", content=b"x", headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403


def begin_upload(proxy: Proxy, digest: str) -> socket.socket:
    """Send the head and a part of a body."""
    sock = proxy.connect()
    head = f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * len(PIECE)}\r\n\r\n"
    sock.sendall(head.encode() + PIECE)
    return sock


def test_client_leaves(own: Proxy, tmp_path: Path) -> None:
    with begin_upload(own, digest_of(PIECE * 2)):
        own.wait_for(lambda: len(stored(tmp_path)) == 2)
        upload, lock = stored(tmp_path)
        assert upload.startswith(".upload-")
        assert lock == f"{upload}.lock"
    own.wait_for(lambda: not stored(tmp_path))


def test_killed_process_is_tidied_up_after(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    killed, living = start_proxy(sim.url), start_proxy(sim.url)
    with begin_upload(killed, digest_of(PIECE * 2)), begin_upload(living, digest_of(PIECE * 2)) as sock:
        own = living
        own.wait_for(lambda: len(stored(tmp_path)) == 4)
        killed.process.kill()
        killed.process.wait()
        with own.client() as client:
            assert client.post(f"/api/blobs/{digest_of(b'x')}", content=b"x").status_code == 201
        # That of the living process is still there, and becomes a blob.
        upload, lock, blob = stored(tmp_path)
        assert (lock, blob) == (f"{upload}.lock", digest_of(b"x").replace(":", "-"))
        sock.sendall(PIECE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 201 ")
    assert stored(tmp_path) == sorted(digest_of(data).replace(":", "-") for data in (PIECE * 2, b"x"))


def test_uploads_of_one_blob_at_once(own: Proxy, tmp_path: Path) -> None:
    data = PIECE * 4
    statuses: list[int] = []

    def upload() -> None:
        with own.client() as client:
            statuses.append(client.post(f"/api/blobs/{digest_of(data)}", content=iter([PIECE] * 4)).status_code)

    threads = [threading.Thread(target=upload) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 201 in statuses
    assert set(statuses) <= {200, 201}
    assert len(statuses) == 6
    assert stored(tmp_path) == [digest_of(data).replace(":", "-")]
    assert (tmp_path / "state" / "blobs" / digest_of(data).replace(":", "-")).read_bytes() == data


def test_no_place_to_store(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, where a directory should be")
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        response = client.post(f"/api/blobs/{digest_of(PIECE)}", content=PIECE)
        assert response.status_code == 500
        assert "state directory" in response.json()["error"]
        assert client.get("/api/version").status_code == 200


def memory(process: Process) -> int:
    """Give the most memory that a process has had, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


@needs_proc
def test_memory_stays_flat(own: Proxy, tmp_path: Path) -> None:
    hashed = hashlib.sha256()
    for _ in range(LARGE // len(PIECE)):
        hashed.update(PIECE)

    def body() -> Iterator[bytes]:
        for _ in range(LARGE // len(PIECE)):
            yield PIECE

    before = memory(own.process)
    with own.client() as client:
        response = client.post(
            f"/api/blobs/sha256:{hashed.hexdigest()}", content=body(), headers={"Content-Length": str(LARGE)}
        )
        assert response.status_code == 201
        assert client.post("/api/blobs/bad", content=body()).status_code == 400
    assert memory(own.process) - before < 100 * 2**20
    (blob,) = (tmp_path / "state" / "blobs").iterdir()
    assert blob.stat().st_size == LARGE


def test_other_requests_are_served_meanwhile(own: Proxy) -> None:
    with begin_upload(own, digest_of(PIECE * 2)) as sock, own.client() as client:
        assert client.get("/api/version").status_code == 200
        sock.sendall(PIECE)
        assert sock.recv(65536).startswith(b"HTTP/1.1 201 ")


def listening_ports(process: Process) -> set[int]:
    """Give the ports that a process listens on at 127.0.0.1."""
    inodes = {str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.is_symlink()}
    ports = set()
    for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


@needs_proc
def test_secret(own: Proxy, tmp_path: Path) -> None:
    with own.client() as client:
        assert client.post(f"/api/blobs/{digest_of(b'x')}", content=b"x").status_code == 201
    (port,) = listening_ports(own.process) - {own.port}
    url = f"http://127.0.0.1:{port}/api/blobs/{digest_of(b'y')}"
    with begin_upload(own, digest_of(PIECE * 2)):
        own.wait_for(lambda: len(stored(tmp_path)) == 3)
        for headers in ({}, {SECRET_HEADER: "guess"}, {SECRET_HEADER: "", TICKET_HEADER: "2"}):
            response = httpx.post(url, content=b"y", headers=headers, trust_env=False)
            assert (response.status_code, response.content) == (403, b"")
    own.wait_for(lambda: len(stored(tmp_path)) == 1)


def test_secret_is_shown_nowhere(sim: Sim, tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    with Proxy(sim.url, "-w", str(flows), "--flow-detail", "4", state_dir=tmp_path / "state") as proxy:
        with proxy.client() as client:
            assert client.post(f"/api/blobs/{digest_of(b'x')}", content=b"x").status_code == 201
            assert client.post(f"/api/blobs/{digest_of(b'')}").status_code == 201
        proxy.wait_for_log("(?s)<< 201.*<< 201")
    for text in (proxy.log, flows.read_bytes().decode("latin-1")):
        shown = re.findall(SECRET_HEADER + r"(?:: |,\d+:)([^\s,]+)", text)
        assert len(shown) == 2
        assert set(shown) == {"***"}


def age(tmp_path: Path, digest: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(tmp_path / "state" / "blobs" / digest.replace(":", "-"), (then, then))


def blobs_left(tmp_path: Path) -> set[str]:
    return {name.replace("-", ":") for name in stored(tmp_path) if name.startswith("sha256-")}


def test_a_refused_create_leaves_no_blobs(own: Proxy, tmp_path: Path) -> None:
    gguf, adapter, other = b"GGUF\3 weights", b"GGUF\3 lora", b"somebody else's"
    with own.client() as client:
        for data in (gguf, adapter, other):
            client.post(f"/api/blobs/{digest_of(data)}", content=data).raise_for_status()
        created = client.post("/api/create", json={"model": "a", "from": CHAT, "adapters": {"l": digest_of(adapter)}})
        assert created.text.endswith('{"status":"success"}\n')
        refused = client.post("/api/create", json={"model": "mine", "files": {"x.gguf": digest_of(gguf)}})
        assert "LM Studio cannot import" in refused.text
        assert blobs_left(tmp_path) == {digest_of(adapter), digest_of(other)}
        # It is needed by an alias, whatever else is refused.
        for body in ({"model": "a b", "from": CHAT}, {"model": "b", "from": "nosuch"}):
            answer = client.post("/api/create", json=body | {"adapters": {"l": digest_of(adapter)}})
            assert answer.status_code in (400, 404)
            answer = client.post("/api/create", json=body | {"adapters": {"l": digest_of(other)}})
            assert answer.status_code in (400, 404)
        assert blobs_left(tmp_path) == {digest_of(adapter)}


def test_old_blobs_go_when_it_starts(start_proxy: StartProxy, sim: Sim, tmp_path: Path) -> None:
    old, wanted, young, needed = b"old", b"wanted", b"young", b"GGUF\3 needed"
    first = start_proxy(sim.url)
    with first.client() as client:
        for data in (old, wanted, young, needed):
            client.post(f"/api/blobs/{digest_of(data)}", content=data).raise_for_status()
        body = {"model": "a", "from": CHAT, "adapters": {"l": digest_of(needed)}, "stream": False}
        client.post("/api/create", json=body).raise_for_status()
        for data in (old, wanted, needed):
            age(tmp_path, digest_of(data), 25 * 3600)
        # Who asks for it is about to use it.
        assert client.head(f"/api/blobs/{digest_of(wanted)}").status_code == 200
    first.stop()
    second = start_proxy(sim.url)
    second.wait_for(lambda: digest_of(old) not in blobs_left(tmp_path))
    with second.client() as client:
        client.get("/api/tags").raise_for_status()
    assert blobs_left(tmp_path) == {digest_of(data) for data in (wanted, young, needed)}
