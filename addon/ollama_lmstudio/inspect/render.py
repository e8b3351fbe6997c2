"""The text of the contentview **Ollama** of a request: the client's side, and what was changed for LM Studio."""

from __future__ import annotations

from collections.abc import Sequence

from ..units import plural
from . import changes, edits, jsontext, render_answer
from .conversation import ParsedMessage, ParsedRequest, Tool, read_request
from .jsontext import EMPTY
from .render_parts import (
    BODY_CHARACTERS,
    MESSAGE_CHARACTERS,
    ROLE_CHARACTERS,
    STRING_CHARACTERS,
    add_body,
    add_internal_call,
    add_message,
    excerpt,
    note_if_cut,
)
from .sheet import TEXT_CHARACTERS, Sheet, is_beside
from .snapshot import Snapshot, header

# Limits of what is shown. They bound the time that rendering takes, which holds up the event loop.
# Of a longer conversation, the beginning and the end are shown.
MAX_MESSAGES = 200
FIRST_MESSAGES = 20
# Of more tools, the rest is only counted.
MAX_TOOLS = 200
# The messages share this, but each may have at least MESSAGE_CHARACTERS.
CONVERSATION_CHARACTERS = 200_000
# Names of fields, which clients choose.
NAME_CHARACTERS = 40
# What is the same in each request of a conversation; and what is told of it in one line.
SYSTEM_ROLES = ("system", "developer")
SYSTEM_CHARACTERS = 40
# So many texts that are to be embedded are shown as they are; of more, each is a line.
WHOLE_TEXTS = 8

# mitmweb goes on to show this when the exchange has ended, until it is opened again.
ANSWER_TO_COME = "Not ended when this was shown: see Response, or Error"


def ollama_request(snapshot: Snapshot) -> str:
    """Return the whole exchange: what is new in the request, what was changed for LM Studio, the response, the rest."""
    if snapshot.is_report:
        return render_answer.ollama_response(snapshot)
    sheet = Sheet()
    request = ParsedRequest()
    if snapshot.is_internal:
        add_internal_call(sheet, snapshot)
    else:
        request = read_request(snapshot.client_body, snapshot.client_path)
        _client_request(sheet, snapshot, request)
        edits.add_edit(sheet, "the client's request", snapshot.client_body_before, snapshot.client_body)
        _changes(sheet, snapshot)
        edits.add_edit(sheet, "what is sent to LM Studio", snapshot.call_before, snapshot.body)
    if snapshot.is_in_progress:
        sheet.heading(ANSWER_TO_COME)
    else:
        render_answer.add_answer(sheet, snapshot)
    _rest(sheet, request)
    sheet.value("as a thread, with its timing", snapshot.page)
    return str(sheet)


def _client_request(sheet: Sheet, snapshot: Snapshot, request: ParsedRequest) -> None:
    body, record = snapshot.client_body, snapshot.record
    sheet.heading(f"{snapshot.client_method} {snapshot.client_target}")
    sheet.value("client", header(snapshot.client_headers, "user-agent"))
    sheet.value("key", record.key)
    note_if_cut(sheet, record, record.request_size, len(body))
    if request.problem:
        sheet.value("problem", f"the body is {request.problem}")
    if not isinstance(request.whole, dict) or (request.problem and len(body) <= STRING_CHARACTERS):
        add_body(sheet, body)
    sheet.value("model", request.model)
    _new(sheet, request)
    given = {name: value for name, value in request.fields.items() if value not in EMPTY}
    if given or request.options or request.tools:
        sheet.heading("Options and tools")
    for name, value in given.items():
        if isinstance(value, str) and not is_beside(value):
            # A text of the user's, such as the suffix of a completion.
            sheet.text(jsontext.one_line(name, NAME_CHARACTERS), value)
        else:
            sheet.value(jsontext.one_line(name, NAME_CHARACTERS), _short(name, value))
    sheet.value("empty", ", ".join(name for name in request.fields if name not in given))
    if request.options:
        sheet.value("options", jsontext.compact(request.options))
    if request.tools:
        more = len(request.tools) - MAX_TOOLS
        sheet.block("tools", [*map(_tool, request.tools[:MAX_TOOLS]), *([f"and {more:,} more"] if more > 0 else [])])


def _short(name: str, value: object) -> str:
    if name == "context" and isinstance(value, list):
        return f"{len(value):,} numbers"
    return jsontext.compact(value)


def _tool(tool: Tool) -> str:
    return f"{tool}  {jsontext.one_line(tool.description)}".rstrip()


def _new(sheet: Sheet, request: ParsedRequest) -> None:
    """Add what the request has and the one before it of the same conversation had not."""
    begin = request.new_at
    earlier = sum(message.role not in SYSTEM_ROLES for message in request.messages[:begin])
    if earlier:
        sheet.heading(f"New in this request, after {earlier:,} {plural(earlier, 'message')}")
    _messages(sheet, request, range(begin, len(request.messages)))
    for message in request.messages[:begin]:
        if message.role in SYSTEM_ROLES:
            _system_line(sheet, message)
    if len(request.texts) <= WHOLE_TEXTS:
        for number, text in enumerate(request.texts, 1):
            sheet.text(f"text {number}", text)
    else:
        sheet.block("texts", [jsontext.one_line(text) or "(empty)" for text in request.texts[:MAX_MESSAGES]])
        if len(request.texts) > MAX_MESSAGES:
            sheet.heading(f"{len(request.texts) - MAX_MESSAGES:,} texts are left out")


def _system_line(sheet: Sheet, message: ParsedMessage) -> None:
    """Add a system text in one line: it is the same in each request of a conversation."""
    if is_beside(message.text):
        sheet.text(message.role, message.text)
        return
    begin = jsontext.one_line(message.text, SYSTEM_CHARACTERS)
    sheet.value(message.role, f"{len(message.text):,} characters, below: {begin}")


def _rest(sheet: Sheet, request: ParsedRequest) -> None:
    """Add what earlier requests had too, and the tools' schemas: it is long, and seldom what somebody looks for."""
    earlier = [number for number in range(request.new_at) if request.messages[number].role not in SYSTEM_ROLES]
    if earlier:
        sheet.heading(f"Earlier: {len(earlier):,} {plural(len(earlier), 'message')}")
        _messages(sheet, request, earlier)
    systems = [message for message in request.messages[: request.new_at] if message.role in SYSTEM_ROLES]
    systems = [message for message in systems if not is_beside(message.text)]
    if systems:
        sheet.heading("System")
        for message in systems:
            add_message(sheet, message)
    schemas = [tool for tool in request.tools if tool.parameters]
    if schemas:
        sheet.heading(f"Tools: {len(schemas):,} {plural(len(schemas), 'schema')}")
    left = BODY_CHARACTERS
    for number, tool in enumerate(schemas):
        if left <= 0:
            sheet.heading(f"{len(schemas) - number:,} schemas are left out")
            break
        if len(tool.description) > SYSTEM_CHARACTERS or "\n" in tool.description:
            sheet.text(f"{tool.name} is", tool.description, MESSAGE_CHARACTERS)
        sheet.value("tool", tool.name)
        schema = excerpt(tool.parameters, left)
        left -= len(schema)
        sheet.raw(schema)


def _messages(sheet: Sheet, request: ParsedRequest, numbers: Sequence[int]) -> None:
    """Add some of the messages, without the middle of a long conversation."""
    messages = request.messages
    limit = min(TEXT_CHARACTERS, max(MESSAGE_CHARACTERS, CONVERSATION_CHARACTERS // (len(messages) or 1)))
    left_out = max(0, len(numbers) - MAX_MESSAGES)
    for at, number in enumerate(numbers):
        if left_out and FIRST_MESSAGES <= at < FIRST_MESSAGES + left_out:
            if at == FIRST_MESSAGES:
                sheet.heading(f"{left_out:,} messages are left out")
            continue
        add_message(sheet, messages[number], limit)


def _changes(sheet: Sheet, snapshot: Snapshot) -> None:
    if not snapshot.called:
        if snapshot.record.kind:
            sheet.heading("Answered by the bridge itself")
        return
    sheet.heading(f"Sent to LM Studio: {snapshot.method} {snapshot.path}")
    for what, text in change_lines(snapshot):
        sheet.value(what, text)


def change_lines(snapshot: Snapshot) -> list[changes.Line]:
    """Return what was changed on the way to LM Studio, and how."""
    body, record = snapshot.client_body, snapshot.record
    if record.is_cut(record.request_size, len(body)) or record.call_size:
        return [("changed", "cannot be told, since not all of the body is kept")]
    lines = changes.changes(body, snapshot.client_path, snapshot.body, snapshot.path)
    named = {name for name, _ in lines} | {word for _, text in lines for word in text.replace(",", " ").split()}
    further = [name for name in record.dropped if name not in named]
    told = [(jsontext.one_line(what, ROLE_CHARACTERS), text) for what, text in lines or [("changed", "nothing")]]
    return [*told, *([("LM Studio has no", ", ".join(further))] if further else [])]
