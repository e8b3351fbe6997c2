"""The text of the contentview **Ollama** of a request: the client's side, and what was changed for LM Studio."""

from __future__ import annotations

from typing import Any

from . import changes, jsontext, render_answer
from .conversation import ParsedRequest, read_request
from .jsontext import EMPTY
from .render_parts import (
    MESSAGE_CHARACTERS,
    ROLE_CHARACTERS,
    STRING_CHARACTERS,
    add_body,
    add_internal_call,
    add_message,
    note_if_cut,
)
from .sheet import TEXT_CHARACTERS, Sheet
from .snapshot import Snapshot, header

# Limits of what is shown. They bound the time that rendering takes, which holds up the event loop.
# Of a longer conversation, the beginning and the end are shown.
MAX_MESSAGES = 200
FIRST_MESSAGES = 20
# The messages share this, but each may have at least MESSAGE_CHARACTERS.
CONVERSATION_CHARACTERS = 200_000
# Names of fields, which clients choose.
NAME_CHARACTERS = 40

# mitmweb goes on to show this when the exchange has ended, until it is opened again.
ANSWER_TO_COME = "Not ended when this was shown: see Response, or Error"


def ollama_request(snapshot: Snapshot) -> str:
    """Return the whole exchange: the client's request, what was changed for LM Studio, and the response."""
    if snapshot.is_report:
        return render_answer.ollama_response(snapshot)
    sheet = Sheet()
    if snapshot.is_internal:
        add_internal_call(sheet, snapshot)
    else:
        _client_request(sheet, snapshot)
        _changes(sheet, snapshot)
    if snapshot.is_in_progress:
        sheet.heading(ANSWER_TO_COME)
    else:
        render_answer.add_answer(sheet, snapshot)
    return str(sheet)


def _client_request(sheet: Sheet, snapshot: Snapshot) -> None:
    body, record = snapshot.client_body, snapshot.record
    request = read_request(body, snapshot.client_path)
    sheet.heading(f"{snapshot.client_method} {snapshot.client_target}")
    sheet.value("client", header(snapshot.client_headers, "user-agent"))
    note_if_cut(sheet, record, record.request_size, len(body))
    if request.problem:
        sheet.value("problem", f"the body is {request.problem}")
    if not isinstance(request.whole, dict) or (request.problem and len(body) <= STRING_CHARACTERS):
        add_body(sheet, body)
    sheet.value("model", request.model)
    for name, value in request.fields.items():
        if value not in EMPTY:
            sheet.value(jsontext.one_line(name, NAME_CHARACTERS), _short(name, value))
    sheet.value("empty", ", ".join(name for name, value in request.fields.items() if value in EMPTY))
    if request.options:
        sheet.value("options", jsontext.compact(request.options))
    if request.tools:
        sheet.block("tools", [_tool(tool) for tool in request.tools])
    _conversation(sheet, request)


def _short(name: str, value: object) -> str:
    if name == "context" and isinstance(value, list):
        return f"{len(value):,} numbers"
    return jsontext.compact(value)


def _tool(tool: Any) -> str:
    return f"{tool}: {jsontext.one_line(tool.description)}" if tool.description else str(tool)


def _conversation(sheet: Sheet, request: ParsedRequest) -> None:
    messages = request.messages
    limit = min(TEXT_CHARACTERS, max(MESSAGE_CHARACTERS, CONVERSATION_CHARACTERS // (len(messages) or 1)))
    left_out = max(0, len(messages) - MAX_MESSAGES)
    for number, message in enumerate(messages):
        if left_out and FIRST_MESSAGES <= number < FIRST_MESSAGES + left_out:
            if number == FIRST_MESSAGES:
                sheet.heading(f"{left_out:,} messages are left out")
            continue
        add_message(sheet, message, limit)
    if request.texts:
        sheet.block("texts", [jsontext.one_line(text) or "(empty)" for text in request.texts[:MAX_MESSAGES]])
        if len(request.texts) > MAX_MESSAGES:
            sheet.heading(f"{len(request.texts) - MAX_MESSAGES:,} texts are left out")


def _changes(sheet: Sheet, snapshot: Snapshot) -> None:
    record = snapshot.record
    if not snapshot.called:
        if record.kind:
            sheet.heading("Answered by the bridge itself")
        return
    sheet.heading(f"Sent to LM Studio: {snapshot.method} {snapshot.path}")
    body = snapshot.client_body
    if record.is_cut(record.request_size, len(body)) or record.call_size:
        sheet.value("changed", "cannot be told, since not all of the body is kept")
        return
    lines = changes.changes(body, snapshot.client_path, snapshot.body, snapshot.path)
    for what, text in lines or [("changed", "nothing")]:
        sheet.value(jsontext.one_line(what, ROLE_CHARACTERS), text)
    named = {name for name, _ in lines} | {word for _, text in lines for word in text.replace(",", " ").split()}
    further = [name for name in record.dropped if name not in named]
    sheet.value("LM Studio has no", ", ".join(further))
