"""Durations and speeds, for people."""

from __future__ import annotations

from .. import units
from ..record.record import Numbers

_NS_PER_SECOND = 1e9
_SECONDS_PER_MINUTE = 60
# Smaller numbers are shown with a decimal: the whole part alone would be imprecise.
_MIN_WHOLE_MILLISECONDS = 10
# From here on a number of milliseconds would be written as 1000.
_ROUNDED_UP = 999.5


def duration(nanoseconds: int) -> str:
    """Return a duration for display: `0.4 ms`, `310 ms`, `2.4 s`, `3 min 5 s`."""
    seconds = nanoseconds / _NS_PER_SECOND
    milliseconds = seconds * 1000
    if milliseconds < _MIN_WHOLE_MILLISECONDS:
        return f"{milliseconds:.1f} ms"
    if milliseconds < _ROUNDED_UP:
        return f"{milliseconds:.0f} ms"
    if seconds < _SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _SECONDS_PER_MINUTE)
    return f"{minutes} min {rest} s"


def speed(numbers: Numbers) -> str:
    """Return the tokens per second of an answer for display; empty where they are not known."""
    tokens = numbers.tokens_per_second
    return units.speed(tokens) if tokens else ""
