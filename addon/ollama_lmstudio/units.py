"""Numbers with units, for people."""

from __future__ import annotations

from typing import Final

_STEP: Final = 1000
# What is not less becomes 1000.0 with one decimal, and is written with the next unit.
_ROUNDED_UP: Final = 999.95
_UNITS: Final = ("kB", "MB", "GB", "TB")


def plural(count: int, noun: str, many: str = "") -> str:
    """Return a noun in the number that fits a count; `many` is its plural, where that is not with an s."""
    return noun if count == 1 else many or f"{noun}s"


def size(count: int) -> str:
    """Return a number of bytes for people: `17 bytes`, `12.3 kB`, `4.1 GB`."""
    if count < _STEP:
        return f"{count} {plural(count, 'byte')}"
    power = next((power for power in range(1, len(_UNITS)) if count < _ROUNDED_UP * _STEP**power), len(_UNITS))
    return f"{count / _STEP**power:.1f} {_UNITS[power - 1]}"
