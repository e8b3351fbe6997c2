"""JSON and text for people: read whatever state it is in, and write it so that it can be looked at.

What is debugged is mostly what is broken, so nothing here raises, and everything takes a time that only grows with the
length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..units import size

_DECODER = json.JSONDecoder()
# Takes line breaks within texts, which JSON does not allow.
_LENIENT_DECODER = json.JSONDecoder(strict=False)
_SPACE = " \t\r\n"

# Tokens of JSON: strings, also one that the end cuts off, and the punctuation between values.
# pydantic_core.from_json(allow_partial="trailing-strings") is no substitute: it raises for a line break or a lone
# surrogate in a string and for nesting deeper than 200, and reads `[1, 23` as [1, 23], though the number may go on.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?P<closed>"|\\?\Z)|[{}\[\],:]', re.DOTALL)
_CLOSERS = {"{": "}", "[": "]"}

# Data URLs; what begins like a PNG, JPEG, GIF or WebP; and whatever is in base64 and too long to be a word.
_BASE64 = re.compile(
    r"data:(?P<type>[\w.+-]{1,60}/[\w.+-]{1,60})?[^,\s\"']{0,100};base64,(?P<url>(?:[A-Za-z0-9+/=_-]|\\/)*)"
    r"|(?<![A-Za-z0-9+/])(?P<known>(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)(?:[A-Za-z0-9+/=]|\\[/rn]|\r?\n){20,})"
    r"|(?<![A-Za-z0-9+/])(?P<other>(?:[A-Za-z0-9+/]|\\/){512,}={0,2})"
)
_TYPES = {"iVBO": "image/png", "/9j/": "image/jpeg", "R0lG": "image/gif", "UklG": "image/webp"}

# What a field that says nothing holds.
EMPTY: tuple[object, ...] = (None, "", [], {})

# The strings of a text of JSON, also one that the end cuts off, and its lists of numbers.
_LONG = re.compile(
    r'"(?P<string>[^"\\]*(?:\\.[^"\\]*)*)(?P<close>"|\\?\Z)|\[\s*(?P<numbers>-?[0-9][0-9\s.,eE+-]*)\]', re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


class Read(NamedTuple):
    """A value, and what is wrong with the text that it was read from; empty if nothing is."""

    value: Any
    problem: str = ""


def read(data: bytes | str) -> Read:
    """Read JSON. The value of a text that is cut short is what had come; of one that is no JSON at all, None."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    text = text.strip(_SPACE + "\ufeff")
    if not text:
        return Read(None, "empty")
    try:
        value, end = _DECODER.raw_decode(text)
    except RecursionError:
        return Read(None, "nested too deeply")
    except ValueError as e:
        reason = (
            f"{e.msg.removesuffix(' at')} at character {e.pos + 1}" if isinstance(e, json.JSONDecodeError) else str(e)
        )
        try:
            return Read(_LENIENT_DECODER.raw_decode(_mended(text))[0], f"broken: {reason}")
        except (ValueError, RecursionError):
            return Read(None, f"not JSON: {reason}")
    rest = len(text) - end
    return Read(value, f"{rest:,} characters follow" if rest else "")


def _mended(text: str) -> str:
    """Close what the end cut off: a string in its middle, everything else before the value that is not whole."""
    open_brackets: list[str] = []
    # Up to where the text is whole if so many brackets are closed there.
    good, depth = 0, 0
    before = ""
    for token in _TOKEN.finditer(text):
        mark = token[0][0]
        if mark in "{[":
            open_brackets.append(_CLOSERS[mark])
            good, depth = token.end(), len(open_brackets)
        elif mark in "}]":
            if open_brackets[-1:] != [mark]:
                break
            open_brackets.pop()
            good, depth = token.end(), len(open_brackets)
        elif mark == ",":
            good, depth = token.start(), len(open_brackets)
        elif mark == '"' and token["closed"] != '"' and (before == ":" or open_brackets[-1:] == ["]"]):
            whole = _without_half_escape(text[: token.end()]) + '"'
            return whole + "".join(reversed(open_brackets))
        before = mark
    return text[:good] + "".join(reversed(open_brackets[:depth]))


def _without_half_escape(text: str) -> str:
    """Drop the escape that the end cut in two, such as `\\u00`."""
    start = text.rfind("\\", -6)
    before = text[: start + 1]
    # Of two backslashes in a row, the second begins nothing.
    if (len(before) - len(before.rstrip("\\"))) % 2 == 0:
        return text
    rest = text[start + 1 :]
    half = not rest or (rest[0] == "u" and len(rest) < 5)
    return text[:start] if half else text


def text_at(value: object, key: str) -> str:
    """Give the text that an object has under a key; empty for what is no text, or no object."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else ""


def compact(value: object) -> str:
    """Write a value on one line."""
    return _dumps(value, None)


def pretty(value: object) -> str:
    """Write a value on as many lines as it takes."""
    return _dumps(value, 2)


def _dumps(value: object, indent: int | None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent)
    except (ValueError, TypeError, RecursionError):
        return "(nested too deeply to be shown)"


def note(media_type: str, count: int) -> str:
    """Say what is not printed: `[image/png, 12.3 kB]`."""
    return f"[{media_type}, {size(count)}]"


def without_base64(text: str) -> str:
    """Put a note where images and other data are in base64."""
    return _BASE64.sub(_noted, text)


def _noted(match: re.Match[str]) -> str:
    data = match["url"] if match["url"] is not None else match["known"] or match["other"]
    media_type = match["type"] or _TYPES.get(data[:4], "base64")
    return note(media_type, decoded_size(data))


def decoded_size(data: str) -> int:
    """Tell how many bytes a base64 text stands for."""
    return len(data.rstrip("=")) * 3 // 4


def cut(text: str, limit: int) -> str:
    """Keep the begin and the end of a text that is longer than `limit`, and say how much is left out."""
    if len(text) <= limit:
        return text
    end = limit // 4
    begin = limit - end
    return f"{text[:begin]}\n[... {len(text) - limit:,} characters left out ...]\n{text[len(text) - end :]}"


def shortened(text: str, characters: int, numbers: int) -> str:
    """Shorten a text of JSON: strings of more than so many characters, and lists of many more than so many numbers.

    A list of numbers is written on one line.
    """

    def shorten(match: re.Match[str]) -> str:
        if match["numbers"] is not None:
            values = match["numbers"].split(",")
            more = f", ... {len(values) - numbers:,} more" if len(values) > 2 * numbers else ""
            return f"[{', '.join(value.strip() for value in (values[:numbers] if more else values))}{more}]"
        string = match["string"]
        if len(string) <= characters:
            return match[0]
        end = characters // 4
        left_out = f" [... {len(string) - characters:,} characters left out ...] "
        return f'"{string[: characters - end]}{left_out}{string[len(string) - end :]}{match["close"]}'

    return _LONG.sub(shorten, text)


def one_line(text: str, limit: int = 200) -> str:
    """Write a text on one line, without control characters, cut at its end."""
    text = _CONTROL.sub(" ", text[: 4 * limit]).strip()
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
