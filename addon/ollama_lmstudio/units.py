"""Numbers with units, for people."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("kB", "MB", "GB", "TB")


def plural(count: int, noun: str) -> str:
    """Return a noun in the number that fits a count."""
    return noun if count == 1 else f"{noun}s"


def size(count: int) -> str:
    """Return a number of bytes for people: `17 bytes`, `12.3 kB`, `4.1 GB`."""
    if count < 1000:
        return f"{count} {plural(count, 'byte')}"
    power = next((power for power in range(1, len(_UNITS)) if count < 999.95 * 1000**power), len(_UNITS))
    return f"{count / 1000**power:.1f} {_UNITS[power - 1]}"
