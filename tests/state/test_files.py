"""Files that several processes share."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from ollama_lmstudio.state import files


def test_a_new_file_is_for_its_owner(tmp_path: Path) -> None:
    files.write_new(tmp_path / "new", b"text\n")
    assert (tmp_path / "new").read_bytes() == b"text\n"
    if os.name != "nt":
        assert (tmp_path / "new").stat().st_mode & 0o777 == files.OWNER_ONLY


@pytest.mark.parametrize("number", sorted(files.DISK_FULL))
def test_a_file_that_cannot_be_whole_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            files.write_new(tmp_path / "new", b"text\n")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").write_bytes(b"of another writer")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "kept", b"text\n")
    assert (tmp_path / "kept").read_bytes() == b"of another writer"


def test_nothing_that_is_there_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    if files.NO_FOLLOW:
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link") if files.NO_FOLLOW else ("file",):
        with pytest.raises(FileExistsError):
            files.create(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    first = files.create(tmp_path / "file")
    second = os.open(tmp_path / "file", os.O_RDWR)
    try:
        assert files.try_lock(first)
        assert not files.try_lock(second)
        os.close(first)
        assert files.try_lock(second)
    finally:
        files.close(second)


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    held, order = threading.Event(), []

    def hold() -> None:
        with files.locked(tmp_path / "lock"):
            held.set()
            time.sleep(0.2)
            order.append("released")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with files.locked(tmp_path / "lock"):
        order.append("taken")
    thread.join()
    assert order == ["released", "taken"]


def test_a_lock_that_is_not_given_up_is_told_of(tmp_path: Path) -> None:
    def wait() -> None:
        with files.locked(tmp_path / "virtual_models.lock", seconds=0.1):
            pytest.fail("two have it")

    with files.locked(tmp_path / "virtual_models.lock"):
        before = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            wait()
        assert 0.1 <= time.monotonic() - before < 5
    text = "another process has held the lock virtual_models.lock for 0.1 seconds: end it, or try again"
    assert caught.value.strerror == text


def test_no_locks_at_all_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "_lock", no_locks)
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)), files.locked(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("call", ["replace", "rename", "remove"])
def test_what_others_have_open_is_tried_again(tmp_path: Path, windows_sharing: None, call: str) -> None:
    path, target = tmp_path / "new", tmp_path / "old"
    path.write_bytes(b"new")
    if call == "replace":
        target.write_bytes(b"old")
    descriptor = os.open(target if call == "replace" else path, os.O_RDONLY)
    closing = threading.Timer(0.1, os.close, [descriptor])
    closing.start()
    getattr(files, call)(path, *((target,) if call != "remove" else ()))
    closing.join()
    assert not path.exists()
    assert call == "remove" or target.read_bytes() == b"new"


def test_what_stays_open_is_an_error_after_a_second(
    tmp_path: Path, windows_sharing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.BUSY_SECONDS == 1
    path, target = tmp_path / "new", tmp_path / "old"
    path.write_bytes(b"new")
    target.write_bytes(b"old")
    before = time.monotonic()
    with target.open("rb") as file:
        with pytest.raises(PermissionError):
            files.replace(path, target)
        assert file.read() == b"old"
    assert 1 <= time.monotonic() - before < 5


def test_what_is_just_being_replaced_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"whole")
    refused = [0.0] * 5
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if refused:
            refused.pop()
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        files.read(tmp_path / "file", seconds=0)
    assert files.read(tmp_path / "file", seconds=1) == b"whole"


def test_a_directory_that_cannot_be_flushed_is_no_error(tmp_path: Path) -> None:
    files.sync_directory(tmp_path)
    files.sync_directory(tmp_path / "nowhere")
