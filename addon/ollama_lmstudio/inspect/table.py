"""Tables of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_GAP = "  "

Rows = Sequence[Sequence[str]]
"""All with the same number of cells."""


def aligned(rows: Rows) -> list[str]:
    """Return rows as lines: the last column to the left, as names are read, others to the right, as numbers are.

    Each column is as wide as its widest cell.
    """
    last = len(rows[0]) - 1
    return _lines(rows, lambda cell, width, place: cell.ljust(width) if place == last else cell.rjust(width))


def left(rows: Rows) -> list[str]:
    """Return rows as lines, with every column to the left."""
    return _lines(rows, lambda cell, width, _: cell.ljust(width))


def _lines(rows: Rows, justified: Callable[[str, int, int], str]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_GAP.join(map(justified, row, widths, range(len(widths)))).rstrip() for row in rows]
