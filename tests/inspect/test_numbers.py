"""The numbers of an answer, and what they say."""

from __future__ import annotations

from typing import Any

import pytest
from tests.inspect.conftest import CALL, answered, record, snapshot

from ollama_lmstudio.inspect import export, numbers, render_answer
from ollama_lmstudio.record.record import Numbers, Record

MS = 1_000_000
SECOND = 1000 * MS

WHOLE = Numbers(
    total=5_400 * MS,
    load=1 * MS,
    first_token=401 * MS,
    generation=5_000 * MS,
    prompt_tokens=3_162,
    answer_tokens=87,
    done_reason="stop",
    reading=400 * MS,
    read_tokens=162,
    pause=2_100 * MS,
    pause_after=940 * MS,
    pause_events=31,
)


def lines(found: Numbers, context_length: int = 0, **changed: Any) -> dict[str, str]:
    kept = record(numbers=found, context_length=context_length)
    return dict(numbers.lines(found, snapshot(kept, **changed)))


def test_all_of_them_in_their_order() -> None:
    expected = {
        "context": "3,249 of 4,096 tokens",
        "prompt": "3,162 tokens, 3,000 of them from LM Studio's cache",
        "answer": "87 tokens",
        "speed": "17.4 tok/s",
        "load": "1.0 ms",
        "reading the prompt": "400 ms, 405 tok/s",
        "first token": "401 ms",
        "longest pause": "2.1 s, after 31 events, 940 ms from the request",
        "total": "5.4 s",
        "done reason": "stop",
    }
    assert list(lines(WHOLE, 4096).items()) == list(expected.items())


def test_what_is_not_known_is_left_out() -> None:
    assert lines(Numbers()) == {}
    assert lines(Numbers(prompt_tokens=1, answer_tokens=1)) == {"prompt": "1 token", "answer": "1 token"}


@pytest.mark.parametrize(
    ("prompt", "answer", "length", "text"),
    [
        (3_162, 87, 4_096, "3,249 of 4,096 tokens"),
        (3_600, 86, 4_096, "3,686 of 4,096 tokens"),
        (3_600, 87, 4_096, "3,687 of 4,096 tokens, it is nearly full"),
        (4_000, 95, 4_096, "4,095 of 4,096 tokens, it is full"),
        # The list of models is older than the load.
        (4_000, 97, 4_096, None),
        (4_000, 90, 0, None),
        # The texts of embeddings are no conversation.
        (30, 0, 4_096, None),
    ],
)
def test_the_context(prompt: int, answer: int, length: int, text: str | None) -> None:
    shown = lines(Numbers(prompt_tokens=prompt, answer_tokens=answer), length)
    assert shown.get("context") == text
    warning = numbers.CUTS_SILENTLY if text and "full" in text else None
    assert shown.get("warning") == warning


@pytest.mark.parametrize(
    ("changed", "load", "reading"),
    [
        ({"read_tokens": 512}, "1.0 ms", "400 ms, 1,280 tok/s"),
        ({}, "1.0 ms", "400 ms, at most 1,280 tok/s"),
        ({"prompt_tokens": 0}, "1.0 ms", "400 ms"),
        # LM Studio was asked once a second whether it has loaded the model.
        ({"is_load_rough": True, "load": 23_400 * MS, "reading": 900 * MS}, "about 23 s", None),
        ({"is_load_rough": True, "load": 23_400 * MS, "reading": 4_800 * MS}, "about 23 s", "about 5 s"),
        # A short load is in it.
        ({"is_load_rough": True, "load": 1 * MS, "reading": 900 * MS}, "1.0 ms", None),
        ({"reading": 0}, "1.0 ms", None),
    ],
)
def test_load_and_prompt_are_told_apart(changed: dict[str, Any], load: str, reading: str | None) -> None:
    values: dict[str, Any] = {
        "load": 1 * MS,
        "first_token": 401 * MS,
        "reading": 400 * MS,
        "prompt_tokens": 512,
    }
    shown = lines(Numbers(**(values | changed)))
    assert (shown["load"], shown.get("reading the prompt")) == (load, reading)


CUT_OFF = {
    "at the request's limit": ({**CALL, "max_tokens": 87}, 4_096, "at the request's limit of 87 tokens"),
    "at the end of the context": ({**CALL, "max_tokens": 100}, 3_249, "since the context is full"),
    "somewhere": (CALL, 0, ""),
}


@pytest.mark.parametrize(("call", "length", "why"), CUT_OFF.values(), ids=CUT_OFF)
@pytest.mark.parametrize("reason", ["length", "max_tokens"])
def test_why_an_answer_was_cut_off(call: Any, length: int, why: str, reason: str) -> None:
    found = Numbers(prompt_tokens=3_162, answer_tokens=87, done_reason=reason)
    shown = lines(found, length, call=call)
    assert shown["done reason"] == f"{reason}: cut off {why}".replace("off since", "off, since").strip()


def test_a_conversation_that_was_cut() -> None:
    call = {"messages": [{"role": "user", "content": "word " * 5_000}]}
    shown = lines(Numbers(prompt_tokens=3_000, answer_tokens=5), 4_096, call=call)
    assert shown["cut"] == "of 5,000 words LM Studio has read 3,000 tokens: it has cut the conversation"
    assert "cut" not in lines(Numbers(prompt_tokens=5_001, answer_tokens=5), call=call)
    assert "cut" not in lines(Numbers(), call=call)


def test_views_and_exports_have_them() -> None:
    shown = snapshot(record(numbers=WHOLE, context_length=4096))
    assert "━\ncontext: 3,249 of 4,096 tokens\n" in render_answer.ollama_response(shown)
    assert "*context 3,249 of 4,096 tokens, prompt 3,162 tokens" in export.markdown(shown)


def test_a_file_that_is_older_than_a_number_opens() -> None:
    """Numbers as they were saved before some of them existed; and of a type that they never had."""
    old = {"ollama_kind": "call", "ollama_numbers": {"total": 5, "prompt_tokens": 7, "pause": "long", "reading": True}}
    kept = Record.load(old)
    assert kept.numbers == Numbers(total=5, prompt_tokens=7)
    assert dict(numbers.lines(kept.numbers, answered("/api/chat", b""))) == {"prompt": "7 tokens", "total": "0.0 ms"}
