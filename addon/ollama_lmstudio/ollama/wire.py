"""The JSON writer: what Go's encoding/json would write, in ASCII.

Ollama writes non-ASCII text raw. We escape it, because raw U+2028, U+2029 and U+0085 break the line splitting
of Python clients, and because an ASCII line can be cut anywhere without splitting a character.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable
from decimal import Decimal
from json.encoder import encode_basestring_ascii

# The bounds between which numbers are written without exponent, rounded to 32 bits as Go does.
_BOUNDS = (1e-6, 1e21)
_BOUNDS_32 = (array("f", _BOUNDS)[0], array("f", _BOUNDS)[1])

# Python spells an exponent with at least two digits; Go drops a zero in front.
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
        # Surrogates: pairs stand for a character, lone ones for nothing.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        quoted = encode_basestring_ascii(text)
    if "<" in quoted:
        quoted = quoted.replace("<", "\\u003c")
    if ">" in quoted:
        quoted = quoted.replace(">", "\\u003e")
    if "&" in quoted:
        quoted = quoted.replace("&", "\\u0026")
    return quoted


def float64(number: float) -> str:
    """Write `number` with the fewest digits that read back as the same 64 bit float.

    Raises ValueError for NaN and infinity.
    """
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    text = float.__repr__(number)
    if text.endswith(".0"):
        return text[:-2]
    return _exponent(text, number, _BOUNDS) if "e" in text else text


def float32(number: float) -> str:
    """Write `number` with the fewest digits that read back as the same 32 bit float.

    Raises ValueError if it is not finite or too large for 32 bits.
    """
    return _float32s(Vector([number]).floats)[0]


def _float32s(floats: array[float]) -> list[str]:
    """Write 32 bit floats, a whole vector at a time.

    Nine digits always read back, and most numbers need eight or nine, so only few go through more than one
    round of the loop. (Of all powers of two, four get another last digit than in Go; they read back all the same.)
    """
    texts = [f"{number:.8g}" for number in floats]
    exact = _reads_back(texts, floats)
    for index, is_exact in enumerate(exact):
        if not is_exact:
            texts[index] = f"{floats[index]:.9g}"
    candidates = [index for index, is_exact in enumerate(exact) if is_exact]
    for digits in range(7, 0, -1):
        if not candidates:
            break
        shorter = [f"{floats[index]:.{digits}g}" for index in candidates]
        exact = _reads_back(shorter, [floats[index] for index in candidates])
        kept = [pair for pair, is_exact in zip(zip(candidates, shorter, strict=True), exact, strict=True) if is_exact]
        for index, text in kept:
            texts[index] = text
        candidates = [index for index, _ in kept]
    return [
        _exponent(text, number, _BOUNDS_32) if "e" in text else text for text, number in zip(texts, floats, strict=True)
    ]


def _reads_back(texts: Iterable[str], floats: Iterable[float]) -> list[bool]:
    return [back == number for back, number in zip(array("f", map(float, texts)), floats, strict=True)]


def _exponent(text: str, number: float, bounds: tuple[float, float]) -> str:
    """Give a number that Python wrote with an exponent the form Go has for it.

    Go writes an exponent only for numbers outside of `bounds`.
    """
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
        write(f"[{','.join(_float32s(value.floats))}]")
    else:
        raise TypeError(f"{type(value).__name__} has no JSON form")
