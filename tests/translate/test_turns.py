"""What the user of a conversation has said, turn by turn."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_lmstudio.translate.turns import turns_of, turns_of_values

FIRST = [("system", "It is 14:05."), ("user", "hi")]
SECOND = [("system", "It is 14:06."), ("user", "hi"), ("assistant", "hello"), ("user", "why?")]


def test_a_later_request_begins_with_the_keys_of_an_earlier_one() -> None:
    first, second = turns_of(FIRST), turns_of(SECOND)
    assert (len(first.keys), first.is_first) == (1, True)
    assert (len(second.keys), second.is_first) == (2, False)
    assert second.keys[:1] == first.keys


def test_what_was_said_before_is_in_every_key() -> None:
    assert turns_of([("user", "a"), ("user", "why?")]).keys[1] != turns_of(SECOND).keys[1]


@pytest.mark.parametrize("other", ["x" * 20_000 + "b", "b" + "x" * 20_000, "x" * 19_999 + "a"])
def test_long_texts_differ(other: str) -> None:
    assert turns_of([("user", "x" * 20_000 + "a")]).keys != turns_of([("user", other)]).keys


PARTS = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
VALUES: list[Any] = [
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": PARTS}],
    ["odd", {"role": "developer", "content": "x"}, {"role": "user", "content": PARTS}],
]


@pytest.mark.parametrize("messages", VALUES)
def test_messages_of_other_apis(messages: Any) -> None:
    assert turns_of_values(messages) == turns_of([("user", "hi")])


@pytest.mark.parametrize("messages", [None, "hi", {"role": "user"}])
def test_what_is_no_list_of_messages(messages: Any) -> None:
    assert turns_of_values(messages) is None
