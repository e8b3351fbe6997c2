"""Uploads that cannot be stored."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from ollama_lmstudio import options
from ollama_lmstudio.endpoints.blobs import PIECE_BYTES, BlobUpload
from ollama_lmstudio.outcomes import Request, Response
from ollama_lmstudio.services import Services
from ollama_lmstudio.state.files import DISK_FULL

DATA = b"x" * (PIECE_BYTES * 3)


def receive(state_dir: Path) -> BlobUpload:
    values = {option.name: option.default for option in options.OPTIONS} | {"state_dir": str(state_dir)}
    services = Services(options.parse(values), cast(Any, None), cast(Any, None), cast(Any, None))
    path = f"/api/blobs/sha256:{hashlib.sha256(DATA).hexdigest()}"
    return BlobUpload(Request("POST", path, "", {}, b"", 0), services)


def upload(state_dir: Path) -> Response:
    """Upload the data in small parts."""

    async def run() -> Response:
        receiver = receive(state_dir)
        for at in range(0, len(DATA), 65536):
            await receiver.feed(DATA[at : at + 65536])
        return await receiver.end()

    return asyncio.run(run())


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize(
    ("number", "status"), [*((number, 507) for number in sorted(DISK_FULL)), (errno.EIO, 500), (errno.EROFS, 500)]
)
def test_storage_that_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, number: int, status: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        answer = upload(tmp_path)
    assert answer.status == status
    assert json.loads(answer.body)["error"].endswith(os.strerror(number))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert upload(tmp_path).status == 201


def test_short_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:100_000]))
    assert upload(tmp_path).status == 201
    (blob,) = (tmp_path / "blobs").iterdir()
    assert blob.read_bytes() == DATA


def test_a_client_that_leaves_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The event loop goes on while the disk is slow."""
    syncing, released = threading.Event(), threading.Event()
    outcomes = []

    def slow(_: int) -> None:
        syncing.set()
        outcomes.append(released.wait(10))

    async def run() -> None:
        receiver = receive(tmp_path)
        await receiver.feed(DATA)
        ending = asyncio.create_task(receiver.end())
        await asyncio.to_thread(syncing.wait, 10)
        receiver.abort()
        released.set()
        assert (await ending).status == 201

    monkeypatch.setattr(os, "fsync", slow)
    asyncio.run(run())
    assert outcomes[0]


def test_what_a_client_leaves_is_removed_in_a_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_loop = []
    unlink = Path.unlink

    def note(path: Path, missing_ok: bool = False) -> None:
        on_loop.append(threading.current_thread() is threading.main_thread())
        unlink(path, missing_ok=missing_ok)

    async def run() -> None:
        receiver = receive(tmp_path)
        await receiver.feed(DATA)
        receiver.abort()

    monkeypatch.setattr(Path, "unlink", note)
    asyncio.run(run())
    assert on_loop == [False, False], "the upload and its lock"
    assert list((tmp_path / "blobs").iterdir()) == []
