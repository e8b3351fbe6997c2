"""The `context` of /api/generate: the earlier turns, packed into integers.

Ollama's `context` is the tokens of the conversation so far, opaque to clients, which send back what they got. LM Studio
returns no tokens, so the turns themselves are packed: JSON in UTF-8, three bytes an integer, after a mark and the
number of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from .compact_json import dumps

# The first integer of a packed context: "LMS". A real Ollama's tokens are smaller, as no vocabulary has 5 million.
MARK = 0x4C4D53
# Clients keep the integers in 32 bits, signed: three bytes are the most that fit.
_WIDTH = 3
# The mark and the number of bytes.
_HEADER_LENGTH = 2


class Turn(NamedTuple):
    """One message of the conversation so far."""

    role: str
    content: str


def pack(turns: Sequence[Turn]) -> list[int]:
    """Return the turns as integers, never none."""
    data = dumps(turns)
    integers = [int.from_bytes(data[i : i + _WIDTH].ljust(_WIDTH, b"\0"), "big") for i in range(0, len(data), _WIDTH)]
    return [MARK, len(data), *integers]


def unpack(context: Sequence[int]) -> list[Turn] | None:
    """Return the turns that `pack` packed; None for any other context, such as a real Ollama's tokens."""
    if len(context) < _HEADER_LENGTH or context[0] != MARK:
        return None
    try:
        data = b"".join(integer.to_bytes(_WIDTH, "big") for integer in context[_HEADER_LENGTH:])
        turns = json.loads(data[: context[1]])
        return [Turn(str(role), str(content)) for role, content in turns]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
