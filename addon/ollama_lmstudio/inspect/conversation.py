"""What a client asks: a request's body of any of Ollama's endpoints, or of LM Studio's own, as one neutral structure.

It is read by its shape, whatever state it is in: what a field holds that it should not is shown as it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeGuard

from ..lmstudio.errors import MASK
from ..record.redaction import SECRET_FIELDS
from ..translate.images import image_type
from . import jsontext
from .jsontext import text_at

# The first bytes of a file, as many as tell its type.
_HEAD_CHARACTERS = 32
# Parts within parts that are read.
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image, or another file, that came with a message; `size` is in bytes."""

    media_type: str
    size: int

    def __str__(self) -> str:
        return jsontext.note(self.media_type, self.size)


@dataclass(frozen=True, slots=True)
class ParsedToolCall:
    """A call of a tool, its arguments as JSON, or whatever came instead."""

    name: str
    arguments: str = "{}"
    id: str = ""

    def __str__(self) -> str:
        return f"{self.name or '?'}({'' if self.arguments == '{}' else self.arguments})"


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """One message; `answers` is the id of the tool call that it answers, or the name of the tool."""

    role: str
    text: str = ""
    thinking: str = ""
    attachments: tuple[Attachment, ...] = ()
    tool_calls: tuple[ParsedToolCall, ...] = ()
    answers: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call; `parameters` is its schema, as it came."""

    name: str
    description: str = ""
    parameters: Any = None

    def __str__(self) -> str:
        schema = self.parameters if isinstance(self.parameters, Mapping) else {}
        properties = schema.get("properties")
        required = schema.get("required")
        names = [str(name) for name in islice(properties, 20)] if isinstance(properties, Mapping) else []
        optional = set(names) - {name for name in required if isinstance(name, str)} if _is_list(required) else set()
        return f"{self.name or '?'}({', '.join(f'{name}?' if name in optional else name for name in names)})"


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """What was asked.

    `texts` are to be embedded. `fields` is everything else that the body has, as it came. `problem` is what is wrong
    with the body; `whole` the body itself, as far as it could be read.
    """

    model: str = ""
    messages: tuple[ParsedMessage, ...] = ()
    texts: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    whole: Any = None


def read_request(body: bytes, path: str = "") -> ParsedRequest:
    """Read a request's body. The path tells whether `input` is to be embedded or to be answered."""
    whole, problem = jsontext.read(body) if body else jsontext.Read(None)
    if not isinstance(whole, dict):
        return ParsedRequest(problem=problem, whole=whole)
    # Ollama takes a field's name in any case.
    given = {name.lower(): value for name, value in whole.items()}
    taken = {"model", "options", "tools"}
    model = text_at(given, "model")
    if not model and text_at(given, "name"):
        model = text_at(given, "name")
        taken.add("name")
    messages: list[ParsedMessage] = []
    texts: tuple[str, ...] = ()
    for name in ("system", "instructions", "system_prompt"):
        if given.get(name):
            messages.append(ParsedMessage("system", *_content(given[name])[:1]))
            taken.add(name)
    if _is_list(given.get("messages")):
        messages += [_message(item) for item in given["messages"]]
        taken.add("messages")
    if "prompt" in given or given.get("images"):
        text, attachments, *_ = _content(given.get("prompt"))
        if text or attachments or given.get("images"):
            messages.append(ParsedMessage("user", text, "", attachments + _images(given.get("images"))))
        taken |= {"prompt", "images"}
    if "input" in given:
        if "embed" in path:
            texts = tuple(map(_as_text, given["input"])) if _is_list(given["input"]) else (_as_text(given["input"]),)
        else:
            messages += _items(given["input"])
        taken.add("input")
    options = given.get("options")
    return ParsedRequest(
        model=model,
        messages=tuple(messages),
        texts=texts,
        tools=tuple(_tool(item) for item in given["tools"]) if _is_list(given.get("tools")) else (),
        options=options if isinstance(options, dict) else {},
        fields={
            name: MASK if name.lower() in SECRET_FIELDS and value else value
            for name, value in whole.items()
            if name.lower() not in taken or not _is_of_its_type(name.lower(), value)
        },
        problem=problem,
        whole=whole,
    )


def _is_of_its_type(name: str, value: object) -> bool:
    """Whether what was taken out of a field was all of it."""
    if name in ("model", "name"):
        return isinstance(value, str) or value is None
    if name == "options":
        return isinstance(value, dict) or value is None
    return name != "tools" or _is_list(value) or value is None


def _message(item: object) -> ParsedMessage:
    if not isinstance(item, dict):
        return ParsedMessage("?", _as_text(item))
    text, attachments, thinking, calls, answers = _content(item.get("content"))
    thinking = thinking or text_at(item, "thinking") or text_at(item, "reasoning_content") or text_at(item, "reasoning")
    given_calls = item.get("tool_calls")
    return ParsedMessage(
        role=text_at(item, "role") or "?",
        text=text,
        thinking=thinking,
        attachments=attachments + _images(item.get("images")),
        tool_calls=calls + (tuple(map(tool_call, given_calls)) if _is_list(given_calls) else ()),
        answers=answers or text_at(item, "tool_call_id") or text_at(item, "tool_name"),
    )


_Parts = tuple[str, tuple[Attachment, ...], str, tuple[ParsedToolCall, ...], str]


def _content(content: object, depth: int = 0) -> _Parts:
    """Read a message's content: a text, or parts of it. Text, attachments, thinking, calls, and the call it answers."""
    if not _is_list(content) or depth > _MAX_DEPTH:
        return ("" if content is None else _as_text(content)), (), "", (), ""
    texts: list[str] = []
    attachments: list[Attachment] = []
    thinking: list[str] = []
    calls: list[ParsedToolCall] = []
    answers = ""
    for part in content:
        kind = text_at(part, "type") if isinstance(part, dict) else ""
        if kind in ("tool_use", "function_call"):
            calls.append(tool_call(part))
        elif kind in ("thinking", "reasoning"):
            thinking.append(text_at(part, "thinking") or text_at(part, "text"))
        elif kind == "tool_result":
            answers = answers or text_at(part, "tool_use_id")
            text, found, *_ = _content(part.get("content"), depth + 1)
            texts.append(text)
            attachments += found
        elif (found_one := _attachment_part(part)) is not None:
            attachments.append(found_one)
        elif isinstance(part, dict) and isinstance(part.get("text", part.get("content")), str):
            texts.append(str(part.get("text", part.get("content"))))
        else:
            texts.append(_as_text(part))
    return "\n".join(texts), tuple(attachments), "\n".join(thinking), tuple(calls), answers


def _attachment_part(part: object) -> Attachment | None:
    """Read a part that is a file, in the form of any of the APIs."""
    if not isinstance(part, dict):
        return None
    source = part.get("source")
    if isinstance(source, dict) and isinstance(source.get("data"), str):
        found = attachment(source["data"])
        return Attachment(text_at(source, "media_type") or found.media_type, found.size)
    for key in ("image_url", "data_url", "input_audio", "file"):
        value = part.get(key)
        if isinstance(value, dict):
            value = value.get("url", value.get("data", value.get("file_data")))
        if isinstance(value, str):
            return attachment(value)
    return None


def _images(images: object) -> tuple[Attachment, ...]:
    return tuple(map(attachment, images)) if _is_list(images) else ()


def attachment(data: object) -> Attachment:
    """Tell what a file is, in base64 or as a data URL, without looking at more than its begin."""
    if not isinstance(data, str):
        # Some clients send the bytes as an object: {"0": 137, "1": 80, ...}
        return Attachment("not in base64", len(data) if isinstance(data, Mapping | Sequence) else 0)
    media_type = ""
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        media_type = head.removeprefix("data:").partition(";")[0]
    elif data.startswith(("http://", "https://")):
        return Attachment(f"at {jsontext.one_line(data, 100)}", 0)
    return Attachment(media_type or _type_of(data), jsontext.decoded_size(data))


def _type_of(data: str) -> str:
    try:
        return image_type(base64.b64decode(data[:_HEAD_CHARACTERS].rstrip("="))) or "unknown type"
    except ValueError:
        return "not in base64"


def tool_call(item: object) -> ParsedToolCall:
    """Read a tool call, in the form of any of the APIs."""
    if not isinstance(item, dict):
        return ParsedToolCall("", _as_text(item))
    function = item.get("function")
    function = function if isinstance(function, dict) else item
    arguments = function.get("arguments", function.get("input"))
    return ParsedToolCall(
        name=text_at(function, "name") or text_at(function, "tool"),
        arguments="{}" if arguments in (None, "") else _as_text(arguments),
        id=text_at(item, "id") or text_at(item, "call_id"),
    )


def _tool(item: object) -> Tool:
    if not isinstance(item, dict):
        return Tool("", _as_text(item))
    function = item.get("function")
    function = function if isinstance(function, dict) else item
    schema = function.get("parameters", function.get("input_schema"))
    return Tool(text_at(function, "name") or text_at(item, "type"), text_at(function, "description"), schema)


def _items(items: object) -> Iterator[ParsedMessage]:
    """Read the `input` of /v1/responses and /api/v1/chat: a text, messages, or parts of one."""
    if not _is_list(items):
        yield ParsedMessage("user", _as_text(items))
        return
    for item in items:
        kind = text_at(item, "type") if isinstance(item, dict) else ""
        read = _ITEMS.get(kind)
        if read is not None:
            yield read(item)
        elif isinstance(item, dict) and "role" not in item:
            text, attachments, *_ = _content([item])
            yield ParsedMessage("user", text, "", attachments)
        else:
            yield _message(item)


_ITEMS: Mapping[str, Callable[[dict[str, Any]], ParsedMessage]] = {
    "function_call": lambda item: ParsedMessage(
        "assistant", tool_calls=(tool_call(item | {"id": text_at(item, "call_id")}),)
    ),
    "function_call_output": lambda item: ParsedMessage(
        "tool", _content(item.get("output"))[0], answers=text_at(item, "call_id")
    ),
    "reasoning": lambda item: ParsedMessage(
        "assistant", thinking=_content(item.get("content") or item.get("summary"))[0]
    ),
}


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else jsontext.compact(value)
