"""What the user has edited: the difference between two bodies, in their lines."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

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
COMPARED_LINES = 150
# Of a longer line, what is around its change.
LINE_CHARACTERS = 300
AROUND_CHARACTERS = 80
# To write megabytes in lines takes seconds, in which the event loop stands still: of a larger body only what differs is
# written, so many characters of each text and so many values, and so much of what is equal around it.
WHOLE_BYTES = 65_536
TEXT_CHARACTERS = 10_000
MAX_VALUES = 400
EQUAL_CHARACTERS = 200
EQUAL_VALUES = 2
EQUAL_NAMES = 50
# So much of a text shows whether it is a file in base64.
HEAD_CHARACTERS = 1000

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
    old, new = _lines(before, after)
    first = _common(old, new)
    last = _common(old[first:], new[first:], from_end=True)
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


def _lines(before: bytes, after: bytes) -> tuple[list[str], list[str]]:
    """Return two bodies in lines that can be read: JSON is indented, and a text in it has lines of its own."""
    read = [jsontext.read(without_secrets(body)) for body in (before, after)]
    texts = [body.decode("utf-8", "replace") for body in (before, after)]
    if max(len(before), len(after)) > WHOLE_BYTES:
        if any(problem for _, problem in read):
            texts = list(_Reduced().pair(*texts))
            read = [jsontext.Read(None, "too large to be mended")] * 2
        else:
            read = [jsontext.Read(value) for value in _Reduced().pair(*(value for value, _ in read))]
    old, new = (_written(*one) for one in zip(read, texts, strict=True))
    return old, new


def _written(read: jsontext.Read, text: str) -> list[str]:
    if read.problem:
        return jsontext.without_base64(text).splitlines()
    return _BREAK.sub(r"\1\n", jsontext.without_base64(jsontext.pretty(read.value))).splitlines()


class _Reduced:
    """Two values without most of what is equal in both; of the rest, as much as is compared."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def pair(self, old: Any, new: Any) -> tuple[Any, Any]:
        """Return both, reduced."""
        self._left -= 1
        if isinstance(old, dict) and isinstance(new, dict):
            return self._objects(old, new)
        if isinstance(old, list) and isinstance(new, list):
            begin, end, first, second = _apart(old, new, EQUAL_VALUES)
            pairs = list(islice(zip(first, second, strict=False), max(0, self._left)))
            both = [self.pair(*each) for each in pairs]
            return (
                [*begin, *(one for one, _ in both), *self._all(first[len(both) :]), *end],
                [*begin, *(one for _, one in both), *self._all(second[len(both) :]), *end],
            )
        if isinstance(old, str) and isinstance(new, str):
            begin, end, first, second = _apart(_noted(old), _noted(new), EQUAL_CHARACTERS)
            first, second = (jsontext.cut(text, TEXT_CHARACTERS) for text in (first, second))
            return "".join([*begin, first, *end]), "".join([*begin, second, *end])
        return self._one(old), self._one(new)

    def _objects(self, old: dict[str, Any], new: dict[str, Any]) -> tuple[Any, Any]:
        names = dict.fromkeys((*old, *new))
        if len(names) > EQUAL_NAMES:
            names = {name: None for name in names if name not in old or name not in new or old[name] != new[name]}
        first, second = {}, {}
        for name in names:
            if self._left <= 0:
                break
            if name in old and name in new:
                first[name], second[name] = self.pair(old[name], new[name])
            else:
                shown, given = (first, old) if name in old else (second, new)
                shown[name] = self._one(given[name])
        return first, second

    def _one(self, value: Any) -> Any:
        """Return a value that has no counterpart, reduced."""
        self._left -= 1
        if isinstance(value, str):
            return jsontext.cut(_noted(value), TEXT_CHARACTERS)
        if isinstance(value, list):
            return self._all(value)
        if isinstance(value, dict):
            shown = self._all(list(value.values()))
            return dict(zip(value, shown, strict=False))
        return value

    def _all(self, values: list[Any]) -> list[Any]:
        shown: list[Any] = []
        for value in values:
            if self._left <= 0:
                return [*shown, f"[... {len(values) - len(shown):,} more ...]"]
            shown.append(self._one(value))
        return shown


def _noted(text: str) -> str:
    """Return a text, or a note of the file that it is."""
    return jsontext.without_base64(text) if jsontext.without_base64(text[:HEAD_CHARACTERS])[:1] == "[" else text


def _apart(old: Any, new: Any, keep: int) -> tuple[list[str], list[str], Any, Any]:
    """Return two texts or lists without what is equal at their ends, but for `keep`; and how much that was."""
    begin = max(0, _common(old, new) - keep)
    end = max(0, _common(old[begin:], new[begin:], from_end=True) - keep)
    before, after = ([f"[... {count:,} more ...]\n"] if count else [] for count in (begin, end))
    return before, after, old[begin : len(old) - end], new[begin : len(new) - end]


def _common(old: Sequence[Any], new: Sequence[Any], *, from_end: bool = False) -> int:
    """Return how many lines, characters or values are equal at the beginning, or at the end.

    Slices are compared: that is far faster than one after another.
    """
    shorter = min(len(old), len(new))
    if from_end:
        old, new = old[len(old) - shorter :], new[len(new) - shorter :]
        return bisect_right(range(shorter), False, key=lambda n: old[shorter - n - 1 :] != new[shorter - n - 1 :])
    return bisect_right(range(shorter), False, key=lambda n: old[: n + 1] != new[: n + 1])


def _replaced(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Yield what was taken out and what was put in; of a long line that has changed, what is around the change."""
    ends: list[tuple[int, int]] = []
    for before, after in zip(old, new, strict=False):
        begin = _common(before, after)
        ends.append((begin, _common(before[begin:], after[begin:], from_end=True)))
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
