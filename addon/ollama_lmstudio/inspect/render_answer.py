"""The text of the contentview **Ollama** of a response: the error, the answer, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from ..record.record import Numbers
from ..units import plural
from . import answers, compare, edits, jsontext, numbers, response_data
from .answers import ParsedAnswer
from .conversation import ParsedMessage
from .jsontext import EMPTY
from .render_parts import MESSAGE_CHARACTERS, add_message, excerpt, note_if_cut
from .sheet import Sheet
from .snapshot import Snapshot

# Ollama's done reasons of requests without a prompt, which have no answer.
NO_ANSWER_REASONS = ("load", "unload")


def ollama_response(snapshot: Snapshot) -> str:
    """Return the response that the client got."""
    if snapshot.is_report:
        return (snapshot.response or b"").decode("utf-8", "replace")
    sheet = Sheet()
    compare.write(sheet, snapshot)
    add_answer(sheet, snapshot)
    return str(sheet)


def add_answer(sheet: Sheet, snapshot: Snapshot) -> None:
    """Add the response that the client got: what went wrong, the answer, and its numbers."""
    if not snapshot.status:
        add_error(sheet, snapshot.error)
        sheet.heading("No answer")
        return
    body = snapshot.response
    answer = answers.read_answer(body or b"", snapshot.content_type)
    error = snapshot.error or answer.error
    if error:
        add_error(sheet, error, _status(snapshot) if snapshot.status >= HTTPStatus.BAD_REQUEST else "")
    if _is_more_than_error(answer, error) or body is None:
        sheet.heading(f"{_title(snapshot, error)}: {_status(snapshot)}")
        if body is None:
            sheet.value("body", "still on its way" if snapshot.is_in_progress else "not kept")
        else:
            _body(sheet, snapshot, answer, len(body))
    found = snapshot.record.numbers or answer.numbers
    _numbers(sheet, replace(found, done_reason=found.done_reason or answer.finish), snapshot)
    edits.add_edit(sheet, "the answer", snapshot.record.answer_edited_from, body or b"")


def _status(snapshot: Snapshot) -> str:
    return f"{snapshot.status} {snapshot.reason}".rstrip()


def _title(snapshot: Snapshot, error: str) -> str:
    if snapshot.is_in_progress:
        return "Answer so far"
    return "Answer up to the error" if error else "Answer"


def _is_more_than_error(answer: ParsedAnswer, error: str) -> bool:
    """Return whether a response has anything but its error."""
    return not error or bool(answer.has_answer or answer.progress or answer.plain or answer.problems or answer.data)


def _body(sheet: Sheet, snapshot: Snapshot, answer: ParsedAnswer, kept: int) -> None:
    whole = snapshot.record.response_size
    note_if_cut(sheet, snapshot.record, whole, kept)
    _parts(sheet, answer)
    for problem in answer.problems:
        sheet.value("problem", problem)
    is_explained = answer.done or answer.error or snapshot.error or snapshot.is_in_progress
    if answer.has_answer and not (is_explained or snapshot.record.is_cut(whole, kept)):
        sheet.value("problem", "the end of the answer is missing")


def _parts(sheet: Sheet, answer: ParsedAnswer) -> None:
    if answer.text or answer.thinking or answer.tool_calls:
        add_message(sheet, ParsedMessage("assistant", answer.text, answer.thinking, (), answer.tool_calls))
    elif answer.has_answer and answer.finish not in NO_ANSWER_REASONS:
        sheet.value("assistant", "(nothing)")
    if answer.progress:
        sheet.block("progress", response_data.progress_lines(answer.progress))
    if answer.plain:
        sheet.text("text", answer.plain)
    data = answer.data
    if data is None:
        return
    found = response_data.vectors(data)
    if found is not None:
        sheet.value("model", data.get("model", ""))
        sheet.block("embeddings", response_data.embeddings(found) or ["none"])
    elif (entries := jsontext.models(data)) is not None:
        sheet.block(f"{len(entries)} {plural(len(entries), 'model')}", response_data.table(entries))
    elif response_data.is_description(data):
        _description(sheet, data)
    else:
        sheet.raw(excerpt(data))


def _description(sheet: Sheet, data: Mapping[str, Any]) -> None:
    for name, value in data.items():
        if value in EMPTY:
            continue
        if isinstance(value, str):
            sheet.text(name, value, MESSAGE_CHARACTERS)
        elif isinstance(value, dict):
            sheet.block(name, [f"{key}: {jsontext.one_line(jsontext.compact(item))}" for key, item in value.items()])
        else:
            sheet.value(name, jsontext.compact(value))


def _numbers(sheet: Sheet, found: Numbers, snapshot: Snapshot) -> None:
    known = numbers.lines(found, snapshot)
    if known:
        sheet.heading("Numbers")
    for name, text in known:
        sheet.value(name, text)


def add_error(sheet: Sheet, message: str, status: str = "") -> None:
    """Add an error, with the status that it came with, unless it is empty."""
    if message:
        sheet.heading(f"Error: {status}" if status else "Error")
        sheet.text("error", message)
