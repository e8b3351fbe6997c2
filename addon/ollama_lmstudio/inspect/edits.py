"""What the user has edited: the difference between two bodies, in their lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from ..record.redaction import without_secrets
from ..units import plural, size
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
# To parse and indent a megabyte takes a fifth of a second, on the event loop. Of longer bodies, only what is between
# their equal beginnings and ends is looked at, and so much around it, as text.
PARSED_BYTES = 131_072
AROUND_BYTES = 400

# Line breaks in JSON's strings: each line of a text is one of its own.
_BREAK = re.compile(r"(?<!\\)((?:\\\\)*\\n)(?!\")")
# Where compact JSON of a longer body is divided into lines: between members and elements, but not between numbers.
_BETWEEN = re.compile(r"(?<=[\w\"}\]],)\s?(?=[{\[\"])")


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
    old, new = _lines_of_both(without_secrets(before), without_secrets(after))
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


def _lines_of_both(before: bytes, after: bytes) -> tuple[list[str], list[str]]:
    if max(len(before), len(after)) <= PARSED_BYTES:
        return _lines(before), _lines(after)
    first = _common(before, after)
    last = _common(before[first:][::-1], after[first:][::-1])
    begin = max(0, first - AROUND_BYTES)
    old, new = (_part(body, begin, len(body) - max(0, last - AROUND_BYTES)) for body in (before, after))
    return old, new


def _lines(body: bytes) -> list[str]:
    """Return a body in lines that can be read: JSON is indented, and a text in it has lines of its own."""
    value, problem = jsontext.read(body)
    text = body.decode("utf-8", "replace") if problem else jsontext.pretty(value)
    text = jsontext.without_base64(text)
    return (text if problem else _BREAK.sub(r"\1\n", text)).splitlines()


def _part(body: bytes, begin: int, end: int) -> list[str]:
    """Return a part of a long body in lines."""
    text = jsontext.without_base64(body[begin : min(end, begin + PARSED_BYTES)].decode("utf-8", "replace"))
    lines = _BREAK.sub(r"\1\n", _BETWEEN.sub("\n", text)).splitlines()
    left_out = end - begin - PARSED_BYTES
    return [*lines, f"... {size(left_out)} more"] if left_out > 0 else lines


def _common(old: Sequence[object], new: Sequence[object]) -> int:
    """Return how many lines of a text, or characters of a line, are equal at the beginning."""
    equal, most = 0, min(len(old), len(new))
    while equal < most:
        # Slices are compared many times faster than their elements one by one.
        middle = (equal + most + 1) // 2
        if old[equal:middle] == new[equal:middle]:
            equal = middle
        else:
            most = middle - 1
    return equal


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
