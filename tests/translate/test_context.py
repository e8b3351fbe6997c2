"""The `context` of /api/generate: what was packed comes out again, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.translate.context import MARK, Turn, pack, unpack

turns = st.lists(st.builds(Turn, st.sampled_from(["user", "assistant", "system"]), st.text()))


@given(turns)
def test_round_trip(conversation: list[Turn]) -> None:
    packed = pack(conversation)
    assert unpack(packed) == conversation
    # Clients check that it is not empty, and keep it in 32 bits.
    assert packed
    assert all(type(integer) is int and 0 <= integer < 2**24 for integer in packed)


@pytest.mark.parametrize("text", ["", "\0", "\0\0\0", "é", "🦙", "a" * 100_000, '"}]', "\u2028"])
def test_texts_that_are_hard_to_pack(text: str) -> None:
    for conversation in ([Turn("user", text)], [Turn("user", text + "x" * n) for n in range(4)]):
        assert unpack(pack(conversation)) == conversation


def test_half_a_character_costs_only_itself() -> None:
    assert unpack(pack([Turn("user", "a\ud800b")])) == [Turn("user", "a?b")]


@given(st.lists(st.integers()))
def test_a_foreign_context_is_none(context: list[int]) -> None:
    assert unpack(context) is None or context[0] == MARK


def marked(text: bytes) -> list[int]:
    padded = text + b"\0" * (-len(text) % 3)
    return [MARK, len(text), *(int.from_bytes(padded[i : i + 3], "big") for i in range(0, len(padded), 3))]


@pytest.mark.parametrize(
    "context",
    [
        [],
        [MARK],
        [0, 1, 2, 3],
        [128006, 882, 128007, 271],
        [MARK, 5],
        [MARK, 2, -1],
        [MARK, 2, 2**24],
        pack([Turn("user", "x")])[:-1],
        [0, *pack([Turn("user", "x")])],
        marked(b"5"),
        marked(b"null"),
        marked(b"[5]"),
        marked(b'[["user"]]'),
        marked(b'[["user","a","b"]]'),
        marked(b"\xff"),
        marked(b"[" * 100_000),
    ],
)
def test_what_was_not_packed_here_is_none(context: list[int]) -> None:
    assert unpack(context) is None


@given(st.lists(st.integers(-5, 2**25)))
def test_a_mark_alone_never_raises(rest: list[int]) -> None:
    assert unpack([MARK, *rest]) in (None, [])
