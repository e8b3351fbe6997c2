"""Go's durations, and `keep_alive`, which takes them.

`parse_duration` follows the documentation of Go's time.ParseDuration, with its error texts; `parse_keep_alive` follows
Ollama's `api.Duration`, as recorded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from . import errors

_SECOND = 1_000_000_000
# A Go duration is an int64 of nanoseconds; this is the magnitude of the lowest one.
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
    """Hold how many seconds a model stays loaded after a request; infinity is forever."""

    seconds: float

    @property
    def forever(self) -> bool:
        """Return whether the model is never unloaded."""
        return math.isinf(self.seconds)

    @property
    def unload(self) -> bool:
        """Return whether the model is unloaded when the request has ended."""
        return self.seconds == 0


FOREVER = KeepAlive(math.inf)
UNLOAD = KeepAlive(0)


def parse_duration(text: str) -> int:
    """Parse a Go duration like `1h30m` or `-1.5s` into nanoseconds.

    A duration is an optional sign, then numbers with an optional fraction and a unit each; `0` needs no unit. Raises
    ValueError with the text of Go's time.ParseDuration.
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
        assert number is not None  # the pattern matches the empty string
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
    """Parse a `keep_alive`, a decoded JSON value: a number of seconds or a Go duration; negative is forever.

    Returns None for null. Raises OllamaError (400): `Unsupported type: 'bool'`, or the text of time.ParseDuration.
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
                raise errors.bad_body(str(error)) from None
        case _:
            raise TypeError(f"{type(value).__name__} is not a JSON value")
    return FOREVER if nanoseconds < 0 else KeepAlive(nanoseconds / _SECOND)


_GO_TYPES: dict[type, str] = {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}


def _nanoseconds(seconds: float) -> int:
    # Out of range, Go's conversion of a float to an integer depends on the machine. A client means forever by it.
    nanoseconds = seconds * float(_SECOND)
    return int(nanoseconds) if nanoseconds < _LIMIT else -1


def _fraction(digits: str, scale: int) -> int:
    """Return the digits after a point in nanoseconds, with Go's float arithmetic, so that they are rounded alike.

    As in Go's leadingFraction, digits that overflow an int64 are ignored.
    """
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
    """Quote as the `quote` of Go's time package does, which is not `%q`: bytes outside of ASCII in hexadecimal."""
    return '"' + "".join(map(_quote_character, text)) + '"'


def _quote_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character < "\x80":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8"))
