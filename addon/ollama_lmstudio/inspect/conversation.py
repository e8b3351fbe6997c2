"""Parse the body of a request, in the format of any of the APIs, into one ParsedRequest.

It is parsed leniently, by its shape: a field with a value of the wrong type is kept as it is, so that it can be shown.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeGuard

from ..lmstudio.errors import MASK
from ..record.redaction import SECRET_FIELDS
from ..translate.images import image_type
from . import image_size, jsontext, signature
from .jsontext import text_at

# Of a file in base64, so many characters are decoded for its type: 24 bytes, more than any magic number has.
_HEAD_CHARACTERS = 32
# Content parts within content parts, as of a `tool_result`, are read to this depth: a request can nest them at will.
_MAX_DEPTH = 4
# What fits on a line of a link.
_URL_CHARACTERS = 100
# The role of the model.
ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image or another file in a message; `size` is in bytes."""

    media_type: str
    size: int
    data: str = field(default="", compare=False, repr=False)
    """The file in base64."""

    def __str__(self) -> str:
        # Only who shows it looks into the file.
        pixels = image_size.of_base64(self.data)
        kind = f"{self.media_type}, {pixels[0]} x {pixels[1]} pixels" if pixels else self.media_type
        return jsontext.note(kind, self.size)


@dataclass(frozen=True, slots=True)
class ParsedToolCall:
    """A tool call; `arguments` is JSON, or whatever came instead."""

    name: str
    arguments: str = "{}"
    id: str = ""

    def __str__(self) -> str:
        return f"{self.name or '?'}({'' if self.arguments == '{}' else self.arguments})"


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """One message; `answers` is the id of the tool call whose result it is, or the name of the tool."""

    role: str
    text: str = ""
    thinking: str = ""
    attachments: tuple[Attachment, ...] = ()
    tool_calls: tuple[ParsedToolCall, ...] = ()
    answers: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call; `parameters` is its JSON schema, as it came."""

    name: str
    description: str = ""
    parameters: Any = None

    def __str__(self) -> str:
        schema = self.parameters if isinstance(self.parameters, Mapping) else {}
        return f"{self.name or '?'}({', '.join(signature.parameters(schema))})"


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """The body of a request.

    `texts` are to be embedded. `fields` is everything that is in no other attribute, as it came, with secrets masked.
    `problem` is what is wrong with the body's JSON, `whole` its value as far as it could be parsed.
    """

    model: str = ""
    messages: tuple[ParsedMessage, ...] = ()
    texts: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    whole: Any = None

    @property
    def new_at(self) -> int:
        """The number of messages that the request before it of the same conversation had: 0 for the first.

        A request has the whole conversation, so new is what follows the model's last answer. A message of the model at
        the end is no answer: it is to be continued.
        """
        end = len(self.messages)
        while end and self.messages[end - 1].role == ASSISTANT:
            end -= 1
        return next((at for at in range(end, 0, -1) if self.messages[at - 1].role == ASSISTANT), 0)


def read_request(body: bytes, path: str = "") -> ParsedRequest:
    """Parse a request's body; never raises. By the path, `input` is texts to embed or a conversation."""
    whole, problem = jsontext.read(body) if body else jsontext.Read(None)
    if not isinstance(whole, dict):
        return ParsedRequest(problem=problem, whole=whole)
    # Go's encoding/json, and so Ollama, matches the names of fields without regard to case.
    given = {name.lower(): value for name, value in whole.items()}
    name_key = "name" if not text_at(given, "model") and text_at(given, "name") else "model"
    messages, read = _messages(given)
    texts: tuple[str, ...] = ()
    if "input" in given:
        if "embed" in path:
            texts = tuple(map(_as_text, given["input"])) if _is_list(given["input"]) else (_as_text(given["input"]),)
        else:
            messages += _items(given["input"])
    read |= {"model", name_key, "options", "tools", "input"}
    options = given.get("options")
    return ParsedRequest(
        model=text_at(given, name_key),
        messages=tuple(messages),
        texts=texts,
        tools=tuple(map(_tool, given["tools"])) if _is_list(given.get("tools")) else (),
        options=options if isinstance(options, dict) else {},
        fields={
            name: MASK if name.lower() in SECRET_FIELDS and value else value
            for name, value in whole.items()
            if name.lower() not in read or not _is_of_its_type(name.lower(), value)
        },
        problem=problem,
        whole=whole,
    )


def _messages(given: Mapping[str, Any]) -> tuple[list[ParsedMessage], set[str]]:
    """Return the system prompt, the messages and the prompt of a request, and the names of their fields."""
    messages: list[ParsedMessage] = []
    read = set()
    for name in ("system", "instructions", "system_prompt"):
        if given.get(name):
            messages.append(ParsedMessage("system", _content(given[name]).text))
            read.add(name)
    if _is_list(given.get("messages")):
        messages += map(_message, given["messages"])
        read.add("messages")
    images = given.get("images")
    if "prompt" in given or images:
        prompt = _content(given.get("prompt"))
        if prompt.text or prompt.attachments or images:
            messages.append(ParsedMessage("user", prompt.text, attachments=prompt.attachments + _images(images)))
        read |= {"prompt", "images"}
    return messages, read


def _is_of_its_type(name: str, value: object) -> bool:
    """Return whether a field that was read has a value of its type; another is shown as it came."""
    if name in ("model", "name"):
        return isinstance(value, str) or value is None
    if name == "options":
        return isinstance(value, dict) or value is None
    return name != "tools" or _is_list(value) or value is None


def _message(item: object) -> ParsedMessage:
    if not isinstance(item, dict):
        return ParsedMessage("?", _as_text(item))
    content = _content(item.get("content"))
    thinking = (text_at(item, key) for key in ("thinking", "reasoning_content", "reasoning"))
    calls = item.get("tool_calls")
    return ParsedMessage(
        role=text_at(item, "role") or "?",
        text=content.text,
        thinking=content.thinking or next(filter(None, thinking), ""),
        attachments=content.attachments + _images(item.get("images")),
        tool_calls=content.tool_calls + (tuple(map(tool_call, calls)) if _is_list(calls) else ()),
        answers=content.answers or text_at(item, "tool_call_id") or text_at(item, "tool_name"),
    )


class _Content(NamedTuple):
    """The content of a message; see ParsedMessage."""

    text: str
    attachments: tuple[Attachment, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ParsedToolCall, ...] = ()
    answers: str = ""


def _content(content: object, depth: int = 0) -> _Content:
    """Parse a message's content: a string, or content parts."""
    if not _is_list(content) or depth > _MAX_DEPTH:
        return _Content("" if content is None else _as_text(content))
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
            result = _content(part.get("content"), depth + 1)
            texts.append(result.text)
            attachments += result.attachments
        elif (found := _attachment_part(part)) is not None:
            attachments.append(found)
        elif isinstance(part, dict) and isinstance(part.get("text", part.get("content")), str):
            texts.append(str(part.get("text", part.get("content"))))
        else:
            texts.append(_as_text(part))
    return _Content("\n".join(texts), tuple(attachments), "\n".join(thinking), tuple(calls), answers)


def _attachment_part(part: object) -> Attachment | None:
    """Return the attachment that a content part of any API holds; None if it holds none."""
    if not isinstance(part, dict):
        return None
    source = part.get("source")
    if isinstance(source, dict) and isinstance(source.get("data"), str):
        found = attachment(source["data"])
        return replace(found, media_type=text_at(source, "media_type") or found.media_type)
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
    """Return the type and size of a file in base64, a data URL or a link; only its first bytes are decoded."""
    if not isinstance(data, str):
        # JSON.stringify writes a Uint8Array as an object: {"0": 137, "1": 80, ...}
        return Attachment("not in base64", len(data) if isinstance(data, Mapping | Sequence) else 0)
    media_type = ""
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        media_type = head.removeprefix("data:").partition(";")[0]
    elif data.startswith(("http://", "https://")):
        return Attachment(f"at {jsontext.one_line(data, _URL_CHARACTERS)}", 0)
    return Attachment(media_type or _type_of(data), jsontext.decoded_size(data), data)


def _type_of(data: str) -> str:
    try:
        return image_type(base64.b64decode(data[:_HEAD_CHARACTERS].rstrip("="))) or "unknown type"
    except ValueError:
        return "not in base64"


def tool_call(item: object) -> ParsedToolCall:
    """Parse a tool call, in the format of any of the APIs."""
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
    """Parse the `input` of /v1/responses and /api/v1/chat: a string, messages, or the content parts of one message."""
    if not _is_list(items):
        yield ParsedMessage("user", _as_text(items))
        return
    for item in items:
        kind = text_at(item, "type") if isinstance(item, dict) else ""
        read = _ITEMS.get(kind)
        if read is not None:
            yield read(item)
        elif isinstance(item, dict) and "role" not in item:
            part = _content([item])
            yield ParsedMessage("user", part.text, attachments=part.attachments)
        else:
            yield _message(item)


_ITEMS: Mapping[str, Callable[[dict[str, Any]], ParsedMessage]] = {
    "function_call": lambda item: ParsedMessage(
        "assistant", tool_calls=(tool_call(item | {"id": text_at(item, "call_id")}),)
    ),
    "function_call_output": lambda item: ParsedMessage(
        "tool", _content(item.get("output")).text, answers=text_at(item, "call_id")
    ),
    "reasoning": lambda item: ParsedMessage(
        "assistant", thinking=_content(item.get("content") or item.get("summary")).text
    ),
}


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else jsontext.compact(value)
