"""Go's durations and `keep_alive`."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.ollama.durations import FOREVER, KeepAlive, parse_duration, parse_keep_alive
from ollama_lmstudio.ollama.errors import OllamaError

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("-0", 0),
        ("0s", 0),
        ("5m0s", 300 * SECOND),
        ("1h30m", 5400 * SECOND),
        ("-1m", -60 * SECOND),
        ("+1.5s", 3 * SECOND // 2),
        (".5h", 1800 * SECOND),
        ("1.h", 3600 * SECOND),
        ("1ns2us3µs4μs5ms", 5_009_001),
        ("1s1s", 2 * SECOND),
        ("9007199254740993ns", 9007199254740993),
        ("0.3333333333333333333h", 1200 * SECOND),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
    ],
)
def test_parse_duration(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("abc", 'time: invalid duration "abc"'),
        (".s", 'time: invalid duration ".s"'),
        ("5", 'time: missing unit in duration "5"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("1s5", 'time: missing unit in duration "1s5"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ('1"', 'time: unknown unit "\\"" in duration "1\\""'),
        ("1é\n", 'time: unknown unit "\\xc3\\xa9\\x0a" in duration "1\\xc3\\xa9\\x0a"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("2562048h", 'time: invalid duration "2562048h"'),
        ("99999999999999999999x", 'time: invalid duration "99999999999999999999x"'),
    ],
)
def test_bad_durations(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="time") as caught:
        parse_duration(text)
    assert str(caught.value) == message


@given(st.text(alphabet="0123456789.hmsnuµ+-", max_size=12) | st.text())
def test_nothing_but_value_errors(text: str) -> None:
    with suppress(ValueError):
        assert -(2**63) <= parse_duration(text) < 2**63


@given(st.integers(0, 2**40), st.integers(0, 59), st.integers(0, 59))
def test_what_go_writes_is_read(hours: int, minutes: int, seconds: int) -> None:
    total = (hours * 3600 + minutes * 60 + seconds) * SECOND
    text = f"{hours}h{minutes}m{seconds}s"
    if total < 2**63:
        assert parse_duration(text) == total
        assert parse_duration("-" + text) == -total


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0, KeepAlive(0)),
        ("0", KeepAlive(0)),
        ("0s", KeepAlive(0)),
        (-0.0, KeepAlive(0)),
        (300, KeepAlive(300)),
        (5.5, KeepAlive(5.5)),
        ("5m", KeepAlive(300)),
        ("1.5s", KeepAlive(1.5)),
        (-1, FOREVER),
        (-0.1, FOREVER),
        ("-1s", FOREVER),
        ("-1m", FOREVER),
        (1e300, FOREVER),
    ],
)
def test_keep_alive(value: Any, expected: KeepAlive | None) -> None:
    assert parse_keep_alive(value) == expected


def test_keep_alive_says_what_to_do() -> None:
    assert (KeepAlive(0).unload, KeepAlive(0).forever) == (True, False)
    assert (KeepAlive(1).unload, KeepAlive(1).forever) == (False, False)
    assert (FOREVER.unload, FOREVER.forever, FOREVER.seconds) == (False, True, math.inf)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "Unsupported type: 'bool'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
        ([1], "Unsupported type: '[]interface {}'"),
        ("", 'time: invalid duration ""'),
        ("-1", 'time: missing unit in duration "-1"'),
    ],
)
def test_bad_keep_alive(value: Any, message: str) -> None:
    with pytest.raises(OllamaError) as caught:
        parse_keep_alive(value)
    assert (caught.value.status, caught.value.message) == (400, message)


def test_keep_alive_takes_json_only() -> None:
    with pytest.raises(TypeError, match="bytes"):
        parse_keep_alive(b"5m")
