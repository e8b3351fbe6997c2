"""Images that Ollama takes and LM Studio refuses, in requests that are passed through.

LM Studio takes PNG and JPEG, each under its own name. Spellings are mended, other kinds are converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .images import base64_to_lmstudio, url_to_lmstudio
from .passthrough import PassedRequest


def repair_chat_images(request: PassedRequest) -> bool:
    """Mend the images of `/v1/chat/completions`; those of a tool's result follow in a message of the user."""
    return request.body.replace_elements("messages", _chat_message)


def _chat_message(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return [message]
    images = [part for part in content if _is_of_type(part, "image_url")]
    if not images:
        return [message]
    if message.get("role") == "tool":
        rest = [part for part in content if not _is_of_type(part, "image_url")]
        return [{**message, "content": rest or ""}, {"role": "user", "content": list(map(_chat_image, images))}]
    return [_with_parts(message, content, [_chat_image(part) for part in content])]


def _chat_image(part: Any) -> Any:
    match part:
        case {"type": "image_url", "image_url": str(url)}:
            return {**part, "image_url": {"url": url_to_lmstudio(url)}}
        case {"type": "image_url", "image_url": {"url": str(url)} as image}:
            made = url_to_lmstudio(url)
            return part if made is url else {**part, "image_url": {**image, "url": made}}
    return part


def repair_response_images(request: PassedRequest) -> bool:
    """Mend the images of `/v1/responses`."""
    return request.body.replace_elements("input", _response_item)


def _response_item(item: Any) -> list[Any]:
    content = item.get("content") if isinstance(item, Mapping) else None
    if not isinstance(content, list):
        return [item]
    return [_with_parts(item, content, [_response_part(part) for part in content])]


def _response_part(part: Any) -> Any:
    match part:
        case {"type": "input_image", "image_url": str(url)}:
            made = url_to_lmstudio(url)
            return part if made is url else {**part, "image_url": made}
    return part


def repair_message_images(request: PassedRequest) -> bool:
    """Mend the images of `/v1/messages`, also those in results of tools."""
    return request.body.replace_elements("messages", lambda message: [_with_blocks(message)])


def _with_blocks(holder: Any) -> Any:
    content = holder.get("content") if isinstance(holder, Mapping) else None
    return _with_parts(holder, content, [_block(block) for block in content]) if isinstance(content, list) else holder


def _block(block: Any) -> Any:
    match block:
        case {"type": "tool_result"}:
            return _with_blocks(block)
        case {"type": "image", "source": {"type": "base64", "data": str(data)} as source}:
            label = source.get("media_type")
            media_type, made = base64_to_lmstudio(label if isinstance(label, str) else "", data)
            if media_type != label or made is not data:
                return {**block, "source": {**source, "media_type": media_type, "data": made}}
    return block


def _with_parts(holder: Mapping[str, Any], before: list[Any], parts: list[Any]) -> Any:
    """Return a message with other parts; the message itself, if they are the same."""
    return holder if all(new is old for new, old in zip(parts, before, strict=True)) else {**holder, "content": parts}


def _is_of_type(part: Any, kind: str) -> bool:
    return isinstance(part, dict) and part.get("type") == kind
