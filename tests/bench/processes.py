"""What the kernel tells of the processes that are measured, and waiting until they have nothing left to do."""

from __future__ import annotations

import ctypes
import functools
import math
import re
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

# They are idle when all of them together took less than this share of a processor for this long.
WINDOW_SECONDS = 0.005
IDLE_SHARE = 0.05
# Longest wait. Where processor time is not told, this is how long is waited instead.
SETTLE_SECONDS = 3.0
BLIND_SECONDS = 0.05

RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


@functools.cache
def clock_id(pid: int) -> int | None:
    """Return the id of a process's processor clock (POSIX: clock_getcpuclockid); None where there is none."""
    found = ctypes.c_int()
    try:
        library: Any = ctypes.CDLL(None)
        failed = library.clock_getcpuclockid(pid, ctypes.byref(found))
    except (OSError, AttributeError, TypeError):
        return None
    return None if failed else found.value


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far, to the microsecond; NaN where nothing tells it."""
    if sys.platform != "win32" and (clock := clock_id(pid)) is not None:
        with suppress(OSError):
            return time.clock_gettime(clock)
    return math.nan


def resident_mb(pid: int) -> float:
    """Return the memory that a process holds, in MB; NaN where there is no /proc."""
    try:
        found = RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return math.nan
    return int(found[1]) * 1024 / 1e6 if found else math.nan


def settle(pids: Collection[int]) -> None:
    """Wait until processes use the processor no more.

    What an answer leaves behind (connections to close, records to write) would be done in the time of the next one.
    """
    end = time.monotonic() + SETTLE_SECONDS
    before = sum(map(processor_seconds, pids))
    if math.isnan(before):
        time.sleep(BLIND_SECONDS)
        return
    while time.monotonic() < end:
        time.sleep(WINDOW_SECONDS)
        now = sum(map(processor_seconds, pids))
        if not now - before >= WINDOW_SECONDS * IDLE_SHARE:
            return
        before = now
