"""The texts of the contentview **LM Studio**: the call as it was sent, and LM Studio's response as it came."""

from __future__ import annotations

from collections.abc import Sequence

from ..lmstudio.sse import Event
from ..units import plural, size
from . import answers, jsontext
from .render_answer import add_error
from .render_parts import add_body, add_internal_call, note_if_cut, readable
from .sheet import Sheet
from .snapshot import Snapshot, header, masked

# Of a longer stream, the beginning and the end are shown.
MAX_EVENTS = 1500
LAST_EVENTS = 300
EVENT_CHARACTERS = 1000


def lmstudio_request(snapshot: Snapshot) -> str:
    """Return the call, as it was sent."""
    sheet = Sheet()
    if snapshot.is_internal:
        add_internal_call(sheet, snapshot)
        return str(sheet)
    if not snapshot.called:
        sheet.heading("Nothing was sent to LM Studio")
    sheet.heading(f"{snapshot.method} {snapshot.path}")
    note_if_cut(sheet, snapshot.record, snapshot.record.call_size, len(snapshot.body))
    add_body(sheet, snapshot.body)
    return str(sheet)


def lmstudio_response(snapshot: Snapshot) -> str:
    """Return LM Studio's response as it came: status, headers, and the body or each of its events."""
    sheet = Sheet()
    record = snapshot.record
    if not snapshot.called:
        sheet.heading("Nothing was sent to LM Studio: this is the bridge's own answer")
        add_body(sheet, snapshot.response or b"")
        return str(sheet)
    status = record.status or (0 if record.kind == "call" else snapshot.status)
    if not status:
        sheet.heading("No answer of LM Studio" if snapshot.error else "No answer of LM Studio yet")
        add_error(sheet, snapshot.error)
        return str(sheet)
    fields = masked(record.upstream_headers or (snapshot.response_headers if record.kind != "call" else ()))
    body = snapshot.upstream
    sheet.heading(f"LM Studio's answer: {status}")
    for name, value in fields:
        sheet.value(name, value)
    length = size(max(len(body), record.upstream_size))
    if answers.is_events(body, header(fields, "content-type")):
        _events(sheet, answers.events(body), length)
    else:
        sheet.heading(f"Body: {length}")
        add_body(sheet, body)
    note_if_cut(sheet, record, record.upstream_size, len(body))
    add_error(sheet, snapshot.error)
    return str(sheet)


def _events(sheet: Sheet, events: Sequence[Event], length: str) -> None:
    sheet.heading(f"Body: {length}, {len(events):,} {plural(len(events), 'event')}")
    left_out = max(0, len(events) - MAX_EVENTS)
    for number, event in enumerate(events):
        if left_out and MAX_EVENTS - LAST_EVENTS <= number < len(events) - LAST_EVENTS:
            if number == MAX_EVENTS - LAST_EVENTS:
                sheet.heading(f"{left_out:,} events are left out")
            continue
        if event.type:
            sheet.value("event", event.type)
        sheet.value("data", jsontext.one_line(readable(event.data), EVENT_CHARACTERS))
