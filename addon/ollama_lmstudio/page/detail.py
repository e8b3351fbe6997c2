"""One exchange as the page shows it: the conversation as a thread, the arrival of its tokens, and both sides.

All of it is made when somebody looks at it, of the same parts as the contentviews.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from mitmproxy import http

from ..inspect import answers, compare, conversation, image_size, jsontext, numbers, render, render_answer, timeline
from ..inspect import snapshot as snapshots
from ..inspect.conversation import Attachment, ParsedMessage, ParsedRequest, ParsedToolCall
from ..inspect.render_parts import excerpt, readable
from ..inspect.snapshot import Snapshot, masked
from ..inspect.summary import is_conversation
from ..inspect.thread import Thread, new_messages, newest
from ..inspect.timeline import TimedEvent
from ..record.record import Fields
from ..translate.images import image_type
from ..units import size
from .rows import row_of

# Limits of what is shown of one text, of the messages of one request, and of the events of one answer.
TEXT_CHARACTERS = 200_000
MAX_MESSAGES = 1000
MAX_EVENTS = 20_000
EVENT_CHARACTERS = 2000
# What fits into a cell of what two requests have not in common.
CHANGE_CHARACTERS = 300
_US_PER_MS = 1e3
# What a browser shows as a picture, and nothing in which a script could be.
PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"})

Json = dict[str, Any]


def detail_of(flow: http.HTTPFlow) -> Json | None:
    """Return an exchange as a thread: its messages, its answer and its numbers; None if it is none of the bridge's."""
    snapshot, row = snapshots.of(flow), row_of(flow)
    if snapshot is None or row is None:
        return None
    request = _request_of(snapshot)
    found: Json = {
        "row": row,
        "target": f"{snapshot.client_method} {snapshot.client_target}",
        "request": _request(request, f"exchanges/{flow.id}/files"),
        "answer": answer_of(snapshot),
        "changed": [
            [name, *(jsontext.one_line(text, CHANGE_CHARACTERS) for text in texts)]
            for change in compare.changes_of(snapshot)
            for name, *texts in _told(change)
        ],
        "events": pieces(timeline.events(snapshot)[:MAX_EVENTS]) if is_conversation(snapshot) else [],
    }
    if snapshot.record.is_cut(snapshot.record.request_size, len(snapshot.client_body)):
        kept, whole = size(len(snapshot.client_body)), size(snapshot.record.request_size)
        found["request"]["problem"] = f"only {kept} of {whole} are kept: a larger max_kept_size keeps more"
    return found


def _told(change: compare.Change) -> Iterator[tuple[str, str, str]]:
    """Yield what was asked differently: of messages, which one, and its texts."""
    if change.name != "messages":
        yield change.name, change.before, change.now
        return
    before, now = (
        conversation.read_request(f'{{"messages":{text}}}'.encode()).messages for text in (change.before, change.now)
    )
    # From their ends: a system text may have been put before the others.
    for one, other in reversed([*zip_longest(reversed(before), reversed(now), fillvalue=ParsedMessage(""))]):
        if one != other:
            yield one.role or other.role, one.text, other.text


def _request_of(snapshot: Snapshot) -> ParsedRequest:
    if snapshot.is_internal:
        return ParsedRequest()
    return conversation.read_request(snapshot.client_body, snapshot.client_path)


def _request(request: ParsedRequest, files: str) -> Json:
    first = max(0, len(request.messages) - MAX_MESSAGES)
    return {
        "messages": [_message(at, message, files) for at, message in enumerate(request.messages[first:], first)],
        "newAt": request.new_at,
        "leftOut": first,
        "texts": [_text(text) for text in request.texts[:MAX_MESSAGES]],
        "tools": [
            {
                "signature": str(tool),
                "name": tool.name,
                "description": tool.description,
                "schema": excerpt(tool.parameters) if tool.parameters else "",
            }
            for tool in request.tools
        ],
        "options": {
            name: value if isinstance(value, bool | int | float) else _short(value)
            for name, value in {**request.fields, **request.options}.items()
            if value not in jsontext.EMPTY and name != "context"
        },
        "problem": request.problem,
    }


def _short(value: object) -> str:
    return value if isinstance(value, str) else excerpt(value)


def _text(text: str) -> str:
    return jsontext.cut(jsontext.without_files(text), TEXT_CHARACTERS)


def _message(at: int, message: ParsedMessage, files: str) -> Json:
    text = _text(message.text)
    found: Json = {
        "at": at,
        "role": message.role,
        "text": text,
        # What is shown is not what was said: it is not to be edited.
        "isCut": text != message.text,
        "thinking": _text(message.thinking),
        "files": [_file(file, f"{files}/{at}/{number}") for number, file in enumerate(message.attachments)],
        "calls": calls_of(message.tool_calls),
        "answers": message.answers,
    }
    return {name: value for name, value in found.items() if value or name == "at"}


def _file(file: Attachment, address: str) -> Json:
    pixels = image_size.of_base64(file.data) if file.media_type in PICTURES else None
    found: Json = {"type": file.media_type, "size": size(file.size) if file.size else ""}
    if file.media_type in PICTURES and file.data:
        found["src"] = address
    if pixels:
        found["width"], found["height"] = pixels
    return found


def calls_of(calls: Iterable[ParsedToolCall]) -> list[Json]:
    """Return tool calls, with their arguments indented."""
    return [
        {"name": call.name or "?", "id": call.id, "arguments": _text(pretty_arguments(call.arguments))}
        for call in calls
    ]


def pretty_arguments(arguments: str) -> str:
    """Return the arguments of a tool call, indented where they are JSON."""
    value, problem = jsontext.read(arguments)
    return arguments if problem else jsontext.pretty(value)


def answer_of(snapshot: Snapshot) -> Json:
    """Return the response that the client got."""
    body = snapshot.response or b""
    answer = answers.read_answer(body, snapshot.content_type)
    lines = numbers.lines(snapshot.record.numbers, snapshot) if snapshot.record.numbers else []
    found: Json = {
        "text": _text(answer.text),
        "thinking": _text(answer.thinking),
        "calls": calls_of(answer.tool_calls),
        "finish": answer.finish,
        "error": snapshot.error or answer.error,
        "problems": answer.problems,
        "numbers": lines,
    }
    if not is_conversation(snapshot) or not (answer.has_answer or answer.error):
        # A list of models, a description, embeddings, progress: as the contentview has them.
        found["other"] = render_answer.ollama_response(snapshot) if body else ""
    return {name: value for name, value in found.items() if value}


def _at_ms(one: TimedEvent) -> float | None:
    return None if one.at_us is None else round(one.at_us / _US_PER_MS, 2)


def _piece(one: TimedEvent) -> list[Any]:
    """Return when an event came, in ms, and what it adds: `t` text, `r` thoughts, `c` a tool call, or nothing."""
    said = answers.said_by(one.event)
    at = _at_ms(one)
    if said.thinking:
        return [at, "r", said.thinking]
    if said.text:
        return [at, "t", said.text]
    return [at, "c", " ".join(map(str, said.tool_calls))] if said.tool_calls else [at, "", ""]


def pieces(events: Iterable[TimedEvent]) -> list[list[Any]]:
    """Return the arrival of each event, and what it adds."""
    return [_piece(one) for one in events]


def file_of(flow: http.HTTPFlow, message: int, number: int) -> tuple[bytes, str] | None:
    """Return the picture that a message of the client's request has, and its type; None if there is none."""
    snapshot = snapshots.of(flow)
    if snapshot is None:
        return None
    messages = _request_of(snapshot).messages
    if not (0 <= message < len(messages) and 0 <= number < len(messages[message].attachments)):
        return None
    try:
        data = base64.b64decode(messages[message].attachments[number].data)
    except (binascii.Error, ValueError):
        return None
    kind = image_type(data)
    return (data, kind) if kind in PICTURES else None


def conversation_of(thread: Thread) -> list[Json]:
    """Return the exchanges of a conversation, the oldest first, each with what is new in it and with its answer."""
    found: list[Json] = []
    for flow, (_, snapshot) in zip(reversed(thread.flows), newest(thread), strict=False):
        request = _request_of(snapshot)
        new = new_messages(request.messages)
        begin = len(request.messages) - len(new)
        found.append(
            {
                "row": row_of(flow),
                "messages": [_message(begin + at, one, f"exchanges/{flow.id}/files") for at, one in enumerate(new)],
                "answer": answer_of(snapshot),
            }
        )
    return found[::-1]


def sides_of(flow: http.HTTPFlow) -> Json | None:
    """Return both sides of an exchange: what came, what was changed, what LM Studio got, and what both answered."""
    snapshot = snapshots.of(flow)
    if snapshot is None:
        return None
    sides: Json = {
        "client": _side(
            f"{snapshot.client_method} {snapshot.client_target}", snapshot.client_headers, snapshot.client_body
        ),
        "response": _side(
            f"{snapshot.status} {snapshot.reason}".strip() if snapshot.status else "no answer",
            snapshot.response_headers,
            snapshot.response or b"",
        ),
    }
    if not snapshot.is_internal and not snapshot.called:
        return sides
    if snapshot.is_internal:
        sides.pop("client")
        sides.pop("response")
    else:
        sides["changes"] = render.change_lines(snapshot)
    sides["call"] = _side(f"{snapshot.method} {snapshot.path}", snapshot.headers, snapshot.body)
    status, fields = snapshot.upstream_status, snapshot.upstream_headers
    is_stream = answers.is_events(snapshot.upstream, snapshots.header(fields, "content-type"))
    body = b"" if is_stream else snapshot.upstream
    sides["lmstudio"] = _side(str(status) if status else "no answer", fields, body)
    if is_stream:
        sides["events"] = _events(timeline.events(snapshot))
    return sides


def _side(line: str, fields: Fields, body: bytes) -> Json:
    return {"line": line, "headers": masked(fields), "body": _readable(body), "size": size(len(body)) if body else ""}


def _readable(body: bytes) -> str:
    value, problem = jsontext.read(body) if body else jsontext.Read(None, "empty")
    return readable(body.decode("utf-8", "replace")) if problem else excerpt(value)


def _events(timed: Sequence[TimedEvent]) -> list[list[Any]]:
    """Return each event: its time in ms, what it says, and its data as it came."""
    shown = timed[:MAX_EVENTS]
    says = timeline.says(shown, timeline.same_in_all(shown))
    return [
        [
            _at_ms(one),
            said,
            timeline.cut(timeline.visible(readable(one.event.data)), EVENT_CHARACTERS),
        ]
        for one, said in zip(shown, says, strict=True)
    ]
