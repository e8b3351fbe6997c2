"""Go's JSON scanner, for its complaints.

Bodies are parsed by the standard library, which is fast but words its errors differently and tolerates NaN.
This scanner reads a body the way Go's does, only to tell at which byte Go would have stopped, and why. What is plainly
right it skips by the hundred; whatever is left is read token by token.
"""

from __future__ import annotations

import re

from .possessive import compiled
from .quoting import escape

# Every quantifier is possessive: nothing is read twice, and a match of any length takes no memory.
_S = rb"[ \t\r\n]*+"
_IN_STRING = rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+'
_STRING = rb'"' + _IN_STRING + rb'"'
# A number that goes on otherwise is not plainly right.
_NUMBER = rb"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+(?![0-9.eE])"
_SCALAR = b"|".join((_STRING, _NUMBER, b"true", b"false", b"null"))
# So many members are skipped at once: a match is one step, in which no other thread runs.
_MANY = 255


def _member(value: bytes) -> dict[bytes, bytes]:
    """Give the patterns of one member, by the bracket that it is in."""
    return {b"[": b"(?:" + value + b")", b"{": _STRING + _S + b":" + _S + b"(?:" + value + b")"}


def _more(member: bytes) -> bytes:
    return b"(?:%b,%b%b){0,%d}+" % (_S, _S, member, _MANY)


def _container(opening: bytes, member: bytes) -> bytes:
    inner = b"(?:" + member + _more(member) + _S + b")?+"
    return re.escape(opening) + _S + inner + re.escape(_CLOSING[opening])


_CLOSING = {b"{": b"}", b"[": b"]"}
_FLAT = _member(_SCALAR)
_NESTED = _member(b"|".join((_SCALAR, *(_container(*item) for item in _FLAT.items()))))

_SPACE = compiled(_S)
_DIGITS = compiled(rb"[0-9]*+")
_PLAIN = compiled(_IN_STRING)
_MORE_FLAT = {opening: compiled(_more(member)) for opening, member in _FLAT.items()}
_MORE = {opening: compiled(_more(member)) for opening, member in _NESTED.items()}

_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_AFTER_VALUE = {b"{": "after object key:value pair", b"[": "after array element"}


def syntax_error(body: bytes, max_depth: int) -> str | None:
    """Return Go's error text for the first JSON value in `body`, or None if there is nothing wrong with it.

    Bytes after the value do not matter.
    """
    scanner = _Scanner(body, max_depth)
    try:
        scanner.scan()
    except _GoSyntaxError as problem:
        return str(problem)
    return None


class _GoSyntaxError(Exception):
    pass


class _Scanner:
    def __init__(self, body: bytes, max_depth: int) -> None:
        self.body = body
        self.at = 0
        self.max_depth = max_depth
        self.stack: list[bytes] = []  # the brackets that are open

    def scan(self) -> None:
        self.value()
        while self.stack:
            opening = self.stack[-1]
            self.skip((_MORE if len(self.stack) < self.max_depth else _MORE_FLAT)[opening])
            character = self.token()
            if character == _CLOSING[opening]:
                self.at += 1
                self.stack.pop()
            elif character == b",":
                self.at += 1
                self.member(opening)
            else:
                raise self.problem(_AFTER_VALUE[opening])

    def value(self) -> None:
        """Read a literal, or the beginning of an array or object up to and with its first member."""
        while (character := self.token()) in _CLOSING:
            if len(self.stack) == self.max_depth:
                raise self.problem("exceeded max depth")
            self.at += 1
            self.stack.append(character)
            if self.token() == _CLOSING[character]:
                return
            if character == b"{":
                self.key()
        if character == b'"':
            self.string()
        elif character in _LITERALS:
            self.literal(_LITERALS[character])
        elif character == b"-" or character.isdigit():
            self.number()
        else:
            raise self.problem("looking for beginning of value")

    def member(self, opening: bytes) -> None:
        if opening == b"{":
            self.key()
        self.value()

    def key(self) -> None:
        if self.token() != b'"':
            raise self.problem("looking for beginning of object key string")
        self.string()
        if self.token() != b":":
            raise self.problem("after object key")
        self.at += 1

    def string(self) -> None:
        self.at += 1
        self.skip(_PLAIN)
        character = self.byte()
        if character == b'"':
            self.at += 1
            return
        if character != b"\\":
            raise self.problem("in string literal")
        self.at += 1
        if self.byte() not in b'bfnrt\\/"u':
            raise self.problem("in string escape code")
        # An escape that were whole would have been skipped.
        self.at += 1
        while self.byte() in b"0123456789abcdefABCDEF":
            self.at += 1
        raise self.problem("in \\u hexadecimal character escape")

    def literal(self, word: bytes) -> None:
        for position in range(1, len(word)):
            self.at += 1
            expected = word[position : position + 1]
            if self.byte() != expected:
                raise self.problem(f"in literal {word.decode()} (expecting '{expected.decode()}')")
        self.at += 1

    def number(self) -> None:
        if self.byte() == b"-":
            self.at += 1
        if self.byte() == b"0":
            self.at += 1
        else:
            self.digits("in numeric literal")
        if self.ahead() == b".":
            self.at += 1
            self.digits("after decimal point in numeric literal")
        if self.ahead() in (b"e", b"E"):
            self.at += 1
            if self.byte() in b"+-":
                self.at += 1
            self.digits("in exponent of numeric literal")

    def digits(self, place: str) -> None:
        if not self.byte().isdigit():
            raise self.problem(place)
        self.skip(_DIGITS)

    def token(self) -> bytes:
        """Skip space and return the byte after it."""
        self.skip(_SPACE)
        return self.byte()

    def byte(self) -> bytes:
        """Return the byte at hand; there must be one."""
        if not (character := self.ahead()):
            raise _GoSyntaxError("unexpected EOF")
        return character

    def ahead(self) -> bytes:
        return self.body[self.at : self.at + 1]

    def skip(self, pattern: re.Pattern[bytes]) -> None:
        match = pattern.match(self.body, self.at)
        assert match is not None  # the patterns match nothing, too
        self.at = match.end()

    def problem(self, place: str) -> _GoSyntaxError:
        character = self.byte().decode("latin-1")
        shown = {"'": "\\'", '"': '"'}.get(character) or escape(character)
        return _GoSyntaxError(f"invalid character '{shown}' {place}")
