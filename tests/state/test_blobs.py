"""Blobs on disk."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ollama_lmstudio.state import blobs, files
from ollama_lmstudio.state.blobs import BlobWriter, blob_path, parse_digest

ADDON = Path(__file__).parents[2] / "addon"

DATA = b"some bytes"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha256-{HEX}", f"sha256:{HEX.upper()}"])
def test_digest(text: str) -> None:
    assert parse_digest(text) == f"sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    ["", HEX, f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"SHA256:{HEX}", f"sha256:{HEX}\n", f"sha256_{HEX}", "../../x"],
)
def test_no_digest(text: str) -> None:
    assert parse_digest(text) is None


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_blob_appears_when_it_is_whole(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "blobs"
    upload = BlobWriter(directory)
    upload.write(DATA[:4])
    upload.write(DATA[4:])
    assert not blob_path(directory, DIGEST).exists()
    assert upload.finish(DIGEST) == DIGEST
    assert blob_path(directory, DIGEST).read_bytes() == DATA
    upload.abort()
    assert names(directory) == [DIGEST.replace(":", "-")]


def test_other_digest_leaves_nothing(tmp_path: Path) -> None:
    upload = BlobWriter(tmp_path)
    upload.write(b"other bytes")
    assert upload.finish(DIGEST) == f"sha256:{hashlib.sha256(b'other bytes').hexdigest()}"
    assert names(tmp_path) == []


def test_aborted_upload_is_never_a_blob(tmp_path: Path) -> None:
    upload = BlobWriter(tmp_path)
    upload.write(DATA)
    upload.abort()
    upload.write(DATA)
    with pytest.raises(OSError, match="cancel"):
        upload.finish(DIGEST)
    assert names(tmp_path) == []


def test_what_nobody_writes_is_removed(tmp_path: Path) -> None:
    for name in (".upload-dead", ".upload-dead.lock", ".upload-early.lock", ".partial-dead"):
        (tmp_path / name).write_bytes(b"left by a dead process")
    (tmp_path / "sha256-kept").write_bytes(b"")
    living = BlobWriter(tmp_path)
    living.write(DATA)
    BlobWriter(tmp_path).abort()
    upload, lock, *others = sorted(names(tmp_path))
    assert upload.startswith(".upload-")
    assert (lock, others) == (f"{upload}.lock", ["sha256-kept"])
    assert living.finish(DIGEST) == DIGEST
    assert sorted(names(tmp_path)) == sorted([DIGEST.replace(":", "-"), "sha256-kept"])


def no_locks(_: int) -> bool:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("name", [".upload-cleaned", ".partial-former"])
def test_an_upload_whose_lock_tells_nothing_is_removed_when_it_is_a_day_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A program that cleans caches has removed the lock, or the file system has none."""
    monkeypatch.setattr(files, "try_lock", no_locks)
    for age, is_left in ((23, True), (25, False)):
        (tmp_path / name).write_bytes(DATA)
        then = time.time() - age * 3600
        os.utime(tmp_path / name, (then, then))
        blobs.remove_abandoned(tmp_path)
        assert (tmp_path / name).exists() is is_left


def test_a_file_system_without_locks_takes_blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "try_lock", no_locks)
    living, upload = BlobWriter(tmp_path), BlobWriter(tmp_path)
    for writer in (living, upload):
        writer.write(DATA)
        assert writer.finish(DIGEST) == DIGEST
    assert names(tmp_path) == [DIGEST.replace(":", "-")]


def test_a_blob_is_closed_before_it_is_renamed_or_removed(tmp_path: Path, windows_sharing: None) -> None:
    for data, expected in ((DATA, [DIGEST.replace(":", "-")]), (b"other bytes", [])):
        upload = BlobWriter(tmp_path / str(len(data)))
        upload.write(data)
        upload.finish(DIGEST)
        assert names(tmp_path / str(len(data))) == expected
    (tmp_path / "aborted").mkdir()
    (tmp_path / "aborted" / ".partial-dead").write_bytes(b"left by a dead process")
    upload = BlobWriter(tmp_path / "aborted")
    upload.write(DATA)
    upload.abort()
    assert names(tmp_path / "aborted") == []


def test_a_blob_that_is_there_and_read_is_not_replaced(
    tmp_path: Path, windows_sharing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_SECONDS", 0.05)
    first, second = BlobWriter(tmp_path), BlobWriter(tmp_path)
    for upload in (first, second):
        upload.write(DATA)
    first.finish(DIGEST)
    with blob_path(tmp_path, DIGEST).open("rb"):
        assert second.finish(DIGEST) == DIGEST
    assert names(tmp_path) == [DIGEST.replace(":", "-")]


# A process that begins an upload, says so, and waits to be killed.
UPLOADER = """
import sys, time
from pathlib import Path
from ollama_lmstudio.state.blobs import BlobWriter

writer = BlobWriter(Path(sys.argv[1]))
writer.write(b"half of it")
print("begun", flush=True)
time.sleep(60)
"""


def test_what_another_process_writes_stays_until_that_is_dead(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ADDON)}
    command = [sys.executable, "-c", UPLOADER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        begun = sorted(names(tmp_path))
        blobs.remove_abandoned(tmp_path)
        assert sorted(names(tmp_path)) == begun
        assert len(begun) == 2
        process.kill()
    blobs.remove_abandoned(tmp_path)
    assert names(tmp_path) == []


def test_a_directory_may_have_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "Größe [a] ユーザ con"
    directory.mkdir()
    (directory / ".upload-dead.lock").write_bytes(b"")
    upload = BlobWriter(directory)
    upload.write(DATA)
    assert upload.finish(DIGEST) == DIGEST
    assert names(directory) == [DIGEST.replace(":", "-")]
