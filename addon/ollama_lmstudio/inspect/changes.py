"""The differences between the client's request and the call to LM Studio.

Both bodies are parsed and compared, so what is reported is what was sent, whatever made it. The mapping's tables only
say which fields correspond.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..translate.options import OPTION_TO_LMSTUDIO, SUBSTITUTES, lmstudio_key
from . import jsontext
from .conversation import ParsedMessage, ParsedRequest, Tool, read_request

Line = tuple[str, str]
"""What has changed, and how."""

# At most so many lines are shown of the messages, of the tools, and so many values of a list.
MAX_LINES = 20
# Schemas are compared to this depth; deeper, they are equal or different as a whole.
MAX_DEPTH = 8
# A value is cut at this length, so that each change fits on a line.
VALUE_CHARACTERS = 120

# Ollama's field -> the call's field that it becomes.
FIELDS: Mapping[str, str] = {"format": "response_format", "keep_alive": "ttl", "think": "reasoning_effort"}

# Fields that are compared as a conversation; and fields that the bridge itself acts on, with what it does.
_CONVERSATION = frozenset(
    {"model", "name", "messages", "prompt", "system", "images", "input", "tools", "instructions", "system_prompt"}
)
_READ_HERE: Mapping[str, str] = {
    "context": "the earlier turns are read from it",
    "keep_alive": "the bridge sees to it",
    "logprobs": "",
    "raw": "no template is applied",
    "suffix": "it became part of the prompt",
    "think": "the model's default holds",
}


def changes(client: bytes, path: str, call: bytes, call_path: str) -> list[Line]:
    """Return the differences between a client's body and the call's; none for a body that was sent as it came."""
    before, after = read_request(client, path), read_request(call, call_path)
    if not isinstance(before.whole, dict) or not isinstance(after.whole, dict):
        return [] if client == call else [("body", f"{len(client):,} -> {len(call):,} bytes")]
    lines = []
    if before.model != after.model:
        lines.append(("model", f"{before.model} -> {after.model}"))
    lines += _limited(_conversation(before.messages, after.messages))
    if before.texts != after.texts:
        lines.append(("input", f"{len(before.texts)} -> {len(after.texts)} texts"))
    lines += _limited(_tools(before.tools, after.tools))
    return lines + _fields(before, after)


def _limited(lines: Iterator[Line]) -> list[Line]:
    shown: list[Line] = []
    more = 0
    for line in lines:
        if len(shown) < MAX_LINES:
            shown.append(line)
        else:
            more += 1
    return [*shown, (shown[-1][0], f"and {more} more changes")] if more else shown


# Fields and options


def _fields(before: ParsedRequest, after: ParsedRequest) -> list[Line]:
    """Return what every field and option became."""
    call = dict(after.fields)
    call |= {f"options.{name}": value for name, value in after.options.items()}
    left = dict(call)
    lines: list[Line] = []
    same: list[str] = []
    not_sent: list[str] = []
    for name, value in _given(before):
        counterpart = name if name in call else FIELDS.get(name, lmstudio_key(name))
        substitute = SUBSTITUTES.get(counterpart, "")
        found = next((key for key in (counterpart, substitute) if key in left), None)
        if found is None:
            if value not in jsontext.EMPTY:
                why = f" ({_READ_HERE[name]})" if _READ_HERE.get(name) else ""
                not_sent.append(f"{name} {_shown(value)}{why}")
        elif _is_same(value, left[found]):
            if name == found:
                same.append(name)
            else:
                lines.append((name, f"{_shown(value)} -> {found}"))
            del left[found]
        elif found == "response_format":
            lines.append((name, _format(value, left.pop(found))))
        else:
            lines.append((name, f"{_shown(value)} -> {'' if name == found else f'{found} '}{_shown(left.pop(found))}"))
    if same:
        lines.append(("as it came", ", ".join(same)))
    if left:
        lines.append(("added", ", ".join(f"{name} {_shown(value)}" for name, value in left.items())))
    if not_sent:
        lines.append(("not sent", ", ".join(not_sent)))
    return lines


def _given(request: ParsedRequest) -> Iterator[tuple[str, Any]]:
    """Yield a request's options, those first that the mapping prefers where two become one field, then its fields."""
    first = (name for name, _ in OPTION_TO_LMSTUDIO if name in request.options)
    for name in dict.fromkeys((*first, *request.options)):
        yield name, request.options[name]
    for name, value in request.fields.items():
        if name.lower() not in _CONVERSATION:
            yield name.lower(), value


def _is_same(value: object, sent: object) -> bool:
    """Return whether two values are the same JSON: 1 is not 1.0, and the order of keys counts."""
    return value is sent or jsontext.compact(value) == jsontext.compact(sent)


def _format(schema: object, response_format: object) -> str:
    wrapped = response_format.get("json_schema") if isinstance(response_format, dict) else None
    sent = wrapped.get("schema") if isinstance(wrapped, dict) else None
    which = "the same schema" if _is_same(schema, sent) else f"schema {_shown(sent)}"
    return f"{_shown(schema)} -> response_format, {which}"


def _shown(value: object) -> str:
    if isinstance(value, list) and len(value) > MAX_LINES:
        return f"[{len(value):,} values]"
    return jsontext.one_line(jsontext.without_base64(jsontext.compact(value)), VALUE_CHARACTERS)


# The conversation


def _conversation(before: Sequence[ParsedMessage], after: Sequence[ParsedMessage]) -> Iterator[Line]:
    """Compare two conversations, from their ends: the mapping adds messages (an alias's) before the client's."""
    pairs: list[tuple[int, ParsedMessage | None, ParsedMessage | None]] = []
    at = len(before)
    rest = list(after)
    while rest:
        message = rest.pop()
        received = before[at - 1] if at else None
        # The mapping puts a tool result's images into a message after it.
        if received is None or (len(rest) >= at and not _correspond(received, message)):
            pairs.append((0, None, message))
        else:
            pairs.append((at, received, message))
            at -= 1
    pairs += ((number, before[number - 1], None) for number in range(at, 0, -1))
    for number, received, sent in reversed(pairs):
        if received is None:
            assert sent is not None
            yield "added", f"{sent.role}: {_summary(sent)}"
        elif sent is None:
            yield f"message {number}", f"not sent: {received.role}: {_summary(received)}"
        else:
            changed = ", ".join(_message(received, sent))
            if changed:
                yield f"message {number}", changed


def _correspond(received: ParsedMessage, sent: ParsedMessage) -> bool:
    """Return whether a message of the call is one of the client's: by its text, or by its role if it has none."""
    return received.text == sent.text and (bool(sent.text) or received.role == sent.role)


def _summary(message: ParsedMessage) -> str:
    parts = (
        jsontext.one_line(message.text, VALUE_CHARACTERS),
        *map(str, message.attachments),
        *map(str, message.tool_calls),
    )
    return jsontext.one_line(" ".join(part for part in parts if part), VALUE_CHARACTERS)


def _message(received: ParsedMessage, sent: ParsedMessage) -> Iterator[str]:
    if received.role != sent.role:
        yield f"role {received.role} -> {sent.role}"
    if received.text != sent.text:
        yield f"text of {len(received.text):,} -> {len(sent.text):,} characters"
    if received.thinking and not sent.thinking:
        yield "thinking not sent"
    if received.attachments != sent.attachments:
        before, after = (" ".join(map(str, message.attachments)) or "none" for message in (received, sent))
        yield f"images {before} -> {after}"
    if received.tool_calls != sent.tool_calls:
        yield from _calls(received, sent)
    if received.answers != sent.answers:
        yield f"answers {received.answers or 'nothing'} -> {sent.answers or 'nothing'}"


def _calls(received: ParsedMessage, sent: ParsedMessage) -> Iterator[str]:
    if len(received.tool_calls) != len(sent.tool_calls):
        yield f"{len(received.tool_calls)} -> {len(sent.tool_calls)} tool calls"
        return
    for call, sent_call in zip(received.tool_calls, sent.tool_calls, strict=True):
        if call.id != sent_call.id:
            yield f"{call.name or '?'} has the id {sent_call.id or 'none'}" + (f", not {call.id}" if call.id else "")
        same = _is_same(jsontext.read(call.arguments).value, jsontext.read(sent_call.arguments).value)
        if call.name != sent_call.name or not same:
            yield f"call {_shown(str(call))} -> {_shown(str(sent_call))}"


# Tools


def _tools(before: Sequence[Tool], after: Sequence[Tool]) -> Iterator[Line]:
    offered = {tool.name: tool for tool in after}
    for tool in before:
        sent = offered.pop(tool.name, None)
        if sent is None:
            yield f"tool {tool.name or '?'}", "not offered"
            continue
        if tool.description != sent.description:
            yield f"tool {tool.name}", "another description"
        for path, what in _differences(tool.parameters, sent.parameters, "parameters", 0):
            yield f"tool {tool.name}", f"{path} {what}"
    for name in offered:
        yield f"tool {name or '?'}", "added"


def _differences(before: object, after: object, path: str, depth: int) -> Iterator[Line]:
    """Yield the paths at which two values differ, and how."""
    if depth <= MAX_DEPTH and isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key not in after:
                yield f"{path}.{key}", f"{_shown(before[key])} taken out"
            else:
                yield from _differences(before[key], after[key], f"{path}.{key}", depth + 1)
        for key in after:
            if key not in before:
                yield f"{path}.{key}", f"{_shown(after[key])} put in"
    elif not _is_same(before, after):
        yield path, f"{_shown(before)} -> {_shown(after)}"
