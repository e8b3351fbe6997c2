"""The answers of the OpenAI-style routes, and of `/api/v0`, which are the same with statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .generate import Delta, Generation, Prompt, ToolDelta
from .models import Version
from .state import Instance
from .wire import DONE, JsonObject, data_frame, event_frame, quote, stringify

# What `runtime` of /api/v0 says, by the format of the model.
RUNTIMES = {
    "gguf": ("llama.cpp-mac-arm64-apple-metal-advsimd", "1.3.0", "gguf"),
    "mlx": ("mlx-llm-mac-arm64-apple-metal-advsimd", "1.11.0", "safetensors"),
}
LOGPROB = -0.105


@dataclass
class Answer:
    """Everything a reply is made of. Times are in seconds."""

    id: str
    created: int
    instance: Instance
    prompt: Prompt
    generation: Generation
    version: Version
    separate_reasoning: bool = True
    prompt_tokens: int = 0
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    time_to_first_token: float = 0.0
    generation_time: float = 0.0
    load_seconds: float | None = None

    def take(self, event: Delta | ToolDelta) -> None:
        """Add an event to what was said; the generation itself keeps tool calls."""
        if isinstance(event, Delta):
            (self.content if event.kind == "content" else self.reasoning).append(event.text)

    @property
    def tokens_per_second(self) -> float:
        """The speed of the generation."""
        return self.generation.completion_tokens / max(self.generation_time, 1e-6)

    @property
    def usage(self) -> JsonObject:
        """The token counts as OpenAI has them."""
        completion = self.generation.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "completion_tokens_details": {"reasoning_tokens": self.generation.reasoning_tokens},
        }

    @property
    def reasoning_field(self) -> str | None:
        """The name of the field reasoning has, or None where it is part of the content."""
        if self.instance.model.is_gpt_oss and self.version.has("gpt_oss_reasoning"):
            return "reasoning"
        return "reasoning_content" if self.separate_reasoning else None

    def stats(self) -> JsonObject:
        """The statistics of `/api/v0`, with what comes after them."""
        model = self.instance.model
        name, version, model_format = RUNTIMES.get(model.format or "gguf", RUNTIMES["gguf"])
        return {
            "stats": {
                "tokens_per_second": self.tokens_per_second,
                "time_to_first_token": round(self.time_to_first_token, 3),
                "generation_time": round(self.generation_time, 3),
                "stop_reason": self.generation.stop_reason,
            },
            "model_info": {
                "arch": model.architecture,
                "quant": model.quantization,
                "format": model_format,
                "context_length": self.instance.context_length,
            },
            "runtime": {"name": name, "version": version, "supported_formats": [model_format]},
        }

    def logprobs(self, text: str) -> JsonObject:
        """The log probability of one token, and as many others as were asked for."""
        others = [text, *(f"{text}{number}" for number in range(1, self.prompt.top_logprobs or 0))]
        top = [_logprob(other, LOGPROB * (rank + 1)) for rank, other in enumerate(others)]
        return {**_logprob(text, LOGPROB), "top_logprobs": top[: self.prompt.top_logprobs]}


def _logprob(token: str, logprob: float) -> JsonObject:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode(errors="replace"))}


class Chat:
    """`/v1/chat/completions` and `/api/v0/chat/completions`."""

    id_prefix = "chatcmpl-"
    done = DONE

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        self._answer = answer
        self._v0 = v0
        self._role = b'"role":"assistant",'
        self._thinking = False
        self._reasoning_field = answer.reasoning_field
        self._head = stringify(
            {
                "id": answer.id,
                "object": "chat.completion.chunk",
                "created": answer.created,
                "model": answer.instance.id,
                "system_fingerprint": answer.instance.id,
            }
        )[:-1]
        self._prefix = b"data: " + self._head + b',"choices":[{"index":0,"delta":{'
        self._suffix = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def opening(self) -> list[bytes]:
        """Return the frames that come before the first token: none."""
        return []

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frame of one token."""
        if isinstance(event, ToolDelta):
            return self._delta(b'"tool_calls":[' + stringify(self._call_piece(event)) + b"]")
        if event.kind == "reasoning" and self._reasoning_field:
            return self._delta(b'"' + self._reasoning_field.encode() + b'":' + quote(event.text))
        frames = b""
        if not self._reasoning_field and (event.kind == "reasoning") != self._thinking:
            frames = self._content("</think>" if self._thinking else "<think>")
            self._thinking = not self._thinking
        return frames + self._content(event.text)

    def _content(self, text: str) -> bytes:
        if self._answer.prompt.top_logprobs is None:
            return self._delta(b'"content":' + quote(text))
        logprobs = stringify({"content": [self._answer.logprobs(text)]})
        return self._delta(b'"content":' + quote(text)).replace(b'"logprobs":null', b'"logprobs":' + logprobs, 1)

    def _delta(self, members: bytes) -> bytes:
        role, self._role = self._role, b""
        return self._prefix + role + members + self._suffix

    def _call_piece(self, event: ToolDelta) -> JsonObject:
        if event.name is not None:
            function = {"name": event.name, "arguments": event.arguments}
            return {"index": event.index, "id": event.id, "type": "function", "function": function}
        if event.id is not None or not self._answer.version.has("tool_name_once"):
            function = {"name": "", "arguments": event.arguments}
            named = {} if event.id is None else {"id": event.id}
            return {"index": event.index, **named, "type": "function", "function": function}
        return {"index": event.index, "function": {"arguments": event.arguments}}

    def closing(self) -> list[bytes]:
        """Return the frames that come after the last token: the finish chunk, and usage if asked for."""
        generation = self._answer.generation
        frames = [self._content("</think>")] if self._thinking else []
        if generation.ended_by_model:
            frames.append(self._delta(b'"content":""'))
        reason = generation.finish_reason
        if reason == "tool_calls" and not self._answer.version.has("tool_calls_finish"):
            reason = "stop"
        choice = b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"' + reason.encode() + b'"}]}'
        frames.append(data_frame(self._head + choice))
        return frames + usage_frames(self._answer, self._head)

    def error(self, message: str, *, old_style: bool = False) -> list[bytes]:
        """Return the frames of an error in the middle of the stream."""
        return error_frames(message, old_style or not self._answer.version.has("stream_error_object"))

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        answer, generation = self._answer, self._answer.generation
        content, reasoning = "".join(answer.content), "".join(answer.reasoning)
        message: JsonObject = {"role": "assistant"}
        if self._reasoning_field:
            message |= {"content": content, self._reasoning_field: reasoning}
        else:
            message["content"] = f"<think>{reasoning}</think>{content}" if reasoning else content
        calls = [
            {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}
            for _, (call_id, name, arguments) in sorted(generation.calls.items())
        ]
        if calls or answer.version.has("tool_calls_always"):
            message["tool_calls"] = calls
        logprobs = None
        if answer.prompt.top_logprobs is not None:
            logprobs = {"content": [answer.logprobs(text) for text in answer.content]}
        return envelope(
            answer,
            "chat.completion",
            {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": generation.finish_reason},
            v0=self._v0,
        )


class Completion:
    """`/v1/completions` and `/api/v0/completions`."""

    id_prefix = "cmpl-"
    done = DONE

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        self._answer = answer
        self._v0 = v0
        self._thinking = False
        self._head = stringify(
            {
                "id": answer.id,
                "object": "text_completion",
                "created": answer.created,
                "model": answer.instance.id,
            }
        )[:-1]

    def opening(self) -> list[bytes]:
        """Return the frames that come before the first token: none."""
        return []

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frame of one token. There are no tools here."""
        return self._chunk(self._text(event) if isinstance(event, Delta) else "", b"null")

    def _text(self, event: Delta) -> str:
        """Return what an event adds to the text: reasoning has no field of its own here."""
        thinking, self._thinking = self._thinking, event.kind == "reasoning"
        if thinking == self._thinking:
            return event.text
        return ("</think>" if thinking else "<think>") + event.text

    def _chunk(self, text: str, finish_reason: bytes) -> bytes:
        choice = b',"choices":[{"index":0,"text":%b,"logprobs":null,"finish_reason":%b}]}' % (quote(text), finish_reason)
        return data_frame(self._head + choice)

    def closing(self) -> list[bytes]:
        """Return the frames that come after the last token: the finish chunk, and usage if asked for."""
        reason = b'"' + self._answer.generation.finish_reason.encode() + b'"'
        return [self._chunk("", reason), *usage_frames(self._answer, self._head)]

    def error(self, message: str, *, old_style: bool = False) -> list[bytes]:
        """Return the frames of an error in the middle of the stream."""
        return error_frames(message, old_style or not self._answer.version.has("stream_error_object"))

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        answer = self._answer
        reasoning = "".join(answer.reasoning)
        text = (f"<think>{reasoning}</think>" if reasoning else "") + "".join(answer.content)
        return envelope(
            answer,
            "text_completion",
            {"index": 0, "text": text, "logprobs": None, "finish_reason": answer.generation.finish_reason},
            v0=self._v0,
        )


def envelope(answer: Answer, kind: str, choice: JsonObject, *, v0: bool) -> JsonObject:
    """Wrap the one choice of a reply."""
    body = {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.instance.id,
        "choices": [choice],
        "usage": answer.usage,
    }
    if v0:
        return {**body, **answer.stats()}
    body["stats"] = {}
    if kind == "chat.completion":
        body["system_fingerprint"] = answer.instance.id
    return body


def usage_frames(answer: Answer, head: bytes) -> list[bytes]:
    """Return the chunk with the token counts, if the request asked for it."""
    options = answer.prompt.body.get("stream_options")
    wanted = isinstance(options, dict) and options.get("include_usage") is True
    if not wanted or not answer.version.has("stream_usage"):
        return []
    return [data_frame(head + b',"choices":[],"usage":' + stringify(answer.usage) + b"}")]


def error_frames(message: str, old_style: bool) -> list[bytes]:
    """Return an error in an OpenAI-style stream: a named event, or a `data:` line of old."""
    if old_style:
        return [data_frame(stringify({"error": message}))]
    return [event_frame("error", {"error": {"message": message}, "message": message})]


def embeddings(instance: Instance, vectors: list[list[float]]) -> JsonObject:
    """Return the answer of `/v1/embeddings`; LM Studio does not count its tokens."""
    data: list[Any] = [
        {"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": instance.id, "usage": usage}
