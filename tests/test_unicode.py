from __future__ import annotations

import pytest

from ollama_lmstudio.unicode import well_formed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain \xe9 \u20ac \U0001f600", "plain \xe9 \u20ac \U0001f600"),
        ("\ufeffmark", "\ufeffmark"),
        ("a\ud83d\ude00b", "a\U0001f600b"),
        ("\ufeff\ud83d\ude00", "\ufeff\U0001f600"),
        ("\ud83d", "\ufffd"),
        ("x\ude00", "x\ufffd"),
        ("\ud83dx", "\ufffdx"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        ("\ud83d\ude00\ude00", "\U0001f600\ufffd"),
        ("\U0001f600\ud83d", "\U0001f600\ufffd"),
    ],
)
def test_pairs_are_joined_and_lone_surrogates_replaced(text: str, expected: str) -> None:
    assert well_formed(text) == expected
