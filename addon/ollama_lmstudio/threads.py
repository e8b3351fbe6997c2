"""CPU-bound work on large bodies, off the event loop, which all connections share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

# Decoding or rendering a body of 64 KiB can take tens of milliseconds, in which no other connection is served.
LARGE_BYTES = 1 << 16

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread_if_large(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`, which works on a body of `size` bytes; in a thread if that is at least `LARGE_BYTES`."""
    if size < LARGE_BYTES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
