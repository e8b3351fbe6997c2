"""The native chat of LM Studio, `/api/v1/chat`: a stream of named events that also tells of loading."""

from __future__ import annotations

from typing import Any

from .answer import Answer, Dialect
from .generate import Delta, ToolDelta
from .wire import ApiError, JsonObject, event_frame

# What the kinds of text are called here.
ITEM_NAMES = {"content": "message", "reasoning": "reasoning"}


def event(kind: str, **data: Any) -> bytes:
    """Return the frame of an event; its data repeats its name."""
    return event_frame(kind, {"type": kind, **data})


class NativeChat(Dialect):
    """`/api/v1/chat`."""

    def __init__(self, answer: Answer, *, v0: bool = False) -> None:
        super().__init__(answer, v0=v0)
        self._open: str | None = None

    def opening(self) -> list[bytes]:
        """Return what comes at once; a cold start has been told of before."""
        warm = self.answer.load_seconds is None
        return [
            *([event("chat.start", model_instance_id=self.answer.instance.id)] if warm else []),
            event("prompt_processing.start"),
            event("prompt_processing.progress", progress=0),
        ]

    def prefilled(self) -> list[bytes]:
        """Return the end of the processing of the prompt."""
        return [event("prompt_processing.end")]

    def frame(self, event: Delta | ToolDelta) -> bytes:
        """Return the frames of one token. Tools of the client are not known here."""
        if isinstance(event, ToolDelta):
            return b""
        name = ITEM_NAMES[event.kind]
        frames = b""
        if name != self._open:
            frames = self._close() + event_frame(f"{name}.start", {"type": f"{name}.start"})
            self._open = name
        return frames + event_frame(f"{name}.delta", {"type": f"{name}.delta", "content": event.text})

    def _close(self) -> bytes:
        name, self._open = self._open, None
        return event(f"{name}.end") if name else b""

    def closing(self) -> list[bytes]:
        """Return the last frames: the whole answer once more."""
        return [self._close() + event("chat.end", result=self.reply())]

    def error(self, message: str, *, old_style: bool = False) -> list[bytes]:
        """Return an error; the end of the chat comes all the same, with what there is."""
        error = {"type": "internal_error", "message": message, "code": "unknown", "param": None}
        return [event("error", error=error), *self.closing()]

    @staticmethod
    def failure(problem: ApiError) -> list[bytes]:
        """Return the frames of an error before there is an answer."""
        return [event("error", error=problem.body["error"])]

    @staticmethod
    def refusal(message: str, status: int) -> ApiError:
        """Return the error of an engine that fails before the first token."""
        error = {"type": "internal_error", "message": message, "code": "unknown", "param": None}
        return ApiError(500, {"error": error})

    def reply(self) -> JsonObject:
        """Return the answer in one piece."""
        answer, generation = self.answer, self.answer.generation
        texts = {"reasoning": "".join(answer.reasoning), "message": "".join(answer.content)}
        stats: JsonObject = {
            "input_tokens": answer.prompt_tokens,
            "total_output_tokens": generation.completion_tokens,
            "reasoning_output_tokens": generation.reasoning_tokens,
            "tokens_per_second": answer.tokens_per_second,
            "time_to_first_token_seconds": round(answer.time_to_first_token, 3),
        }
        if answer.load_seconds is not None:
            stats["model_load_time_seconds"] = round(answer.load_seconds, 3)
        body: JsonObject = {
            "model_instance_id": answer.instance.id,
            "output": [{"type": kind, "content": text} for kind, text in texts.items() if text],
            "stats": stats,
        }
        if answer.response_id:
            body["response_id"] = answer.response_id
        return body
