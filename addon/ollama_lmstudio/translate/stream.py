"""LM Studio's answer as Ollama's: lines as they come, or one object. Chat and generate share all of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from .. import tolerant_json
from ..lmstudio import answer as lm
from ..lmstudio import errors, sse
from ..ollama import chunks, times, wire
from ..outcomes import INTERNAL_ERROR, JSON, NDJSON, PLAIN_JSON, Measured, Response
from . import first_words
from .counts import count_words, with_lower_bounds
from .line_format import LineFormat
from .logprobs import logprob_to_ollama
from .metrics import Timings, generation_time, metrics

logger = logging.getLogger(__name__)

# LM Studio's finish reasons -> Ollama's, which knows `stop` and `length`; others become `stop`.
DONE_REASONS: Mapping[str, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "function_call": "stop",
    "content_filter": "stop",
}
DEFAULT_DONE_REASON = "stop"


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """How the client wants the answer."""

    streaming: bool = True
    hide_thinking: bool = False
    """`think` was false: reasoning that comes all the same is returned only if there is no other answer."""
    expects_json: bool = False
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class TranslatorOptions:
    """How an answer is translated, whatever the client wants.

    `wall_offset` is the difference between the time of day and the monotonic clock, in ns. `context` makes generate's
    `context` of the text of the answer; None where Ollama returns none. `count_prompt` returns a lower bound for the
    tokens of the prompt, should LM Studio not count them. `scrub` removes secrets from error messages.
    """

    wall_offset: int
    max_event_size: int
    recover: bool = False
    think_tags: lm.ThinkTags | None = lm.DEFAULT_THINK_TAGS
    context: Callable[[str], list[int]] | None = None
    count_prompt: Callable[[], int] = int
    scrub: Callable[[str], str] = str


@dataclass(slots=True)
class Accumulated:
    """The answer so far."""

    content: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)


class Translator:
    """Translate one answer."""

    def __init__(
        self,
        line_format: LineFormat,
        model: str,
        response_options: ResponseOptions,
        timings: Timings,
        options: TranslatorOptions,
    ) -> None:
        self._line_format = line_format
        self._model = model
        self._response_options = response_options
        self._timings = timings
        self._options = options
        # Read for each token.
        self._streaming = response_options.streaming
        self._wall_offset = options.wall_offset
        self._line_start = '{"model":' + wire.string(model) + ',"created_at":"'
        self._final: dict[str, Any] = {}
        self._ended_at = 0
        self._lines: list[bytes] = []
        self._has_parts = False
        self._came_at_once = False
        self.accumulated = Accumulated()
        self.error: errors.LMStudioError | None = None
        self.ended = False
        self.rejected = False
        """Whether the stream began with an error, so that nothing of an answer has been returned."""
        self._reader = self._new_reader()

    def _new_reader(self) -> lm.AnswerReader:
        options = self._options
        return lm.AnswerReader(
            max_event_size=options.max_event_size, recover=options.recover, think_tags=options.think_tags
        )

    def begin_again(self) -> None:
        """Forget a stream that was rejected: another response to the same call is translated next."""
        self.ended = self.rejected = False
        self.error = None
        self._lines = []
        self._reader = self._new_reader()

    @property
    def started(self) -> bool:
        """Whether the stream has shown how it begins: with output, with its end, or with an error."""
        return self._reader.started or self.ended

    @property
    def model(self) -> str:
        """The model that LM Studio's stream names as its own; empty before it has named one."""
        return self._reader.model

    @property
    def so_far(self) -> tuple[int, int]:
        """How many parts of the answer have come, and when the first of them came."""
        return self._reader.outputs, self._timings.first

    @property
    def failed(self) -> bool:
        """Whether the answer has ended with an error."""
        return self.error is not None

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the call, out of everything that is measured."""
        self._timings.started_ns += duration
        self._timings.forwarded += duration

    def loading(self, until: int) -> None:
        """Count the time up to `until` as the load of the model: LM Studio was seen to load it then."""
        self._timings.load = until - self._timings.started_ns
        self._timings.forwarded = until

    def feed(self, data: bytes, at: int) -> list[bytes]:
        """Return the lines that more bytes of the stream complete."""
        try:
            reader = self._reader
            parts = reader.feed(data)
            if reader.finish_reason or not self._timings.first:
                self._note_times(at)
            return self._translate(parts, at)
        except Exception:
            return self._fail_unexpectedly()

    def _note_times(self, at: int) -> None:
        timings, reader = self._timings, self._reader
        if not timings.first and reader.outputs:
            timings.first = at
        if not timings.finished and reader.finish_reason:
            timings.finished = at

    def flush(self, at: int) -> list[bytes]:
        """Return the last lines, at the end of the stream."""
        try:
            return self._translate(self._reader.flush(), at)
        except Exception:
            return self._fail_unexpectedly()

    def translate(self, status: int, content_type: str, body: bytes, at: int) -> Response:
        """Return the client's response for LM Studio's, which was whole at `at`: one object, or all events at once."""
        if status == HTTPStatus.OK and sse.is_event_stream(content_type):
            self._lines = self.feed(body, at) + self.flush(at)
        else:
            try:
                self._lines = self._read_whole(status, content_type, body, at)
            except Exception:
                self._lines = self._fail_unexpectedly()
        return self.response()

    def _read_whole(self, status: int, content_type: str, body: bytes, at: int) -> list[bytes]:
        value = tolerant_json.loads(body)
        if status == HTTPStatus.OK and isinstance(value, dict) and "choices" in value and not value.get("error"):
            parts = lm.read_whole(value, think_tags=self._options.think_tags)
            self._timings.first = self._timings.finished = at
        else:
            parts = [lm.Failure(errors.error_from_response(status, content_type, body))]
        return self._translate(parts, at)

    def _fail_unexpectedly(self) -> list[bytes]:
        logger.exception("the translation of an answer failed")
        self.ended = False
        return self.abort(errors.LMStudioError(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR))

    def abort(self, error: errors.LMStudioError) -> list[bytes]:
        """Return the error line of a stream that broke off; nothing if its answer was complete."""
        return self._translate([lm.Failure(error)], 0)

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
            content_type = PLAIN_JSON if self._streaming else JSON
            return Response.error(self.error.status, self._options.scrub(self.error.message), content_type=content_type)
        if self._streaming:
            return Response(HTTPStatus.OK, b"".join(self._lines), NDJSON)
        accumulated = self.accumulated
        try:
            return Response.json(
                self._object(
                    self._ended_at,
                    content="".join(accumulated.content),
                    thinking="".join(accumulated.thinking),
                    tool_calls=accumulated.tool_calls,
                    logprobs=accumulated.logprobs,
                    **self._final,
                )
            )
        except (ValueError, RecursionError):
            self._fail_unexpectedly()
            return self.response()

    def measured(self) -> Measured:
        """Return what has been measured so far."""
        first, accumulated = self._timings.first, self.accumulated
        return Measured(
            self._final.get("metrics") or self._measured_so_far(),
            first - self._timings.started_ns if first else 0,
            self._final.get("done_reason", ""),
            self._options.scrub(self.error.message) if self.error else "",
            at_once=self._came_at_once,
            words=first_words.of_answer(
                accumulated.content,
                (call["function"]["name"] for call in accumulated.tool_calls),
                bool(accumulated.thinking),
            ),
        )

    def _measured_so_far(self) -> chunks.Metrics:
        """Return what has been measured of an answer without an end: so many tokens had come at least."""
        return chunks.Metrics(load_duration=self._timings.load, eval_count=self._count_answer())

    def _translate(self, parts: Sequence[lm.Part], at: int) -> list[bytes]:
        lines: list[bytes] = []
        if self.ended or not parts:
            return lines
        created_at = times.rfc3339(at + self._wall_offset)
        for part in parts:
            if isinstance(part, lm.Content):
                self._add_text(self.accumulated.content, self._line_format.content, part, created_at, lines)
            elif isinstance(part, lm.Reasoning):
                if self._response_options.hide_thinking:
                    self.accumulated.thinking.append(part.text)
                else:
                    self._add_text(self.accumulated.thinking, self._line_format.thinking, part, created_at, lines)
            elif isinstance(part, lm.ToolCall):
                self._add_tool_call(part, created_at, lines)
            elif isinstance(part, lm.End):
                self._end(part, at, created_at, lines)
                break
            else:
                self.ended = True
                self.error = part.error
                self.rejected = not self._has_parts
                lines.append(wire.line({"error": self._options.scrub(part.error.message)}))
                break
            self._has_parts = True
        return lines if self._streaming else []

    def _add_text(
        self,
        texts: list[str],
        opening: str,
        part: lm.Content | lm.Reasoning,
        created_at: str,
        lines: list[bytes],
    ) -> None:
        texts.append(part.text)
        logprobs = ""
        if part.logprobs and self._response_options.logprobs:
            entries = [logprob_to_ollama(entry, self._response_options.top_logprobs) for entry in part.logprobs]
            self.accumulated.logprobs += entries
            logprobs = ',"logprobs":' + wire.dumps(entries).decode()
        if self._streaming:
            start, text, close = self._line_start, wire.string(part.text), self._line_format.close
            lines.append(f'{start}{created_at}",{opening}{text}{close}{logprobs}}}\n'.encode())

    def _add_tool_call(self, part: lm.ToolCall, created_at: str, lines: list[bytes]) -> None:
        call = chunks.tool_call(
            part.id or chunks.new_call_id(), len(self.accumulated.tool_calls), part.name, part.arguments
        )
        self.accumulated.tool_calls.append(call)
        if self._streaming:
            value = self._line_format.build(
                self._model, created_at, content="", thinking="", tool_calls=[call], done=False
            )
            lines.append(wire.line(value))

    def _end(self, part: lm.End, at: int, created_at: str, lines: list[bytes]) -> None:
        usage = with_lower_bounds(part.usage, prompt=self._options.count_prompt, answer=self._count_answer)
        generation = generation_time(self._timings, usage, part.stats)
        self._came_at_once = not generation
        self._split_whole_text()
        self._answer_from_thinking(part, created_at, lines)
        self.ended = True
        self._ended_at = at
        self._final = {
            "done": True,
            "done_reason": DONE_REASONS.get(part.finish_reason, DEFAULT_DONE_REASON),
            "metrics": metrics(self._timings, at, usage, part.stats, generation),
            "context": self._options.context("".join(self.accumulated.content)) if self._options.context else (),
        }
        if self._streaming:
            lines.append(
                wire.line(self._object(at, content="", thinking="", tool_calls=[], logprobs=(), **self._final))
            )

    def _count_answer(self) -> int:
        """Return a lower bound for the tokens of the answer, which may have come in few events, or in none."""
        accumulated = self.accumulated
        words = count_words("".join(accumulated.content)) + count_words("".join(accumulated.thinking))
        return max(self._reader.outputs, words, len(accumulated.tool_calls))

    def _split_whole_text(self) -> None:
        """Split a text that begins inside the thoughts, for a client that has got nothing of it yet."""
        accumulated, tags = self.accumulated, self._options.think_tags
        if self._streaming or tags is None or accumulated.thinking:
            return
        text = "".join(accumulated.content)
        if tags.begin_in_thoughts(text):
            thinking, content = lm.split_thoughts(text)
            accumulated.thinking, accumulated.content = [thinking], [content] if content else []

    def _answer_from_thinking(self, end: lm.End, created_at: str, lines: list[bytes]) -> None:
        """Return the reasoning as the answer, where a model wrote its whole answer there.

        LM Studio has it so for structured output of some models, and for models whose reasoning cannot be switched off.
        A text that was taken for reasoning, and ended by the model without a closing tag, was the answer.
        """
        accumulated = self.accumulated
        hidden = self._response_options.hide_thinking
        was_assumed = self._reader.assumes_thoughts and end.finish_reason != lm.CUT and not accumulated.tool_calls
        text = "".join(accumulated.thinking)
        if hidden or (was_assumed and not self._streaming):
            accumulated.thinking = []
        if accumulated.content or accumulated.tool_calls or not text:
            return
        if hidden or was_assumed or (self._response_options.expects_json and tolerant_json.is_json(text)):
            self._add_text(accumulated.content, self._line_format.content, lm.Content(text), created_at, lines)

    def _object(self, at: int, **parts: Any) -> dict[str, Any]:
        return self._line_format.build(self._model, times.rfc3339(at + self._wall_offset), **parts)
