"""Anthropic's API, `/v1/messages`. Reasoning is generated, counted, and kept to itself."""

from __future__ import annotations

import json
from typing import Any

from .answer import Answer, Dialect
from .generate import Delta, Prompt, ToolDelta
from .validate import check_images, set_limits
from .wire import ApiError, JsonObject, event_frame

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
TOOL_CHOICES = {"any": "required", "tool": "required", "auto": "auto", "none": "none"}


def anthropic_error(message: str, status: int = 400, kind: str = "invalid_request_error") -> ApiError:
    """Return the error of this API."""
    return ApiError(status, {"type": "error", "error": {"type": kind, "message": message}})


def message_prompt(body: JsonObject) -> Prompt:
    """Check the body of a request and return what its answer depends on. Raises ApiError."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise anthropic_error("'messages' field is required")
    prompt = Prompt(body, messages=len(messages))
    texts = [_content(body["system"], prompt)] if body.get("system") else []
    for message in messages:
        match message:
            case {"role": "user", "content": content}:
                prompt.tool_results = []
                text = _content(content, prompt)
                if not prompt.tool_results:
                    prompt.last_user = text
            case {"role": "assistant", "content": content}:
                text = _content(content, prompt)
            case _:
                raise anthropic_error("Invalid 'messages' in payload")
        texts.append(text)
    prompt.text = "\n".join(texts)
    for tool in body.get("tools") or []:
        match tool:
            case {"name": str(name), "input_schema": {"type": "object"} as schema}:
                function = {"name": name, "description": tool.get("description", ""), "parameters": schema}
                prompt.tools.append({"type": "function", "function": function})
            case _:
                raise anthropic_error("Invalid 'tools' in payload")
    choice = body.get("tool_choice")
    prompt.tool_choice = TOOL_CHOICES.get(choice["type"] if isinstance(choice, dict) else "auto", "auto")
    set_limits(prompt, "max_tokens", stop="stop_sequences")
    return prompt


def _content(content: Any, prompt: Prompt) -> str:
    """Return the text of a message, and take note of its images and tool results."""
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for block in content if isinstance(content, list) else [None]:
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "image", "source": {"media_type": str(kind), "data": str(data)}}:
                check_images([f"data:{kind};base64,{data}"])
                prompt.images += 1
            case {"type": "tool_result", "tool_use_id": str(), **rest}:
                prompt.tool_results.append(_content(rest.get("content") or "", prompt))
            case {"type": "tool_use" | "thinking"}:
                pass
            case _:
                raise anthropic_error("Invalid 'messages' in payload")
    return "\n".join(texts)


class Messages(Dialect):
    """`/v1/messages`."""

    id_prefix = "msg_"

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        super().__init__(answer, v0=v0)
        self._blocks = 0
        self._open: tuple[str, int] | None = None

    def opening(self) -> list[bytes]:
        """Return what comes at once."""
        message = self._message([], None)
        return [event_frame("message_start", {"type": "message_start", "message": message})]

    def _usage(self) -> JsonObject:
        output = self.answer.generation.completion_tokens
        return {"input_tokens": self.answer.prompt_tokens, "output_tokens": output, "cache_read_input_tokens": 0}

    def _message(self, content: list[JsonObject], stop_reason: str | None) -> JsonObject:
        return {
            "id": self.answer.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.answer.instance.id,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": self._usage(),
        }

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frames of one token."""
        if isinstance(event, ToolDelta):
            key = ("tool_use", event.index)
            delta: JsonObject = {"type": "input_json_delta", "partial_json": event.arguments}
            block: JsonObject = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        elif event.kind == "reasoning":
            return b""
        else:
            key, delta, block = (
                ("text", 0),
                {"type": "text_delta", "text": event.text},
                {"type": "text", "text": ""},
            )
        frames = b""
        if key != self._open:
            frames = self._close() + self._event("content_block_start", content_block=block)
            self._open = key
        if isinstance(event, ToolDelta) and not event.arguments:
            return frames
        return frames + self._event("content_block_delta", delta=delta)

    def _event(self, kind: str, **data: JsonObject) -> bytes:
        return event_frame(kind, {"type": kind, "index": self._blocks, **data})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        frame = self._event("content_block_stop")
        self._open = None
        self._blocks += 1
        return frame

    def closing(self) -> list[bytes]:
        """Return the frames that come after the last token."""
        generation = self.answer.generation
        last = self.frame(Delta("content", "")) if generation.ended_by_model else b""
        delta = {"stop_reason": STOP_REASONS[generation.finish_reason], "stop_sequence": None}
        change = {"type": "message_delta", "delta": delta, "usage": self._usage()}
        stop = event_frame("message_stop", {"type": "message_stop"})
        return [last + self._close() + event_frame("message_delta", change) + stop]

    def error(self, message: str, *, old_style: bool = False) -> list[bytes]:
        """Return the frames of an error in the middle of the stream."""
        return [event_frame("error", anthropic_error(message, 500, "api_error").body)]

    @staticmethod
    def refusal(message: str, status: int) -> ApiError:
        """Return the error of an engine that fails before the first token."""
        return anthropic_error(message, 500, "api_error")

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        generation = self.answer.generation
        text = "".join(self.answer.content)
        content: list[JsonObject] = [{"type": "text", "text": text}] if text else []
        for _, (call_id, name, arguments) in sorted(generation.calls.items()):
            content.append({"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)})
        return self._message(content, STOP_REASONS[generation.finish_reason])
