"""What differs between systems about files that several processes share: locks, flags, what is open, directories.

A lock is held until its descriptor is closed, which the system does when the process is killed. It excludes other
descriptors of the same process, too. Windows neither replaces, renames nor removes a file that somebody has open, and
opens none that is just being replaced: what it refuses is tried again for a moment. So do some network shares.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

# Only POSIX can refuse to open a symbolic link, and only Windows tells text from binary.
NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW | _BINARY

# Files may hold what users wrote or uploaded.
OWNER_ONLY: Final = 0o600

# The errors of a disk that has no room: no space, quota exceeded, file size limit.
DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# How long a lock is waited for. It is held for the time of a write, which a busy disk makes seconds.
LOCK_SECONDS: Final = 30.0
# How long a file is tried again that others have open: they read small files, or look for viruses.
BUSY_SECONDS: Final = 1.0
# The same for reading: elsewhere than on Windows an open file can be read, and a refusal lasts.
READ_SECONDS: Final = BUSY_SECONDS if os.name == "nt" else 0.0
# How long to wait before the next attempt: neither system can wait for a lock and give up after a time.
_PAUSE_SECONDS: Final = 0.002

_BUSY: Final = frozenset({errno.EACCES, errno.EPERM, errno.EBUSY})

# Held while this process reads a file or replaces one, so that it is never in its own way.
_using = threading.Lock()

T = TypeVar("T")


def create(path: Path) -> int:
    """Create a file for its owner alone and return its descriptor. Raises FileExistsError if anything is there."""
    return os.open(path, _NEW_FILE, OWNER_ONLY)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that does not exist, for its owner alone, to the disk; leave none that is not whole."""
    descriptor = create(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def read(path: Path, seconds: float = READ_SECONDS) -> bytes:
    """Read a file. One that Windows does not open is tried again for some time."""

    def step() -> bytes:
        with _using:
            return path.read_bytes()

    return _try(step, seconds)


def replace(path: Path, target: Path) -> None:
    """Rename a file, and replace what is there. One that others have open is tried again for a second."""

    def step() -> None:
        with _using:
            path.replace(target)

    _try(step, BUSY_SECONDS)


def rename(path: Path, target: Path) -> None:
    """Rename a file to a name that no other has. One that others have open is tried again for a second."""
    _try(lambda: path.rename(target), BUSY_SECONDS)


def remove(path: Path) -> None:
    """Remove a file, if there is one. One that others have open is tried again for a second."""
    _try(lambda: path.unlink(missing_ok=True), BUSY_SECONDS)


def _try(step: Callable[[], T], seconds: float) -> T:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return step()
        except OSError as e:
            if e.errno not in _BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the exclusive lock of a file, which is created.

    Raises TimeoutError, which says so, if another holds it for so many seconds; other OSErrors where the file cannot be
    opened, or its file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, OWNER_ONLY)
    try:
        deadline = time.monotonic() + seconds
        while not try_lock(descriptor):
            if time.monotonic() >= deadline:
                reason = f"another process has held the lock {path.name} for {seconds:g} seconds"
                raise TimeoutError(errno.ETIMEDOUT, f"{reason}: end it, or try again")
            time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock of a file; return False if another descriptor holds it.

    Raises OSError where the file system has no locks.
    """
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError):
        return False
    return True


def close(descriptor: int) -> None:
    """Give up the lock of a file, if it is held, and close it."""
    # Windows gives up the locks of a closed file when it has time to.
    with suppress(OSError):
        _unlock(descriptor)
    os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as e:
            # Not every C library says why.
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from e

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def sync_directory(directory: Path) -> None:
        """Do nothing: Windows cannot flush a directory."""

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def sync_directory(directory: Path) -> None:
        """Make a rename in `directory` outlive a power cut, where the file system can be asked to (see fsync(2))."""
        with suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
