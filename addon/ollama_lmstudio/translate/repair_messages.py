"""Messages that Ollama takes and LM Studio refuses, in requests that are passed through."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .messages import ROLES, SYSTEM_ROLES
from .passthrough import PassedRequest
from .tool_pairing import ToolCallPairing

ANTHROPIC_ROLES = ("user", "assistant")


# /v1/chat/completions


def repair_chat_messages(request: PassedRequest) -> bool:
    """Give tool calls and their results the ids that LM Studio wants, and other roles than it knows the user's."""
    messages = request.body.get("messages")
    if not isinstance(messages, list) or all(map(_is_taken, messages)):
        return False
    return request.body.replace_elements("messages", partial(_chat_message, ToolCallPairing()))


def _is_taken(message: Any) -> bool:
    """Return whether a message is as LM Studio wants it, or is none: nearly all are, and this is quickly told."""
    if not isinstance(message, dict):
        return True
    role = message.get("role")
    if role == "tool":
        return bool(_text(message.get("tool_call_id")))
    calls = message.get("tool_calls") if role == "assistant" else None
    return _chat_role(role) == role and (not isinstance(calls, list) or all(map(_is_call_taken, calls)))


def _is_call_taken(call: Any) -> bool:
    return not isinstance(call, dict) or (bool(_text(call.get("id"))) and call.get("type") == "function")


def _chat_message(pairing: ToolCallPairing, message: Any) -> list[Any]:
    if not isinstance(message, dict):
        return [message]
    wanted: dict[str, Any] = {"role": _chat_role(message.get("role"))}
    calls = message.get("tool_calls")
    if wanted["role"] == "tool":
        given = _text(message.get("tool_call_id"))
        call_id = pairing.match_result(given, _text(message.get("name")))
        wanted["tool_call_id"] = given or call_id
    elif wanted["role"] == "assistant" and isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
        ids = pairing.add_calls((_text(call.get("id")), _function_name(call)) for call in calls)
        wanted["tool_calls"] = [{**call, "id": id_, "type": "function"} for call, id_ in zip(calls, ids, strict=True)]
    same = all(message.get(key) == value for key, value in wanted.items())
    return [message if same else {**message, **wanted}]


def _chat_role(role: object) -> object:
    """Return a role of LM Studio's; what is no name at all, Ollama refuses as well."""
    if role is not None and not isinstance(role, str):
        return role
    name = (role or "").lower()
    return name if name in ROLES else "user"


def _function_name(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    return _text(function.get("name")) if isinstance(function, Mapping) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# /v1/responses


def repair_outputs(request: PassedRequest) -> bool:
    """Make the output of a function one text, where it is a list of parts; its images follow in a user's message."""
    return request.body.replace_elements("input", _output)


def _output(item: Any) -> list[Any]:
    match item:
        case {"type": "function_call_output", "output": list(parts)}:
            texts = [part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
            images = [part for part in parts if isinstance(part, Mapping) and part.get("type") == "input_image"]
            if len(texts) + len(images) == len(parts):
                told = {**item, "output": "\n".join(texts)}
                return [told, {"type": "message", "role": "user", "content": images}] if images else [told]
    return [item]


# /v1/messages


def repair_system_messages(request: PassedRequest) -> bool:
    """Move system messages out of the list, into `system`; other roles than Anthropic's become the user's."""
    body = request.body
    messages = body.get("messages")
    said = [message for message in messages if _is_system(message)] if isinstance(messages, list) else []
    if said:
        body.set("messages", [message for message in messages if not _is_system(message)])
        body.set("system", joined_system([body.get("system"), *(message.get("content") for message in said)]))
    return body.replace_elements("messages", _anthropic_message) or bool(said)


def _is_system(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") in SYSTEM_ROLES


def _anthropic_message(message: Any) -> list[Any]:
    role = message.get("role") if isinstance(message, Mapping) else "user"
    if role in ANTHROPIC_ROLES or not isinstance(role, str | None):
        return [message]
    return [{**message, "role": "user"}]


def joined_system(texts: list[Any]) -> str | list[Any]:
    """Return system texts as one: as blocks, if one of them is a list of blocks."""
    given = [text for text in texts if text]
    if all(isinstance(text, str) for text in given):
        return "\n\n".join(given)
    blocks = ([{"type": "text", "text": text}] if isinstance(text, str) else text for text in given)
    return [block for text in blocks if isinstance(text, list) for block in text]
