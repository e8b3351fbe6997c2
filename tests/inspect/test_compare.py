"""Two answers to one question, compared."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ollama_lmstudio.inspect import compare, views
from ollama_lmstudio.inspect.compare import Change
from ollama_lmstudio.inspect.sheet import Sheet
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.record.record import Numbers, Record

FIRST = Numbers(
    total=1_100_000_000, first_token=548_000_000, generation=1_000_000_000, prompt_tokens=25, answer_tokens=22
)
SECOND = replace(FIRST, first_token=1_300_000_000, answer_tokens=140, done_reason="length")
LONG = "Air scatters short, blue wavelengths of sunlight far more than long, red ones."


def exchange(text: str, numbers: Numbers | None, original: str = "", **record: Any) -> Snapshot:
    """Return an exchange whose answer is a text."""
    body = {"message": {"role": "assistant", "content": text}, "done": True, "done_reason": "stop"}
    kept = Record(kind="call", path="/api/chat", model="llama3.2", numbers=numbers, original=original, **record)
    response = json.dumps(body).encode()
    return Snapshot(kept, "POST", "/api/chat", (), b"", 200, "OK", (("content-type", "application/json"),), response)


def compared(before: str, now: str, *changes: Change, second: Numbers | None = SECOND) -> list[str]:
    """Return the comparison of two answers."""
    sheet = Sheet()
    shown = exchange(now, second, compare.original_of(exchange(before, FIRST), changes))
    compare.write(sheet, replace(shown, is_streaming=second is None))
    return str(sheet).split("\n")


def test_what_was_changed_and_the_numbers_stand_side_by_side() -> None:
    changes = Change("model", "llama3.2", "qwen3"), Change("temperature", "", "0")
    title, *lines = compared(LONG, "Because.", *changes)
    assert "Asked again" in title
    assert lines == [
        "             before     now",
        "model        llama3.2   qwen3",
        "temperature  -          0",
        "first token  548 ms     1.3 s",
        "speed        22 tok/s   140 tok/s",
        "prompt       25 tokens  25 tokens",
        "answer       22 tokens  140 tokens",
        "total        1.1 s      1.1 s",
        "done reason  stop       length",
        f"answer before: {LONG}",
    ]


def test_short_answers_stand_side_by_side() -> None:
    lines = compared("one\n  two", "one\n2\nthree")
    assert "Both answers" in lines[-5]
    assert lines[-4:] == [
        "before  now",
        "one     one",
        "  two   2",
        "        three",
    ]


def test_the_same_model_is_said_once_more() -> None:
    assert "model        llama3.2   llama3.2" in compared("a", "b", Change("seed", "1", "2"))


def test_equal_answers() -> None:
    assert compared(LONG, LONG)[-1] == "answers: both are the same"


def test_where_they_part() -> None:
    assert compared(LONG, LONG.replace("blue", "green"))[-1] == "alike: the first 3 words"


def test_an_answer_that_is_still_coming() -> None:
    lines = compared(LONG, LONG[:20], second=None)
    assert "first token  548 ms     -" in lines
    assert f"answer before: {LONG}" in lines
    assert not lines[-1].startswith("alike")


def test_it_stands_first_in_the_view_of_the_response_alone() -> None:
    shown = exchange("Because.", SECOND, compare.original_of(exchange(LONG, FIRST), []))
    text = views.OLLAMA.response(shown)
    assert text.index("Asked again") < text.index(LONG) < text.index("Because.")
    assert "Asked again" not in views.OLLAMA.response(exchange("Because.", SECOND))


def test_an_error_is_compared_as_it_was_told() -> None:
    failed = exchange("", FIRST, error="model 'nosuch' not found")
    sheet = Sheet()
    compare.write(sheet, exchange(LONG, SECOND, compare.original_of(failed, [])))
    assert "answer before: model 'nosuch' not found" in str(sheet)


def test_what_is_kept_is_bounded() -> None:
    kept = compare.original_of(exchange("x " * 500_000, FIRST), [Change(str(n), "a", "b") for n in range(1000)])
    assert len(kept) < 2 * compare.KEPT_CHARACTERS


@pytest.mark.parametrize(
    "original",
    [
        "x",
        "[]",
        "{}",
        '{"answer": 1, "changes": 2}',
        '{"answer": {"text": 3, "calls": [4], "numbers": 5}, "changes": [6, {}]}',
    ],
)
def test_what_a_file_has_in_its_place_breaks_nothing(original: str) -> None:
    assert "Asked again" in views.OLLAMA.response(exchange(LONG, SECOND, original))
