"""Times on Ollama's wire."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.ollama import times

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1795337616326198683, "2026-11-22T08:53:36.326198683Z"),
        (1795337616326198680, "2026-11-22T08:53:36.32619868Z"),
        (1795337616326198600, "2026-11-22T08:53:36.3261986Z"),
        (1795337616326000000, "2026-11-22T08:53:36.326000Z"),
        (1795337616500000000, "2026-11-22T08:53:36.500000Z"),
        (1795337617000000000, "2026-11-22T08:53:37.000000Z"),
        (1795337616999999999, "2026-11-22T08:53:36.999999999Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_rfc3339(nanoseconds: int, expected: str) -> None:
    assert times.rfc3339(nanoseconds) == expected


def test_forever_is_292_years() -> None:
    assert times.rfc3339(1795337616 * SECOND + times.FOREVER) == "2319-03-04T08:40:52.854775807Z"


@given(st.integers(0, 2**63))
def test_clients_can_read_it(nanoseconds: int) -> None:
    text = times.rfc3339(nanoseconds)
    fraction = text[20:-1]
    assert text[19] == "."
    assert 6 <= len(fraction) <= 9
    parsed = datetime.fromisoformat(text[:19] + "+00:00")
    assert int(parsed.timestamp()) * SECOND + int(fraction.ljust(9, "0")) == nanoseconds
