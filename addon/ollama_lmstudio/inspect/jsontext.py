"""Lenient parsing of JSON, and writing of JSON and text for display.

What the user debugs is often broken, so nothing here raises. Bodies are large and come from anywhere, so every function
takes time linear in the length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import repeat
from typing import Any, NamedTuple

from ..unicode import one_line as one_line
from ..units import size

_DECODER = json.JSONDecoder()
# Takes control characters within strings, such as line breaks, which RFC 8259 (section 7) does not allow.
_LENIENT_DECODER = json.JSONDecoder(strict=False)
_SPACE = " \t\r\n"

# Tokens of JSON: strings, also one that the end cuts off, and the punctuation between values.
# pydantic_core.from_json(allow_partial="trailing-strings") is no substitute: it raises for a line break or a lone
# surrogate in a string and for nesting deeper than 200, and reads `[1, 23` as [1, 23], though the number may go on.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?P<closed>"|\\?\Z)|[{}\[\],:]', re.DOTALL)
_CLOSERS = {"{": "}", "[": "]"}
# The length of an escape such as `\ud83d`, after its backslash.
_UNICODE_ESCAPE = len("ud83d")

# Data URLs, and base64 that begins as a PNG, JPEG, GIF or WebP does; and any base64 that is too long to be a word.
# Runs are possessive, which is ten times faster, and a lookahead tells that one is long enough.
_FILES = (
    r"data:(?P<type>[\w.+-]{1,60}/[\w.+-]{1,60})?[^,\s\"']{0,100};base64,(?P<url>(?:[A-Za-z0-9+/=_-]++|\\/)*+)"
    r"|(?<![A-Za-z0-9+/])(?P<known>(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)(?=(?:[A-Za-z0-9+/=]|\\[/rn]|\r?\n){20})"
    r"(?:[A-Za-z0-9+/=]++|\\[/rn]|\r?\n)++)"
)
_IN_TEXT = re.compile(_FILES + "|(?P<other>(?!))")
_BASE64 = re.compile(
    _FILES + r"|(?<![A-Za-z0-9+/])(?P<other>(?=(?:[A-Za-z0-9+/]|\\/){512})(?:[A-Za-z0-9+/]++|\\/)++={0,2})"
)
_TYPES = {"iVBO": "image/png", "/9j/": "image/jpeg", "R0lG": "image/gif", "UklG": "image/webp"}

# The values of a field that is given and empty.
EMPTY: tuple[object, ...] = (None, "", [], {})

# The strings in JSON text, also one that the end cuts off, and its lists of numbers.
_LONG = re.compile(
    r'"(?P<string>[^"\\]*(?:\\.[^"\\]*)*)(?P<close>"|\\?\Z)|\[\s*(?P<numbers>-?[0-9][0-9\s.,eE+-]*)\]', re.DOTALL
)


TOO_DEEP = "(nested too deeply to be shown)"


class Read(NamedTuple):
    """A value, and what is wrong with the text that it was parsed from; empty if nothing is."""

    value: Any
    problem: str = ""


def read(data: bytes | str) -> Read:
    """Parse JSON, as far as it came: the value of a text that is cut off is what is there, of no JSON it is None."""
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
    """Return the text, closed where its end cuts it off: within a string value, else before the incomplete value."""
    open_brackets: list[str] = []
    # The text up to `good` is valid JSON once the `depth` brackets that are open there are closed.
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
    """Return a string without the escape that its end cuts off, such as `\\u00`."""
    start = text.rfind("\\", -(_UNICODE_ESCAPE + 1))
    before = text[: start + 1]
    # The second of two backslashes begins no escape: it is one.
    if (len(before) - len(before.rstrip("\\"))) % 2 == 0:
        return text
    rest = text[start + 1 :]
    half = not rest or (rest[0] == "u" and len(rest) < _UNICODE_ESCAPE)
    return text[:start] if half else text


def text_at(value: object, key: str) -> str:
    """Return the string that an object has under a key; empty where there is none, or no object."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else ""


def compact(value: object) -> str:
    """Return a value as JSON on one line."""
    return _dumps(value, None)


def pretty(value: object) -> str:
    """Return a value as indented JSON."""
    return _dumps(value, 2)


def _dumps(value: object, indent: int | None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent)
    except (ValueError, TypeError, RecursionError):
        return TOO_DEEP


def excerpt(value: object, characters: int, of_string: int, numbers: int) -> str:
    """Return a value as indented JSON of about `characters`, after which lists and objects say how much more there is.

    Strings are cut to `of_string`, base64 is a placeholder, and of a list of numbers, which is on one line, the first
    `numbers` are shown if there are over twice as many. Takes no time for what is not shown.
    """
    try:
        return str(_Excerpt(value, characters, of_string, numbers))
    except (ValueError, TypeError, RecursionError):
        return TOO_DEEP


class _Excerpt:
    def __init__(self, value: object, characters: int, of_string: int, numbers: int) -> None:
        self._parts: list[str] = []
        self._left = characters
        self._of_string = of_string
        self._numbers = numbers
        self._write(value, "\n")

    def __str__(self) -> str:
        return "".join(self._parts)

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self._left -= len(text)

    def _write(self, value: object, line: str) -> None:
        """Write a value; `line` is a line break and the indentation of what stands below its first line."""
        if isinstance(value, dict):
            self._several("{", "}", (f"{self._string(name)}: " for name in value), value.values(), line)
        elif not isinstance(value, list):
            self._put(self._string(value) if isinstance(value, str) else compact(value))
        elif value and all(type(one) in (int, float) for one in value):
            self._put(self._line(value))
        else:
            self._several("[", "]", repeat(""), value, line)

    def _several(
        self, opening: str, closing: str, begins: Iterable[str], values: Collection[object], line: str
    ) -> None:
        self._put(opening)
        comma, inner = "", line + "  "
        for number, (begin, value) in enumerate(zip(begins, values, strict=False)):
            if self._left <= 0:
                self._put(f"{comma}{inner}... {len(values) - number:,} more")
                break
            self._put(f"{comma}{inner}{begin}")
            self._write(value, inner)
            comma = ","
        self._put(line + closing if values else closing)

    def _line(self, values: list[object]) -> str:
        is_cut = len(values) > 2 * self._numbers
        shown = compact(values[: self._numbers] if is_cut else values)
        return f"{shown[:-1]}, ... {len(values) - self._numbers:,} more]" if is_cut else shown

    def _string(self, text: str) -> str:
        begin, left_out, end = cut_out(without_base64(text), self._of_string)
        return compact(f"{begin} [... {left_out:,} characters left out ...] {end}" if left_out else begin)


def note(media_type: str, count: int) -> str:
    """Return the placeholder for data that is not shown: `[image/png, 12.3 kB]`."""
    return f"[{media_type}, {size(count)}]"


def without_base64(text: str) -> str:
    """Return a text with a placeholder for each image, and for other data in base64."""
    return _BASE64.sub(_noted, text)


def without_files(text: str) -> str:
    """Return a text that somebody said with a placeholder for each image: other long words may be what it is about."""
    return _IN_TEXT.sub(_noted, text)


def _noted(match: re.Match[str]) -> str:
    data = match["url"] if match["url"] is not None else match["known"] or match["other"]
    media_type = match["type"] or _TYPES.get(data[:4], "base64")
    return note(media_type, decoded_size(data))


def decoded_size(data: str) -> int:
    """Return the number of bytes that a base64 text decodes to."""
    return len(data.rstrip("=")) * 3 // 4


def cut_out(text: str, limit: int) -> tuple[str, int, str]:
    """Return the beginning of a text, how many characters are left out if it is longer than `limit`, and its end."""
    if len(text) <= limit:
        return text, 0, ""
    end = limit // 4
    return text[: limit - end], len(text) - limit, text[len(text) - end :]


def cut(text: str, limit: int) -> str:
    """Return the beginning and the end of a text that is longer than `limit`, with how much is left out."""
    begin, left_out, end = cut_out(text, limit)
    return f"{begin}\n[... {left_out:,} characters left out ...]\n{end}" if left_out else text


def shortened(text: str, characters: int, numbers: int) -> str:
    """Return JSON text with its strings cut to `characters`, and lists of over twice as many numbers cut to `numbers`.

    A list of numbers is put on one line.
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


def models(data: object) -> list[dict[str, Any]] | None:
    """Return the entries of a model list, of Ollama or LM Studio; None if the response is none."""
    if not isinstance(data, dict):
        return None
    rows = data.get("models", data.get("data"))
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    return None
