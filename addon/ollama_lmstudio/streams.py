"""The standard streams of a process: any text can be written there, and there is always one to write to."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path


def accept_any_text() -> None:
    """Let stdout and stderr write a question mark for what their encoding does not have.

    A name of a model may be in any script, and a console or pipe of Windows may know Western letters only. UTF-8 does
    not have all either: half of a surrogate pair, as JSON may hold one.
    """
    for stream in (sys.stdout, sys.stderr):
        # mitmproxy's interfaces and tests put other objects there.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def ensure() -> None:
    """Make streams that discard what is written, where the process was started without: mitmproxy needs them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Open until the process ends.
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8", newline="\n"))  # noqa: SIM115


def discard_output() -> None:
    """Let what has been written to stdout, and cannot be printed, fail no more when the process ends.

    As the documentation of `signal.SIGPIPE` in Python has it.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
