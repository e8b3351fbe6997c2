"""Windows' rules of sharing: what is open is neither replaced, nor renamed, nor removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DESCRIPTORS = next((path for path in (Path("/proc/self/fd"), Path("/dev/fd")) if path.exists()), None)
"""The directory in which POSIX lists what is open."""


def impose(patch: pytest.MonkeyPatch) -> None:
    """Make the system refuse as Windows does, which does so itself: see CreateFile, without FILE_SHARE_DELETE."""
    if DESCRIPTORS is not None:
        for name in ("replace", "rename", "unlink", "remove"):
            patch.setattr(os, name, _unless_open(getattr(os, name)))


def is_open(path: str | os.PathLike[str]) -> bool:
    """Return whether this process has a file open."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    assert DESCRIPTORS is not None
    for descriptor in DESCRIPTORS.iterdir():
        try:
            held = os.fstat(int(descriptor.name))
        except OSError:
            continue
        if (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino):
            return True
    return False


def _unless_open(call: Callable[..., None]) -> Callable[..., None]:
    def refuse_if_open(*paths: Any, **options: Any) -> None:
        for path in paths:
            if isinstance(path, str | os.PathLike) and is_open(path):
                raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))
        call(*paths, **options)

    return refuse_if_open
