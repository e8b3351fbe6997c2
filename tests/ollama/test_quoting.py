"""Go's quoted strings."""

from __future__ import annotations

import pytest

from ollama_lmstudio.ollama.quoting import quote


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ('"json"', '"\\"json\\""'),
        ("a\\b", '"a\\\\b"'),
        ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\x00\x1f\x7f", '"\\x00\\x1f\\x7f"'),
        ("é 世界 😀", '"é 世界 😀"'),
        ("\x80\xa0\xad\u2028\ufeff", '"\\u0080\\u00a0\\u00ad\\u2028\\ufeff"'),
        ("\U000e0001", '"\\U000e0001"'),
    ],
)
def test_quote(text: str, expected: str) -> None:
    assert quote(text) == expected
