"""A plugin for pytest: this system without what Windows does not have, and with its rules for files that are open.

No code of ours may need more. What tells the systems apart at its import is imported here as on Windows.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
import sys
import types

import pytest
from tests.state import sharing

import ollama_lmstudio.state

HIDDEN_MODULES = ("fcntl", "pty", "resource", "termios", "tty")
HIDDEN_NAMES = {os: ("O_NOFOLLOW", "fork", "forkpty"), socket: ("SO_REUSEPORT", "TCP_CORK")}


def c_library() -> types.ModuleType:
    """Return what stands for the module msvcrt, whose locks exclude each other as POSIX' do."""
    fcntl = importlib.import_module("fcntl")
    modes = {"LK_NBLCK": fcntl.LOCK_EX | fcntl.LOCK_NB, "LK_UNLCK": fcntl.LOCK_UN}

    def locking(descriptor: int, mode: int, _: int) -> None:
        try:
            fcntl.flock(descriptor, mode)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    module = types.ModuleType("msvcrt")
    vars(module).update(modes, locking=locking)
    return module


def pytest_configure() -> None:
    """Hide it, once for the whole process."""
    patch = pytest.MonkeyPatch()
    patch.setitem(sys.modules, "msvcrt", c_library())
    for name in HIDDEN_MODULES:
        patch.setitem(sys.modules, name, None)
    for module, names in HIDDEN_NAMES.items():
        for name in names:
            patch.delattr(module, name, raising=False)
    with pytest.MonkeyPatch.context() as importing:
        importing.setattr(sys, "platform", "win32")
        files = importlib.import_module(f"{ollama_lmstudio.state.__name__}.files")
    patch.setattr(files, "READ_SECONDS", files.BUSY_SECONDS)
    sharing.impose(patch)
