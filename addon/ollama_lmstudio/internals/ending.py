"""The end of mitmproxy's process: telling it from a reload, signals, and ending connections before asyncio cancels
their tasks.

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
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How the names of mitmproxy's tasks that load scripts anew begin.
WATCHER = "script watcher"
# The attribute of mitmproxy's master by which a script that is loaded later knows that the process is to end.
DRAINING = "_drains"


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


def others(method: str) -> Iterator[Callable[[], Any]]:
    """Return the methods of this name that addons of earlier versions of the script have."""
    for addon in tuple(getattr(ctx.master.addons, "chain", ())):
        if callable(found := getattr(addon, method, None)):
            yield found


def on_terminate(begin: Callable[[], None]) -> None:
    """Call `begin` at SIGTERM, in place of mitmproxy's own handler, which ends what is under way.

    mitmproxy handles SIGINT and SIGTERM alike. Without this function, and on Windows, where no other process can send
    SIGTERM, nothing drains.
    """
    _handle(signal.SIGTERM, begin)


def end() -> None:
    """End mitmproxy: its `done` hooks are next."""
    ctx.master.shutdown()


def is_draining() -> bool:
    """Return whether `end_at_next_signal` has been called, by whatever version of the script."""
    return DRAINING in vars(ctx.master)


def end_at_next_signal() -> None:
    """Let the next SIGTERM or Ctrl-C end what drains. Without it, the console asks whether to quit first."""
    vars(ctx.master)[DRAINING] = True
    for number in SIGNALS:
        _handle(number, end)


def _handle(number: int, handler: Callable[[], None]) -> None:
    # Signals can be set in the main thread only, where mitmproxy runs its loop.
    with suppress(NotImplementedError, ValueError, RuntimeError):
        asyncio.get_running_loop().add_signal_handler(number, handler)


def heed_second_signal() -> None:
    """Let the next SIGTERM or Ctrl-C end the process at once: mitmproxy would only be told to end once more."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        with suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(number)
        with suppress(ValueError):
            signal.signal(number, signal.SIG_DFL)


async def drain(seconds: float, is_busy: Callable[[], Any]) -> None:
    """Take no more connections, close each once no request is under way on it, and wait until none is.

    At most for `seconds`. The port is free at once, so that a load balancer sends its requests elsewhere and another
    process can begin to serve. Without mitmproxy's connections, only `is_busy` says what is under way.
    """
    ctx.options.update(server=False)
    await _wait_while(lambda: connections.close_idle() or is_busy(), seconds)


async def close(is_busy: Callable[[], Any]) -> None:
    """Take no more connections, wait until nothing is under way, and close those that are idle.

    Without it, asyncio logs a traceback for every client that is connected when the process ends: it asks the cancelled
    task of the connection for its exception.
    """
    logging.getLogger("asyncio").addFilter(is_no_cancellation)
    ctx.options.update(server=False)
    await _wait_while(is_busy, END_SECONDS)
    connections.close_clients(())
    await _wait_while(connections.by_id, END_SECONDS)


async def _wait_while(is_so: Callable[[], Any], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while is_so() and loop.time() < until:  # noqa: ASYNC110 - mitmproxy has no event for it
        await asyncio.sleep(LOOK_SECONDS)


def is_no_cancellation(record: logging.LogRecord) -> bool:
    """Return whether a record of asyncio's log is more than that a task was cancelled, as all are at the end."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
