"""The end of mitmproxy's process: telling it from a reload, and ending connections before asyncio cancels their tasks.

mitmproxy's `done` hook comes for both. At a reload it is called synchronously and its result dropped; at the end it is
awaited, if it can be.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from mitmproxy import ctx

from . import connections

# How long what is under way gets to end by itself, and how often it is looked at.
END_SECONDS = 1.0
LOOK_SECONDS = 0.01
# How the names of mitmproxy's tasks that load scripts anew begin.
WATCHER = "script watcher"


def is_ending() -> bool:
    """Return whether mitmproxy ends, by a signal, a command, or a SystemExit that has cancelled its main task.

    Without it, no response that is under way gets an error at the end, as if the script were only loaded anew.
    """
    should_exit = getattr(ctx.master, "should_exit", None)
    if should_exit is not None and should_exit.is_set():
        return True
    task = asyncio.current_task()
    # The task that watches a script cancels itself where it finds that the script is gone.
    return task is not None and task.cancelling() > 0 and not task.get_name().startswith(WATCHER)


def others(method: str) -> Iterator[Callable[[], None]]:
    """Return the methods of this name that addons of earlier versions of the script have."""
    for addon in tuple(getattr(ctx.master.addons, "chain", ())):
        if callable(found := getattr(addon, method, None)):
            yield found


def heed_second_signal() -> None:
    """Let the next Ctrl-C end the process at once. Without it, mitmproxy would only be told to end once more."""
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, ValueError, RuntimeError):
        loop.remove_signal_handler(signal.SIGINT)
    # Signals can be set in the main thread only, where mitmproxy runs its loop.
    with suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


async def close(is_busy: Callable[[], Any]) -> None:
    """Take no more connections, wait until nothing is under way, and close those that are idle.

    Without it, asyncio logs a traceback for every client that is connected when the process ends: it asks the cancelled
    task of the connection for its exception.
    """
    logging.getLogger("asyncio").addFilter(is_no_cancellation)
    ctx.options.update(server=False)
    await _wait_while(is_busy)
    connections.close_clients(())
    await _wait_while(connections.by_id)


async def _wait_while(is_so: Callable[[], Any]) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + END_SECONDS
    while is_so() and loop.time() < end:  # noqa: ASYNC110 - mitmproxy has no event for it
        await asyncio.sleep(LOOK_SECONDS)


def is_no_cancellation(record: logging.LogRecord) -> bool:
    """Return whether a record of asyncio's log is more than that a task was cancelled, as all are at the end."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
