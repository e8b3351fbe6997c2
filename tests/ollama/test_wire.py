"""Ollama's JSON writer."""

from __future__ import annotations

import json
import math
from array import array
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ollama_lmstudio.ollama import wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def float32(number: float) -> str:
    return wire.dumps(wire.Vector([number])).decode()[1:-1]


FLOATS_32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (2**70, "1180591620717411303424"),
        ("", '""'),
        ("<a & b>", '"\\u003ca \\u0026 b\\u003e"'),
        ("\b\f\n\r\t\x01\x1f", '"\\b\\f\\n\\r\\t\\u0001\\u001f"'),
        ('"\\/', '"\\"\\\\/"'),
        ("\x7f", '"\\u007f"'),
        ("é\u2028\x85", '"\\u00e9\\u2028\\u0085"'),
        ("😀", '"\\ud83d\\ude00"'),
        ("\ud83d\ude00", '"\\ud83d\\ude00"'),
        ("a\ud800b\udc00", '"a\\ufffdb\\ufffd"'),
        ([], "[]"),
        ((), "[]"),
        ({}, "{}"),
        ([1, [2], {}], "[1,[2],{}]"),
        ({"b": 1, "a": {"<": 2.0}}, '{"b":1,"a":{"\\u003c":2}}'),
        (wire.Vector([]), "[]"),
        ({"v": wire.Vector([0.6, 1])}, '{"v":[0.6,1]}'),
    ],
)
def test_dumps(value: Any, expected: str) -> None:
    assert wire.dumps(value) == expected.encode()
    assert wire.line(value) == expected.encode() + b"\n"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (500000.0, "500000"),
        (0.5670403838157654, "0.5670403838157654"),
        (1e16, "10000000000000000"),
        (1.5e20, "150000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (-1.25e-6, "-0.00000125"),
        (1e-7, "1e-7"),
        (1.5e-100, "1.5e-100"),
    ],
)
def test_float64(number: float, expected: str) -> None:
    assert wire.float64(number) == expected
    assert wire.dumps(number) == expected.encode()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (0.5570859909057617, "0.557086"),
        (0.7427813410758972, "0.74278134"),
        (0.37139067, "0.37139067"),
        (0.0029353853, "0.0029353853"),
        (0.99998796, "0.99998796"),
        (0.1, "0.1"),
        (8589934592.0, "8589935000"),
        (1e-6, "0.000001"),
        (9.5e-7, "9.5e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1e-45, "1e-45"),
        (1.1e-44, "1.1e-44"),
        (3.4028234663852886e38, "3.4028235e+38"),
    ],
)
def test_float32(number: float, expected: str) -> None:
    assert float32(number) == expected


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not(number: float) -> None:
    for write in (wire.dumps, wire.float64, float32, lambda x: wire.Vector([x])):
        with pytest.raises(ValueError, match="finite"):
            write(number)
    with pytest.raises(ValueError, match="finite"):
        wire.Vector([1e39])


def test_what_has_no_json_form() -> None:
    with pytest.raises(TypeError, match="set has no JSON form"):
        wire.dumps({1})


@given(JSON)
@example({"\ud800": "<&>"})
def test_what_is_written_reads_back(value: Any) -> None:
    written = wire.dumps(value)
    assert written.isascii()
    assert not set(b"<>&\n") & set(written)
    plain = json.dumps(value, ensure_ascii=False)
    if not any("\ud800" <= character <= "\udfff" for character in plain):
        # A float without fraction is written like an integer, and rounded only by who reads it as a float.
        assert json.loads(written, parse_int=float) == json.loads(plain, parse_int=float)


@given(FLOATS_32)
def test_float32_reads_back_and_is_short(number: float) -> None:
    text = float32(number)
    assert array("f", [float(text)])[0] == number
    digits = text.split("e")[0].lstrip("-").replace(".", "").strip("0")
    assert len(digits) <= 9


@given(st.lists(FLOATS_32))
def test_a_vector_is_written_like_its_numbers(numbers: list[float]) -> None:
    assert wire.dumps(wire.Vector(numbers)).decode() == f"[{','.join(map(float32, numbers))}]"
