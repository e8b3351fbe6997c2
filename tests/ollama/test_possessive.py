"""Patterns mean the same on every version of Python."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.ollama import decode, possessive, requests, scanner

PATTERNS = [
    *scanner._MORE.values(),
    *scanner._MORE_FLAT.values(),
    scanner._PLAIN,
    scanner._SPACE,
    scanner._DIGITS,
    decode._NOT_BRACKETS,
    requests._BASE64,
]
TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    '\\"',
    "\\u12",
    "\\u0041",
    "a",
    "0",
    "12",
    "-",
    ".",
    "e+",
    "true",
    " ",
    '"a"',
    '"b":1',
]
BODIES = st.lists(st.sampled_from(TOKENS), max_size=30).map(lambda tokens: "".join(tokens).encode())


@pytest.fixture(scope="module")
def old() -> list[re.Pattern[bytes]]:
    """The same patterns as an older Python gets them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(possessive, "_TRUSTED", False)
        return [possessive.compiled(pattern.pattern, pattern.flags) for pattern in PATTERNS]


@pytest.mark.skipif(not possessive._TRUSTED, reason="there is nothing to compare with")
@given(body=BODIES)
def test_the_same_without_possessive_quantifiers(old: list[re.Pattern[bytes]], body: bytes) -> None:
    for new_one, old_one in zip(PATTERNS, old, strict=True):
        assert b"*+" not in old_one.pattern
        for text in (body, b"," + body, b',"k":' + body):
            found, then = new_one.match(text), old_one.match(text)
            assert (found and found.span()) == (then and then.span())
