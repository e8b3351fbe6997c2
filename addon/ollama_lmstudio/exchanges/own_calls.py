"""The calls that the bridge makes on its own, in the list of flows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

from mitmproxy import http

from ..internals import interface
from ..lmstudio.client import CANCELLED, ClientCall
from ..progress import State, waiting
from ..record import internal_calls
from ..record.internal_calls import CHANGES, DOWNLOAD, POLLS
from ..record.record import Record
from ..tasks import Tasks
from .watch import Watch

STOPPED = "not waited for: the bridge was stopped or loaded anew"


class OwnCall:
    """One call, from its beginning on."""

    size = 0
    is_streaming = False

    def __init__(self, call: ClientCall, limit: int, label: Callable[[http.HTTPFlow], None]) -> None:
        self._call = call
        self._label = label
        self._what = internal_calls.waits_for(call)
        self._ended = asyncio.Event()
        self.flow = internal_calls.begun(call, limit)
        self.show(self._what)

    @property
    def record(self) -> Record:
        """What is kept with the flow."""
        return Record.load(self.flow.metadata)

    def state(self, now: int) -> State:
        """Return what the call waits for."""
        return waiting(self._what, time.time() - self._call.started)

    def show(self, state: str) -> None:
        """Store the state in the flow, and update its label."""
        record = self.record
        record.state = state
        record.save(self.flow.metadata)
        self._label(self.flow)

    def show_body(self) -> bool:
        """Return that there is nothing new: a body is shown when it is whole."""
        return False

    def end(self) -> None:
        """Complete the flow of a call that has ended."""
        internal_calls.complete(self.flow, self._call)
        self._label(self.flow)
        self._ended.set()

    def stop(self) -> None:
        """Complete the flow of a call whose end nobody sees any more."""
        self._call.ended, self._call.error = time.time(), STOPPED
        self.end()

    async def shown(self) -> None:
        """Show the flow, and its end when that has come."""
        await interface.show_begin(self.flow)
        await self._ended.wait()
        await interface.show_end(self.flow)


class OwnCalls:
    """Show calls as flows: those that change something from their beginning on, as the option `own_calls` has it.

    A download is shown as the client's own request for it; what it asks LM Studio for its progress is never shown, nor
    what /health asks.
    """

    def __init__(self, watch: Watch, tasks: Tasks, label: Callable[[http.HTTPFlow], None]) -> None:
        self._watch = watch
        self._tasks = tasks
        self._label = label
        self._running: dict[ClientCall, OwnCall] = {}

    def show(self, call: ClientCall, chosen: str, limit: int) -> None:
        """Show a call that has begun or ended, if it is one of the `chosen`; at most `limit` bytes of each body."""
        if (shown := self._running.pop(call, None)) is not None:
            self._watch.remove(shown)
            shown.end()
        elif _is_wanted(call, chosen):
            self._begin(call, limit)

    def _begin(self, call: ClientCall, limit: int) -> None:
        shown = OwnCall(call, limit, self._label)
        if call.ended:
            shown.end()
        else:
            self._running[call] = shown
            if interface.is_shown():
                self._watch.add(shown)
        self._tasks.spawn(shown.shown())

    def stop(self) -> None:
        """Complete what runs: the process ends, or the script is loaded anew."""
        running = [*self._running.values()]
        self._running.clear()
        for shown in running:
            self._watch.remove(shown)
            shown.stop()
            interface.show_end_now(shown.flow)


def _is_wanted(call: ClientCall, chosen: str) -> bool:
    """Return whether a call that has begun is to be shown, or one that has ended and was not shown till then."""
    purpose = internal_calls.call_purpose(call)
    if purpose in POLLS or chosen == "none":
        return False
    if not call.ended:
        return chosen == "all" or purpose in CHANGES
    has_failed = call.error != CANCELLED and not (call.status and call.status < HTTPStatus.BAD_REQUEST)
    return has_failed and purpose not in (*CHANGES, DOWNLOAD)
