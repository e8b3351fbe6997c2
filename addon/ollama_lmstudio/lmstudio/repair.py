"""Repair of JSON that is nearly right, for the option `enable_chunk_recovery`."""

from __future__ import annotations

import json
import re
from typing import Any

_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_CLOSERS = {"{": "}", "[": "]"}


def loads(text: str) -> Any | None:
    """Return the object in a text that surrounds it with noise, ends too early, or has trailing commas or raw control
    characters; None if the text cannot be repaired so.

    Values are neither made up nor dropped: what is missing at the end is only closed.
    """
    start = text.find("{")
    if start < 0:
        return None
    text = text[start:]
    for candidate in (text, text[: text.rfind("}") + 1], _close(text)):
        for attempt in (candidate, _TRAILING_COMMA.sub(r"\1", candidate)):
            try:
                value = json.loads(attempt, strict=False)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                return value
    return None


def _close(text: str) -> str:
    """Return the text with the strings, arrays and objects closed that it leaves open."""
    open_brackets: list[str] = []
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in _CLOSERS:
            open_brackets.append(_CLOSERS[character])
        elif character in _CLOSERS.values() and open_brackets:
            open_brackets.pop()
    if escaped:
        text = text[:-1]
    if in_string:
        text += '"'
    return text.rstrip().rstrip(",") + "".join(reversed(open_brackets))
