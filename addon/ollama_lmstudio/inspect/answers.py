"""Parse the body of a response, whole or cut off, in the format of any of the APIs, into one ParsedAnswer.

Formats: Ollama's NDJSON lines, one JSON object, or server-sent events of chat completions, text completions, OpenAI's
Responses, Anthropic's Messages and LM Studio's own /api/v1/chat. A part that cannot be parsed is reported and skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..lmstudio import sse
from ..lmstudio.answer import ToolCallAssembler
from ..lmstudio.errors import peel
from ..record.record import Numbers
from ..unicode import well_formed
from . import jsontext
from .conversation import ParsedToolCall, tool_call
from .jsontext import text_at

_NS_PER_SECOND = 1e9
# Larger numbers are no durations (31 years) and no counts (Go's int64, which Ollama counts with, ends at 9.2e18); the
# comparison leaves infinity and NaN out too, which Python's JSON parser takes.
_MAX_SECONDS = 1e9
_MAX_COUNT = 1e18

# Limits of what is shown: of statuses of a download, where the last replaces the one before it, and of problems.
MAX_PROGRESS = 200
MAX_PROBLEMS = 5
PROBLEM_CHARACTERS = 80


@dataclass(slots=True)
class Progress:
    """One status of a pull or create, and the number of lines that had it; sizes in bytes."""

    status: str
    total: int = 0
    completed: int = 0
    lines: int = 1


@dataclass(slots=True)
class ParsedAnswer:
    """A response's content: that of a model's answer, progress of a download, or other data."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ParsedToolCall, ...] = ()
    finish: str = ""
    """The done, finish or stop reason."""
    done: bool = False
    """Whether the end of the answer has come."""
    error: str = ""
    numbers: Numbers = field(default_factory=Numbers)
    progress: list[Progress] = field(default_factory=list)
    data: Any = None
    """The last value that is no part of a model's answer: a model list, a description, embeddings."""
    parts: int = 0
    """The number of lines or events."""
    problems: list[str] = field(default_factory=list)
    plain: str = ""
    """The body, where it is not JSON."""

    @property
    def has_answer(self) -> bool:
        """Whether there is anything of a model's answer."""
        return bool(self.text or self.thinking or self.tool_calls or self.done)


def is_events(body: bytes, content_type: str = "") -> bool:
    """Return whether a body is a stream of server-sent events, by its content type or its first line."""
    return "event-stream" in content_type.lower() or body.lstrip()[:6].startswith((b"data:", b"event:", b": ", b"id:"))


def events(body: bytes) -> list[sse.Event]:
    """Return all events of a stream, also one without the blank line that should end it."""
    decoder = sse.Decoder(len(body) + 1)
    return [*decoder.feed(body), *decoder.flush()]


def read_answer(body: bytes, content_type: str = "") -> ParsedAnswer:
    """Parse a response's body; never raises."""
    assembler = _Assembler()
    if is_events(body, content_type):
        for event in events(body):
            if event.data.strip() == sse.DONE:
                assembler.answer.done = True
            else:
                assembler.feed(event.data, event.type)
    elif body.strip():
        whole = jsontext.read(body)
        if isinstance(whole.value, dict) and not whole.problem:
            assembler.feed_object(whole.value)
        elif b"\n" in body.strip() and body.lstrip()[:1] in (b"{", b"["):
            _feed_lines(assembler, body)
        elif whole.value is not None and body.lstrip()[:1] in (b"{", b"["):
            assembler.feed(body.decode("utf-8", "replace"))
        else:
            assembler.answer.plain = body.decode("utf-8", "replace")
    return assembler.finish()


class GrowingAnswer:
    """An answer that is read while it comes: lines of Ollama's, or events."""

    def __init__(self, content_type: str, limit: int) -> None:
        """Read a body of this type; no event of it has more than `limit` bytes."""
        self._assembler = _Assembler()
        self._events = sse.Decoder(limit) if is_events(b"", content_type) else None
        self._line = b""
        self._told = 0, 0

    def feed(self, data: bytes) -> tuple[str, str]:
        """Return the text and the thoughts that the next bytes add."""
        assembler = self._assembler
        if self._events is not None:
            for event in self._events.feed(data):
                if event.data.strip() != sse.DONE:
                    assembler.feed(event.data, event.type)
        else:
            *lines, self._line = (self._line + data).split(b"\n")
            for line in lines:
                assembler.feed(line.decode("utf-8", "replace"))
        text, thinking = self._told
        self._told = len(assembler.text), len(assembler.thinking)
        return well_formed("".join(assembler.text[text:])), well_formed("".join(assembler.thinking[thinking:]))

    @property
    def tool_calls(self) -> tuple[ParsedToolCall, ...]:
        """The tool calls, as far as they have come."""
        return self._assembler.tool_calls


def said_by(event: sse.Event) -> ParsedAnswer:
    """Return what one event says by itself."""
    assembler = _Assembler()
    if event.data.strip() != sse.DONE:
        assembler.feed(event.data, event.type)
    return assembler.finish()


def _feed_lines(assembler: _Assembler, body: bytes) -> None:
    """Feed a body of one object per line; where the first line is not one, the body is one object that is cut off."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    if jsontext.read(lines[0]).problem:
        assembler.feed(body.decode("utf-8", "replace"))
        return
    for line in lines:
        assembler.feed(line.decode("utf-8", "replace"))


class _Assembler:
    """Assemble an answer from its lines or events."""

    def __init__(self) -> None:
        self.answer = ParsedAnswer()
        self.text: list[str] = []
        self.thinking: list[str] = []
        self._calls: list[_ToolCall] = []
        self._blocks: dict[int, _ToolCall] = {}
        self._assembler = ToolCallAssembler()

    def feed(self, data: str, event: str = "") -> None:
        """Feed one line, or the data of one event."""
        value, problem = jsontext.read(data)
        if problem and data.strip():
            self._problem(f"part {self.answer.parts + 1} is {problem}: {jsontext.one_line(data, PROBLEM_CHARACTERS)}")
        if isinstance(value, dict):
            if event == "error" and not value.get("error"):
                value = {"error": value}
            self.feed_object(value)
        elif data.strip():
            self.answer.parts += 1
            if value is not None:
                self.answer.data = value

    def _problem(self, text: str) -> None:
        problems = self.answer.problems
        if len(problems) < MAX_PROBLEMS:
            problems.append(text)
        elif len(problems) == MAX_PROBLEMS:
            problems.append("and more")

    def feed_object(self, value: dict[str, Any]) -> None:
        """Feed one object, to the handler of its shape."""
        self.answer.parts += 1
        if value.get("error") and not isinstance(value.get("response_id"), str):
            self.answer.error = peel(value).message
            if "choices" not in value and "status" not in value:
                return
        for reads, feed in _SHAPES:
            if reads(value):
                feed(self, value)
                return
        self.answer.data = value

    # Ollama's lines

    def _ollama(self, value: dict[str, Any]) -> None:
        message = value.get("message")
        message = message if isinstance(message, dict) else {}
        self._add_text(message.get("content"), message.get("thinking"))
        self._add_text(value.get("response"), value.get("thinking"))
        for source in (message, value):
            self._whole_calls(source.get("tool_calls"))
        if value.get("done"):
            self.answer.done = True
            self.answer.finish = text_at(value, "done_reason") or self.answer.finish
            self._ollama_numbers(value)

    def _ollama_numbers(self, value: dict[str, Any]) -> None:
        numbers = self.answer.numbers
        numbers.total = _count(value, "total_duration")
        numbers.load = _count(value, "load_duration")
        numbers.generation = _count(value, "eval_duration")
        numbers.prompt_tokens = _count(value, "prompt_eval_count")
        numbers.answer_tokens = _count(value, "eval_count")
        numbers.done_reason = self.answer.finish

    def _progress(self, value: dict[str, Any]) -> None:
        progress = self.answer.progress
        latest = Progress(text_at(value, "status"), _count(value, "total"), _count(value, "completed"))
        last = progress[-1] if progress else None
        if last is not None and (last.status == latest.status or len(progress) >= MAX_PROGRESS):
            latest.lines = last.lines + 1
            progress.pop()
        progress.append(latest)

    # Chat and text completions

    def _completion(self, value: dict[str, Any]) -> None:
        self._usage(value.get("usage"))
        stats = value.get("stats")
        if isinstance(stats, dict):
            self._stats(stats)
        choices = value["choices"]
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict):
            self._assembler.feed(delta.get("tool_calls"))
            message = delta
        else:
            message = message if isinstance(message, dict) else {"content": choice.get("text")}
            self._whole_calls(message.get("tool_calls"))
        self._add_text(message.get("content"), message.get("reasoning_content") or message.get("reasoning"))
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self.answer.finish, self.answer.done = finish, True

    def _usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            numbers = self.answer.numbers
            for names, attribute in _USAGE:
                for name in names:
                    if _count(usage, name):
                        setattr(numbers, attribute, _count(usage, name))

    def _stats(self, stats: dict[str, Any]) -> None:
        """Read LM Studio's `stats`, whose durations are in seconds."""
        self._usage(stats)
        numbers = self.answer.numbers
        for name, attribute in _STATS:
            value = stats.get(name)
            if isinstance(value, int | float) and 0 < value < _MAX_SECONDS:
                setattr(numbers, attribute, int(value * _NS_PER_SECOND))

    def _whole_calls(self, calls: object) -> None:
        for call in calls if isinstance(calls, list) else []:
            read = tool_call(call)
            self._calls.append(_ToolCall(read.name, read.id, [read.arguments]))

    # Messages, Responses and /api/v1/chat

    def _message_object(self, value: dict[str, Any]) -> None:
        for block in value["content"]:
            self._block(block)
        self._usage(value.get("usage"))
        self._stop(value.get("stop_reason"))

    def _block(self, block: object) -> None:
        """Read a content block (Messages), an output item (Responses) or an output of /api/v1/chat."""
        if not isinstance(block, dict):
            return
        kind = text_at(block, "type")
        if "tool" in kind or kind == "function_call":
            self._whole_calls([block])
        elif kind == "message" and isinstance(block.get("content"), list):
            for part in block["content"]:
                self._block(part)
        elif kind in ("thinking", "reasoning", "reasoning_text"):
            parts = block.get("content") or block.get("summary")
            if isinstance(parts, list):
                for part in parts:
                    self._add_text(None, part.get("text") if isinstance(part, dict) else None)
            else:
                self._add_text(None, block.get("thinking") or block.get("text") or parts)
        else:
            self._add_text(block.get("text") or block.get("content"), None)

    def _output_object(self, value: dict[str, Any]) -> None:
        for item in value["output"]:
            self._block(item)
        self._usage(value.get("usage"))
        stats = value.get("stats")
        if isinstance(stats, dict):
            self._stats(stats)
        self._stop(value.get("status") or "stop")

    def _stop(self, reason: object) -> None:
        if isinstance(reason, str) and reason:
            self.answer.finish, self.answer.done = reason, True

    def _event(self, value: dict[str, Any]) -> None:
        _EVENTS[value["type"]](self, value)

    def _message_start(self, value: dict[str, Any]) -> None:
        self._usage(_mapping(value, "message").get("usage"))

    def _block_start(self, value: dict[str, Any]) -> None:
        block = _mapping(value, "content_block")
        if "tool" in text_at(block, "type"):
            call = self._blocks[_count(value, "index")] = _ToolCall(text_at(block, "name"), text_at(block, "id"))
            self._calls.append(call)

    def _block_delta(self, value: dict[str, Any]) -> None:
        delta = _mapping(value, "delta")
        self._add_text(delta.get("text"), delta.get("thinking"))
        call = self._blocks.get(_count(value, "index"))
        if call is not None:
            call.add(delta.get("partial_json"))

    def _message_delta(self, value: dict[str, Any]) -> None:
        self._usage(value.get("usage"))
        self._stop(_mapping(value, "delta").get("stop_reason"))

    def _item_done(self, value: dict[str, Any]) -> None:
        item = _mapping(value, "item")
        if text_at(item, "type") == "function_call":
            self._whole_calls([{**item, "id": item.get("call_id") or item.get("id")}])

    def _response_end(self, value: dict[str, Any]) -> None:
        response = _mapping(value, "response")
        if response.get("error"):
            self.answer.error = peel(response).message
        self._usage(response.get("usage"))
        self._stop(response.get("status"))

    def _chat_end(self, value: dict[str, Any]) -> None:
        self._stats(_mapping(_mapping(value, "result"), "stats"))
        self._stop("stop")

    def _ignore(self, value: dict[str, Any]) -> None:
        pass

    # All formats

    def _add_text(self, text: object, thinking: object) -> None:
        if isinstance(text, str):
            self.text.append(text)
        if isinstance(thinking, str):
            self.thinking.append(thinking)

    def finish(self) -> ParsedAnswer:
        """Return the answer, as far as it came."""
        answer = self.answer
        answer.text = well_formed("".join(self.text))
        answer.thinking = well_formed("".join(self.thinking))
        answer.tool_calls = self.tool_calls
        return answer

    @property
    def tool_calls(self) -> tuple[ParsedToolCall, ...]:
        """The tool calls, as far as they have come."""
        streamed = (
            ParsedToolCall(name, arguments or "{}", call_id) for call_id, name, arguments in self._assembler.so_far()
        )
        return (*streamed, *(call.whole() for call in self._calls))


class _ToolCall:
    """A tool call that is assembled from deltas."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, name: str, call_id: str, arguments: list[str] | None = None) -> None:
        self.name = name
        self.id = call_id
        self.arguments = arguments or []

    def add(self, arguments: object) -> None:
        """Add a piece of the arguments; what is no string is written as JSON."""
        if isinstance(arguments, str):
            if arguments:
                self.arguments.append(arguments)
        elif arguments is not None:
            self.arguments.append(jsontext.compact(arguments))

    def whole(self) -> ParsedToolCall:
        """Return the call, as far as it came."""
        return ParsedToolCall(self.name, "".join(self.arguments) or "{}", self.id)


def _count(mapping: Mapping[str, Any], key: str) -> int:
    value = mapping.get(key)
    return int(value) if isinstance(value, int | float) and 0 <= value < _MAX_COUNT else 0


def _mapping(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


# The names that the APIs have for each of the token counts, and those of LM Studio's durations.
_USAGE = (
    (("prompt_tokens", "input_tokens"), "prompt_tokens"),
    (("completion_tokens", "output_tokens", "total_output_tokens"), "answer_tokens"),
)
_STATS = (
    ("time_to_first_token", "first_token"),
    ("time_to_first_token_seconds", "first_token"),
    ("generation_time", "generation"),
    ("model_load_time_seconds", "load"),
)

_Handler = Callable[[_Assembler, dict[str, Any]], None]

_EVENTS: Mapping[str, _Handler] = {
    "message_start": _Assembler._message_start,
    "content_block_start": _Assembler._block_start,
    "content_block_delta": _Assembler._block_delta,
    "content_block_stop": _Assembler._ignore,
    "message_delta": _Assembler._message_delta,
    "message_stop": _Assembler._ignore,
    "response.output_text.delta": lambda assembler, value: assembler._add_text(value.get("delta"), None),
    "response.reasoning_text.delta": lambda assembler, value: assembler._add_text(None, value.get("delta")),
    "response.reasoning_summary_text.delta": lambda assembler, value: assembler._add_text(None, value.get("delta")),
    "response.output_item.done": _Assembler._item_done,
    "response.completed": _Assembler._response_end,
    "response.incomplete": _Assembler._response_end,
    "response.failed": _Assembler._response_end,
    "message.delta": lambda assembler, value: assembler._add_text(value.get("content"), None),
    "reasoning.delta": lambda assembler, value: assembler._add_text(None, value.get("content")),
    "chat.end": _Assembler._chat_end,
}
# Types of events that only repeat or announce what the events above hold.
_SILENT = ("response.", "model_load.", "prompt_processing.", "message.", "reasoning.", "chat.", "tool_call.", "ping")


def _is_silent(value: dict[str, Any]) -> bool:
    return text_at(value, "type").startswith(_SILENT)


# Predicate on an object -> its handler; the first that holds is taken.
_SHAPES: tuple[tuple[Callable[[dict[str, Any]], bool], _Handler], ...] = (
    (lambda value: "choices" in value, _Assembler._completion),
    (lambda value: text_at(value, "type") in _EVENTS, _Assembler._event),
    (lambda value: isinstance(value.get("output"), list), _Assembler._output_object),
    (
        lambda value: text_at(value, "type") == "message" and isinstance(value.get("content"), list),
        _Assembler._message_object,
    ),
    (
        lambda value: isinstance(value.get("message"), dict) or isinstance(value.get("response"), str),
        _Assembler._ollama,
    ),
    (
        lambda value: (
            isinstance(value.get("status"), str) and not set(value) - {"status", "digest", "total", "completed"}
        ),
        _Assembler._progress,
    ),
    (_is_silent, _Assembler._ignore),
)
