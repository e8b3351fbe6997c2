"""What of a request shows which conversation it continues: the texts of its user, as far as each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..outcomes import Turns

# Of a long text, its length, beginning and end tell it from others: the time that this takes has a limit.
_END_CHARACTERS = 4096

_USER, _ASSISTANT = "user", "assistant"


def turns_of(messages: Iterable[tuple[str, str]]) -> Turns:
    """Return the turns of a conversation of (role, text).

    System texts are left out: clients keep the time of day and the state of a house in them.
    """
    keys: list[int] = []
    is_first, role = True, _USER
    for role, text in messages:
        if role == _USER:
            keys.append(hash((keys[-1] if keys else 0, len(text), text[:_END_CHARACTERS], text[-_END_CHARACTERS:])))
        elif role == _ASSISTANT:
            is_first = False
    return Turns(tuple(keys), is_first, role == _USER)


def turns_of_values(messages: object) -> Turns | None:
    """Return the turns of parsed `messages` of an API of OpenAI's or Anthropic's; None where there are none."""
    if not isinstance(messages, list):
        return None
    return turns_of((str(item.get("role")), _text(item.get("content"))) for item in messages if isinstance(item, dict))


def _text(content: Any) -> str:
    """Return a message's text: a string, or the parts that have a text."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
