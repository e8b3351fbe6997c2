"""What the user has edited: the difference between two bodies, in their lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from ..record.redaction import without_secrets
from ..units import plural
from . import jsontext
from .sheet import Sheet

# Around each change, so many lines stay.
CONTEXT_LINES = 2
# At most so many lines are shown.
MAX_LINES = 200
# The time that a comparison takes grows with the square of the lines: of longer bodies, what is equal at their begin
# and end is left out first, and then what is over this.
COMPARED_LINES = 300
# Of a longer line, what is around its change.
LINE_CHARACTERS = 300
AROUND_CHARACTERS = 80
BODY_CHARACTERS = 400_000

# Line breaks in JSON's strings: each line of a text is one of its own.
_BREAK = re.compile(r"(?<!\\)((?:\\\\)*\\n)(?!\")")


def add_edit(sheet: Sheet, what: str, before: bytes, after: bytes) -> None:
    """Add how the user has edited a body, if that was done."""
    if not before or before == after:
        return
    sheet.heading(f"Edited by the user: {what}")
    lines = list(difference(before, after))
    sheet.raw("\n".join(lines[:MAX_LINES]) if lines else "nothing that is shown: white space, or what is left out")
    if len(lines) > MAX_LINES:
        more = len(lines) - MAX_LINES
        sheet.heading(f"{more:,} more {plural(more, 'line')} of the difference are left out")


def difference(before: bytes, after: bytes) -> Iterator[str]:
    """Yield the lines of two bodies that differ, and some around them: `-` was there, `+` is there."""
    old, new = _lines(before), _lines(after)
    first = _common(old, new)
    last = _common(old[first:][::-1], new[first:][::-1])
    begin = max(0, first - CONTEXT_LINES)
    old, new = (lines[begin : len(lines) - max(0, last - CONTEXT_LINES)] for lines in (old, new))
    left_out = [max(0, len(lines) - COMPARED_LINES) for lines in (old, new)]
    old, new = old[:COMPARED_LINES], new[:COMPARED_LINES]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for number, group in enumerate(matcher.get_grouped_opcodes(CONTEXT_LINES)):
        if number:
            yield "  ..."
        for kind, from_old, to_old, from_new, to_new in group:
            if kind == "equal":
                yield from (f"  {_cut(line, 0, len(line))}" for line in old[from_old:to_old])
            else:
                yield from _replaced(old[from_old:to_old], new[from_new:to_new])
    for sign, count in zip("-+", left_out, strict=True):
        if count:
            yield f"{sign} ... {count:,} more {plural(count, 'line')}"


def _lines(body: bytes) -> list[str]:
    """Return a body in lines that can be read: JSON is indented, and a text in it has lines of its own."""
    value, problem = jsontext.read(without_secrets(body))
    text = body.decode("utf-8", "replace") if problem else jsontext.pretty(value)
    text = jsontext.cut(jsontext.without_base64(text), BODY_CHARACTERS)
    return (text if problem else _BREAK.sub(r"\1\n", text)).splitlines()


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    """Return how many lines, or characters of a line, are equal at the beginning."""
    return next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))


def _replaced(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Yield what was taken out and what was put in; of a long line that has changed, what is around the change."""
    ends: list[tuple[int, int]] = []
    for before, after in zip(old, new, strict=False):
        begin = _common(before, after)
        ends.append((begin, _common(before[begin:][::-1], after[begin:][::-1])))
    for sign, lines in (("-", old), ("+", new)):
        for number, line in enumerate(lines):
            begin, end = ends[number] if number < len(ends) else (0, 0)
            yield f"{sign} {_cut(line, begin, len(line) - end)}"


def _cut(line: str, begin: int, end: int) -> str:
    """Return a line, or of a long one what is from `begin` to `end` and around it."""
    if len(line) <= LINE_CHARACTERS:
        return line
    begin = max(0, begin - AROUND_CHARACTERS)
    end = min(len(line), end + AROUND_CHARACTERS, begin + LINE_CHARACTERS)
    return f"{'...' if begin else ''}{line[begin:end]}{'...' if end < len(line) else ''}"
