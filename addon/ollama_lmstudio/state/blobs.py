"""Blobs on disk: `blobs/sha256-<hex>`, the layout of Ollama's model directory.

A blob is written to a file of another name, which is closed and renamed when all of it is on the disk and its digest is
right: a file with a blob's name is complete. Beside it lies a file that is locked until then, so that what dead
processes have left can be told apart and removed. The lock is no lock of the file itself, since Windows renames no open
file, and a closed one has no lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from . import files

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_UPLOAD: Final = ".upload-"
_LOCK: Final = ".lock"
# Uploads of versions before this one, which locked the file itself.
_FORMER_UPLOAD: Final = ".partial-"
# Enough that two writers never choose the same name.
_RANDOM_BYTES = 8
# What nobody has written for so long is abandoned, where no lock tells.
_ABANDONED_SECONDS: Final = 24 * 60 * 60


def parse_digest(text: str) -> str | None:
    """Return a digest as `sha256:<hex>` in lower case; None if `text` is none. Ollama takes `:` and `-`."""
    match = _DIGEST.fullmatch(text)
    return f"sha256:{match[1].lower()}" if match else None


def directory_in(cache: Path) -> Path:
    """Return the directory of blobs in a cache directory."""
    return cache / "blobs"


class BlobWriter:
    """Write one blob.

    Every method but `abort` may raise OSError. All of them are thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        """Create the file, and remove those of dead processes."""
        self._lock = threading.Lock()
        self._directory = directory
        self._hash = hashlib.sha256()
        directory.mkdir(parents=True, exist_ok=True)
        remove_abandoned(directory)
        self._path, self._claim = _claim_name(directory)
        self._descriptor = -1
        try:
            self._descriptor = files.create(self._path)
        except OSError:
            self.abort()
            raise

    def write(self, data: bytes) -> None:
        """Append `data`."""
        with self._lock:
            self._hash.update(data)
            rest = memoryview(data)
            while rest and self._descriptor >= 0:
                rest = rest[os.write(self._descriptor, rest) :]

    def finish(self, digest: str) -> str:
        """Keep the blob if its digest is `digest`, else remove it; return the digest that it has.

        Raises OSError if it was aborted.
        """
        found = f"sha256:{self._hash.hexdigest()}"
        with self._lock:
            if self._descriptor < 0:
                raise OSError(errno.ECANCELED, "the upload was cancelled")
            if found == digest:
                os.fsync(self._descriptor)
                self._close()
                # Its day begins when it is whole, not with its last byte.
                os.utime(self._path)
                _keep(self._path, blob_path(self._directory, digest))
                files.sync_directory(self._directory)
        self.abort()
        return found

    def abort(self) -> None:
        """Remove the file, unless it is a blob by now."""
        with self._lock:
            self._close()
            claim, self._claim = self._claim, -1
            if claim >= 0:
                with suppress(OSError):
                    files.remove(self._path)
                with suppress(OSError):
                    files.close(claim)
                with suppress(OSError):
                    files.remove(_lock_of(self._path))

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def _keep(path: Path, blob: Path) -> None:
    try:
        files.replace(path, blob)
    except PermissionError:
        # Windows replaces no file that somebody reads; a blob that is there holds the same bytes.
        if not blob.is_file():
            raise


def blob_path(directory: Path, digest: str) -> Path:
    """Return the path of a blob."""
    return directory / digest.replace(":", "-")


def touch(directory: Path, digest: str) -> None:
    """Note that a blob is wanted: it is removed no sooner than a day from now. Does nothing if there is none."""
    with suppress(OSError):
        os.utime(blob_path(directory, digest))


def remove(directory: Path, digests: Iterable[str]) -> None:
    """Remove blobs; one that does not exist, or cannot be removed, is left."""
    for digest in digests:
        with suppress(OSError):
            blob_path(directory, digest).unlink()


def unwanted_since(directory: Path, seconds: float) -> set[str]:
    """Return the blobs that nobody has asked for, nor uploaded, since a time of the system's clock."""
    found = set()
    for path in directory.glob("sha256-*"):
        digest = parse_digest(path.name)
        with suppress(OSError):
            if digest is not None and path.stat().st_mtime < seconds:
                found.add(digest)
    return found


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_LOCK}")


def _claim_name(directory: Path) -> tuple[Path, int]:
    """Return a path that no other writer has, and the descriptor whose lock says that its writer lives."""
    while True:
        path = directory / f"{_UPLOAD}{secrets.token_hex(_RANDOM_BYTES)}"
        lock = _lock_of(path)
        descriptor = files.create(lock)
        is_ours = True
        # Where there are no locks, what is a day old is taken for abandoned.
        with suppress(OSError):
            is_ours = files.try_lock(descriptor)
        # Before it was locked, another writer may have taken it for abandoned and removed it.
        if is_ours and lock.exists():
            return path, descriptor
        files.close(descriptor)


def remove_abandoned(directory: Path) -> None:
    """Remove what dead processes have left of uploads: nobody holds the locks of these."""
    for name in {path.name.removesuffix(_LOCK) for path in directory.glob(f"{_UPLOAD}*")}:
        path = directory / name
        with suppress(OSError):
            _remove_if_abandoned(path, _lock_of(path))
    for path in directory.glob(f"{_FORMER_UPLOAD}*"):
        with suppress(OSError):
            _remove_if_abandoned(path, path)


def _remove_if_abandoned(path: Path, lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_RDWR | files.NO_FOLLOW)
    except FileNotFoundError:
        if _is_old(path):
            path.unlink()
        return
    try:
        if not _is_free(descriptor, path):
            return
        if path != lock:
            path.unlink(missing_ok=True)
        # Windows removes no file that is open.
        with suppress(PermissionError):
            lock.unlink()
    finally:
        files.close(descriptor)
    lock.unlink(missing_ok=True)


def _is_free(descriptor: int, path: Path) -> bool:
    try:
        return files.try_lock(descriptor)
    except OSError:
        return _is_old(path)


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
