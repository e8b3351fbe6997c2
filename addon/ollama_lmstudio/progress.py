"""What the work for a request waits for: told where it waits, and shown where the request's exchange is.

It is a long way from an exchange to the load that it waits for, and many may wait for the same. So what a request waits
for is in a context variable: each task of the work for it finds it there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from .units import elapsed


class State(NamedTuple):
    """What is shown of an exchange while it runs.

    `kind` is what of `text` stays the same from second to second. `flows` is whether the answer is coming, so that
    nothing is waited for; `seconds` is how long something has been, as far as it is known.
    """

    kind: str
    text: str
    flows: bool = False
    seconds: float = 0.0


WAITS_FOR_USER = State("waits for you", "waits for you")


def waiting(what: str, seconds: float) -> State:
    """Return the state of an exchange that has waited for something for so long: `loading qwen3-70b, 23 s`."""
    return State(what, f"{what}, {elapsed(seconds)}" if seconds >= 1 else what, seconds=seconds)


def loading(model: str) -> str:
    """Return the words for the load of a model, whose name is shown short."""
    return f"loading {model.removesuffix(':latest').rpartition('/')[2]}"


class Progress:
    """What one request waits for, as far as the work for it has told."""

    def __init__(self) -> None:
        self._kind = ""
        self._text = ""
        self._since = 0.0

    def state(self) -> State | None:
        """Return it, if there is anything."""
        if self._text:
            return State(self._kind, self._text)
        return waiting(self._kind, time.monotonic() - self._since) if self._kind else None

    def show(self, kind: str, text: str) -> None:
        """Tell how far something is, in words of its own."""
        self._kind, self._text = kind, text

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Return a context in which something is waited for: its time is shown."""
        before = self._kind, self._text, self._since
        self._kind, self._text, self._since = what, "", time.monotonic()
        try:
            yield
        finally:
            self._kind, self._text, self._since = before


_current: ContextVar[Progress | None] = ContextVar("progress", default=None)


def current() -> Progress:
    """Return the progress of the request that is worked for; one that nobody sees, if it is none."""
    return _current.get() or Progress()


def waiting_for(what: str) -> AbstractContextManager[None]:
    """Return a context in which the request that is worked for waits for something."""
    return current().waiting_for(what)


@contextmanager
def of(progress: Progress) -> Iterator[None]:
    """Return a context in which all work is for the request with this progress."""
    token = _current.set(progress)
    try:
        yield
    finally:
        _current.reset(token)
