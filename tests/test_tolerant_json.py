"""JSON that may be none."""

from __future__ import annotations

import pytest

from ollama_lmstudio import tolerant_json


@pytest.mark.parametrize(
    ("data", "value", "valid"),
    [
        ('{"a":1}', {"a": 1}, True),
        (b"[1]", [1], True),
        ("null", None, True),
        ("", None, False),
        ('{"a":', None, False),
        (b"\xff", None, False),
        ("[" * 100_000, None, False),
    ],
)
def test_what_is_read(data: bytes | str, value: object, valid: bool) -> None:
    assert (tolerant_json.loads(data), tolerant_json.is_json(data)) == (value, valid)
