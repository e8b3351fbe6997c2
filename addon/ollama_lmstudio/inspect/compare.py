"""Two answers to one question: what was asked differently, both answers, and their numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import takewhile, zip_longest
from typing import Any

from .. import tolerant_json
from ..record.record import Numbers, numbers_of
from ..unicode import well_formed
from . import answers, jsontext, table
from .answers import ParsedAnswer
from .quantities import duration, speed
from .sheet import Sheet
from .snapshot import Snapshot

BEFORE, NOW = "before", "now"
# What is kept of the first answer: as much as a view shows of a text.
KEPT_CHARACTERS = 20_000
CELL_CHARACTERS = 40
MAX_CHANGES = 20

# Answers whose lines are no longer stand side by side: half of mitmweb's page has room for that.
COLUMN_CHARACTERS = 38
# Less than this at the beginning of both is chance.
_MIN_WORDS = 3

# The numbers that are compared, and their texts; empty where one is not known.
NUMBERS: Sequence[tuple[str, Callable[[Numbers], str]]] = (
    ("first token", lambda numbers: duration(numbers.first_token) if numbers.first_token else ""),
    ("speed", speed),
    ("prompt", lambda numbers: f"{numbers.prompt_tokens:,} tokens" if numbers.prompt_tokens else ""),
    ("answer", lambda numbers: f"{numbers.answer_tokens:,} tokens" if numbers.answer_tokens else ""),
    ("total", lambda numbers: duration(numbers.total) if numbers.total else ""),
    ("done reason", lambda numbers: numbers.done_reason),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two requests: the values as text, empty where there is none."""

    name: str
    before: str
    now: str


@dataclass(slots=True)
class Answer:
    """What is compared of an answer; `calls` are its tool calls."""

    model: str = ""
    text: str = ""
    calls: list[str] = field(default_factory=list)
    error: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """What it says: its text and tool calls, else its error."""
        return "\n".join(part for part in (self.text.strip(), *self.calls) if part) or self.error

    @property
    def measured(self) -> Numbers:
        """Its numbers."""
        return numbers_of(self.numbers) or Numbers()

    @classmethod
    def load(cls, given: object) -> Answer:
        """Return the answer that was kept; values of a wrong type, which a file may have, are left out."""
        values = given if isinstance(given, dict) else {}
        answer = cls()
        for item in fields(cls):
            value = values.get(item.name)
            if isinstance(value, type(getattr(answer, item.name))):
                setattr(answer, item.name, value)
        answer.calls = list(map(str, answer.calls))
        return answer


def answer_of(snapshot: Snapshot) -> Answer:
    """Return what is compared of an exchange's answer."""
    parsed: ParsedAnswer = answers.read_answer(snapshot.response or b"", snapshot.content_type)
    numbers = snapshot.record.numbers or parsed.numbers
    return Answer(
        model=snapshot.record.model,
        text=jsontext.cut(jsontext.without_base64(parsed.text), KEPT_CHARACTERS),
        calls=[jsontext.cut(str(call), KEPT_CHARACTERS) for call in parsed.tool_calls],
        error=snapshot.error or parsed.error,
        numbers=asdict(numbers) | {"done_reason": numbers.done_reason or parsed.finish},
    )


def original_of(snapshot: Snapshot, changes: Sequence[Change]) -> str:
    """Return, as JSON, what the flow of a repeated request keeps of the first exchange, and what is changed."""
    kept = {"answer": asdict(answer_of(snapshot)), "changes": [asdict(change) for change in changes[:MAX_CHANGES]]}
    return well_formed(json.dumps(kept, ensure_ascii=False))


def _read(text: str) -> tuple[Answer, list[Change]]:
    """Return what `original_of` has kept; what a file has in its place is left out."""
    value = tolerant_json.loads(text)
    value = value if isinstance(value, dict) else {}
    changes = value.get("changes")
    return Answer.load(value.get("answer")), [
        Change(*(str(change.get(name, "")) for name in ("name", "before", "now")))
        for change in (changes if isinstance(changes, list) else [])
        if isinstance(change, dict)
    ]


def changes_of(snapshot: Snapshot) -> list[Change]:
    """Return what a repeated exchange asked differently; nothing for any other one."""
    return _read(snapshot.record.original)[1] if snapshot.record.original else []


def write(sheet: Sheet, snapshot: Snapshot) -> None:
    """Add the comparison of a repeated exchange with the first one to a view; nothing for any other exchange."""
    if not snapshot.record.original:
        return
    first, changes = _read(snapshot.record.original)
    second = answer_of(snapshot)
    rows = [(change.name, change.before, change.now) for change in changes]
    if not any(change.name == "model" for change in changes):
        rows.insert(0, ("model", first.model, second.model))
    rows += _numbers(first.measured, second.measured)
    sheet.heading("Asked again")
    sheet.raw("\n".join(table.left([("", BEFORE, NOW), *map(_cells, rows)])))
    _answers(sheet, first, second, is_whole=not snapshot.is_in_progress)


def _numbers(first: Numbers, second: Numbers) -> list[tuple[str, str, str]]:
    """Return what is known of either answer."""
    rows = [(name, text(first), text(second)) for name, text in NUMBERS]
    return [row for row in rows if row[1] or row[2]]


def _cells(row: tuple[str, str, str]) -> list[str]:
    name, *values = (jsontext.one_line(cell, CELL_CHARACTERS) for cell in row)
    return [name, *(value or "-" for value in values)]


def _answers(sheet: Sheet, first: Answer, second: Answer, *, is_whole: bool) -> None:
    before, now = first.said, second.said
    if before == now:
        sheet.value("answers", "both are the same" if before else "")
        return
    left, right = before.splitlines(), now.splitlines()
    if max(map(len, (*left, *right))) <= COLUMN_CHARACTERS:
        sheet.heading("Both answers")
        sheet.raw("\n".join(table.left([(BEFORE, NOW), *zip_longest(left, right, fillvalue="")])))
    else:
        # The other one follows: it is what the view is of.
        sheet.text("answer before", before or "(nothing)", KEPT_CHARACTERS)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before.split(), now.split(), strict=False)))
    if same >= _MIN_WORDS and is_whole:
        sheet.value("alike", f"the first {same:,} words")
