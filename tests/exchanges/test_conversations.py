"""Which requests are of one conversation."""

from __future__ import annotations

import pytest

from ollama_lmstudio.exchanges.conversations import MAX_REMEMBERED, Conversations
from ollama_lmstudio.outcomes import Turns
from ollama_lmstudio.translate.turns import turns_of


def said(*texts: str, answered: bool | None = None) -> Turns:
    """Return the turns of a request: each text but the last was answered."""
    messages = [message for text in texts for message in (("user", text), ("assistant", "ok"))]
    return turns_of(messages if answered else messages[:-1])


# What was asked, one after another, and which of them are of one conversation.
CASES = {
    "turn by turn": ([said("hi"), said("hi", "a"), said("hi", "a", "b")], "AAA"),
    "a first turn begins anew": ([said("hi"), said("hi")], "AB"),
    "the last of those that began alike goes on": ([said("hi"), said("hi"), said("hi", "a")], "ABB"),
    "the longest known beginning": ([said("hi"), said("hi", "a"), said("hi"), said("hi", "a", "b")], "AABA"),
    "the same dialogue once more": (
        [said("hi"), said("hi", "a"), said("hi"), said("hi", "a"), said("hi", "a", "b"), said("hi", "a")],
        "AABBBB",
    ),
    "the result of a tool after another one began alike": (
        [said("hi"), said("hi", "a"), said("hi"), said("hi", "a", answered=True)],
        "AABA",
    ),
    "another attempt": ([said("hi"), said("hi", "a"), said("hi", "a")], "AAA"),
    "an edited question": ([said("hi"), said("hi", "a"), said("hi", "c")], "AAA"),
    "the result of a tool": ([said("hi"), said("hi", answered=True)], "AA"),
    "turns that were left out": ([said("hi"), said("hi", "a"), said("hi", "a", "b", "c", "d")], "AAA"),
    "another conversation": ([said("hi"), said("ho"), said("ho", "a"), said("hi", "a")], "ABBA"),
    "a beginning that nobody has seen": ([said("x", "a"), said("y", "a"), said("x", "a", "b")], "ABA"),
}


@pytest.mark.parametrize(("asked", "expected"), CASES.values(), ids=CASES)
def test_conversations(asked: list[Turns], expected: str) -> None:
    conversations = Conversations()
    ids = [conversations.id_of(turns) for turns in asked]
    names = {id_: chr(ord("A") + place) for place, id_ in enumerate(dict.fromkeys(ids))}
    assert "".join(names[id_] for id_ in ids) == expected
    assert all(ids)


def test_a_request_without_a_users_text_is_of_none() -> None:
    assert Conversations().id_of(turns_of([("system", "hi")])) == ""


def test_the_oldest_are_forgotten() -> None:
    conversations = Conversations()
    first = conversations.id_of(said("0"))
    used = conversations.id_of(said("used"))
    for number in range(MAX_REMEMBERED - 2):
        conversations.id_of(said(f"n{number}"))
    assert conversations.id_of(said("used", answered=True)) == used
    conversations.id_of(said("one more"))
    assert conversations.id_of(said("used", "a")) == used
    assert conversations.id_of(said("0", "a")) != first
