"""Numbers with units, for people."""

from __future__ import annotations

from typing import Final

_STEP: Final = 1000
# What is not less becomes 1000.0 with one decimal, and is written with the next unit.
_ROUNDED_UP: Final = 999.95
_UNITS: Final = ("kB", "MB", "GB", "TB")
_SECONDS_PER_MINUTE: Final = 60
_MINUTES_PER_HOUR: Final = 60
# Smaller speeds are shown with three digits: the whole part alone would be imprecise.
_MIN_WHOLE_SPEED: Final = 100


def plural(count: int, noun: str, many: str = "") -> str:
    """Return a noun in the number that fits a count; `many` is its plural, where that is not with an s."""
    return noun if count == 1 else many or f"{noun}s"


def size(count: int) -> str:
    """Return a number of bytes for people: `17 bytes`, `12.3 kB`, `4.1 GB`."""
    if count < _STEP:
        return f"{count} {plural(count, 'byte')}"
    power = next((power for power in range(1, len(_UNITS)) if count < _ROUNDED_UP * _STEP**power), len(_UNITS))
    return f"{count / _STEP**power:.1f} {_UNITS[power - 1]}"


def part_of(count: int, total: int) -> str:
    """Return how much of a number of bytes there is: `52 %, 1.2 of 2.3 GB`."""
    done, whole = size(count), size(total)
    number, _, unit = done.partition(" ")
    return f"{100 * count // total} %, {number if whole.endswith(f' {unit}') else done} of {whole}"


def elapsed(seconds: float) -> str:
    """Return a duration for people who wait, in whole seconds: `23 s`, `3 min 5 s`, `2 h 0 min`."""
    minutes, rest = divmod(round(seconds), _SECONDS_PER_MINUTE)
    hours, minutes_left = divmod(minutes, _MINUTES_PER_HOUR)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def speed(tokens_per_second: float) -> str:
    """Return a speed for people: `24.6 tok/s`, `1,204 tok/s`."""
    return f"{rate(tokens_per_second)} tok/s"


def rate(tokens_per_second: float) -> str:
    """Return a number of tokens per second for people, without its unit."""
    digits = ",.0f" if tokens_per_second >= _MIN_WHOLE_SPEED else ".3g"
    return f"{tokens_per_second:{digits}}"
