"""The JSON writer: what Go's encoding/json would write, in ASCII.

Where it differs from Python's `json.dumps`, it follows Go's `appendString` (`<`, `>` and `&` are escaped, invalid text
becomes U+FFFD) and `floatEncoder` (see `float64`). Ollama's recorded answers show both.

Go escapes U+2028 and U+2029, and writes other non-ASCII text raw. Here all of it is escaped, which RFC 8259, section 7,
allows: a raw U+0085 breaks the line splitting of Python clients, and an ASCII line can be cut anywhere without
splitting a character.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable
from ctypes import c_float
from decimal import Decimal
from json.encoder import encode_basestring_ascii

from ..unicode import well_formed

# Go's floatEncoder, as ECMAScript's Number::toString, writes no exponent between these bounds. For 32 bit floats it
# compares with them rounded to 32 bits.
_BOUNDS = (1e-6, 1e21)
_BOUNDS_32 = (c_float(_BOUNDS[0]).value, c_float(_BOUNDS[1]).value)

# Nine digits always tell one 32 bit float from the next (IEEE 754-2019, 5.12.2).
_NINE_DIGITS = "%.9g"
_EIGHT_DIGITS = "%.8g"
_FEWER_DIGITS = tuple(f"%.{digits}g" for digits in range(7, 0, -1))

# Python writes an exponent with at least two digits. Go removes the zero of a negative one: 1e-09 becomes 1e-9.
_EXPONENT_ZERO = re.compile(r"e-0(?=\d)")


class Vector:
    """Hold the numbers of one embedding, to be written as 32 bit floats.

    Raises ValueError if a number is not finite or too large for 32 bits.
    """

    __slots__ = ("floats",)

    def __init__(self, values: Iterable[float]) -> None:
        self.floats = array("f", values)
        if not all(map(math.isfinite, self.floats)):
            raise ValueError("not a finite 32 bit float")


def dumps(value: object) -> bytes:
    """Write `value` as compact ASCII JSON.

    Takes None, bool, int, float, str, list, tuple, dict with str keys (order is kept) and `Vector`. Raises
    ValueError for NaN and infinity and TypeError for anything else.
    """
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts).encode("ascii")


def line(value: object) -> bytes:
    """Write `value` as one line of NDJSON."""
    return dumps(value) + b"\n"


def string(text: str) -> str:
    """Write `text` as one quoted JSON string."""
    quoted = encode_basestring_ascii(text)
    if "\\ud" in quoted:
        quoted = encode_basestring_ascii(well_formed(text))
    if "<" in quoted:
        quoted = quoted.replace("<", "\\u003c")
    if ">" in quoted:
        quoted = quoted.replace(">", "\\u003e")
    if "&" in quoted:
        quoted = quoted.replace("&", "\\u0026")
    return quoted


def float64(number: float) -> str:
    """Write `number` with the fewest digits that read back as the same 64 bit float, as Go's strconv and `repr` do.

    Raises ValueError for NaN and infinity.
    """
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    text = float.__repr__(number)
    if text.endswith(".0"):
        return text[:-2]
    return _exponent(text, number, _BOUNDS) if "e" in text else text


def _float32(number: float) -> str:
    """Write `number`, which is a 32 bit float, with the fewest digits that read back as the same one.

    Of all powers of two, four get another last digit than in Go; they read back all the same.
    """
    # Of the numbers of a normalised embedding, 2 in 3 need eight digits and nearly 1 in 3 seven: eight go first.
    text = _EIGHT_DIGITS % number
    if c_float(float(text)).value == number:
        for digits in _FEWER_DIGITS:
            shorter = digits % number
            if c_float(float(shorter)).value != number:
                break
            text = shorter
    else:
        text = _NINE_DIGITS % number
    return _exponent(text, number, _BOUNDS_32) if "e" in text else text


def _exponent(text: str, number: float, bounds: tuple[float, float]) -> str:
    """Return `text`, which Python wrote with an exponent, as Go writes `number`: with one only outside of `bounds`."""
    low, high = bounds
    if low <= abs(number) < high:
        return f"{Decimal(text):f}"
    return _EXPONENT_ZERO.sub("e-", text)


def _write(value: object, write: Callable[[str], None]) -> None:
    if isinstance(value, str):
        write(string(value))
    elif value is None:
        write("null")
    elif value is True:
        write("true")
    elif value is False:
        write("false")
    elif isinstance(value, int):
        write(int.__repr__(value))
    elif isinstance(value, float):
        write(float64(value))
    elif isinstance(value, dict):
        separator = "{"
        for key, item in value.items():
            write(f"{separator}{string(key)}:")
            _write(item, write)
            separator = ","
        write("}" if value else "{}")
    elif isinstance(value, list | tuple):
        separator = "["
        for item in value:
            write(separator)
            _write(item, write)
            separator = ","
        write("]" if value else "[]")
    elif isinstance(value, Vector):
        write(f"[{','.join(map(_float32, value.floats))}]")
    else:
        raise TypeError(f"{type(value).__name__} has no JSON form")
