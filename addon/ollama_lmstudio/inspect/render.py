"""The texts of the two contentviews: an exchange from the client's side, and from LM Studio's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..lmstudio.sse import Event
from ..record.record import Numbers, Record
from ..units import plural, size
from . import answers, changes, edits, jsontext, response_data
from .answers import ParsedAnswer
from .conversation import ParsedMessage, ParsedRequest, Tool, read_request
from .jsontext import EMPTY
from .quantities import duration, speed
from .sheet import TEXT_CHARACTERS, Sheet, is_beside
from .snapshot import Snapshot, header, masked

# Limits of what is shown. They bound the time that rendering takes, which holds up the event loop.
# Of a longer conversation, the beginning and the end are shown.
MAX_MESSAGES = 200
FIRST_MESSAGES = 20
# The messages share this, but each may have at least MESSAGE_CHARACTERS.
CONVERSATION_CHARACTERS = 200_000
MESSAGE_CHARACTERS = 1000

# Of a longer stream, the beginning and the end are shown.
MAX_EVENTS = 1500
LAST_EVENTS = 300
EVENT_CHARACTERS = 1000

# The rest of a body, and of each string in it, is left out.
BODY_CHARACTERS = 200_000
STRING_CHARACTERS = 4000
# Keys that clients choose: the names of fields, and roles with the ids of tool calls.
NAME_CHARACTERS = 40
ROLE_CHARACTERS = 60
# So many texts that are to be embedded are shown as they are; of more, each is a line.
WHOLE_TEXTS = 8
# What is the same in each request of a conversation; and what is told of it in one line.
SYSTEM_ROLES = ("system", "developer")
SYSTEM_CHARACTERS = 40
# Of the images of one message, so many are described.
MAX_ATTACHMENTS = 4

# Ollama's done reasons of requests without a prompt, which have no answer.
NO_ANSWER_REASONS = ("load", "unload")

ANSWER_TO_COME = "The answer will be under Response"


# The client's side


def ollama_request(snapshot: Snapshot) -> str:
    """Return the whole exchange: what is new in the request, what was changed for LM Studio, the response, the rest."""
    sheet = Sheet()
    request = ParsedRequest()
    if snapshot.is_internal:
        _internal_call(sheet, snapshot)
    else:
        request = read_request(snapshot.client_body, snapshot.client_path)
        _client_request(sheet, snapshot, request)
        edits.add_edit(sheet, "the client's request", snapshot.client_body_before, snapshot.client_body)
        _changes(sheet, snapshot)
        edits.add_edit(sheet, "what is sent to LM Studio", snapshot.call_before, snapshot.body)
    if snapshot.is_in_progress:
        # mitmproxy's tools render a request again when it changes, not when its response comes.
        sheet.heading(ANSWER_TO_COME)
    else:
        _answer(sheet, snapshot)
        edits.add_edit(sheet, "the answer", snapshot.record.answer_edited_from, snapshot.response or b"")
    _rest(sheet, request)
    return str(sheet)


def ollama_response(snapshot: Snapshot) -> str:
    """Return the response that the client got."""
    sheet = Sheet()
    _answer(sheet, snapshot)
    edits.add_edit(sheet, "the answer", snapshot.record.answer_edited_from, snapshot.response or b"")
    return str(sheet)


def _client_request(sheet: Sheet, snapshot: Snapshot, request: ParsedRequest) -> None:
    body, record = snapshot.client_body, snapshot.record
    sheet.heading(f"{snapshot.client_method} {snapshot.client_target}")
    sheet.value("client", header(snapshot.client_headers, "user-agent"))
    _note_if_cut(sheet, record, record.request_size, len(body))
    if request.problem:
        sheet.value("problem", f"the body is {request.problem}")
    if not isinstance(request.whole, dict) or (request.problem and len(body) <= STRING_CHARACTERS):
        _body(sheet, body)
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
        sheet.block("tools", map(_tool, request.tools))


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
            _message(sheet, message)
    schemas = [tool for tool in request.tools if tool.parameters]
    if schemas:
        sheet.heading(f"Tools: {len(schemas):,} {plural(len(schemas), 'schema')}")
    for tool in schemas:
        if len(tool.description) > SYSTEM_CHARACTERS or "\n" in tool.description:
            sheet.text(f"{tool.name} is", tool.description, MESSAGE_CHARACTERS)
        sheet.value("tool", tool.name)
        sheet.raw(_readable(jsontext.pretty(tool.parameters)))


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
        _message(sheet, messages[number], limit)


def _message(sheet: Sheet, message: ParsedMessage, limit: int = TEXT_CHARACTERS) -> None:
    who = jsontext.one_line(f"{message.role} {message.answers}", ROLE_CHARACTERS)
    if message.thinking:
        sheet.text(f"{who} thinks", message.thinking, limit)
    if message.text or message.attachments or not (message.tool_calls or message.thinking):
        # Beside the role, where no text can be taken for it.
        shown = (who, *map(str, message.attachments[:MAX_ATTACHMENTS]))
        more = len(message.attachments) - MAX_ATTACHMENTS
        sheet.text(" ".join(shown) + (f" and {more} more" if more > 0 else ""), message.text, limit)
    for call in message.tool_calls:
        sheet.text(f"{who} calls", f"{call}{f'  {call.id}' if call.id else ''}", limit)


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


def _answer(sheet: Sheet, snapshot: Snapshot) -> None:
    body = snapshot.response
    if not snapshot.status:
        sheet.heading("No answer")
        _error(sheet, snapshot.error)
        return
    title = "Answer so far" if snapshot.is_in_progress else "Answer"
    sheet.heading(f"{title}: {snapshot.status} {snapshot.reason}".rstrip())
    if body is None:
        sheet.value("body", "still on its way" if snapshot.is_in_progress else "not kept")
        _numbers(sheet, snapshot.record.numbers)
        _error(sheet, snapshot.error)
        return
    _note_if_cut(sheet, snapshot.record, snapshot.record.response_size, len(body))
    answer = answers.read_answer(body, snapshot.content_type)
    _parts(sheet, answer)
    for problem in answer.problems:
        sheet.value("problem", problem)
    is_cut = snapshot.record.is_cut(snapshot.record.response_size, len(body))
    if answer.has_answer and not (answer.done or answer.error or snapshot.error or snapshot.is_in_progress or is_cut):
        sheet.value("problem", "the end of the answer is missing")
    numbers = snapshot.record.numbers or answer.numbers
    _numbers(sheet, replace(numbers, done_reason=numbers.done_reason or answer.finish))
    _error(sheet, snapshot.error or answer.error)


def _parts(sheet: Sheet, answer: ParsedAnswer) -> None:
    if answer.text or answer.thinking or answer.tool_calls:
        _message(sheet, ParsedMessage("assistant", answer.text, answer.thinking, (), answer.tool_calls))
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
        sheet.raw(_readable(jsontext.pretty(data)))


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


# Each number's name and text; the text of one that is not known is empty, and it is left out.
NUMBERS: Sequence[tuple[str, Callable[[Numbers], str]]] = (
    ("prompt", lambda numbers: f"{numbers.prompt_tokens:,} tokens" if numbers.prompt_tokens else ""),
    ("answer", lambda numbers: f"{numbers.answer_tokens:,} tokens" if numbers.answer_tokens else ""),
    ("speed", speed),
    ("first token", lambda numbers: duration(numbers.first_token) if numbers.first_token else ""),
    ("load", lambda numbers: duration(numbers.load) if numbers.load else ""),
    ("total", lambda numbers: duration(numbers.total) if numbers.total else ""),
    ("done reason", lambda numbers: numbers.done_reason),
)


def _numbers(sheet: Sheet, numbers: Numbers | None) -> None:
    known = [(name, text) for name, write in NUMBERS if (text := write(numbers or Numbers()))]
    if known:
        sheet.heading("Numbers")
    for name, text in known:
        sheet.value(name, text)


def _error(sheet: Sheet, message: str) -> None:
    if message:
        sheet.heading("Error")
        sheet.text("error", message)


def _note_if_cut(sheet: Sheet, record: Record, whole: int, kept: int) -> None:
    if record.is_cut(whole, kept):
        sheet.value("kept", f"{size(kept)} of {size(whole)}")


# LM Studio's side


def lmstudio_request(snapshot: Snapshot) -> str:
    """Return the call, as it was sent."""
    sheet = Sheet()
    if snapshot.is_internal:
        _internal_call(sheet, snapshot)
        return str(sheet)
    if not snapshot.called:
        sheet.heading("Nothing was sent to LM Studio")
    sheet.heading(f"{snapshot.method} {snapshot.path}")
    _note_if_cut(sheet, snapshot.record, snapshot.record.call_size, len(snapshot.body))
    _body(sheet, snapshot.body)
    return str(sheet)


def lmstudio_response(snapshot: Snapshot) -> str:
    """Return LM Studio's response as it came: status, headers, and the body or each of its events."""
    sheet = Sheet()
    record = snapshot.record
    if not snapshot.called:
        sheet.heading("Nothing was sent to LM Studio: this is the bridge's own answer")
        _body(sheet, snapshot.response or b"")
        return str(sheet)
    status = record.status or (0 if record.kind == "call" else snapshot.status)
    if not status:
        sheet.heading("No answer of LM Studio" if snapshot.error else "No answer of LM Studio yet")
        _error(sheet, snapshot.error)
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
        _body(sheet, body)
    _note_if_cut(sheet, record, record.upstream_size, len(body))
    _error(sheet, snapshot.error)
    return str(sheet)


def _internal_call(sheet: Sheet, snapshot: Snapshot) -> None:
    sheet.heading(f"The bridge's own call: {snapshot.record.purpose}".rstrip(": "))
    sheet.heading(f"{snapshot.method} {snapshot.path}")
    _body(sheet, snapshot.body)


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
        sheet.value("data", jsontext.one_line(_readable(event.data), EVENT_CHARACTERS))


def _body(sheet: Sheet, body: bytes) -> None:
    """Add a body: JSON is indented, everything else stays as it is."""
    if not body:
        return
    value, problem = jsontext.read(body)
    if problem:
        sheet.text("body", _readable(body.decode("utf-8", "replace")), 2 * BODY_CHARACTERS)
    else:
        sheet.raw(_readable(jsontext.pretty(value)))


def _readable(text: str) -> str:
    """Return JSON text without base64, with long strings and lists of numbers cut."""
    text = jsontext.shortened(jsontext.without_base64(text), STRING_CHARACTERS, response_data.FIRST_VALUES)
    return jsontext.cut(text, BODY_CHARACTERS)
