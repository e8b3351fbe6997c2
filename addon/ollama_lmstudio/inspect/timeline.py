"""LM Studio's stream as a line for each event: when it came, how long after the one before, and what it says.

What an event says is in its own terms, whichever API it is of: chat and text completions, Responses, Messages, or
`/api/v1/chat`. What is the same in every event is told once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..lmstudio import sse
from ..record import arrivals
from . import jsontext
from .snapshot import Snapshot

# The rest of a line is left out.
LINE_CHARACTERS = 400
ELLIPSIS = "..."
_US_PER_MS = 1000

# Which answer, which part of it, which model: fields that say something only where they change.
STEADY = frozenset(
    {
        "content_index",
        "created",
        "delta.type",
        "id",
        "index",
        "item_id",
        "model",
        "model_instance_id",
        "object",
        "output_index",
        "response_id",
        "summary_index",
        "system_fingerprint",
    }
)
# Fields that no two events should have the same, though they may: they are never told once for all.
_OWN = frozenset({"arguments", "content", "delta", "sequence_number", "text", "type"})
# What ends a line, or cannot be seen in it; JSON leaves some of it as it is.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class TimedEvent:
    """An event, and when the read that completed it came, in microseconds from the request on; None is not known."""

    event: sse.Event
    at_us: int | None


def events(snapshot: Snapshot) -> list[TimedEvent]:
    """Return the events of LM Studio's response, also one without the blank line that should end it."""
    body = snapshot.upstream
    decoder = sse.Decoder(len(body) + 1)
    found: list[TimedEvent] = []
    begin, at = 0, None
    for size, at in _reads(snapshot):
        found += [TimedEvent(event, at) for event in decoder.feed(body[begin : begin + size])]
        begin += size
    found += [TimedEvent(event, None) for event in decoder.feed(body[begin:])]
    return found + [TimedEvent(event, at if begin == len(body) else None) for event in decoder.flush()]


def _reads(snapshot: Snapshot) -> list[arrivals.Arrival]:
    """Return the reads in which the body came; none where they are not those of this body, which was edited then."""
    reads = list(arrivals.unpacked(snapshot.record.arrivals))
    length, come = len(snapshot.upstream), sum(read.size for read in reads)
    is_cut = snapshot.record.is_cut(snapshot.record.upstream_size or snapshot.record.response_size, length)
    return reads if come == length or (come < length and is_cut) else []


def same_in_all(timed: Sequence[TimedEvent]) -> dict[str, Any]:
    """Return the fields that have one value in several events, which are all or, of those in STEADY, all that have it.

    Those are not in the events for errors, and in only some of the events of other APIs than chat completions.
    """
    parsed = [jsontext.read(one.event.data) for one in timed]
    events = [value for value, problem in parsed if isinstance(value, dict) and not problem]
    values: dict[str, list[Any]] = {}
    for event in events:
        for name in event:
            values.setdefault(name, []).append(event[name])
    return {
        name: found[0]
        for name, found in values.items()
        if name not in _OWN
        and isinstance(found[0], str | int | float)
        and 1 < len(found) == found.count(found[0])
        and (name in STEADY or len(found) == len(events))
    }


def lines(timed: Sequence[TimedEvent], numbers: Sequence[int], same: Mapping[str, Any]) -> list[str]:
    """Return a line for each event below one of titles; `numbers` are theirs in the stream, `same` is not repeated."""
    columns = [["event", *(f"{number:,}" for number in numbers)]]
    if any(one.at_us is not None for one in timed):
        columns += [["at ms", *(_ms(one.at_us) for one in timed)], ["gap ms", *_gaps(timed)]]
    widths = [max(map(len, cells)) for cells in columns]
    rows = zip(*columns, ["says", *says(timed, same)], strict=True)
    return ["  ".join([*map(str.rjust, row, widths), row[-1]]).rstrip() for row in rows]


def says(timed: Sequence[TimedEvent], same: Mapping[str, Any]) -> list[str]:
    """Return what each event says, in its own terms: only what is not `same`, or as it was before."""
    teller = _Teller(same)
    return [_cut(teller.says(one.event)) for one in timed]


def _gaps(timed: Sequence[TimedEvent]) -> Iterator[str]:
    """Yield the time of each event since the one before; nothing for those that came together."""
    before: int | None = None
    for one in timed:
        yield f"+{_ms(one.at_us - before)}" if one.at_us is not None and before not in (None, one.at_us) else ""
        before = one.at_us


def _ms(us: int | None) -> str:
    return "" if us is None else f"{us / _US_PER_MS:,.1f}"


class _Teller:
    """Write what events say, one after another: only what is not as it was before."""

    def __init__(self, same: Mapping[str, Any]) -> None:
        self._last: dict[str, Any] = {**same}
        self._known = STEADY | same.keys()

    def says(self, event: sse.Event) -> str:
        """Return what the next event says: its type, and its fields."""
        value, problem = jsontext.read(event.data)
        if problem or not isinstance(value, dict):
            return f"{event.type}  {visible(event.data)}".strip()
        kind = jsontext.text_at(value, "type") or event.type
        fields = [f"{name} {text}" for name, text in self._fields(value) if name != "type" or text != _json(kind)]
        return "  ".join(part for part in (kind, ", ".join(fields)) if part) or "{}"

    def _fields(self, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, item in value.items():
            if name == "choices" and isinstance(item, list):
                for choice in item:
                    yield from self._choice(choice)
            elif name == "delta" and isinstance(item, dict):
                yield from self._delta(item)
            elif not self._is_known(name, item):
                yield name, _json(item)

    def _choice(self, choice: object) -> Iterator[tuple[str, str]]:
        if not isinstance(choice, dict):
            yield "choice", _json(choice)
            return
        for name, item in choice.items():
            if name == "delta" and isinstance(item, dict):
                yield from self._delta(item)
            elif item is not None and (name != "index" or item != 0):
                yield name, _json(item)

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, item in delta.items():
            if name == "tool_calls" and isinstance(item, list):
                yield from map(_tool_call, item)
            elif item is not None and not (name == "type" and self._is_known("delta.type", item)):
                yield name, _json(item)

    def _is_known(self, name: str, item: object) -> bool:
        """Return whether a field need not be told: it is null, counts on, or is as it was."""
        last = self._last.get(name)
        if name == "sequence_number" and isinstance(item, int):
            self._last[name] = item
            return last in (None, item - 1)
        if name not in self._known:
            return item is None
        self._last[name] = item
        return item is None or last == item


def _tool_call(call: object) -> tuple[str, str]:
    """Return a piece of a tool call: `tool_calls[0]`, and its fields with those of its function."""
    if not isinstance(call, dict):
        return "tool_calls", _json(call)
    function = call.get("function")
    own = {name: item for name, item in call.items() if name not in ("index", "function") and item != "function"}
    fields = own | (function if isinstance(function, dict) else {})
    return f"tool_calls[{call.get('index', '')}]", " ".join(f"{name} {_json(item)}" for name, item in fields.items())


def _json(value: object) -> str:
    return visible(jsontext.compact(value))


def visible(text: str) -> str:
    """Return a text on one line, with its control characters and line breaks as JSON escapes them."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _cut(line: str) -> str:
    return cut(jsontext.without_base64(line), LINE_CHARACTERS)


def cut(line: str, limit: int) -> str:
    """Return the beginning of a line that is longer than a limit; its spaces stay as they are."""
    return line if len(line) <= limit else f"{line[: limit - len(ELLIPSIS)]}{ELLIPSIS}"
