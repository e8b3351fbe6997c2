"""What Ollama's requests become for LM Studio: options, messages, tools, format, think, images. Tables and pure
functions.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..lmstudio.catalog import Model
from ..ollama.errors import OllamaError
from ..ollama.requests import Message
from ..ollama.requests import MessageToolCall as MessageToolCall

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"

# Ollama's options -> LM Studio's keys. Where several stand for one key, the first that is given wins.
OPTION_TO_LMSTUDIO: tuple[tuple[str, str], ...] = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("repeat_penalty", "repeat_penalty"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("max_tokens", "max_tokens"),
    ("num_predict", "max_tokens"),
    ("logit_bias", "logit_bias"),
)

# Keys of OpenAI's kind that LM Studio knows, taken from `options` or the top level as they are.
OPENAI_KEYS = frozenset(
    {"draft_model", "max_completion_tokens", "parallel_tool_calls", "preset", "reasoning_effort", "user"}
)

_SAMPLING = frozenset(key for _, key in OPTION_TO_LMSTUDIO)

# What each of LM Studio's endpoints takes of these.
ENDPOINT_KEYS: Mapping[str, frozenset[str]] = {
    CHAT_COMPLETIONS: _SAMPLING | OPENAI_KEYS,
    COMPLETIONS: _SAMPLING | (OPENAI_KEYS - {"parallel_tool_calls", "reasoning_effort"}),
    EMBEDDINGS: frozenset({"user"}),
}

# A key that an endpoint lacks -> the one that does nearly the same there.
SUBSTITUTES: Mapping[str, str] = {"repeat_penalty": "frequency_penalty"}

# Options that say something to this program rather than to LM Studio.
OWN_OPTIONS = frozenset({"system", "format", "num_ctx"})


_LMSTUDIO_KEYS = dict(OPTION_TO_LMSTUDIO)


def lmstudio_key(option: str) -> str:
    """Give the key that an option becomes; its own name where the table has none."""
    return _LMSTUDIO_KEYS.get(option, option)


@dataclass(slots=True)
class Mapped:
    """The keys for LM Studio, and the names of the options that it has nothing for."""

    body: dict[str, Any] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)


def options_to_lmstudio(options: Mapping[str, Any], extras: Mapping[str, Any], endpoint: str) -> Mapped:
    """Map `options` and the unknown keys beside it (`extras`) for one of LM Studio's endpoints.

    Nulls, empty strings and empty lists are nothing. A negative max_tokens is no limit, so it is left out.
    """
    allowed = ENDPOINT_KEYS[endpoint]
    mapped = Mapped()
    given = {key: value for key, value in options.items() if not _is_nothing(value)}
    settled: set[str] = set()
    for name, key in OPTION_TO_LMSTUDIO:
        if name not in given or key in settled:
            continue
        settled.add(key)
        value = _to_value(key, given[name])
        substitute = SUBSTITUTES.get(key)
        if key in allowed:
            if value is not None:
                mapped.body[key] = value
        elif substitute in allowed and substitute not in given:
            mapped.body[str(substitute)] = value
        else:
            mapped.unsupported.append(name)
    for source in (given, extras):
        for key, value in source.items():
            if key in OPENAI_KEYS and key in allowed and not _is_nothing(value):
                mapped.body.setdefault(key, value)
    mapped.unsupported += [
        name for name in given if name not in _LMSTUDIO_KEYS and name not in OPENAI_KEYS | OWN_OPTIONS
    ]
    return mapped


def _is_nothing(value: object) -> bool:
    return value is None or value == "" or value == []


def _to_value(key: str, value: Any) -> Any:
    if key == "max_tokens" and isinstance(value, (int, float)):
        return int(value) if value >= 0 else None
    if key == "logit_bias" and isinstance(value, list):
        pairs = [pair for pair in value if isinstance(pair, (list, tuple)) and len(pair) == 2]
        return {str(token): bias for token, bias in pairs}
    return value


def format_to_lmstudio(schema: Any) -> dict[str, Any]:
    """Give `format` as `response_format`: a schema, or `json` as any object, since LM Studio refuses `json_object`."""
    if schema == "json":
        return _json_schema("json", {"type": "object"})
    return _json_schema("format", schema)


def _json_schema(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def tools_to_lmstudio(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Bring tool definitions into the form that LM Studio's validator takes; the order of keys stays.

    It wants `parameters`, where they are there, to be of type object with `properties`, and refuses nulls and other
    values of the wrong type in the keys that it knows. A definition that it takes already is given as it is.
    """
    return [_tool(tool if isinstance(tool, Mapping) else {}) for tool in tools]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = _without_nulls(tool.get("function"), ("name", "description", "parameters"))
    function.setdefault("name", "")
    if "parameters" in function:
        parameters = _without_nulls(function["parameters"], ("required",))
        parameters |= {"type": "object"}
        if not isinstance(parameters.get("properties"), Mapping):
            parameters["properties"] = {}
        if not isinstance(parameters.get("$defs", {}), Mapping):
            del parameters["$defs"]
        if isinstance(required := parameters.get("required"), list):
            parameters["required"] = [name for name in required if isinstance(name, str)]
        function["parameters"] = parameters
    return {**tool, "type": "function", "function": function}


def _without_nulls(value: Any, keys: Collection[str]) -> dict[str, Any]:
    """Give an object without those of these keys that are null; what is no object counts as an empty one."""
    given = value if isinstance(value, Mapping) else {}
    return {key: item for key, item in given.items() if item is not None or key not in keys}


def tool_choice_to_lmstudio(choice: Any, tools: list[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """Give tool_choice and the tools to offer. LM Studio takes strings only: one named function is the only one
    offered.
    """
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        named = [tool for tool in tools if tool["function"]["name"] == name]
        return "required", named or tools
    return choice, tools


def think_to_lmstudio(think: bool | str | None, model: Model) -> str | None:
    """Give `reasoning_effort` for a model, or None where nothing is to be sent.

    LM Studio takes none, minimal, low, medium, high and xhigh; what a model allows it says in its catalog entry.
    """
    reasoning = model.reasoning
    if think is None or reasoning is None:
        return None
    allowed = reasoning.allowed_options
    if think is False:
        if "off" in allowed:
            return "none"
        return "low" if "low" in allowed and "on" not in allowed else None
    wanted = {True: (), "max": ("xhigh", "high")}.get(think, (think,))
    level = next((level for level in wanted if level in allowed), None)
    if level is None and reasoning.default == "off":
        return "medium"
    return level


# The first bytes of an image -> its media type. LM Studio takes PNG and JPEG only.
IMAGE_TYPES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
LMSTUDIO_IMAGE_TYPES = frozenset({"image/png", "image/jpeg"})


def image_type(data: bytes) -> str:
    """Tell an image's media type by its first bytes; empty for bytes that are none of the known ones."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for start, media_type in IMAGE_TYPES if data.startswith(start)), "")


def image_to_lmstudio(data: bytes) -> dict[str, Any]:
    """Give an image as a part of a message; OllamaError 400 for a kind that LM Studio refuses and that cannot be
    converted.
    """
    media_type = image_type(data)
    if media_type in LMSTUDIO_IMAGE_TYPES:
        pass
    elif media_type:
        data, media_type = _to_png(data, media_type), "image/png"
    else:
        # LM Studio tells by the label whether it looks at the bytes at all; its own word on them is the honest one.
        media_type = "image/png"
    return {
        "type": "image_url",
        "image_url": {"url": f"data:{media_type};base64,{base64.b64encode(data).decode()}"},
    }


def _to_png(data: bytes, media_type: str) -> bytes:
    try:
        from PIL import Image
    except ImportError:
        message = (
            f"LM Studio takes PNG and JPEG images, not {media_type}: to have them converted, install the extra `images`"
        )
        raise OllamaError(400, message) from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            converted = io.BytesIO()
            image.convert("RGBA").save(converted, "PNG")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise OllamaError(400, f"the {media_type} image cannot be read") from None
    return converted.getvalue()


ROLES = frozenset({"system", "user", "assistant", "tool", "developer"})


def messages_to_lmstudio(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Give the conversation as LM Studio's validator takes it.

    Every tool call gets an id, and every tool result the id of the call it answers: by `tool_call_id`, then by the
    tool's name, then by position, since clients send any of these or none. Roles that LM Studio does not know count as
    the user. Images of a tool's result, which it refuses there, follow as the user's.
    """
    pairing = _Pairing()
    result: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            call_id = pairing.answer(message.tool_call_id, message.tool_name)
            result.append({"role": "tool", "tool_call_id": call_id, "content": message.content})
            if message.images:
                result.append({"role": "user", "content": [image_to_lmstudio(image) for image in message.images]})
        elif message.role == "assistant" and message.tool_calls:
            calls = list(pairing.ask(message.tool_calls))
            result.append({"role": "assistant", "content": message.content, "tool_calls": calls})
        else:
            role = message.role if message.role in ROLES else "user"
            result.append({"role": role, "content": content_to_lmstudio(message.content, message.images)})
    return result


def content_to_lmstudio(text: str, images: Sequence[bytes]) -> Any:
    """Give a message's content: the text, or the text and the images as parts."""
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    return parts + [image_to_lmstudio(image) for image in images]


class _Pairing:
    """Which tool calls wait for a result."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str]] = []

    def ask(self, calls: Sequence[MessageToolCall]) -> Iterator[dict[str, Any]]:
        """Give calls with ids. Calls of an earlier turn that nobody answered are no longer waited for."""
        self._open = []
        for call in calls:
            call_id = call.id or self._new_id()
            self._open.append((call_id, call.name))
            function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
            yield {"id": call_id, "type": "function", "function": function}

    def answer(self, call_id: str, name: str) -> str:
        """Give the id of the call that a result answers; a result without a call gets an id of its own."""
        found = (
            next((entry for entry in self._open if call_id and entry[0] == call_id), None)
            or next((entry for entry in self._open if name and entry[1] == name), None)
            or next(iter(self._open), None)
        )
        if found is None:
            return call_id or self._new_id()
        self._open.remove(found)
        return found[0]

    def _new_id(self) -> str:
        self._made += 1
        return f"call_{self._made:08d}"


def dumps(body: Mapping[str, Any]) -> bytes:
    """Write a body for LM Studio: compact, key order kept."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
