"""Blobs on disk: `blobs/sha256-<hex>`, as Ollama lays them out.

A blob is written to a file of another name, and renamed when all of it is on the disk and its digest is right: what has
a blob's name is whole. The file is locked while it is written, so that what a dead process left can be told apart.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import sys
import threading
from contextlib import suppress
from pathlib import Path

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_PARTIAL = ".partial-"


def parse_digest(text: str) -> str | None:
    """Give a digest as `sha256:<hex>` in lower case; None for what is none."""
    match = _DIGEST.fullmatch(text)
    return f"sha256:{match[1].lower()}" if match else None


def directory_in(state_dir: Path) -> Path:
    """Give the directory of blobs in a state directory."""
    return state_dir / "blobs"


class BlobWriter:
    """Write one blob.

    Every method but `abort` may raise OSError. They may be called from any thread, and wait for each other.
    """

    def __init__(self, directory: Path) -> None:
        """Open the file, and remove what dead processes left."""
        self._lock = threading.Lock()
        self._directory = directory
        self._hash = hashlib.sha256()
        directory.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(directory)
        self._path, self._descriptor = _open_partial(directory)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        with self._lock:
            self._hash.update(data)
            rest = memoryview(data)
            while rest and self._descriptor >= 0:
                rest = rest[os.write(self._descriptor, rest) :]

    def finish(self, digest: str) -> str:
        """Keep the blob if its digest is this one; return the digest that it has. An aborted one raises OSError."""
        found = f"sha256:{self._hash.hexdigest()}"
        with self._lock:
            if self._descriptor < 0:
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            if found == digest:
                os.fsync(self._descriptor)
                self._path.replace(blob_path(self._directory, digest))
                _sync_directory(self._directory)
                self._close()
        self.abort()
        return found

    def abort(self) -> None:
        """Remove what was written, unless it is a blob by now."""
        with self._lock:
            if self._descriptor >= 0:
                with suppress(OSError):
                    self._path.unlink()
                self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):
            os.close(descriptor)


def blob_path(directory: Path, digest: str) -> Path:
    """Give where a blob is kept."""
    return directory / digest.replace(":", "-")


def _open_partial(directory: Path) -> tuple[Path, int]:
    while True:
        path = directory / f"{_PARTIAL}{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        # Between the two calls somebody may have taken it for abandoned.
        if _lock(descriptor) and os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _remove_abandoned(directory: Path) -> None:
    for path in directory.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                if _lock(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)


if sys.platform == "win32":

    def _lock(descriptor: int) -> bool:
        """Windows removes no file that is open."""
        return True

    def _sync_directory(directory: Path) -> None:
        """Windows has no such thing."""

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Lock a file until it is closed; False if another process holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _sync_directory(directory: Path) -> None:
        """Make a rename outlive a power cut."""
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
