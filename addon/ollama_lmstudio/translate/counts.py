"""Lower bounds for counts of tokens, for where LM Studio has none: before 0.3.18 in streams, and now and then later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import tolerant_json

# Tokenizers of language models do not join words; marks they may join.
_WORD = re.compile(r"\w+")


def count_words(text: str) -> int:
    """Return a lower bound for the tokens of a text."""
    return len(_WORD.findall(text))


def count_prompt(body: bytes) -> int:
    """Return a lower bound, at least 1, for the tokens of the prompt in a call's body."""
    return max(sum(map(count_words, _texts(tolerant_json.loads(body)))), 1)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a prompt: a text, or messages whose content is one or has parts."""
    if not isinstance(value, dict):
        return
    if isinstance(value.get("prompt"), str):
        yield value["prompt"]
    messages = value.get("messages")
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from (
                part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
            )


def with_lower_bounds(
    usage: Mapping[str, Any], *, prompt: Callable[[], int], answer: Callable[[], int]
) -> Mapping[str, Any]:
    """Return LM Studio's usage, with lower bounds in the place of counts that are missing or 0."""
    bounds = {"prompt_tokens": prompt, "completion_tokens": answer}
    return {**usage, **{name: count() for name, count in bounds.items() if not usage.get(name)}}
