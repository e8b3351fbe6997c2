"""Conversations as LM Studio's validator takes them: roles, content, tool calls and their results."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from ..ollama.requests import ChatRequest, Message, MessageToolCall
from ..state.aliases import Alias
from . import compact_json
from .images import image_to_lmstudio
from .tool_pairing import ToolCallPairing

# The roles that LM Studio takes; `tool` and `developer` as OpenAI has them.
ROLES = frozenset({"system", "user", "assistant", "tool", "developer"})
SYSTEM_ROLES = ("system", "developer")


def conversation_to_lmstudio(alias: Alias | None, messages: Sequence[Message], system: object) -> list[dict[str, Any]]:
    """Return a request's messages for LM Studio, with what an alias adds.

    The alias's messages come before the request's, but after its leading system messages, which templates require
    first. The text of `system`, else the alias's, becomes a system message if the request has none.
    """
    leading = list(itertools.takewhile(lambda message: message.role == "system", messages))
    rest = messages[len(leading) :]
    text = system or (alias.system if alias else "")
    if isinstance(text, str) and text and not any(message.role == "system" for message in messages):
        leading = [Message("system", text)]
    return messages_to_lmstudio([*leading, *_decode_messages(alias), *rest])


def alias_messages(alias: Alias) -> list[dict[str, Any]]:
    """Return an alias's messages for LM Studio."""
    return messages_to_lmstudio(_decode_messages(alias))


def _decode_messages(alias: Alias | None) -> list[Message]:
    if alias is None or not alias.messages:
        return []
    return ChatRequest.decode(compact_json.dumps({"messages": alias.messages})).messages


def messages_to_lmstudio(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as LM Studio's validator takes them.

    Every tool call gets an id, and every tool result the id of the call it answers: by `tool_call_id`, then by the
    tool's name, then by position, since clients send any of these or none. Unknown roles become `user`. Images of a
    tool's result, which LM Studio refuses there, follow in a message of the user.
    """
    pairing = ToolCallPairing()
    result: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            call_id = pairing.match_result(message.tool_call_id, message.tool_name)
            result.append({"role": "tool", "tool_call_id": call_id, "content": message.content})
            if message.images:
                result.append({"role": "user", "content": [image_to_lmstudio(image) for image in message.images]})
        elif message.role == "assistant" and message.tool_calls:
            ids = pairing.add_calls((call.id, call.name) for call in message.tool_calls)
            calls = [_call(call_id, call) for call_id, call in zip(ids, message.tool_calls, strict=True)]
            result.append({"role": "assistant", "content": message.content, "tool_calls": calls})
        else:
            role = message.role if message.role in ROLES else "user"
            result.append({"role": role, "content": content_to_lmstudio(message.content, message.images)})
    return result


def _call(call_id: str, call: MessageToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": call_id, "type": "function", "function": function}


def content_to_lmstudio(text: str, images: Sequence[bytes]) -> Any:
    """Return a message's content: the text, or the text and the images as parts."""
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    return parts + [image_to_lmstudio(image) for image in images]
