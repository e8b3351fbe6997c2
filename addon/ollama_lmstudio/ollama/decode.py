"""Go's JSON decoder: the types that a request body must have, and Go's error texts for one that has not.

Ollama decodes bodies with encoding/json and answers 400 with the text of its error; both are as recorded. A body is
parsed by the standard library into a tree in which an object is a list of pairs (`Pairs`), because duplicate keys
matter to Go. A `GoType` then turns a part of the tree into a Python value, as `json.Unmarshal` does.

As in Go, there are two ways for that to fail. A value of the wrong type (`json.UnmarshalTypeError`) is noted, decoding
goes on, and the first such error is reported at the end (`Decoding.save`, Go's `decodeState.saveError`). The error of a
type that decodes itself (`json.Unmarshaler`) ends decoding at once, and so comes before any error noted earlier.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Mapping
from json import JSONDecodeError, JSONDecoder
from typing import Any, NoReturn, Protocol

from . import errors
from .syntax import constant_error, depth_error, number_error, syntax_error

# Go's limit is 10,000 (encoding/json, maxNestingDepth), but Python's parser and our writer are recursive, and Python's
# recursion limit is 1,000 frames. The deepest request recorded from a client nests 7 levels.
MAX_DEPTH = 256

_SPACE = re.compile(r"[ \t\r\n]*")
# Any escape in a string; the group is one for half of a surrogate pair, without the other half (RFC 8259, section 8.2).
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

# The largest float has 309 digits. A longer integer stays text: `int` takes quadratic time and refuses more than 4,300.
_MAX_DIGITS = 300


class Pairs(list[tuple[str, Any]]):
    """Hold the members of a JSON object, duplicates too."""

    __slots__ = ()


class Number(float):
    """Hold a JSON number that is not a plain integer, and how it was written."""

    literal: str

    def __new__(cls, literal: str) -> Number:
        number = super().__new__(cls, literal)
        number.literal = literal
        return number


class GoTypeError(Exception):
    """Raised for a value that does not fit a Go type, with the text of `json.UnmarshalTypeError`.

    The place is filled in by the structs on the way out.
    """

    def __init__(self, kind: str, go_type: str) -> None:
        super().__init__(kind, go_type)
        self.kind = kind
        self.go_type = go_type
        self.struct = ""
        self.field = ""

    def __str__(self) -> str:
        place = f"struct field {self.struct}.{self.field}" if self.struct or self.field else "value"
        return f"json: cannot unmarshal {self.kind} into Go {place} of type {self.go_type}"


class Decoding:
    """Keep the current place in a body, and the first error so far (Go's `decodeState`)."""

    def __init__(self) -> None:
        self.struct = ""
        self.path: list[str] = []
        self.first: Exception | None = None

    def save(self, problem: Exception) -> None:
        """Note an error; only the first one is kept."""
        if self.first is None:
            if isinstance(problem, GoTypeError):
                self.place(problem)
            self.first = problem

    def refuse(self, value: Any, go_type: str, kind: str | None = None) -> None:
        """Note that `value` is not of type `go_type`."""
        if self.first is not None:
            return
        self.save(GoTypeError(kind or _kind(value), go_type))

    def place(self, problem: GoTypeError) -> None:
        """Prepend the current path to that of `problem`. The outermost struct, which comes last, names it."""
        if self.struct:
            problem.struct = self.struct
            problem.field = ".".join([*self.path, problem.field] if problem.field else self.path)


class GoType(Protocol):
    """A Go type that can be decoded."""

    name: str

    def zero(self) -> Any:
        """Return the value of a field that was not sent."""

    def decode(self, value: Any, decoding: Decoding) -> Any:
        """Return the Python value, or `KEEP` if the field keeps its value (for null, and after an error)."""


KEEP = object()


class Scalar:
    """Decode a string or a bool."""

    def __init__(self, name: str, python_type: type) -> None:
        self.name = name
        self.zero = python_type

    def decode(self, value: Any, decoding: Decoding) -> Any:
        if type(value) is self.zero:
            return value
        if value is not None:
            decoding.refuse(value, self.name)
        return KEEP


class Integer:
    """Decode an integer; as in Go, a number written with a point or an exponent is none, whatever its value."""

    def __init__(self, name: str, low: int, high: int) -> None:
        self.name = name
        self.range = range(low, high + 1)

    def zero(self) -> int:
        return 0

    def decode(self, value: Any, decoding: Decoding) -> Any:
        if type(value) is int and value in self.range:
            return value
        if type(value) is int or isinstance(value, Number):
            decoding.refuse(value, self.name, f"number {_literal(value)}")
        elif value is not None:
            decoding.refuse(value, self.name)
        return KEEP


class Anything:
    """Decode any JSON value into plain Python: dict, list, str, int, float, bool, None."""

    name = "interface {}"

    def zero(self) -> None:
        return None

    def decode(self, value: Any, decoding: Decoding) -> Any:
        if isinstance(value, Pairs):
            return {key: self.decode(item, decoding) for key, item in value}
        if isinstance(value, list):
            return [self.decode(item, decoding) for item in value]
        if isinstance(value, Number):
            if math.isinf(value):
                decoding.refuse(value, "float64", f"number {value.literal}")
            return float(value)
        return value


class Pointer:
    """Decode a value or null, which becomes `nil`."""

    def __init__(self, inner: GoType, nil: Any = None) -> None:
        self.name = inner.name
        self.inner = inner
        self.nil = nil

    def zero(self) -> Any:
        return self.nil

    def decode(self, value: Any, decoding: Decoding) -> Any:
        return self.nil if value is None else self.inner.decode(value, decoding)


class Slice:
    """Decode an array of one type into a list; null becomes an empty one."""

    def __init__(self, inner: GoType, name: str | None = None) -> None:
        self.name = name or f"[]{inner.name}"
        self.inner = inner

    def zero(self) -> list[Any]:
        return []

    def decode(self, value: Any, decoding: Decoding) -> Any:
        if value is None:
            return []
        if not isinstance(value, list) or isinstance(value, Pairs):
            decoding.refuse(value, self.name)
            return KEEP
        items = [self.inner.decode(item, decoding) for item in value]
        return [self.inner.zero() if item is KEEP else item for item in items]


class Dictionary:
    """Decode an object with values of one type into a dict; null becomes None."""

    def __init__(self, inner: GoType) -> None:
        self.name = f"map[string]{inner.name}"
        self.inner = inner

    def zero(self) -> None:
        return None

    def decode(self, value: Any, decoding: Decoding) -> Any:
        if value is None:
            return None
        if not isinstance(value, Pairs):
            decoding.refuse(value, self.name)
            return KEEP
        items = {key: self.inner.decode(item, decoding) for key, item in value}
        return {key: self.inner.zero() if item is KEEP else item for key, item in items.items()}


class Struct:
    """Decode an object with named fields.

    `build` gets the values of all fields by their JSON names, and those of unknown keys. As in Go, a key that matches
    no field exactly may match one in another case, and the last of several values wins.
    """

    def __init__(
        self,
        name: str,
        fields: Mapping[str, GoType],
        build: Callable[[dict[str, Any], dict[str, Any]], Any],
    ) -> None:
        self.struct = name
        self.name = f"api.{name}"
        self.fields: dict[str, GoType] = {}
        self._folded: dict[str, str] = {}
        for key, go_type in fields.items():
            self.add(key, go_type)
        self.build = build

    def add(self, name: str, go_type: GoType) -> None:
        """Add a field; a recursive struct adds those of its own type after its creation."""
        self.fields[name] = go_type
        self._folded.setdefault(name.lower(), name)

    def zero(self) -> Any:
        return self.build({key: go_type.zero() for key, go_type in self.fields.items()}, {})

    def decode(self, value: Any, decoding: Decoding) -> Any:
        if value is None:
            return KEEP
        if not isinstance(value, Pairs):
            decoding.refuse(value, self.name)
            return KEEP
        values = {key: go_type.zero() for key, go_type in self.fields.items()}
        extras: dict[str, Any] = {}
        outer = decoding.struct
        for key, item in value:
            name = self.field(key)
            if name is None:
                # Go skips it unread. Here it is passed on, so a number that is too large for a float is refused.
                extras[key] = ANYTHING.decode(item, decoding)
                continue
            # Not restored after an exception: `unmarshal` adds them to its text.
            decoding.struct = self.struct
            decoding.path.append(name)
            result = self.fields[name].decode(item, decoding)
            decoding.path.pop()
            decoding.struct = outer
            if result is not KEEP:
                values[name] = result
        return self.build(values, extras)

    def field(self, key: str) -> str | None:
        """Return the name of the field that `key` matches, or None."""
        return key if key in self.fields else self._folded.get(_fold(key))


class Custom:
    """Decode with a function, whose exceptions end decoding at once (Go's `json.Unmarshaler`)."""

    def __init__(self, name: str, function: Callable[[Any], Any], zero: Callable[[], Any]) -> None:
        self.name = name
        self.function = function
        self.zero = zero

    def decode(self, value: Any, decoding: Decoding) -> Any:
        return self.function(value)


STRING = Scalar("string", str)
BOOL = Scalar("bool", bool)
INT = Integer("int", -(2**63), 2**63 - 1)
UINT8 = Integer("uint8", 0, 255)
ANYTHING = Anything()
OBJECT = Dictionary(ANYTHING)


def unmarshal(go_type: GoType, value: Any) -> Any:
    """Decode a tree as a (nested) call of `json.Unmarshal` does.

    Raises GoTypeError or OllamaError.
    """
    decoding = Decoding()
    try:
        result = go_type.decode(value, decoding)
    except GoTypeError as problem:
        decoding.place(problem)
        raise
    if decoding.first is not None:
        raise decoding.first
    return go_type.zero() if result is KEEP else result


def decode(go_type: GoType, body: bytes) -> tuple[Any, str]:
    """Decode the body of a request; return the value and the text it was decoded from.

    Bytes after the first JSON value are ignored, since gin reads one value with `json.Decoder`, and null counts as `{}`
    (both recorded). As in Go, invalid UTF-8 and lone surrogates become U+FFFD. Raises OllamaError (400).
    """
    text = body.decode("utf-8", _REPLACE)
    tree = _parse(body, text)
    try:
        return unmarshal(go_type, tree), text
    except GoTypeError as problem:
        raise errors.bad_body(str(problem)) from None


def member_text(text: str, name: str) -> str:
    """Return the JSON text of the last member `name` of the object in `text`, which must be valid; "" without one."""
    found = ""
    at = _skip_space(text, 0) + 1
    while text[at := _skip_space(text, at)] != "}":
        if text[at] == ",":
            at = _skip_space(text, at + 1)
        key, at = _PARSER.raw_decode(text, at)
        start = _skip_space(text, _skip_space(text, at) + 1)
        _, at = _PARSER.raw_decode(text, start)
        if _fold(key) == name:
            found = text[start:at]
    return found


def _parse(body: bytes, text: str) -> Any:
    start = _skip_space(text, 0)
    if start == len(text):
        raise errors.missing_request_body()
    if problem := depth_error(body, MAX_DEPTH):
        raise errors.bad_body(problem)
    # In the text, since one pass there costs less than one over all strings of the tree.
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPE.sub(lambda match: "\\ufffd" if match[1] else match[0], text)
    try:
        tree, _ = _PARSER.raw_decode(text, start)
    except JSONDecodeError as error:
        raise errors.bad_body(syntax_error(error, body)) from None
    if isinstance(tree, int | float) and (problem := number_error(body, start)):
        raise errors.bad_body(problem)
    return tree


def _integer(literal: str) -> int | Number:
    return int(literal) if len(literal) <= _MAX_DIGITS else Number(literal)


def _refuse_constant(literal: str) -> NoReturn:
    raise errors.bad_body(constant_error(literal))


_PARSER = JSONDecoder(
    object_pairs_hook=Pairs,
    parse_int=_integer,
    parse_float=Number,
    parse_constant=_refuse_constant,
)


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replace each invalid byte by U+FFFD, as Go's utf8.DecodeRune does.

    Python's own handler replaces a truncated sequence as a whole (Unicode 15, section 3.9, "maximal subpart").
    """
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


_REPLACE = "ollama_lmstudio.replace"
codecs.register_error(_REPLACE, _replace)


def _fold(key: str) -> str:
    """Fold case as encoding/json does for field names: by simple folding, so that U+017F is an s and U+212A a k.

    `str.lower` maps only the second.
    """
    return key.lower().replace("ſ", "s")


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


_KINDS: dict[type, str] = {
    str: "string",
    bool: "bool",
    int: "number",
    Number: "number",
    list: "array",
    Pairs: "object",
}


def _literal(value: int | Number) -> str:
    return value.literal if isinstance(value, Number) else str(value)
