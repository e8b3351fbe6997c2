"""Which exchanges belong to one conversation.

Chats have no memory: a client sends all that was said before with each request. So a request continues the
conversation of an earlier one whose user said the same up to a point, and nothing else.
"""

from __future__ import annotations

import secrets

from ..outcomes import Turns

# Conversations that may still be continued: older ones are forgotten, and would go on under another id.
MAX_REMEMBERED = 2000
_ID_BYTES = 4


class Conversations:
    """Tell the conversation of a request, by the turns of those before it."""

    def __init__(self) -> None:
        self._ids: dict[int, tuple[str, int]] = {}
        """By what the user had said up to the last request, and when that was; what was used last is at the end."""
        self._requests = 0

    def id_of(self, turns: Turns) -> str:
        """Return the id of the conversation that a request continues, or begins; empty for one without a user's text.

        A request without any answer in it begins one. Others continue that of the longest known beginning; the whole
        may be known, since an answer to a tool's result, or another attempt, says nothing new.
        """
        if not turns.keys:
            return ""
        known = () if turns.is_first else [self._ids[key] for key in reversed(turns.keys) if key in self._ids]
        if turns.asks and turns.keys[-1] in self._ids:
            # The same was asked before. If the conversation was begun anew since then, it is that one which goes on.
            known = sorted(known[:2], key=lambda found: -found[1])
        id_ = known[0][0] if known else secrets.token_hex(_ID_BYTES)
        last = turns.keys[-1]
        self._requests += 1
        self._ids.pop(last, None)
        self._ids[last] = id_, self._requests
        if len(self._ids) > MAX_REMEMBERED:
            del self._ids[next(iter(self._ids))]
        return id_
