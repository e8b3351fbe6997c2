"""Lower bounds for counts of tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_lmstudio.translate.counts import count_prompt, count_words, with_lower_bounds


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("hi", 1), ("Hello, wide world!", 3), ("can't", 2), ("... ?!", 0), ("漢字 é", 2)]
)
def test_count_words(text: str, count: int) -> None:
    assert count_words(text) == count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi you"}]}, 4),
        ({"messages": [{"content": [{"type": "text", "text": "a b"}, {"type": "image_url", "image_url": {}}]}]}, 2),
        ({"messages": [{"content": None}, 5]}, 1),
        ({"prompt": "one two three"}, 3),
        ({"prompt": ""}, 1),
        ({"messages": 5}, 1),
        (5, 1),
    ],
)
def test_count_prompt(body: Any, count: int) -> None:
    assert count_prompt(json.dumps(body).encode()) == count


def test_only_what_is_missing_is_counted() -> None:
    def never() -> int:
        raise AssertionError("counted")

    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    assert with_lower_bounds(usage, prompt=never, answer=never) == usage
    assert with_lower_bounds({"prompt_tokens": 7}, prompt=never, answer=lambda: 2) == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
    }
    none = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert with_lower_bounds(none, prompt=lambda: 4, answer=lambda: 2) == {
        "prompt_tokens": 4,
        "completion_tokens": 2,
        "total_tokens": 0,
    }
