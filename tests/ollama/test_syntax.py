"""Go's words for broken JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from json import JSONDecodeError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.ollama import decode as go
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.syntax import depth_error, syntax_error

# Broken bodies, character for byte, with what a scanner that works as Go's does said about them.
MUTANTS = [json.loads(line) for line in (Path(__file__).parent / "data/mutants.jsonl").read_bytes().splitlines()]

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


def complaint(body: bytes) -> str | None:
    try:
        go.decode(go.ANYTHING, body)
    except OllamaError as error:
        return error.message
    return None


@pytest.mark.parametrize("body", VALID)
def test_valid(body: str) -> None:
    assert complaint(body.encode()) is None


@pytest.mark.parametrize("body", CUT_SHORT)
def test_cut_short(body: str) -> None:
    assert complaint(body.encode()) == "unexpected EOF"


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
        (b"[1 .5]", "'.' after array element"),
        (b"[1 -]", "'-' after array element"),
        (b"[1.5.5]", "'.' after array element"),
        (b'{"a":[{}, "[\\"{"] 1}', "'1' after object key:value pair"),
        (b'{"a":1.\xff}', "'\u00ff' after decimal point in numeric literal"),
        (b'["\xff\xff" \xe9]', "'\u00e9' after array element"),
        (b"1.\xff", "'\u00ff' after decimal point in numeric literal"),
        (b'["\\ud83d\\u12g4"]', "'g' in \\u hexadecimal character escape"),
    ],
)
def test_complaints(body: bytes, message: str) -> None:
    assert complaint(body) == f"invalid character {message}"


@pytest.mark.parametrize(("body", "message"), MUTANTS)
def test_mutants(body: str, message: str) -> None:
    assert complaint(body.encode("latin-1")) == message


def test_there_are_mutants() -> None:
    assert len(MUTANTS) == 300


@pytest.mark.parametrize(
    ("body", "message", "position", "expected"),
    [
        ("[1 , ]", "Illegal trailing comma before end of array", 3, "']' looking for beginning of value"),
        (
            '{"a":1,}',
            "Illegal trailing comma before end of object",
            6,
            "'}' looking for beginning of object key string",
        ),
        ("[x]", "A message of the future", 1, "'x' looking for beginning of value"),
    ],
)
def test_newer_decoders(body: str, message: str, position: int, expected: str) -> None:
    assert syntax_error(JSONDecodeError(message, body, position), body.encode()) == f"invalid character {expected}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[[[1]]]", "'[' exceeded max depth"),
        (b'[[{"a":1}]]', "'{' exceeded max depth"),
    ],
)
def test_depth(body: bytes, message: str) -> None:
    assert depth_error(body, 2) == f"invalid character {message}"


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        (b"[" * 300, 300),
        (b"[]" * 300, 1),
        (b'{"a":[{}]}' * 300, 3),
        (b'{"a":"' + b"[{" * 300 + b'"}', 1),
        (b'{"a":"' + b'\\"[' * 300 + b'"}', 1),
        (b'{"a":"' + b'\\"[' * 300, 1),
        (b'{"a":"' + b"[" * 300 + b"\\", 1),
        (b'{"a\\\\":[' + b"[]," * 300, 3),
        (b"[" * 256, 256),
    ],
)
def test_depth_is_that_of_brackets_outside_strings(body: bytes, depth: int) -> None:
    assert depth_error(body, depth) == ""
    assert depth_error(body, depth - 1).endswith(" exceeded max depth")


@given(st.binary() | st.text(alphabet='{}[]",:\\u0e.-+tfn 1').map(str.encode))
def test_it_agrees_with_the_standard_library(body: bytes) -> None:
    with suppress(ValueError, ZeroDivisionError):
        json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
        assert complaint(body) is None


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
def test_long(body: bytes) -> None:
    assert complaint(body) == "invalid character 'x' looking for beginning of value"


@pytest.mark.parametrize("member", [b"1", b'{"a":[1]}', b'"a":{}', b'"a":1'])
@pytest.mark.parametrize(
    ("end", "message"),
    [
        (b"", "unexpected EOF"),
        (b"x", "invalid character 'x' after {}"),
        (b",", "unexpected EOF"),
        (b",x", "invalid character 'x' looking for beginning of {}"),
    ],
)
def test_members_without_number(member: bytes, end: bytes, message: str) -> None:
    opening = b"{" if member.startswith(b'"') else b"["
    after, key = ("object key:value pair", "object key string") if opening == b"{" else ("array element", "value")
    place = after if end == b"x" else key
    assert complaint(opening + b",".join([member] * 600) + end) == message.format(place)
