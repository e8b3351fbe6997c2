"""Go's durations, and the `keep_alive` that is written in them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from . import errors
from .errors import OllamaError

_SECOND = 1_000_000_000
_LIMIT = 2**63

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the Greek letter
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}

_NUMBER = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^.0-9]*)")


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Say how many seconds a model stays loaded after a request; infinity is forever."""

    seconds: float

    @property
    def forever(self) -> bool:
        """Tell whether the model is never to be unloaded."""
        return math.isinf(self.seconds)

    @property
    def unload(self) -> bool:
        """Tell whether the model is to be unloaded when the request has ended."""
        return self.seconds == 0


FOREVER = KeepAlive(math.inf)


def parse_duration(text: str) -> int:
    """Parse a Go duration like `1h30m` or `-1.5s` into nanoseconds.

    Raises ValueError with the text of Go's time.ParseDuration.
    """
    rest = text
    sign = 1
    if rest[:1] in ("-", "+"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise _invalid("invalid duration", text)
    total = 0
    position = 0
    while position < len(rest):
        number = _NUMBER.match(rest, position)
        assert number is not None  # it matches the empty string too
        whole, fraction, unit = number.groups(default="")
        if not whole and not fraction:
            raise _invalid("invalid duration", text)
        whole = whole.lstrip("0") or "0"
        if len(whole) > len(str(_LIMIT)) or int(whole) > _LIMIT:
            raise _invalid("invalid duration", text)
        if not unit:
            raise _invalid("missing unit in duration", text)
        scale = _UNITS.get(unit)
        if scale is None:
            raise ValueError(f"time: unknown unit {_quote(unit)} in duration {_quote(text)}")
        total += int(whole) * scale + _fraction(fraction, scale)
        if total > _LIMIT:
            raise _invalid("invalid duration", text)
        position = number.end()
    if total == _LIMIT and sign > 0:
        raise _invalid("invalid duration", text)
    return sign * total


def parse_keep_alive(value: object) -> KeepAlive | None:
    """Read the `keep_alive` of a request: a number of seconds or a Go duration; negative is forever.

    Takes the decoded JSON value; None for null. Raises OllamaError (400) with Go's texts.
    """
    match value:
        case None:
            return None
        case bool() | dict() | list():
            raise errors.unsupported_keep_alive(_GO_TYPES[type(value)])
        case int() | float():
            nanoseconds = _nanoseconds(value)
        case str():
            try:
                nanoseconds = parse_duration(value)
            except ValueError as error:
                raise OllamaError(400, str(error)) from None
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON value")
    return FOREVER if nanoseconds < 0 else KeepAlive(nanoseconds / _SECOND)


_GO_TYPES: dict[type, str] = {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}


def _nanoseconds(seconds: float) -> int:
    # Past the longest duration Go's conversion is undefined; "for ever" is what is meant.
    nanoseconds = seconds * float(_SECOND)
    return int(nanoseconds) if nanoseconds < _LIMIT else -1


def _fraction(digits: str, scale: int) -> int:
    """Turn the digits after a point into nanoseconds, with the float arithmetic Go uses for it."""
    value, divisor = 0, 1.0
    for digit in digits:
        longer = value * 10 + int(digit)
        if longer > _LIMIT:
            break
        value, divisor = longer, divisor * 10
    return int(value * (scale / divisor))


def _invalid(problem: str, text: str) -> ValueError:
    return ValueError(f"time: {problem} {_quote(text)}")


def _quote(text: str) -> str:
    """Quote as Go's time package does: what is not printable ASCII as bytes in hexadecimal."""
    return '"' + "".join(map(_quote_character, text)) + '"'


def _quote_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character < "\x80":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8"))
