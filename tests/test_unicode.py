"""Text with halves of surrogate pairs."""

from __future__ import annotations

import pytest

from ollama_lmstudio.unicode import well_formed

TEXTS = {
    "a pair is joined, a half is replaced": ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
    "halves in the wrong order": ("\ude00\ud83d", "\ufffd\ufffd"),
    "a byte order mark stays": ("\ufeffa", "\ufeffa"),
    "all else stays": ("aé€\U0001f600", "aé€\U0001f600"),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_what_is_made_of_text(text: str, expected: str) -> None:
    assert well_formed(text) == expected
