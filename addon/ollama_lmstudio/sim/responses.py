"""OpenAI's newer API, `/v1/responses`."""

from __future__ import annotations

import time
from typing import Any

from .answer import Answer, Dialect
from .generate import Delta, Prompt, ToolDelta
from .validate import EFFORTS, check_images, set_limits, tool_issues
from .wire import ApiError, JsonObject, event_frame, openai_error


def response_prompt(body: JsonObject) -> Prompt:
    """Check the body of a request and return what its answer depends on. Raises ApiError."""
    given = body.get("input")
    if given is None:
        raise _refused("Required", "input", "missing_required_parameter")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise _refused("Invalid input", "input", "custom")
    prompt = Prompt(body, messages=len(items))
    texts = [body["instructions"]] if isinstance(body.get("instructions"), str) else []
    for index, item in enumerate(items):
        match item:
            case {"role": str(role), "content": content}:
                text, images = _content(content, f"input.{index}")
                prompt.images += images
                if role == "user":
                    prompt.last_user, prompt.tool_results = text, []
            case {"type": "function_call_output", "call_id": str(), "output": str(text)}:
                prompt.tool_results.append(text)
            case {"type": "function_call" | "reasoning"}:
                text = ""
            case _:
                raise _refused("Invalid input", f"input.{index}", "custom")
        texts.append(text)
    prompt.text = "\n".join(texts)
    if "text" in body and not (isinstance(body["text"], dict) and "format" in body["text"]):
        raise _refused("Required", "text.format", "missing_required_parameter")
    prompt.tools = _tools(body.get("tools") or [])
    if isinstance(body.get("tool_choice"), str):
        prompt.tool_choice = body["tool_choice"]
    effort = body["reasoning"].get("effort") if isinstance(body.get("reasoning"), dict) else None
    if effort is not None and effort not in EFFORTS:
        raise _refused("Invalid input", "reasoning.effort", "custom")
    prompt.thinks = effort != "none"
    set_limits(prompt, "max_output_tokens")
    return prompt


def _refused(message: str, param: str, code: str) -> ApiError:
    return openai_error(message, param=param, code=code)


def _content(content: Any, where: str) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    texts, urls = [], []
    for part in content if isinstance(content, list) else [None]:
        match part:
            case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
                texts.append(text)
            case {"type": "input_image", "image_url": url}:
                urls.append(url)
            case _:
                raise _refused("Invalid input", where, "custom")
    check_images(urls)
    return "\n".join(texts), len(urls)


def _tools(tools: list[Any]) -> list[JsonObject]:
    """Return the functions among the tools in the form chat completions have them."""
    kept = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise _refused("Invalid input", f"tools.{index}", "custom")
        if tool.get("type") != "function":
            continue
        function = {key: value for key, value in tool.items() if key in ("name", "description", "parameters")}
        wrapped = {"type": "function", "function": function}
        if any(tool_issues([wrapped])):
            raise _refused("Invalid input", f"tools.{index}", "custom")
        kept.append(wrapped)
    return kept


class Responses(Dialect):
    """`/v1/responses`."""

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        super().__init__(answer, v0=v0)
        self._number = -1
        self._items: list[JsonObject] = []
        self._open: tuple[str, int] | None = None
        self._text = ""

    def _event(self, kind: str, **data: Any) -> bytes:
        self._number += 1
        return event_frame(kind, {"type": kind, **data, "sequence_number": self._number})

    def opening(self) -> list[bytes]:
        """Return what comes at once."""
        return [
            self._event("response.created", response=self._response("in_progress", [])),
            self._event("response.in_progress", response=self._response("in_progress", [])),
        ]

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frames of one token."""
        if isinstance(event, ToolDelta):
            key, text = ("function_call", event.index), event.arguments
        else:
            key, text = ("message" if event.kind == "content" else "reasoning", 0), event.text
        frames = b""
        if key != self._open:
            frames = self._close() + self._begin(key, event)
        self._text += text
        if isinstance(event, ToolDelta):
            return frames + (
                self._event("response.function_call_arguments.delta", **self._place(), delta=text) if text else b""
            )
        place = {**self._place(), "content_index": 0}
        if key[0] == "reasoning":
            return frames + self._event("response.reasoning_text.delta", **place, delta=text)
        return frames + self._event("response.output_text.delta", **place, delta=text, logprobs=[])

    def _place(self) -> JsonObject:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _begin(self, key: tuple[str, int], event: Delta | ToolDelta) -> bytes:
        self._open, self._text = key, ""
        item = _item(key[0], self.answer, "in_progress", event if isinstance(event, ToolDelta) else None)
        self._items.append(item)
        frames = self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)
        if key[0] != "function_call":
            frames += self._event(
                "response.content_part.added", **self._place(), content_index=0, part=_part(key[0], "")
            )
        return frames

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        kind, text, place = self._open[0], self._text, self._place()
        self._open = None
        item = self._items[-1]
        if kind == "function_call":
            item["arguments"] = text
            frames = self._event("response.function_call_arguments.done", **place, arguments=text)
        else:
            place["content_index"] = 0
            item["content"] = [_part(kind, text)]
            if kind == "reasoning":
                frames = self._event("response.reasoning_text.done", **place, text=text)
            else:
                frames = self._event("response.output_text.done", **place, text=text, logprobs=[])
            frames += self._event("response.content_part.done", **place, part=_part(kind, text))
        item["status"] = "completed"
        return frames + self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def closing(self) -> list[bytes]:
        """Return the last frames: the whole response once more."""
        frames = self._close()
        return [frames + self._event("response.completed", response=self._response(self._status, self._items))]

    def error(self, message: str, *, old_style: bool = False) -> list[bytes]:
        """Return the frames of an error in the middle of the stream."""
        return [self._event("error", code="unknown", message=message, param=None)]

    @staticmethod
    def refusal(message: str, status: int) -> ApiError:
        """Return the error of an engine that fails before the first token."""
        return openai_error(message, param=None, code="unknown", status=500)

    @property
    def _status(self) -> str:
        return "incomplete" if self.answer.generation.finish_reason == "length" else "completed"

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        items = []
        for kind, texts in (("reasoning", self.answer.reasoning), ("message", self.answer.content)):
            if texts:
                items.append({**_item(kind, self.answer, "completed"), "content": [_part(kind, "".join(texts))]})
        for index, (_, name, arguments) in sorted(self.answer.generation.calls.items()):
            call = ToolDelta(index, None, name, "")
            items.append({**_item("function_call", self.answer, "completed", call), "arguments": arguments})
        return self._response(self._status, items)

    def _response(self, status: str, output: list[JsonObject]) -> JsonObject:
        answer, asked = self.answer, self.answer.prompt.body
        generation = answer.generation
        over = status != "in_progress"
        usage = {
            "input_tokens": answer.prompt_tokens,
            "output_tokens": generation.completion_tokens,
            "total_tokens": answer.prompt_tokens + generation.completion_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": generation.reasoning_tokens},
        }
        return {
            "id": answer.response_id or answer.id,
            "object": "response",
            "created_at": answer.created,
            "completed_at": int(time.time()) if over else None,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": answer.instance.id,
            "previous_response_id": asked.get("previous_response_id"),
            "instructions": asked.get("instructions"),
            "output": output,
            "error": None,
            "tools": [_tool(tool["function"]) for tool in answer.prompt.tools],
            "tool_choice": asked.get("tool_choice", "auto"),
            "truncation": "auto",
            "parallel_tool_calls": True,
            "text": {"format": {"type": "text"}},
            "top_p": asked.get("top_p", 0.8),
            "presence_penalty": 0,
            "frequency_penalty": 1.1,
            "top_logprobs": 0,
            "temperature": asked.get("temperature", 0.8),
            "reasoning": {"summary": None, "effort": (asked.get("reasoning") or {}).get("effort")},
            "usage": usage if over else None,
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": None,
            "store": asked.get("store", True),
            "background": False,
            "service_tier": "default",
            "metadata": {},
            "safety_identifier": None,
            "prompt_cache_key": None,
        }


def _tool(function: JsonObject) -> JsonObject:
    tool = {
        "type": "function",
        "name": function["name"],
        "parameters": function.get("parameters"),
        "strict": False,
    }
    return {**tool, "description": function["description"]} if "description" in function else tool


def _part(kind: str, text: str) -> JsonObject:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _item(kind: str, answer: Answer, status: str, call: ToolDelta | None = None) -> JsonObject:
    if kind == "reasoning":
        return {"id": f"rs_{answer.new_id()}", "type": kind, "status": status, "summary": [], "content": []}
    if call is None:
        return {"id": f"msg_{answer.new_id()}", "type": kind, "status": status, "content": [], "role": "assistant"}
    return {
        "id": f"fc_{answer.new_id()}",
        "call_id": f"call_{answer.new_call_number()}",
        "type": kind,
        "name": call.name,
        "arguments": "",
        "status": status,
    }
