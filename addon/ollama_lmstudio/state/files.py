"""What differs between systems about files that several processes share: locks, flags, directories on disk.

A lock is held until its descriptor is closed, which the system does when the process is killed. It excludes other
descriptors of the same process, too.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

# Only POSIX can refuse to open a symbolic link, and only Windows tells text from binary.
NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW | getattr(os, "O_BINARY", 0)

# Files may hold what users wrote or uploaded.
OWNER_ONLY: Final = 0o600


def create(path: Path) -> int:
    """Create a file for its owner alone and return its descriptor. Raises FileExistsError if anything is there."""
    return os.open(path, _NEW_FILE, OWNER_ONLY)


if sys.platform == "win32":
    import msvcrt

    def lock(descriptor: int) -> None:
        """Wait for the exclusive lock of a file. Raises OSError after ten seconds."""
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)

    def lock_unless_held(descriptor: int) -> bool:
        """Return True: a file needs no lock against being removed, since Windows removes no open file."""
        return True

    def sync_directory(directory: Path) -> None:
        """Do nothing: Windows cannot flush a directory."""

else:
    import fcntl

    def lock(descriptor: int) -> None:
        """Wait for the exclusive lock of a file."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def lock_unless_held(descriptor: int) -> bool:
        """Take the exclusive lock of a file; return False if another descriptor holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def sync_directory(directory: Path) -> None:
        """Make a rename in `directory` outlive a power cut, where the file system can be asked to (see fsync(2))."""
        with suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
