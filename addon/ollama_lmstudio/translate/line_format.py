"""The lines of /api/chat and /api/generate: what differs between the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..ollama import chunks


@dataclass(frozen=True, slots=True)
class LineFormat:
    """The parts of a line that are the same for each token, and the builder of all other objects.

    The line of a token is `{"model":M,"created_at":T,` + `content` or `thinking` + its text as a JSON string + `close`,
    `logprobs` if there are any, and `}`. Only the text and the time are written anew for each token.
    """

    content: str
    thinking: str
    close: str
    build: Callable[..., dict[str, Any]]


def _chat_object(
    model: str,
    created_at: str,
    *,
    content: str,
    thinking: str,
    tool_calls: list[Any],
    context: object = (),
    **rest: Any,
) -> dict[str, Any]:
    return chunks.chat_chunk(model, created_at, chunks.chat_message(content, thinking, tool_calls), **rest)


def _generate_object(model: str, created_at: str, *, content: str, **rest: Any) -> dict[str, Any]:
    return chunks.generate_chunk(model, created_at, content, **rest)


CHAT = LineFormat(
    '"message":{"role":"assistant","content":',
    '"message":{"role":"assistant","content":"","thinking":',
    '},"done":false',
    _chat_object,
)
GENERATE = LineFormat('"response":', '"response":"","thinking":', ',"done":false', _generate_object)
