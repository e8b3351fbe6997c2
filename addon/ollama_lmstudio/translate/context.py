"""The `context` of /api/generate: the earlier turns, packed into integers.

Ollama's `context` is the tokens of the conversation so far, opaque to clients, which send back what they got. LM Studio
gives no tokens, so the turns themselves are packed: JSON in UTF-8, three bytes an integer, behind a mark and the number
of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

MARK = 0x4C4D53
_WIDTH = 3


class Turn(NamedTuple):
    """One message of the conversation so far."""

    role: str
    content: str


def pack(turns: Sequence[Turn]) -> list[int]:
    """Pack the turns; the result is never empty."""
    data = json.dumps(turns, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    integers = [int.from_bytes(data[i : i + _WIDTH].ljust(_WIDTH, b"\0"), "big") for i in range(0, len(data), _WIDTH)]
    return [MARK, len(data), *integers]


def unpack(context: Sequence[int]) -> list[Turn] | None:
    """Unpack what `pack` made; None for any other context, such as a real Ollama's tokens."""
    if len(context) < 2 or context[0] != MARK:
        return None
    try:
        data = b"".join(integer.to_bytes(_WIDTH, "big") for integer in context[2:])
        turns = json.loads(data[: context[1]])
        return [Turn(str(role), str(content)) for role, content in turns]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
