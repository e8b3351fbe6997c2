"""The stream translator, sans-I/O: LM Studio's answer in, Ollama's lines or one object out, for chat and generate."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ..lmstudio import answer as lm
from ..lmstudio import errors, sse
from ..ollama import chunks, times, wire
from ..outcomes import INTERNAL_ERROR, JSON, NDJSON, PLAIN_JSON, Measured, Response

logger = logging.getLogger(__name__)

# LM Studio's finish reasons; Ollama knows stop and length, whatever else it was is an end like any other.
DONE_REASONS: Mapping[str, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "function_call": "stop",
    "content_filter": "stop",
}


@dataclass(frozen=True, slots=True)
class LineFormat:
    """The parts of a line that stay the same from token to token, and the builder of all other objects.

    A line is `{"model":M,"created_at":T,` + open + the text as a JSON string + close.
    """

    content: str
    thinking: str
    close: str
    build: Callable[..., dict[str, Any]]


def _chat_object(
    model: str,
    created_at: str,
    *,
    content: str,
    thinking: str,
    tool_calls: list[Any],
    context: object = (),
    **rest: Any,
) -> dict[str, Any]:
    return chunks.chat_chunk(model, created_at, chunks.chat_message(content, thinking, tool_calls), **rest)


def _generate_object(model: str, created_at: str, *, content: str, **rest: Any) -> dict[str, Any]:
    return chunks.generate_chunk(model, created_at, content, **rest)


CHAT = LineFormat(
    '"message":{"role":"assistant","content":',
    '"message":{"role":"assistant","content":"","thinking":',
    '},"done":false',
    _chat_object,
)
GENERATE = LineFormat('"response":', '"response":"","thinking":', ',"done":false', _generate_object)


@dataclass(slots=True)
class Timings:
    """When things happened, in ns of the monotonic clock; 0 is not yet. `load` is a duration."""

    arrived: int
    forwarded: int = 0
    load: int = 0
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """What the client asked of the answer."""

    streaming: bool = True
    hide_thinking: bool = False
    """`think` was false: what is thought all the same is only told if there is no other answer."""
    expects_json: bool = False
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(slots=True)
class Accumulated:
    """What the model said, as far as it has come."""

    content: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


class Translator:
    """Translate one answer. `wall_offset` is what has to be added to the monotonic clock to get the time of day, in ns.

    `context` makes generate's `context` of the text of the answer; None where Ollama gives none.
    """

    def __init__(
        self,
        shape: LineFormat,
        model: str,
        wishes: ResponseOptions,
        timeline: Timings,
        *,
        wall_offset: int,
        max_event_size: int,
        recover: bool = False,
        split_think: bool = True,
        context: Callable[[str], list[int]] | None = None,
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._shape = shape
        self._model = model
        self._wishes = wishes
        self._timeline = timeline
        self._wall_offset = wall_offset
        self._context = context
        self._scrub = scrub
        self._reader = lm.AnswerReader(max_event_size=max_event_size, recover=recover, split_think=split_think)
        self._split_think = split_think
        self._head = '{"model":' + wire.string(model) + ',"created_at":"'
        self._final: dict[str, Any] = {}
        self._ended = 0
        self._lines: list[bytes] = []
        self.told = Accumulated()
        self.error: errors.LMStudioError | None = None
        self.over = False
        self.rejected = False
        """Whether the stream began with an error, so that nothing of an answer has been returned."""
        self._has_parts = False

    @property
    def started(self) -> bool:
        """Whether the stream has shown how it begins: with output, with its end, or with an error."""
        return self._reader.started or self.over

    @property
    def failed(self) -> bool:
        """Whether the answer has ended with an error."""
        return self.error is not None

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the call, out of everything that is measured."""
        self._timeline.arrived += duration
        self._timeline.forwarded += duration

    def feed(self, data: bytes, at: int) -> list[bytes]:
        """Return the lines that more bytes of the stream complete."""
        try:
            return self._take(self._reader.feed(data), at)
        except Exception:
            return self._fail_unexpectedly()

    def flush(self, at: int) -> list[bytes]:
        """Return the last lines, at the end of the stream."""
        try:
            return self._take(self._reader.flush(), at)
        except Exception:
            return self._fail_unexpectedly()

    def translate(self, status: int, content_type: str, body: bytes, at: int) -> Response:
        """Return the client's response for LM Studio's, which was whole at `at`: one object, or all events at once."""
        if status == HTTPStatus.OK and sse.is_event_stream(content_type):
            self._lines = self.feed(body, at) + self.flush(at)
        else:
            try:
                self._lines = self._take_whole(status, content_type, body, at)
            except Exception:
                self._lines = self._fail_unexpectedly()
        return self.response()

    def _take_whole(self, status: int, content_type: str, body: bytes, at: int) -> list[bytes]:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if status == 200 and isinstance(value, dict) and "choices" in value and not value.get("error"):
            parts = lm.read_whole(value, split_think=self._split_think)
        else:
            parts = [lm.Failure(errors.error_from_response(status, content_type, body))]
        return self._take(parts, at)

    def _fail_unexpectedly(self) -> list[bytes]:
        logger.exception("the translation of an answer failed")
        self.over = False
        return self.abort(errors.LMStudioError(500, INTERNAL_ERROR))

    def abort(self, error: errors.LMStudioError) -> list[bytes]:
        """Return the error line of a stream that broke off; nothing if its answer was complete."""
        return self._take([lm.Failure(error)], 0)

    def fail(self, error: errors.LMStudioError) -> Response:
        """Return the client's response for a call that got none, or only a part of one."""
        self.abort(error)
        return self.response()

    def response(self) -> Response:
        """Return the answer as one body; for an answer that failed, the error with its status.

        A stream that fails before its first line has another Content-Type than an error of one object, as Ollama has
        it.
        """
        if self.error is not None:
            content_type = PLAIN_JSON if self._wishes.streaming else JSON
            return Response.error(self.error.status, self._scrub(self.error.message), content_type=content_type)
        if self._wishes.streaming:
            return Response(200, b"".join(self._lines), NDJSON)
        told = self.told
        try:
            return Response.json(
                self._object(
                    self._ended,
                    content="".join(told.content),
                    thinking="".join(told.thinking),
                    tool_calls=told.tool_calls,
                    logprobs=told.logprobs,
                    **self._final,
                )
            )
        except (ValueError, RecursionError):
            self._fail_unexpectedly()
            return self.response()

    def measured(self) -> Measured:
        """Give what was measured so far."""
        first = self._timeline.first
        return Measured(
            self._final.get("metrics") or chunks.Metrics(load_duration=self._timeline.load),
            first - self._timeline.arrived if first else 0,
            self._final.get("done_reason", ""),
            self._scrub(self.error.message) if self.error else "",
        )

    def _take(self, parts: Sequence[lm.Part], at: int) -> list[bytes]:
        lines: list[bytes] = []
        if self.over or not parts:
            return lines
        timeline = self._timeline
        created_at = times.rfc3339(at + self._wall_offset)
        for part in parts:
            if isinstance(part, lm.Content):
                self._text(self.told.content, self._shape.content, part, created_at, lines)
            elif isinstance(part, lm.Reasoning):
                if self._wishes.hide_thinking:
                    self.told.thinking.append(part.text)
                else:
                    self._text(self.told.thinking, self._shape.thinking, part, created_at, lines)
            elif isinstance(part, lm.ToolCall):
                self._tool_call(part, created_at, lines)
            elif isinstance(part, lm.End):
                self._end(part, at, created_at, lines)
                break
            else:
                self.over = True
                self.error = part.error
                self.rejected = not self._has_parts
                lines.append(wire.line({"error": self._scrub(part.error.message)}))
                break
            self._has_parts = True
            timeline.first = timeline.first or at
            timeline.last = at
        return lines if self._wishes.streaming else []

    def _text(
        self,
        told: list[str],
        opening: str,
        part: lm.Content | lm.Reasoning,
        created_at: str,
        lines: list[bytes],
    ) -> None:
        told.append(part.text)
        logprobs = ""
        if part.logprobs and self._wishes.logprobs:
            entries = [logprob_to_ollama(entry, self._wishes.top_logprobs) for entry in part.logprobs]
            self.told.logprobs += entries
            logprobs = ',"logprobs":' + wire.dumps(entries).decode()
        if self._wishes.streaming:
            line = f'{self._head}{created_at}",{opening}{wire.string(part.text)}{self._shape.close}{logprobs}}}\n'
            lines.append(line.encode())

    def _tool_call(self, part: lm.ToolCall, created_at: str, lines: list[bytes]) -> None:
        call = chunks.tool_call(part.id or chunks.new_call_id(), len(self.told.tool_calls), part.name, part.arguments)
        self.told.tool_calls.append(call)
        if self._wishes.streaming:
            value = self._shape.build(self._model, created_at, content="", thinking="", tool_calls=[call], done=False)
            lines.append(wire.line(value))

    def _end(self, part: lm.End, at: int, created_at: str, lines: list[bytes]) -> None:
        self._answer_from_thoughts(created_at, lines)
        self.over = True
        self._ended = at
        self._final = {
            "done": True,
            "done_reason": DONE_REASONS.get(part.finish_reason, "stop"),
            "metrics": metrics(self._timeline, at, part.usage, part.stats),
            "context": self._context("".join(self.told.content)) if self._context else (),
        }
        if self._wishes.streaming:
            lines.append(
                wire.line(self._object(at, content="", thinking="", tool_calls=[], logprobs=(), **self._final))
            )

    def _answer_from_thoughts(self, created_at: str, lines: list[bytes]) -> None:
        """Where a model put its whole answer into its thoughts, give it as the answer.

        LM Studio does so for structured output of some models, and for models that cannot help thinking.
        """
        told = self.told
        thoughts, told.thinking = told.thinking, [] if self._wishes.hide_thinking else told.thinking
        if told.content or told.tool_calls or not thoughts:
            return
        text = "".join(thoughts)
        if self._wishes.hide_thinking or (self._wishes.expects_json and _is_json(text)):
            self._text(told.content, self._shape.content, lm.Content(text), created_at, lines)

    def _object(self, at: int, **parts: Any) -> dict[str, Any]:
        return self._shape.build(self._model, times.rfc3339(at + self._wall_offset), **parts)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def logprob_to_ollama(entry: Mapping[str, Any], top: int) -> dict[str, Any]:
    """Give LM Studio's entry as Ollama has it: bytes always, the top list only if it was asked for."""
    token = entry.get("token")
    token = token if isinstance(token, str) else ""
    result: dict[str, Any] = {"token": token, "logprob": entry.get("logprob", 0)}
    if token:
        given = entry.get("bytes")
        result["bytes"] = given if isinstance(given, list) and given else list(token.encode("utf-8", "replace"))
    if top > 0:
        alternatives = entry.get("top_logprobs")
        alternatives = [a for a in alternatives if isinstance(a, dict)] if isinstance(alternatives, list) else []
        result["top_logprobs"] = [logprob_to_ollama(a, 0) for a in alternatives[:top]]
    return result


def metrics(timeline: Timings, ended: int, usage: Mapping[str, Any], stats: Mapping[str, Any]) -> chunks.Metrics:
    """Give the counts LM Studio tells and the durations of our clock, in ns; its `stats` are preferred where it sends
    any.

    What was not measured is 0, and Ollama's writer leaves zeros out.
    """
    count = _number(usage.get("completion_tokens"))
    first = timeline.first or ended
    prompt = max(first - (timeline.forwarded or timeline.arrived), 1)
    generation = max((timeline.last or ended) - first, 1)
    seconds_to_first = _number(stats.get("time_to_first_token")) or _number(stats.get("time_to_first_token_seconds"))
    speed = _number(stats.get("tokens_per_second"))
    seconds = _number(stats.get("generation_time")) or (count / speed if count and speed else 0)
    load = _number(stats.get("model_load_time_seconds"))
    return chunks.Metrics(
        total_duration=max(ended - timeline.arrived, 1),
        load_duration=max(int(load * 1e9) or timeline.load, 1),
        prompt_eval_count=int(_number(usage.get("prompt_tokens"))),
        prompt_eval_duration=int(seconds_to_first * 1e9) or prompt,
        eval_count=int(count),
        eval_duration=int(seconds * 1e9) or generation,
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return value if 0 <= value < float("inf") else 0
