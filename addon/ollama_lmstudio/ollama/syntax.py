"""Go's words for what is wrong with a JSON text, from what Python's decoder reports.

Both decoders stop at the same character, since the grammar is the same (RFC 8259); only the messages differ. Go's are
those of the scanner of encoding/json, which names its state and the offending byte. Clients see them: Ollama answers
400 with the decoder's error.
"""

from __future__ import annotations

import itertools
import re
from json import JSONDecodeError

from .quoting import escape

_UNEXPECTED_EOF = "unexpected EOF"

_VALUE = "looking for beginning of value"
_KEY = "looking for beginning of object key string"

# Where Go is, by the message of the JSONDecodeError; the character at its position is the offending one.
_PLACES = {
    "Expecting value": _VALUE,
    "Expecting property name enclosed in double quotes": _KEY,
    "Expecting ':' delimiter": "after object key",
    "Invalid control character at": "in string literal",
}
# Since Python 3.13 the position is that of the comma, and Go's complaint is about the bracket that follows.
_TRAILING_COMMA = {
    "Illegal trailing comma before end of array": _VALUE,
    "Illegal trailing comma before end of object": _KEY,
}
_AFTER_MEMBER = {"{": "after object key:value pair", "[": "after array element"}
_LITERALS = {"t": "true", "f": "false", "n": "null"}

# A number that breaks off, up to the offending character. Python reads the shorter number before it, or none.
_BROKEN_NUMBER = re.compile(
    r"-(?P<sign>)(?![0-9])"
    r"|-?(?:0|[1-9][0-9]*)(?:"
    r"\.(?P<point>)(?![0-9])"
    r"|(?:\.[0-9]+)?[eE](?P<exponent>)(?:[+-](?![0-9])|(?![0-9+-])))"
)
_NUMBER_CHARACTERS = "0123456789+-.eE"
_NUMBER_PLACES = {
    "sign": "in numeric literal",
    "point": "after decimal point in numeric literal",
    "exponent": "in exponent of numeric literal",
}

_SPACE = re.compile(r"[ \t\r\n]*")
_HEX_ESCAPE = re.compile(r"\\?u[0-9a-fA-F]{0,4}")

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
# What each bracket adds to the depth, as a signed byte.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def syntax_error(problem: JSONDecodeError, body: bytes) -> str:
    """Return Go's text for the `problem` that Python's decoder has with `body`.

    The text it decoded must have had one character for each character of `body`, and for each byte that is not UTF-8.
    """
    text, at = _decode(body), problem.pos
    match problem.msg:
        case "Unterminated string starting at":
            return _UNEXPECTED_EOF
        case "Invalid \\escape":
            return _invalid(text, at + 1, "in string escape code")
        case "Invalid \\uXXXX escape":
            return _invalid(text, _end(_HEX_ESCAPE, text, at), "in \\u hexadecimal character escape")
        case "Expecting ',' delimiter":
            start = len(text[:at].rstrip(_NUMBER_CHARACTERS))
            broken = _broken_number(text, start) if start < at else ""
            return broken or _invalid(text, at, _AFTER_MEMBER[_container(text[:at])])
        case "Expecting value" if text[at : at + 1] in _LITERALS:
            return _broken_literal(text, at)
        case "Expecting value" if broken := _broken_number(text, at):
            return broken
        case message if message in _TRAILING_COMMA:
            return _invalid(text, _end(_SPACE, text, at + 1), _TRAILING_COMMA[message])
        case message:
            return _invalid(text, at, _PLACES.get(message, _VALUE))


def number_error(body: bytes, start: int) -> str:
    """Return Go's text if the number that begins at the character `start` of `body` breaks off, else "".

    Python's decoder reads the 5 of `5.x` and stops.
    """
    return _broken_number(_decode(body), start)


def constant_error(literal: str) -> str:
    """Return Go's text for a constant that only Python takes for a number: NaN, Infinity or -Infinity."""
    return _broken_number(literal, 0) or _invalid(literal, 0, _VALUE)


def depth_error(body: bytes, limit: int) -> str:
    """Return Go's text if brackets nest deeper in `body` than `limit`, else "".

    Whatever is in the body, this takes linear time and no recursion. It never misses a bracket that a decoder comes to,
    but also counts those after a syntax error and after the first value, which no client sends.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return ""
    brackets = _brackets(body)
    steps = memoryview(brackets.translate(_STEPS)).cast("b")
    if max(itertools.accumulate(steps), default=0) <= limit:
        return ""
    depths = zip(brackets, itertools.accumulate(steps), strict=True)
    return f"invalid character '{next(chr(bracket) for bracket, depth in depths if depth > limit)}' exceeded max depth"


def _decode(body: bytes) -> str:
    # Go names the byte, so invalid ones must be kept.
    return body.decode("utf-8", "surrogateescape")


def _invalid(text: str, at: int, place: str) -> str:
    if at >= len(text):
        return _UNEXPECTED_EOF
    # As Go's quoteChar: the byte, as if it were a code point, quoted for single quotes.
    byte = chr(text[at].encode("utf-8", "surrogateescape")[0])
    shown = {"'": "\\'", '"': '"'}.get(byte) or escape(byte)
    return f"invalid character '{shown}' {place}"


def _broken_literal(text: str, at: int) -> str:
    word = _LITERALS[text[at]]
    wrong = next(index for index in range(1, len(word)) if text[at + index : at + index + 1] != word[index])
    return _invalid(text, at + wrong, f"in literal {word} (expecting '{word[wrong]}')")


def _broken_number(text: str, start: int) -> str:
    broken = _BROKEN_NUMBER.match(text, start)
    return _invalid(text, broken.end(), _NUMBER_PLACES[broken.lastgroup or ""]) if broken else ""


def _container(text: str) -> str:
    """Return the innermost bracket that is open at the end of `text`, in which there is no syntax error."""
    closed = 0
    for bracket in reversed(_brackets(text.encode("utf-8", "surrogateescape")).decode()):
        if bracket in "]}":
            closed += 1
        elif closed:
            closed -= 1
        else:
            return bracket
    raise ValueError("no bracket is open")


def _brackets(body: bytes) -> bytes:
    """Return the brackets outside of strings; they are right up to the first syntax error."""
    without_escapes = body.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_strings = without_escapes.split(b'"')[::2]
    return b"".join(outside_strings).translate(None, _NOT_BRACKETS)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
