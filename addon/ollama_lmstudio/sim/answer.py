"""One answer as it grows, and what the dialects have in common that write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .generate import Delta, Generation, Prompt, ToolDelta
from .models import Version
from .state import Instance
from .wire import ApiError, JsonObject, data_frame, event_frame, plain_error, stringify

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
    new_id: Callable[[], str]
    new_call_number: Callable[[], str]
    separate_reasoning: bool = True
    counts_tokens: bool = True
    response_id: str | None = None
    prompt_tokens: int = 0
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    time_to_first_token: float = 0.0
    generation_time: float = 0.0
    load_seconds: float | None = None
    cached_tokens: int | None = None

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
        if not self.counts_tokens:
            return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        completion = self.generation.completion_tokens
        cached = {} if self.cached_tokens is None else {"prompt_tokens_details": {"cached_tokens": self.cached_tokens}}
        return {
            "prompt_tokens": self.prompt_tokens,
            **cached,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "completion_tokens_details": {"reasoning_tokens": self.generation.reasoning_tokens},
        }

    @property
    def reasoning_field(self) -> str | None:
        """The name of the field reasoning has, or None where it is part of the content."""
        if self.instance.model.opens_thoughts:
            return None
        if self.instance.model.is_gpt_oss and self.version.has("gpt_oss_reasoning"):
            return "reasoning"
        return "reasoning_content" if self.separate_reasoning else None

    @property
    def think_tag(self) -> str:
        """What opens reasoning that is part of the content; nothing where the template has opened it."""
        return "" if self.instance.model.opens_thoughts else "<think>"

    def stats(self) -> JsonObject:
        """Return the fields that `/api/v0` adds: `stats`, `model_info` and `runtime`."""
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
        """Return the log probability of one token, and of as many others as were asked for."""
        others = [text, *(f"{text}{number}" for number in range(1, self.prompt.top_logprobs or 0))]
        top = [_logprob(other, LOGPROB * (rank + 1)) for rank, other in enumerate(others)]
        return {**_logprob(text, LOGPROB), "top_logprobs": top[: self.prompt.top_logprobs]}


def _logprob(token: str, logprob: float) -> JsonObject:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode(errors="replace"))}


def stream_error(message: str, *, old_style: bool = False) -> bytes:
    """Return an error in an OpenAI-style stream: a named event, or a `data:` line of old."""
    if old_style:
        return data_frame(stringify({"error": message}))
    return event_frame("error", {"error": {"message": message}, "message": message})


class Dialect:
    """How one API writes an answer, streamed and whole.

    A stream is `opening`, then `prefilled` when the prompt is processed, a `frame` for each token,
    `closing`, `done`.
    """

    id_prefix = ""
    done = b""

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        self.answer = answer
        self.v0 = v0

    def opening(self) -> list[bytes]:
        """Return the frames that come at once."""
        return []

    def prefilled(self) -> list[bytes]:
        """Return the frames that come before the first token."""
        return []

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frames of one token."""
        raise NotImplementedError

    def closing(self) -> list[bytes]:
        """Return the frames that come after the last token; the first has the finish reason."""
        raise NotImplementedError

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        raise NotImplementedError

    def error(self, message: str, *, old_style: bool = False) -> list[bytes]:
        """Return the frames of an error in the middle of a stream."""
        return [stream_error(message, old_style=old_style or not self.answer.version.has("stream_error_object"))]

    @staticmethod
    def failure(problem: ApiError) -> list[bytes]:
        """Return the frames of an error before there is an answer, in a stream that has begun."""
        error = problem.body["error"]
        return [stream_error(error if isinstance(error, str) else error["message"])]

    @staticmethod
    def refusal(message: str, status: int) -> ApiError:
        """Return the error of an engine that fails before the first token."""
        return plain_error(message, status)
