"""The texts of the contentview **LM Studio**: the call as it was sent, and LM Studio's response as it came."""

from __future__ import annotations

from collections.abc import Sequence

from ..units import plural, size
from . import answers, timeline
from .quantities import duration
from .render_answer import add_error
from .render_parts import add_body, add_internal_call, note_if_cut, readable
from .sheet import Sheet
from .snapshot import Snapshot, header
from .timeline import TimedEvent

# Of a longer stream, the beginning and the end are shown.
MAX_EVENTS = 1500
LAST_EVENTS = 300
EVENT_CHARACTERS = 1000

NS_PER_US = 1000


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
    """Return LM Studio's response: what went wrong, status, headers, and the body, or when each event came and all of
    them as they came.
    """
    sheet = Sheet()
    record = snapshot.record
    if not snapshot.called:
        sheet.heading("Nothing was sent to LM Studio: this is the bridge's own answer")
        add_body(sheet, snapshot.response or b"")
        return str(sheet)
    add_error(sheet, snapshot.error)
    status = snapshot.upstream_status
    if not status:
        sheet.heading("No answer of LM Studio" if snapshot.error else "No answer of LM Studio yet")
        return str(sheet)
    fields = snapshot.upstream_headers
    body = snapshot.upstream
    sheet.heading(f"LM Studio's answer: {status}")
    for name, value in fields:
        sheet.value(name, value)
    length = size(max(len(body), record.upstream_size))
    note_if_cut(sheet, record, record.upstream_size, len(body))
    if answers.is_events(body, header(fields, "content-type")):
        _events(sheet, timeline.events(snapshot), length)
    else:
        sheet.heading(f"Body: {length}")
        add_body(sheet, body)
    return str(sheet)


def _events(sheet: Sheet, events: Sequence[TimedEvent], length: str) -> None:
    left_out = range(MAX_EVENTS - LAST_EVENTS, max(len(events), MAX_EVENTS) - LAST_EVENTS)
    shown = [number for number in range(len(events)) if number not in left_out]
    told = [events[number] for number in shown]
    if same := timeline.same_in_all(told):
        sheet.heading("The same in all events")
    for name, value in same.items():
        sheet.value(name, value)
    sheet.heading(f"Body: {length}, {len(events):,} {plural(len(events), 'event')}{_span(events)}")
    if left_out:
        sheet.value("left out", f"events {left_out.start + 1:,} to {left_out.stop:,}")
    sheet.block("events", timeline.lines(told, [number + 1 for number in shown], same))
    sheet.heading("As it came")
    for number in shown:
        if number == left_out.stop and left_out:
            sheet.heading(f"{len(left_out):,} events are left out")
        event = events[number].event
        if event.type:
            sheet.value("event", event.type)
        for line in event.data.split("\n"):
            sheet.raw(f"data: {timeline.cut(timeline.visible(readable(line)), EVENT_CHARACTERS)}")


def _span(events: Sequence[TimedEvent]) -> str:
    times = [event.at_us for event in events if event.at_us is not None]
    if not times:
        return ""
    first, last = (duration(at * NS_PER_US) for at in (times[0], times[-1]))
    return f", {first} to {last} from the request"
