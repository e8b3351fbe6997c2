"""Vectors of length 1, and counts of tokens that are a lower bound."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ollama_lmstudio.translate.embeddings import count_tokens, normalise


@pytest.mark.parametrize(
    ("vector", "dimensions", "expected"),
    [
        ([3.0, 4.0], 0, [0.6, 0.8]),
        ([3.0, 4.0, 12.0], 2, [0.6, 0.8]),
        ([3.0, 4.0], 2, [0.6, 0.8]),
        ([3.0, 4.0], 3, [0.6, 0.8]),
        ([3.0, 4.0], -1, [0.6, 0.8]),
        ([-2.0], 1, [-1.0]),
        ([0.0, 0.0], 0, [0.0, 0.0]),
        ([0.0, 5.0], 1, [0.0]),
        ([], 0, []),
        ([3e200, 4e200], 0, [0.6, 0.8]),
        ([3e-200, 4e-200], 0, [0.6, 0.8]),
    ],
)
def test_normalise(vector: list[float], dimensions: int, expected: list[float]) -> None:
    assert normalise(vector, dimensions) == pytest.approx(expected)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20), st.integers(-1, 25))
def test_every_vector_has_length_1(vector: list[float], dimensions: int) -> None:
    cut = vector[:dimensions] if dimensions > 0 else vector
    assume(math.hypot(*cut) > 1e-300)
    made = normalise(vector, dimensions)
    assert len(made) == len(cut)
    assert math.hypot(*made) == pytest.approx(1)


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ([], 0),
        ([""], 1),
        (["   \n"], 1),
        (["hello"], 1),
        (["Hello, world!"], 4),
        (["a b", "c"], 3),
        (["naïve café"], 2),
        (["..."], 3),
    ],
)
def test_count_tokens(texts: list[str], count: int) -> None:
    assert count_tokens(texts) == count
