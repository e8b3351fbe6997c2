"""Where people read what a command has to say.

The console opens the lines that a command returns. mitmweb's command bar shows them as JSON on one line, of which five
fit: there, what is longer than a line becomes a row of the list, whose view has room for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

from mitmproxy import connection, http
from mitmproxy.log import ALERT

from ..internals import interface
from ..record.record import PREFIX, Numbers, Record
from ..unicode import well_formed

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], object]

NAME = "(bridge) {}"
MARK = ":gear:"
READ = "{}: read it in the list, under {}"

_PORT = 80


def shown(command: str, title: str, lines: Sequence[str], spawn: Spawn) -> list[str]:
    """Return what a command returns, so that its lines are read: themselves, or where they are.

    `title` says in a few words what they tell.
    """
    # The console has nothing to open for an empty list, and fails.
    if len(lines) <= 1 or not interface.is_web():
        return list(lines) or [title]
    spawn(_list(command, title, lines))
    return [READ.format(title, name_of(command))]


def name_of(command: str) -> str:
    """Return how the list calls the report of a command: without what all commands of ours begin with."""
    return NAME.format(_short(command))


def _short(command: str) -> str:
    return command.removeprefix("ollama.")


def to_come(command: str, title: str) -> str:
    """Return what a command returns that does not know its result yet: what it does, and where the result comes."""
    where = "opens here" if interface.is_console() else "comes into the list" if interface.is_web() else "is logged"
    return f"{title}: the result {where}{f', under {name_of(command)}' if interface.is_web() else ''}"


async def tell(command: str, title: str, lines: Sequence[str] = ()) -> None:
    """Show what was not known yet when a command returned."""
    if interface.is_console():
        interface.show_lines([title, *lines])
    elif interface.is_web():
        await _list(command, title, lines or [title])
    for line in lines:
        logger.info("%s: %s", _short(command), line)
    logger.log(ALERT, "%s: %s", _short(command), title)


async def _list(command: str, title: str, lines: Sequence[str]) -> None:
    await interface.show_flow(to_flow(command, title, lines))


def to_flow(command: str, title: str, lines: Sequence[str]) -> http.HTTPFlow:
    """Return a flow that has a report for a row of the list; its view shows the lines."""
    now = time.time()
    client = connection.Client(peername=("127.0.0.1", 0), sockname=("127.0.0.1", 0), timestamp_start=now)
    flow = http.HTTPFlow(client, connection.Server(address=(command, _PORT)))
    flow.request = http.Request.make("GET", f"http://{command}/")
    text = well_formed("\n".join(lines))
    flow.response = http.Response.make(HTTPStatus.OK, text, {"Content-Type": "text/plain; charset=utf-8"})
    for message in (flow.request, flow.response):
        message.timestamp_start = message.timestamp_end = now
    record = Record(kind="report", method="GET", path=f"/{command}", purpose=title, numbers=Numbers())
    record.save(flow.metadata)
    for name, text in (("comment", well_formed(f"{name_of(command)}  {title}")), ("marked", MARK)):
        setattr(flow, name, text)
        flow.metadata[f"{PREFIX}{name}"] = text
    return flow
