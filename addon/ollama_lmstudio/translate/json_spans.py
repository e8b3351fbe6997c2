"""The positions of members and elements in JSON text, to replace some of them and keep all other bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_SPACES = " \t\r\n"
_SPACE = re.compile(rf"[{_SPACES}]*")
_DECODER = json.JSONDecoder()


class Unreadable(ValueError):  # noqa: N818
    """Raised for JSON that Python's parser cannot read, though others can: nested too deeply, or an endless number."""


class Span(NamedTuple):
    """A value, and its position in the text: [start, end). `key` is where its key begins, if it is a member."""

    value: Any
    start: int
    end: int
    key: int = -1


Change = tuple[Span, str]
"""A value of a text, and the JSON that replaces it."""


def members(text: str) -> dict[str, Span]:
    """Return the members of the object at the beginning of `text`; of several of one name the last, as LM Studio does.

    Text after the object is ignored. Raises ValueError where there is no object.
    """
    found: dict[str, Span] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    at = _skip(text, at + 1)
    while text[at : at + 1] == '"':
        key_at = at
        key, at = _decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError("no value")
        start = _skip(text, at + 1)
        value, end = _decode(text, start)
        found[key] = Span(value, start, end, key_at)
        at = _skip(text, end)
        if text[at : at + 1] != ",":
            break
        at = _skip(text, at + 1)
    if text[at : at + 1] != "}":
        raise ValueError("no end")
    return found


def whole(text: str, member: Span) -> Span:
    """Return where a member stands with its key and one of the commas around it, as it may be removed."""
    after = _skip(text, member.end)
    if text[after] == ",":
        return Span(None, member.key, _skip(text, after + 1))
    before = text[: member.key].rstrip(_SPACES)
    return Span(None, len(before) - before.endswith(","), member.end)


def elements(text: str, start: int) -> Iterator[Span]:
    """Yield the elements of the array at `start`, which must have been decoded before."""
    at = _skip(text, start + 1)
    while text[at] != "]":
        value, end = _decode(text, at)
        yield Span(value, at, end)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def replaced(text: str, changes: Iterable[Change]) -> str:
    """Return the text with other values in these spans, which must not overlap."""
    parts, at = [], 0
    for span, value in sorted(changes, key=lambda change: change[0].start):
        parts += [text[at : span.start], value]
        at = span.end
    return "".join([*parts, text[at:]])


def _decode(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as e:
        # The number of digits is limited (sys.set_int_max_str_digits), and so is the depth.
        raise Unreadable(str(e)) from None


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches nothing too
    return match.end()
