"""What is shown of exchanges while they run: what each waits for, how far it is, and what has come of its answer.

One task looks at all of them once a second, as long as there are any. In mitmweb and the console it refreshes their
lines in the list; mitmdump is told of what waits long. Nothing waits for it, and no token knows of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mitmproxy import http

from ..internals import interface
from ..progress import State
from ..record.record import Record
from ..tasks import Tasks

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1
# A body that streams is shown once a second, plus one second per MiB kept: each time, both bodies are rendered anew, on
# the event loop. A line alone costs less: mitmweb makes a hash of the bodies for it.
RENDERED_BYTES = 2**20
HASHED_BYTES = 16 * RENDERED_BYTES
# What takes so long is told to people; to mitmdump's, again and again.
LONG_SECONDS = 2
AGAIN_SECONDS = 30
NS_PER_SECOND = 1_000_000_000


class Waits(Protocol):
    """Tell what a flow waits for, which its record's `state` says: where no list of flows shows it."""

    def __call__(self, flow: http.HTTPFlow, record: Record) -> None: ...


class Watched(Protocol):
    """What is looked at: an exchange, or a call of the bridge's own."""

    flow: http.HTTPFlow

    @property
    def record(self) -> Record:
        """What is kept with the flow."""

    @property
    def size(self) -> int:
        """The size of the bodies that are shown."""

    @property
    def is_streaming(self) -> bool:
        """Whether its answer is being passed on while it comes."""

    def state(self, now: int) -> State | None:
        """Return what it waits for at the time `now`, or how far it is; None where there is nothing to tell."""

    def show(self, state: str) -> None:
        """Store the state in the flow, and update its label."""

    def show_body(self) -> bool:
        """Store what has come of an answer that streams in the flow; return whether that is anything new."""


@dataclass(slots=True)
class Seen:
    """What has been seen and told of one exchange. Times are ns of the monotonic clock."""

    body_due: int = 0
    line_due: int = 0
    waits_since: int = 0
    told: str = ""
    told_at: int = 0


class Watch:
    """Look at what runs, once a second."""

    def __init__(self, clock: Callable[[], int], tasks: Tasks, waits: Waits) -> None:
        """Look in one of these tasks; `clock` is monotonic, in ns.

        `waits` is called with what has waited for about two seconds, when it waits for something else, and every 30
        seconds; only where there is no list of flows.
        """
        self._clock = clock
        self._tasks = tasks
        self._waits = waits
        self._running: dict[str, tuple[Watched, Seen]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, watched: Watched) -> None:
        """Look at this from now on."""
        self._running[watched.flow.id] = watched, Seen()
        if self._task is None or self._task.done():
            self._task = self._tasks.spawn(self._look())

    def remove(self, watched: Watched) -> None:
        """Look at this no more: it has ended."""
        if self._is_running(watched):
            del self._running[watched.flow.id]

    def show_body_now(self, flow_id: str) -> None:
        """Store what has come of an answer that streams in its flow, unless it is so long that this takes a while."""
        watched, _ = self._running.get(flow_id, (None, None))
        if watched is not None and watched.size < RENDERED_BYTES:
            watched.show_body()

    @property
    def under_way(self) -> tuple[int, int]:
        """How many of these wait for LM Studio's answer to a client, and how many of them pass it on already."""
        asked = [watched for watched, _ in self._running.values() if watched.record.kind in ("call", "relay")]
        return len(asked), sum(watched.is_streaming for watched in asked)

    def _is_running(self, watched: Watched) -> bool:
        """Return whether this runs, and not a replay of the same flow."""
        found = self._running.get(watched.flow.id)
        return found is not None and found[0] is watched

    async def _look(self) -> None:
        while self._running:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look_at_all()
        self._task = None

    async def _look_at_all(self) -> None:
        # Not in the task itself: it would hold the last one, with its bodies, until it looks again.
        for watched, seen in tuple(self._running.values()):
            # The end of one that ended while another was shown has its own words.
            if self._is_running(watched):
                try:
                    await self.look_at(watched, seen)
                except Exception:
                    # The others are looked at all the same.
                    logger.debug("the state of a flow could not be shown", exc_info=True)
                # What came meanwhile, of any answer, goes first.
                await asyncio.sleep(0)

    async def look_at(self, watched: Watched, seen: Seen) -> None:
        """Show or tell what there is to show or tell of it now."""
        now = self._clock()
        state = watched.state(now)
        if interface.is_shown():
            await self._refresh(watched, seen, state.text if state else "", now)
        elif state is None or state.flows:
            seen.waits_since, seen.told = 0, ""
        else:
            self._tell(watched, seen, state, now)

    async def _refresh(self, watched: Watched, seen: Seen, text: str, now: int) -> None:
        """Show what has changed in the list."""
        has_changed = False
        if now >= seen.body_due:
            seen.body_due = _next(now, watched.size, RENDERED_BYTES)
            has_changed = watched.show_body()
        if text != watched.record.state and now >= seen.line_due:
            seen.line_due = _next(now, watched.size, HASHED_BYTES)
            has_changed = True
        if has_changed:
            watched.show(text)
            await interface.show_change(watched.flow)

    def _tell(self, watched: Watched, seen: Seen, state: State, now: int) -> None:
        """Tell mitmdump what has waited long; what it waits for next, too."""
        seen.waits_since = seen.waits_since or now
        # It has waited for up to a look longer than it has been seen to.
        seconds = max(state.seconds, (now - seen.waits_since) / NS_PER_SECOND + LOOK_SECONDS)
        if (state.kind != seen.told and seconds >= LONG_SECONDS) or (
            seen.told and now - seen.told_at >= AGAIN_SECONDS * NS_PER_SECOND
        ):
            seen.told, seen.told_at = state.kind, now
            watched.record.state = state.text
            self._waits(watched.flow, watched.record)


def _next(now: int, size: int, step: int) -> int:
    """Return when something may be shown again: at the next look, or a second later for each `step` of its size."""
    return now + size // step * NS_PER_SECOND
