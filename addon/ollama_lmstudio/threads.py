"""Work that a large body makes long is done beside the event loop, which serves everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

# With a body of this size, some work takes tens of milliseconds.
LARGE_BYTES = 1 << 16

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread_if_large(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that works on a body of `size` bytes: in a thread, if that is large."""
    if size < LARGE_BYTES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
