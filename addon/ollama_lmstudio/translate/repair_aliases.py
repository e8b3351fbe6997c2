"""What an alias adds to requests that are passed through: its system text, its messages and its parameters.

As on Ollama's own API, what a request gives itself goes before them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..state.aliases import Alias
from .json_body import JSONBody
from .messages import SYSTEM_ROLES, alias_messages
from .options import options_to_lmstudio
from .passthrough import PassedRequest
from .paths import CHAT_COMPLETIONS, COMPLETIONS
from .unsupported import log_unsupported

# The key of a parameter -> another key by which a request may give the same.
SAME: Mapping[str, str] = {"max_tokens": "max_completion_tokens"}
# A key of chat completions -> that of another API, for those that LM Studio takes there.
RESPONSE_KEYS: Mapping[str, str] = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}
MESSAGE_KEYS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "stop": "stop_sequences",
}


def _add_to_chat(body: JSONBody, alias: Alias) -> None:
    messages = body.get("messages")
    if isinstance(messages, list):
        leading, rest = _split_leading(messages)
        if alias.system and not any(map(_is_system, messages)):
            leading = [{"role": "system", "content": alias.system}]
        body.set("messages", [*leading, *alias_messages(alias), *rest])


def _add_to_completion(body: JSONBody, alias: Alias) -> None:
    """Put the texts before the prompt, as there are no messages."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) and not body.get("suffix"):
        texts = [alias.system, *(message["content"] for message in alias_messages(alias)), prompt]
        body.set("prompt", "\n\n".join(text for text in texts if isinstance(text, str) and text))


def _add_to_response(body: JSONBody, alias: Alias) -> None:
    """Add to the instructions and the input; LM Studio has the messages already where a response is continued."""
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        return
    if alias.system and not body.get("instructions") and not any(map(_is_system, items)):
        body.set("instructions", alias.system)
    if alias.messages and not body.get("previous_response_id"):
        leading, rest = _split_leading(items)
        added = itertools.chain.from_iterable(map(_items, alias_messages(alias)))
        body.set("input", [*leading, *added, *rest])


def _add_to_message(body: JSONBody, alias: Alias) -> None:
    messages = body.get("messages")
    if isinstance(messages, list):
        if alias.system and not body.get("system") and not any(map(_is_system, messages)):
            body.set("system", alias.system)
        body.set("messages", [*map(_anthropic_message, alias_messages(alias)), *messages])


def _is_system(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") in SYSTEM_ROLES


def _split_leading(messages: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the system messages at the beginning, and the others."""
    leading = list(itertools.takewhile(_is_system, messages))
    return leading, messages[len(leading) :]


def _set_parameters(request: PassedRequest, alias: Alias, keys: Mapping[str, str] | None = None) -> None:
    """Set an alias's parameters, under the `keys` of the API, that the request does not give."""
    endpoint = COMPLETIONS if request.path == COMPLETIONS else CHAT_COMPLETIONS
    mapped = options_to_lmstudio(alias.parameters, {}, endpoint)
    unsupported = list(mapped.unsupported)
    for name, value in mapped.body.items():
        key = name if keys is None else keys.get(name)
        if key is None:
            unsupported.append(f"{name} on {request.path}")
        elif request.body.get(key) is None and request.body.get(SAME.get(key, key)) is None:
            # Only Anthropic's API takes no single text here.
            is_single = key == "stop_sequences" and isinstance(value, str)
            request.body.set(key, [value] if is_single else value)
    log_unsupported(unsupported, request.services)


def _applied(
    add: Callable[[JSONBody, Alias], None], keys: Mapping[str, str] | None = None
) -> Callable[[PassedRequest], bool]:
    """Return the function that adds what an alias has to a request, which needs no line in the log."""

    def apply(request: PassedRequest) -> bool:
        alias = request.resolved.alias
        if alias is not None:
            add(request.body, alias)
            _set_parameters(request, alias, keys)
        return False

    return apply


apply_to_chat = _applied(_add_to_chat)
apply_to_completion = _applied(_add_to_completion)
apply_to_response = _applied(_add_to_response, RESPONSE_KEYS)
apply_to_message = _applied(_add_to_message, MESSAGE_KEYS)


# An alias's messages, which are those of chat completions, in the other APIs


def _items(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the items of `/v1/responses` for a message."""
    role, content = message["role"], message["content"]
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": content}
        return
    if content:
        parts = content if isinstance(content, str) else [_input_part(part) for part in content]
        yield {"role": role, "content": parts}
    for call in message.get("tool_calls", ()):
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _input_part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "input_text", "text": part["text"]}
    return {"type": "input_image", "image_url": part["image_url"]["url"]}


def _anthropic_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message of `/v1/messages` for a message."""
    role, content = message["role"], message["content"]
    if role == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": content}
        return {"role": "user", "content": [result]}
    calls = [
        {"type": "tool_use", "id": call["id"], "name": function["name"], "input": json.loads(function["arguments"])}
        for call in message.get("tool_calls", ())
        for function in (call["function"],)
    ]
    if isinstance(content, str) and not calls:
        return {"role": role, "content": content}
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
    return {"role": role, "content": [*(_block(part) for part in parts), *calls]}


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    media_type, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
