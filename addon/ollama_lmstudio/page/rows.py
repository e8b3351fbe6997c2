"""A row of the page's list: what is known of an exchange without parsing its bodies.

Durations are in milliseconds. What is empty, false or not known is left out.
"""

from __future__ import annotations

from typing import Any

from mitmproxy import http

from ..inspect import snapshot as snapshots
from ..inspect import summary
from ..inspect.snapshot import Snapshot, header
from ..record import arrivals
from ..record import record as records
from ..record.record import Numbers

_NS_PER_MS = 1e6
_US_PER_MS = 1e3
CLIENT_CHARACTERS = 60
LOOPBACK = ("127.", "::1", "::ffff:127.")


def row_of(flow: http.HTTPFlow) -> dict[str, Any] | None:
    """Return the row of a flow; None for one that is no exchange of the bridge."""
    record = records.of(flow)
    if record is None or record.kind == "report":
        return None
    snapshot = snapshots.for_summary(flow, record)
    has_failed = summary.is_error(snapshot)
    row = {
        "id": flow.id,
        "at": flow.request.timestamp_start or flow.timestamp_created,
        "endpoint": snapshot.endpoint,
        "isChat": summary.is_conversation(snapshot),
        "model": summary.model_name(snapshot),
        "upstreamModel": record.upstream_model,
        "client": client_of(flow, snapshot),
        "key": record.key,
        "conversation": record.conversation,
        "prompt": record.prompt,
        "answer": record.answer,
        "signs": record.signs,
        "purpose": record.purpose,
        "isOwn": snapshot.is_internal,
        "repeats": record.repeats,
        "state": record.state,
        "isRunning": snapshot.is_in_progress,
        "isHeld": flow.intercepted,
        "isEdited": bool(record.edited_from or record.call_edited_from or record.answer_edited_from),
        "status": snapshot.status,
        # While it runs, the status may be that of a call which is made once more.
        "error": summary.failure_text(snapshot) if has_failed and not record.state else "",
        "hasLeft": summary.is_left(snapshot),
        "isCutOff": summary.is_cut_off(snapshot),
        "context": record.context_length,
        **_numbers(record.numbers),
    }
    first = next(arrivals.unpacked(record.arrivals), None) if snapshot.is_in_progress else None
    if first is not None:
        row["firstToken"] = round(first.at_us / _US_PER_MS, 1)
    return {name: value for name, value in row.items() if value}


def client_of(flow: http.HTTPFlow, snapshot: Snapshot) -> str:
    """Return who asks: the program, by its user agent, and the machine that it is on, if that is another one."""
    program = header(snapshot.client_headers, "user-agent").partition(" ")[0][:CLIENT_CHARACTERS]
    # A flow of a file may have none.
    host = str((flow.client_conn.peername or ("",))[0] or "")
    machine = "" if host.startswith(LOOPBACK) else host
    return " ".join(filter(None, (program, machine)))


def _numbers(numbers: Numbers | None) -> dict[str, float | int | str]:
    if numbers is None:
        return {}
    return {
        "total": _ms(numbers.total),
        "load": _ms(numbers.load),
        "reading": _ms(numbers.reading),
        "firstToken": _ms(numbers.first_token),
        "generation": _ms(numbers.generation),
        "pause": _ms(numbers.pause),
        "pauseAt": _ms(numbers.pause_after),
        "promptTokens": numbers.prompt_tokens,
        "answerTokens": numbers.answer_tokens,
        "speed": round(numbers.tokens_per_second, 2),
        "doneReason": numbers.done_reason,
    }


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / _NS_PER_MS, 1)
