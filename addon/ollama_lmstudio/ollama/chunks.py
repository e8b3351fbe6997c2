"""The bodies of Ollama's responses, with the keys in Ollama's order, as recorded.

Keys that Ollama omits when they are empty (Go's `omitempty`) are omitted here too: some clients fail on null.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from .wire import Vector

JSONObject = dict[str, Any]

_ID_CHARACTERS = string.ascii_lowercase + string.digits
_ID_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Metrics:
    """Hold the metrics of a response: durations in nanoseconds, counts in tokens; 0 is unknown, and omitted.

    `prompt_eval_cached_count`, which Ollama has since 0.33.3, is None where it is unknown: there 0 is a count.
    """

    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_cached_count: int | None = field(default=None, kw_only=True)
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


_METRICS = tuple(field.name for field in fields(Metrics))


def chat_message(
    content: str = "",
    thinking: str = "",
    tool_calls: Sequence[JSONObject] = (),
    role: str = "assistant",
) -> JSONObject:
    """Build the `message` of a chat response."""
    message: JSONObject = {"role": role, "content": content}
    return message | _present(thinking=thinking, tool_calls=list(tool_calls))


def chat_chunk(
    model: str,
    created_at: str,
    message: JSONObject,
    done: bool = False,
    done_reason: str | None = None,
    logprobs: Sequence[JSONObject] = (),
    metrics: Metrics | None = None,
) -> JSONObject:
    """Build one line of `/api/chat`, or its whole response. `model` is the name as the client wrote it."""
    chunk = {"model": model, "created_at": created_at, "message": message, "done": done}
    return chunk | _present(done_reason=done_reason, logprobs=list(logprobs)) | _measured(metrics)


def generate_chunk(
    model: str,
    created_at: str,
    response: str = "",
    thinking: str = "",
    done: bool = False,
    done_reason: str | None = None,
    context: Sequence[int] = (),
    logprobs: Sequence[JSONObject] = (),
    metrics: Metrics | None = None,
    tool_calls: Sequence[JSONObject] = (),
) -> JSONObject:
    """Build one line of `/api/generate`, or its whole response. Unlike in a chat, `logprobs` come last."""
    chunk: JSONObject = {"model": model, "created_at": created_at, "response": response}
    return (
        chunk
        | _present(thinking=thinking)
        | {"done": done}
        | _present(done_reason=done_reason, context=list(context))
        | _measured(metrics)
        | _present(tool_calls=list(tool_calls), logprobs=list(logprobs))
    )


def embed_answer(
    model: str,
    embeddings: Sequence[Vector],
    total_duration: int = 0,
    load_duration: int = 0,
    prompt_eval_count: int = 0,
) -> JSONObject:
    """Build the response of `/api/embed`; durations in nanoseconds."""
    answer: JSONObject = {"model": model, "embeddings": list(embeddings)}
    return answer | _present(
        total_duration=total_duration, load_duration=load_duration, prompt_eval_count=prompt_eval_count
    )


def embeddings_answer(embedding: Sequence[float]) -> JSONObject:
    """Build the response of the older `/api/embeddings`; its numbers are written as 64 bit floats."""
    return {"embedding": list(embedding)}


def progress(status: str, digest: str = "", total: int = 0, completed: int = 0) -> JSONObject:
    """Build one line of `/api/pull`, `/api/push` or `/api/create`; `total` and `completed` are bytes."""
    return {"status": status} | _present(digest=digest, total=total, completed=completed)


def tool_call(call_id: str, index: int, name: str, arguments: JSONObject) -> JSONObject:
    """Build one tool call; `arguments` keep their order."""
    return {"id": call_id, "function": {"index": index, "name": name, "arguments": arguments}}


def new_call_id() -> str:
    """Return a random id for a tool call, of the form that Ollama uses: `call_` and eight letters or digits."""
    return "call_" + "".join(random.choices(_ID_CHARACTERS, k=_ID_LENGTH))


def _present(**values: Any) -> JSONObject:
    return {key: value for key, value in values.items() if value}


def _measured(metrics: Metrics | None) -> JSONObject:
    if metrics is None:
        return {}
    values = ((key, getattr(metrics, key)) for key in _METRICS)
    return {key: value for key, value in values if value or (key == "prompt_eval_cached_count" and value is not None)}
