"""Which tool call a result answers: LM Studio wants an id on both, and clients send ids, names, or neither."""

from __future__ import annotations

from collections.abc import Iterable


class ToolCallPairing:
    """The tool calls that have no result yet, as (id, name)."""

    def __init__(self) -> None:
        self._ids_made = 0
        self._open: list[tuple[str, str]] = []

    def add_calls(self, calls: Iterable[tuple[str, str]]) -> list[str]:
        """Return the ids of calls that have these ids, which may be empty, and names.

        Calls of an earlier turn that have no result are not waited for any longer.
        """
        self._open = [(call_id or self._new_id(), name) for call_id, name in calls]
        return [call_id for call_id, _ in self._open]

    def match_result(self, call_id: str, name: str) -> str:
        """Return the id of the call that a result answers; a result without a call keeps its id, or gets a new one."""
        match = (
            next((entry for entry in self._open if call_id and entry[0] == call_id), None)
            or next((entry for entry in self._open if name and entry[1] == name), None)
            or next(iter(self._open), None)
        )
        if match is None:
            return call_id or self._new_id()
        self._open.remove(match)
        return match[0]

    def _new_id(self) -> str:
        self._ids_made += 1
        return f"call_{self._ids_made:08d}"
