"""Blobs on disk: `blobs/sha256-<hex>`, the layout of Ollama's model directory.

A blob is written to a file of another name, which is renamed when all of it is on the disk and its digest is right: a
file with a blob's name is complete. The file is locked while it is written, so that those of dead processes can be told
apart and removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from . import files

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_PARTIAL = ".partial-"
# Enough that two writers never choose the same name.
_RANDOM_BYTES = 8


def parse_digest(text: str) -> str | None:
    """Return a digest as `sha256:<hex>` in lower case; None if `text` is none. Ollama takes `:` and `-`."""
    match = _DIGEST.fullmatch(text)
    return f"sha256:{match[1].lower()}" if match else None


def directory_in(state_dir: Path) -> Path:
    """Return the directory of blobs in a state directory."""
    return state_dir / "blobs"


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
        self._path, self._descriptor = _open_partial(directory)

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
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            if found == digest:
                # Its day begins when it is whole, not with its last byte.
                os.utime(self._path)
                os.fsync(self._descriptor)
                self._path.replace(blob_path(self._directory, digest))
                files.sync_directory(self._directory)
                self._close()
        self.abort()
        return found

    def abort(self) -> None:
        """Remove the file, unless it is a blob by now."""
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


def _open_partial(directory: Path) -> tuple[Path, int]:
    while True:
        path = directory / f"{_PARTIAL}{secrets.token_hex(_RANDOM_BYTES)}"
        descriptor = files.create(path)
        # Before it was locked, another writer may have taken it for abandoned and removed it.
        if files.lock_unless_held(descriptor) and os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def remove_abandoned(directory: Path) -> None:
    """Remove what dead processes have left of uploads; those that are under way are locked."""
    for path in directory.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR)
            try:
                if files.lock_unless_held(descriptor):
                    path.unlink()
            finally:
                os.close(descriptor)
