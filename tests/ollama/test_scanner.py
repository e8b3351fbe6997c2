"""The complaints of Go's JSON scanner."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.ollama import scanner
from ollama_lmstudio.ollama.scanner import syntax_error

VALID = [
    "null",
    " true ",
    "false",
    '"x"',
    "0",
    "-0",
    "-1.5e+10",
    "1E5",
    "[]",
    "{}",
    '[1,{"a":[{}]} , ""]',
    '{"a":{"b":null},"c":"\\u00e9\\n\\/"}',
    "truex",
    "5 x",
    "{}}",
    "01",
]

CUT_SHORT = [
    "",
    " ",
    "{",
    "[",
    '"',
    '"\\',
    '"\\u12',
    '{"a',
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,',
    "[1",
    "[1,",
    "t",
    "-",
    "1.",
    "1e",
    "1e+",
    '[{"a":tru',
]


@pytest.mark.parametrize("body", VALID)
def test_valid(body: str) -> None:
    assert syntax_error(body.encode(), 10) is None


@pytest.mark.parametrize("body", CUT_SHORT)
def test_cut_short(body: str) -> None:
    assert syntax_error(body.encode(), 10) == "unexpected EOF"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"x", "'x' looking for beginning of value"),
        (b"]", "']' looking for beginning of value"),
        (b"'a'", r"'\'' looking for beginning of value"),
        (b"\x1f\x8b", r"'\x1f' looking for beginning of value"),
        (b"\xef\xbb\xbf{}", "'ï' looking for beginning of value"),
        (b"\xa0", r"'\u00a0' looking for beginning of value"),
        (b"NaN", "'N' looking for beginning of value"),
        (b"[1,]", "']' looking for beginning of value"),
        (b'{"a":}', "'}' looking for beginning of value"),
        (b'{"a":Infinity}', "'I' looking for beginning of value"),
        (b"{a:1}", "'a' looking for beginning of object key string"),
        (b'{"a":1,}', "'}' looking for beginning of object key string"),
        (b'{"a" 1}', "'1' after object key"),
        (b'{"a":1 "b":2}', "'\"' after object key:value pair"),
        (b'{"a":01}', "'1' after object key:value pair"),
        (b"[1 2]", "'2' after array element"),
        (b"[1}", "'}' after array element"),
        (b'"a\nb"', r"'\n' in string literal"),
        (b'"\\x"', "'x' in string escape code"),
        (b'"\\u12g4"', r"'g' in \u hexadecimal character escape"),
        (b"-x", "'x' in numeric literal"),
        (b"-Infinity", "'I' in numeric literal"),
        (b"1.x", "'x' after decimal point in numeric literal"),
        (b"1ex", "'x' in exponent of numeric literal"),
        (b"1e+-", "'-' in exponent of numeric literal"),
        (b"tx", "'x' in literal true (expecting 'r')"),
        (b"trux", "'x' in literal true (expecting 'e')"),
        (b"fALSE", "'A' in literal false (expecting 'a')"),
        (b"nan", "'a' in literal null (expecting 'u')"),
        (b"[[[1]]]", "'[' exceeded max depth"),
        (b'[[{"a":1}]]', "'{' exceeded max depth"),
    ],
)
def test_complaints(body: bytes, message: str) -> None:
    assert syntax_error(body, 2) == f"invalid character {message}"


@given(st.binary() | st.text(alphabet='{}[]",:\\u0e.-+tfn 1').map(str.encode))
def test_it_agrees_with_the_standard_library(body: bytes) -> None:
    try:
        json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return
    assert syntax_error(body, 1000) is None


LONG = 20_000


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"-1.5e3," * LONG + b"x]",
        b"[" + b'"a\\"\\u00e9", ' * LONG + b"x]",
        b"{" + b'"a" : true, ' * LONG + b'"a":x}',
        b"[" + b"{}," * LONG + b"x]",
        b'{"messages":[' + b'{"role":"user","images":null},' * LONG + b"x]}",
        b'["' + b'\\"[{' * LONG + b'",x]',
        b"[" * 10 + b"1," * LONG + b"x",
        b"[" + b"[" + b"1," * LONG + b"[[[]]],x]",
    ],
)
def test_what_is_plainly_right_is_skipped(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    steps = 0
    ahead = scanner._Scanner.ahead

    def counted(self: scanner._Scanner) -> bytes:
        nonlocal steps
        steps += 1
        return ahead(self)

    monkeypatch.setattr(scanner._Scanner, "ahead", counted)
    assert syntax_error(body, 10) == "invalid character 'x' looking for beginning of value"
    assert steps < LONG / 10


@pytest.mark.parametrize("member", [b"1", b'{"a":[1]}', b'"a":{}', b'"a":1'])
@pytest.mark.parametrize("count", [254, 255, 256, 257, 600])
@pytest.mark.parametrize("end", [b"", b"x", b",", b",x", b"]", b"}"])
def test_members_without_number(monkeypatch: pytest.MonkeyPatch, member: bytes, count: int, end: bytes) -> None:
    opening = b"{" if member.startswith(b'"') else b"["
    body = opening + b",".join([member] * count) + end
    found = syntax_error(body, 10)
    for pattern in ("_MORE", "_MORE_FLAT"):
        monkeypatch.setattr(scanner, pattern, {b"[": re.compile(b""), b"{": re.compile(b"")})
    assert found == syntax_error(body, 10)
