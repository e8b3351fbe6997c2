"""LM Studio's answer to a chat or a completion, sans-I/O: bytes in, parts of the answer out.

`AnswerReader` reads the stream; `read_whole` reads the one JSON object that a server may send all the same. Both give
the same parts: text, reasoning, complete tool calls, and one end or one failure, after which nothing comes.

Reasoning reaches us in three forms: `reasoning` (gpt-oss), `reasoning_content` (all others), or `<think>` at the start
of the text when LM Studio's "separate reasoning_content" setting is off. All three become `Reasoning`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..unicode import well_formed
from . import errors, repair, sse

DONE = "[DONE]"

# What a finish_reason that is none of the documented ones is taken for.
DEFAULT_FINISH = "stop"

Logprobs = Sequence[Mapping[str, Any]]


class Content(NamedTuple):
    """Text of the answer."""

    text: str
    logprobs: Logprobs = ()


class Reasoning(NamedTuple):
    """Text that the model thought."""

    text: str
    logprobs: Logprobs = ()


class ToolCall(NamedTuple):
    """One complete tool call; the id is empty where LM Studio gave none."""

    id: str
    name: str
    arguments: dict[str, Any]


class End(NamedTuple):
    """The end of a whole answer."""

    finish_reason: str
    usage: Mapping[str, Any]
    stats: Mapping[str, Any]


class Failure(NamedTuple):
    """The end of an answer that failed."""

    error: errors.LMStudioError


Part = Content | Reasoning | ToolCall | End | Failure


class ThinkSplitter:
    """Split `<think>...</think>` from the start of a text that comes in pieces.

    White space around the opening tag and after the closing one is dropped. A text that does not begin with the tag
    passes unchanged.
    """

    __slots__ = ("_held", "_state")

    OPEN = "<think>"
    CLOSE = "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, text: str) -> tuple[str, str]:
        """Take more text; give what of it is (reasoning, content)."""
        if self._state == "content":
            return "", text
        text, self._held = self._held + text, ""
        if self._state == "start":
            rest = text.lstrip()
            if len(rest) < len(self.OPEN) and self.OPEN.startswith(rest):
                self._held = text
                return "", ""
            if not rest.startswith(self.OPEN):
                self._state = "content"
                return "", text
            self._state = "opened"
            text = rest.removeprefix(self.OPEN)
        if self._state == "opened":
            text = text.lstrip()
            if text:
                self._state = "think"
        thought = ""
        if self._state == "think":
            thought, closed, text = text.partition(self.CLOSE)
            if not closed:
                keep = _overlap(thought, self.CLOSE)
                self._held = thought[len(thought) - keep :]
                return thought[: len(thought) - keep], ""
            self._state = "after"
        text = text.lstrip()
        if text:
            self._state = "content"
        return thought, text

    def flush(self) -> tuple[str, str]:
        """Give what was held back, as (reasoning, content)."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "think" else ("", held)


def _overlap(text: str, tag: str) -> int:
    """Give how many characters at the end of the text may begin the tag."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-n:])), 0)


class _Surrogates:
    """Join the halves of a character that two pieces of text share, which JSON can write as two escapes."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        if text.isascii() and not self._held:
            return text
        text, self._held = self._held + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return well_formed(text)

    def flush(self) -> str:
        held, self._held = self._held, ""
        return well_formed(held)


# So much of what a model wrote is in an error about it.
QUOTED_CHARACTERS = 500


def _loads(text: str) -> Any:
    """Read JSON that can be written again; ValueError for what is none, and for NaN and Infinity."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@dataclass(slots=True)
class _PartialCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.arguments)

    @property
    def _quoted(self) -> str:
        text = self.text
        return text if len(text) <= QUOTED_CHARACTERS else f"{text[:QUOTED_CHARACTERS]}..."

    def is_complete(self) -> bool:
        """Whether the arguments are an object already, so that more of them cannot belong here."""
        try:
            return isinstance(_loads(self.text), dict)
        except ValueError:
            return False

    def finish(self) -> ToolCall:
        """Give the call; ValueError says what is wrong with it."""
        if not self.name:
            raise ValueError("LM Studio sent a tool call without a name")
        try:
            arguments = _loads(self.text) if self.text.strip() else {}
            # Some templates encode the arguments twice.
            if isinstance(arguments, str):
                arguments = _loads(arguments) if arguments.strip() else {}
        except ValueError:
            raise ValueError(f"the model called {self.name} with arguments that are not JSON: {self._quoted}") from None
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise ValueError(f"the model called {self.name} with arguments that are not an object: {self._quoted}")
        return ToolCall(self.id, self.name, arguments)


class ToolCallAssembler:
    """Put tool calls together from the fragments of a stream.

    A fragment without a name continues the call at its index, whatever id it carries: LM Studio's versions and parsers
    have sent fragments with empty names, empty ids and a new id each.
    """

    __slots__ = ("_at", "_calls")

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []
        self._at: dict[int, _PartialCall] = {}

    def feed(self, fragments: object) -> None:
        """Take `delta.tool_calls`."""
        if not isinstance(fragments, list):
            return
        for position, fragment in enumerate(fragments):
            if isinstance(fragment, dict):
                self._take(position, fragment)

    def _take(self, position: int, fragment: Mapping[str, Any]) -> None:
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        call_id, name, arguments = _text(fragment, "id"), _text(function, "name"), function.get("arguments")
        index = fragment.get("index")
        if not isinstance(index, int):
            index = position if name else max(self._at, default=0)
        call = self._at.get(index)
        if call is None or (name and self._is_another(call, call_id)):
            call = _PartialCall(call_id)
            self._calls.append(call)
            self._at[index] = call
        call.id = call.id or call_id
        call.name = call.name or name
        if isinstance(arguments, str):
            call.arguments.append(arguments)
        elif arguments is not None:
            call.arguments.append(json.dumps(arguments))

    @staticmethod
    def _is_another(call: _PartialCall, call_id: str) -> bool:
        """Whether a named fragment at this call's index begins a call of its own."""
        if call_id and call.id:
            return call_id != call.id
        return call.is_complete()

    def so_far(self) -> list[tuple[str, str, str]]:
        """Give id, name and arguments of each call, as far as they came."""
        return [(call.id, call.name, call.text) for call in self._calls]

    def finish(self) -> list[ToolCall]:
        """Give the complete calls and forget them; ValueError says what is wrong with one."""
        calls, self._calls, self._at = self._calls, [], {}
        return [call.finish() for call in calls]

    def __bool__(self) -> bool:
        return bool(self._calls)


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key)
    return value if isinstance(value, str) else ""


class AnswerReader:
    """Read the SSE stream of `/v1/chat/completions` or `/v1/completions`.

    `feed` takes bytes cut anywhere, `flush` the end of the stream; both give parts and never raise. `max_event_size` is
    in bytes. With `recover`, an event whose JSON is broken is repaired if it can be. With `split_think`, `<think>` at
    the start of the text is reasoning.
    """

    def __init__(self, *, max_event_size: int, recover: bool = False, split_think: bool = True) -> None:
        self._decoder = sse.Decoder(max_event_size)
        self._recover = recover
        self._splitter = ThinkSplitter() if split_think else None
        self._calls = ToolCallAssembler()
        self._content = _Surrogates()
        self._reasoning = _Surrogates()
        self._logprobs: list[Mapping[str, Any]] = []
        self._finish = ""
        self._usage: Mapping[str, Any] = {}
        self._stats: Mapping[str, Any] = {}
        self._over = False
        self.started = False
        """Whether the model's output, or the answer's end, has been seen."""

    def feed(self, data: bytes) -> list[Part]:
        """Take more bytes; give the parts they complete."""
        parts: list[Part] = []
        self._read(self._decoder.feed(data), parts, at_end=False)
        return parts

    def flush(self) -> list[Part]:
        """Take the end of the stream; give what was held back and the end."""
        parts: list[Part] = []
        self._read(self._decoder.flush(), parts, at_end=True)
        if not self._over:
            if self._finish:
                self._end(parts)
            else:
                self._fail(
                    parts,
                    errors.LMStudioError(502, "LM Studio ended the stream before its answer was finished"),
                )
        return parts

    def _read(self, events: Iterator[sse.Event], parts: list[Part], *, at_end: bool) -> None:
        if self._over:
            return
        try:
            for event in events:
                self._take(event, parts, at_end)
                if self._over:
                    return
        except sse.EventTooLargeError as e:
            message = f"LM Studio sent an event of more than {e.limit} bytes; the option max_buffer_size sets the limit"
            self._fail(parts, errors.LMStudioError(502, message))

    def _take(self, event: sse.Event, parts: list[Part], at_end: bool) -> None:
        data = event.data
        if data == DONE or data.strip() == DONE:
            self._finish = self._finish or DEFAULT_FINISH
            self._end(parts)
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            if not data.strip() or at_end:
                return  # nothing, or cut short: the missing end is what will be told
            chunk = repair.loads(data) if self._recover else None
            if chunk is None:
                self._fail(
                    parts,
                    errors.LMStudioError(502, f"LM Studio sent an event that is not JSON: {data[:200]}"),
                )
                return
        if not isinstance(chunk, dict):
            return
        if event.type == "error" or chunk.get("error"):
            self._fail(parts, errors.from_event(chunk))
            return
        self._chunk(chunk, parts)

    def _chunk(self, chunk: Mapping[str, Any], parts: list[Part]) -> None:
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        stats = chunk.get("stats")
        if isinstance(stats, dict):
            self._stats = stats
        choices = chunk.get("choices")
        if not choices or not isinstance(choices, list):
            return
        choice = choices[0]
        if not isinstance(choice, dict):
            return
        logprobs = choice.get("logprobs")
        if logprobs:
            self._logprobs += _logprobs(logprobs)
        delta = choice.get("delta")
        if isinstance(delta, dict):
            content = delta.get("content")
            reasoning = delta.get("reasoning_content") or delta.get("reasoning")
            if delta.get("tool_calls"):
                self.started = True
                self._calls.feed(delta["tool_calls"])
        else:
            content, reasoning = choice.get("text"), None
        if reasoning and isinstance(reasoning, str):
            self._emit_reasoning(reasoning, parts)
        if content and isinstance(content, str):
            self._emit_content(content, parts)
        finish = choice.get("finish_reason")
        if finish and isinstance(finish, str):
            self.started = True
            self._finish = finish
            self._finish_text(parts)

    def _take_logprobs(self) -> Logprobs:
        taken, self._logprobs = self._logprobs, []
        return taken

    def _emit_reasoning(self, text: str, parts: list[Part]) -> None:
        self.started = True
        text = self._reasoning.feed(text)
        if text:
            parts.append(Reasoning(text, self._take_logprobs() if self._logprobs else ()))

    def _emit_content(self, text: str, parts: list[Part]) -> None:
        self.started = True
        text = self._content.feed(text)
        if self._splitter is not None:
            thought, text = self._splitter.feed(text)
            if thought:
                parts.append(Reasoning(thought, self._take_logprobs() if self._logprobs else ()))
        if text:
            parts.append(Content(text, self._take_logprobs() if self._logprobs else ()))

    def _finish_text(self, parts: list[Part]) -> None:
        """Give all that was held back in case more would come, and the tool calls."""
        reasoning = self._reasoning.flush()
        content = self._content.flush()
        if self._splitter is not None:
            thought, text = self._splitter.feed(content)
            held_thought, held_text = self._splitter.flush()
            reasoning, content = reasoning + thought + held_thought, text + held_text
        if reasoning:
            parts.append(Reasoning(reasoning, self._take_logprobs()))
        if content:
            parts.append(Content(content, self._take_logprobs()))
        if self._calls:
            try:
                parts += self._calls.finish()
            except ValueError as e:
                self._fail(parts, errors.LMStudioError(500, str(e)))

    def _end(self, parts: list[Part]) -> None:
        self._finish_text(parts)
        if not self._over:
            self._over = True
            self.started = True
            parts.append(End(self._finish, self._usage, self._stats))

    def _fail(self, parts: list[Part], error: errors.LMStudioError) -> None:
        self._over = True
        self.started = True
        parts.append(Failure(error))


def _logprobs(logprobs: object) -> list[Mapping[str, Any]]:
    entries = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def read_whole(answer: Mapping[str, Any], *, split_think: bool = True) -> list[Part]:
    """Read one `chat.completion` or `text_completion` object."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return [Failure(errors.LMStudioError(502, "LM Studio's answer has no choices"))]
    # One whole message is one delta that says everything; its tool calls need an index each.
    reader = AnswerReader(max_event_size=0, split_think=split_think)
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {"content": choice.get("text")}
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{**call, "index": i} for i, call in enumerate(calls) if isinstance(call, dict)]
    parts: list[Part] = []
    finish = choice.get("finish_reason") or DEFAULT_FINISH
    reader._chunk({**answer, "choices": [{**choice, "delta": delta, "finish_reason": finish}]}, parts)
    if not any(isinstance(part, Failure) for part in parts):
        reader._end(parts)
    return parts
