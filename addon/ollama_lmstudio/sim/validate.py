"""What LM Studio refuses, in its own words."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from .generate import Prompt
from .models import SimModel, Version
from .wire import ApiError, JsonObject, native_error, parse_json, plain_error, stringify

INVALID_MESSAGES = "Invalid 'messages' in payload. Please check the structure of your 'messages' and try again"
NOT_AN_IMAGE = "'url' field must be a base64 encoded image."
BAD_IMAGE = "Failed to load image or audio file"
BAD_INPUT = "'input' field must be a string or an array of strings"
INVALID_JSON = "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON"

ROLES = ("system", "developer", "user", "assistant", "tool")
TOOL_CHOICES = ("none", "auto", "required")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
MAX_TOP_LOGPROBS = 20
DATA_URL = re.compile(r"data:image/(?:png|jpeg);base64,(.+)", re.DOTALL)
# What the engine's decoder reads, by the first bytes.
IMAGE_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)
COMMON = (
    "model",
    "stream",
    "stream_options",
    "ttl",
    "draft_model",
    "preset",
    "lmstudio",
    "seed",
    "stop",
    "logit_bias",
)
CHAT_ONLY = (
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "response_format",
    "reasoning_effort",
    "logprobs",
    "top_logprobs",
)
CHAT_KEYS = frozenset((*COMMON, *SAMPLING, *CHAT_ONLY))
COMPLETION_KEYS = frozenset((*COMMON, *SAMPLING, "prompt", "max_tokens", "echo"))
EMBEDDING_KEYS = frozenset(("model", "input", "ttl"))


def read_body(body: bytes, *, native: bool = False) -> JsonObject:
    """Parse the body of a POST; none is an empty object. Raises ApiError unless it is a JSON object."""
    if not body:
        return {}
    try:
        value = parse_json(body)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    raise native_error(INVALID_JSON, code="invalid_json") if native else plain_error(INVALID_JSON)


# /v1/chat/completions


def chat_prompt(body: JsonObject, version: Version) -> Prompt:
    """Check the body of a chat completion and return what its answer depends on. Raises ApiError."""
    messages = body.get("messages")
    if messages is None:
        raise plain_error("'messages' field is required")
    if not isinstance(messages, list | str):
        raise plain_error("[Server Error] _0x48eeaf is not iterable")
    prompt = Prompt(body, messages=len(messages))
    message: Any
    parts: list[str] = []
    for message in messages:
        text, images = _message(message)
        parts.append(text)
        prompt.images += images
        if message["role"] == "user":
            prompt.last_user, prompt.tool_results = text, []
        elif message["role"] == "tool":
            prompt.tool_results.append(text)
        elif message["role"] == "assistant":
            prompt.tool_results = []
    prompt.text = "\n".join(parts)
    prompt.tools = _tools(body)
    prompt.tool_choice = _tool_choice(body)
    prompt.schema = _schema(body, version)
    prompt.thinks = _thinks(body, version)
    prompt.top_logprobs = _top_logprobs(body)
    set_limits(prompt, "max_tokens", "max_completion_tokens")
    return prompt


def set_limits(prompt: Prompt, *names: str, stop: str = "stop") -> None:
    """Set a prompt's limits of an answer: its length, under any of these names, and its stop strings."""
    for name in names:
        limit = prompt.body.get(name)
        if isinstance(limit, int | float) and not isinstance(limit, bool):
            prompt.max_tokens = int(limit)
    given = prompt.body.get(stop)
    stops = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    prompt.stop = tuple(text for text in stops if isinstance(text, str) and text)


def _message(message: Any) -> tuple[str, int]:
    """Return the text of a message and the number of its images."""
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise plain_error(INVALID_MESSAGES)
    role = message["role"]
    if role == "tool" and not (isinstance(message.get("tool_call_id"), str) and message["tool_call_id"]):
        raise plain_error(INVALID_MESSAGES)
    calls = message.get("tool_calls") if role == "assistant" else None
    if calls is not None:
        _past_calls(calls)
    content = message.get("content")
    if content is None and calls:
        return "", 0
    if isinstance(content, str):
        return content, 0
    if not isinstance(content, list):
        raise plain_error(INVALID_MESSAGES)
    texts, images = [], 0
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image_url", "image_url": {"url": url}} if role != "tool":
                _image(url)
                images += 1
            case _:
                raise plain_error(INVALID_MESSAGES)
    return "\n".join(texts), images


def _past_calls(calls: Any) -> None:
    if not isinstance(calls, list):
        raise plain_error(INVALID_MESSAGES)
    for call in calls:
        match call:
            case {"id": str(), "type": "function", "function": {"name": str(), "arguments": str(arguments)}}:
                try:
                    parse_json(arguments)
                except ValueError as problem:
                    raise plain_error(javascript_json_error(arguments, problem), 500) from None
            case _:
                raise plain_error(INVALID_MESSAGES)


# How Python's complaint about a JSON text begins, and what V8 says instead.
JAVASCRIPT_COMPLAINTS = {
    "Expecting property name": "Expected property name or '}' in JSON",
    "Expecting ':'": "Expected ':' after property name in JSON",
    "Extra data": "Unexpected non-whitespace character after JSON",
}
JSON_STRING = re.compile(r'"(?:\\.|[^"\\])*"')


def _innermost(text: str) -> str:
    """Return the bracket that is open at the end of a JSON text without strings."""
    opened = [""]
    for character in text:
        if character in "[{":
            opened.append(character)
        elif character in "]}":
            opened.pop()
    return opened[-1]


def javascript_json_error(text: str, problem: ValueError) -> str:
    """Return V8's message for a text that is not JSON."""
    if not isinstance(problem, json.JSONDecodeError):
        return f"{problem}, {stringify(text).decode()} is not valid JSON"
    if problem.msg.startswith("Unterminated string"):
        return f"Unterminated string in JSON at position {len(text)}"
    if problem.pos >= len(text.rstrip()):
        return "Unexpected end of JSON input"
    place = f"at position {problem.pos} (line {problem.lineno} column {problem.colno})"
    if problem.msg.startswith("Expecting ','"):
        in_array = _innermost(JSON_STRING.sub("", text[: problem.pos])) == "["
        wanted = "',' or ']' after array element" if in_array else "',' or '}' after property value"
        return f"Expected {wanted} in JSON {place}"
    for complaint, message in JAVASCRIPT_COMPLAINTS.items():
        if problem.msg.startswith(complaint):
            return f"{message} {place}"
    return f"Unexpected token '{text[problem.pos]}', {stringify(text).decode()} is not valid JSON"


def check_images(urls: Iterable[Any]) -> None:
    """Check that images are data URLs of PNG or JPEG, and that the engine can read them. Raises ApiError."""
    for url in urls:
        _image(url)


def _image(url: Any) -> None:
    match = DATA_URL.fullmatch(url) if isinstance(url, str) else None
    if not match:
        raise plain_error(NOT_AN_IMAGE)
    try:
        data = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        raise plain_error(NOT_AN_IMAGE) from None
    if not data.startswith(IMAGE_SIGNATURES):
        raise plain_error(BAD_IMAGE)


def _tools(body: JsonObject) -> list[JsonObject]:
    tools = body.get("tools")
    if tools is None:
        return []
    issues = list(tool_issues(tools))
    if issues:
        raise plain_error(stringify(issues, 2).decode())
    return list(tools)


def _tool_choice(body: JsonObject) -> str:
    choice = body.get("tool_choice")
    if choice is None:
        return "auto"
    if not isinstance(choice, str):
        kind = javascript_type(choice)
        raise plain_error(f"Invalid tool_choice type: '{kind}'. Supported string values: none, auto, required")
    if choice not in TOOL_CHOICES:
        raise plain_error(f"Invalid tool_choice: '{choice}'. Supported string values: none, auto, required")
    return choice


def _schema(body: JsonObject, version: Version) -> JsonObject | None:
    wanted = body.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text" and version.has("response_format_text"):
        return None
    if kind != "json_schema":
        allowed = "'json_schema' or 'text'" if version.has("response_format_text") else "'json_schema'"
        raise plain_error(f"'response_format.type' must be {allowed}")
    described = wanted.get("json_schema")
    if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
        raise plain_error("'response_format.json_schema.schema' must be an object")
    schema: JsonObject = described["schema"]
    return schema


def _thinks(body: JsonObject, version: Version) -> bool:
    effort = body.get("reasoning_effort")
    if effort is None or not version.has("reasoning_control"):
        return True
    if effort not in EFFORTS:
        raise plain_error(f"'reasoning_effort' must be one of: {', '.join(EFFORTS)}")
    return bool(effort != "none")


def _top_logprobs(body: JsonObject) -> int | None:
    count = body.get("top_logprobs")
    if count is not None and (
        not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_TOP_LOGPROBS
    ):
        raise plain_error(f"'top_logprobs' must be an integer between 0 and {MAX_TOP_LOGPROBS}")
    if not body.get("logprobs"):
        return None
    return count or 0


def completion_prompt(body: JsonObject) -> Prompt:
    """Check the body of a text completion and return what its answer depends on. Raises ApiError."""
    text = body.get("prompt")
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = "".join(text)
    if not isinstance(text, str):
        raise plain_error("'prompt' field is required" if text is None else "'prompt' field must be a string")
    prompt = Prompt(body, text=text, last_user=text, messages=0)
    set_limits(prompt, "max_tokens")
    return prompt


def embedding_inputs(body: JsonObject) -> list[str]:
    """Return the texts to embed. Raises ApiError for anything but strings."""
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise plain_error(BAD_INPUT)
    return texts


# zod


def javascript_type(value: Any) -> str:
    """Return `typeof value`."""
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case _:
            return "object"


class _Undefined:
    """The value of a key that is not there."""


UNDEFINED = _Undefined()
Path = list[str | int]


def zod_type(value: Any) -> str:
    """Return the name zod has for the type of a value."""
    match value:
        case _Undefined():
            return "undefined"
        case None:
            return "null"
        case list():
            return "array"
        case _:
            return javascript_type(value)


def _wrong_type(expected: str, value: Any, path: Path) -> Iterator[JsonObject]:
    received = zod_type(value)
    if received != expected:
        message = "Required" if received == "undefined" else f"Expected {expected}, received {received}"
        yield {
            "code": "invalid_type",
            "expected": expected,
            "received": received,
            "path": path,
            "message": message,
        }


def _wrong_tag(tag: str, value: JsonObject, path: Path) -> Iterator[JsonObject]:
    """Check a discriminated union with one member: an object whose `type` is `tag`."""
    if zod_type(value) != "object":
        yield from _wrong_type("object", value, path)
    elif value.get("type") != tag:
        yield {
            "code": "invalid_union_discriminator",
            "options": [tag],
            "path": [*path, "type"],
            "message": f"Invalid discriminator value. Expected '{tag}'",
        }


def tool_issues(tools: Any) -> Iterator[JsonObject]:
    """Find what LM Studio's schema for `tools` objects to, as zod's list of issues."""
    if zod_type(tools) != "array":
        yield from _wrong_type("array", tools, [])
        return
    for index, tool in enumerate(tools):
        wrong = list(_wrong_tag("function", tool, [index]))
        yield from wrong
        if wrong:
            continue
        function = tool.get("function", UNDEFINED)
        path: Path = [index, "function"]
        if zod_type(function) != "object":
            yield from _wrong_type("object", function, path)
            continue
        yield from _wrong_type("string", function.get("name", UNDEFINED), [*path, "name"])
        if "description" in function:
            yield from _wrong_type("string", function["description"], [*path, "description"])
        if "parameters" in function:
            yield from _parameter_issues(function["parameters"], [*path, "parameters"])


def _parameter_issues(parameters: Any, path: Path) -> Iterator[JsonObject]:
    wrong = list(_wrong_tag("object", parameters, path))
    yield from wrong
    if wrong:
        return
    yield from _wrong_type("object", parameters.get("properties", UNDEFINED), [*path, "properties"])
    required = parameters.get("required", [])
    if zod_type(required) != "array":
        yield from _wrong_type("array", required, [*path, "required"])
    else:
        for index, name in enumerate(required):
            yield from _wrong_type("string", name, [*path, "required", index])
    if "$defs" in parameters:
        yield from _wrong_type("object", parameters["$defs"], [*path, "$defs"])


# /api/v1: closed sets of keys

Kind = Literal["string", "number", "boolean", "input", "array"]
# name -> (type, required, least, most)
Field = tuple[Kind, bool, float | None, float | None]


def _field(kind: Kind, least: float | None = None, most: float | None = None, *, required: bool = False) -> Field:
    return kind, required, least, most


NATIVE_FIELDS: dict[str, dict[str, Field]] = {
    "load": {
        "model": _field("string", required=True),
        "context_length": _field("number", 1),
        "eval_batch_size": _field("number", 1),
        "flash_attention": _field("boolean"),
        "num_experts": _field("number", 1),
        "offload_kv_cache_to_gpu": _field("boolean"),
        "echo_load_config": _field("boolean"),
    },
    "unload": {"instance_id": _field("string", required=True)},
    "download": {"model": _field("string", required=True), "quantization": _field("string")},
    "chat": {
        "model": _field("string", required=True),
        "input": _field("input", required=True),
        "system_prompt": _field("string"),
        "integrations": _field("array"),
        "stream": _field("boolean"),
        "temperature": _field("number", 0, 1),
        "top_p": _field("number", 0, 1),
        "top_k": _field("number", 0),
        "min_p": _field("number", 0, 1),
        "repeat_penalty": _field("number", 0),
        "max_output_tokens": _field("number", 1),
        "reasoning": _field("string"),
        "context_length": _field("number", 1),
        "store": _field("boolean"),
        "previous_response_id": _field("string"),
    },
}


def check_native(body: JsonObject, route: str) -> None:
    """Check a body against the closed set of keys of a native route. Raises ApiError."""
    fields = NATIVE_FIELDS[route]
    for name, (kind, required, least, most) in fields.items():
        if name not in body:
            if required:
                raise native_error(f'"{name}" is required', code="missing_required_parameter", param=name)
            continue
        value = body[name]
        if kind != "input" and zod_type(value) != kind:
            message = f"Expected {kind}, received {zod_type(value)}"
            raise native_error(message, code="invalid_type", param=name)
        if least is not None and value < least:
            raise native_error(f"Number must be greater than or equal to {least:g}", code="too_small", param=name)
        if most is not None and value > most:
            raise native_error(f"Number must be less than or equal to {most:g}", code="too_big", param=name)
    _no_other_keys(body, fields)


def _no_other_keys(value: JsonObject, known: Any) -> None:
    unknown = [f"'{name}'" for name in value if name not in known]
    if unknown:
        raise native_error(f"Unrecognized key(s) in object: {', '.join(unknown)}", code="unrecognized_keys")


PLUGIN_DENIED = (
    "Permission denied to use plugin '{plugin}'. Ensure that the server configuration allows plugin usage and, if "
    "using an API token, it has the necessary permissions."
)
NATIVE_ITEMS = {"text": "content", "image": "data_url"}


def native_prompt(body: JsonObject) -> Prompt:
    """Check the body of a native chat and return what its answer depends on. Raises ApiError."""
    check_native(body, "chat")
    given = body["input"]
    items = [{"type": "text", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise native_error("Invalid input", code="invalid_union", param="input")
    if body.get("integrations"):
        raise native_error(
            PLUGIN_DENIED.format(plugin=_plugin(body["integrations"][0])), code=None, param="integrations", status=403
        )
    prompt = Prompt(body, messages=len(items))
    texts = [body["system_prompt"]] if "system_prompt" in body else []
    for index, item in enumerate(items):
        where = f"input.{index}"
        kind = item.get("type") if isinstance(item, dict) else None
        if kind not in NATIVE_ITEMS:
            message = "Invalid discriminator value. Expected 'text' | 'image'"
            raise native_error(message, code="invalid_union_discriminator", param=f"{where}.type")
        name = NATIVE_ITEMS[kind]
        if not isinstance(item.get(name), str):
            raise native_error(f'"{where}.{name}" is required', code="missing_required_parameter", param=where)
        _no_other_keys(item, ("type", name))
        if kind == "image":
            try:
                _image(item[name])
            except ApiError as problem:
                raise native_error(problem.body["error"], code="invalid_value", param=where) from None
            prompt.images += 1
        else:
            texts.append(item[name])
            prompt.last_user = item[name]
    prompt.text = "\n".join(texts)
    if "max_output_tokens" in body:
        prompt.max_tokens = int(body["max_output_tokens"])
    prompt.thinks = body.get("reasoning") != "off"
    return prompt


def _plugin(integration: Any) -> str:
    """Return the name of a plugin, which is given alone or with settings."""
    return str(integration.get("id") if isinstance(integration, dict) else integration)


def check_reasoning(body: JsonObject, model: SimModel, version: Version) -> None:
    """Check that the model has the reasoning setting a native chat asks for. Raises ApiError."""
    setting = body.get("reasoning")
    if setting is None:
        return
    if model.reasoning is None:
        verb = "expose" if version.has("reasoning_wording") else "support"
        message = f"Model '{model.key}' does not {verb} reasoning configuration."
    elif setting not in model.reasoning.allowed_options:
        allowed = ", ".join(f"'{option}'" for option in model.reasoning.allowed_options)
        refused = f"Reasoning setting '{setting}' is not supported by model '{model.key}'."
        message = f"{refused} Supported settings: {allowed}."
    else:
        return
    raise native_error(message, code="invalid_value", param="reasoning")
