"""LM Studio's answer to a chat or a completion, sans-I/O: bytes in, parts of the answer out.

`AnswerReader` reads the stream; `read_whole` reads the one JSON object that a server may send all the same. Both return
the same parts: text, reasoning, complete tool calls, and one end or one failure, after which nothing comes.

Reasoning comes in four forms: `reasoning` (gpt-oss), `reasoning_content` (all others), `<think>` at the start of the
text when LM Studio's "separate reasoning_content" setting is off, or what comes before `</think>` where the template
has opened the thoughts (`ThinkTags`). All become `Reasoning`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from ..unicode import well_formed
from . import errors, repair, sse
from .answering_model import model_of

# The finish_reason of an answer that has none: OpenAI's for an answer that the model ended itself.
DEFAULT_FINISH = "stop"
# The finish_reason of an answer that has reached its limit of tokens, perhaps in the middle of a tool call.
CUT = "length"

# Characters that an error message quotes of the arguments that a model wrote, and of an event that LM Studio sent.
QUOTED_ARGUMENTS = 500
QUOTED_EVENT = 200

Logprobs = Sequence[Mapping[str, Any]]


class Content(NamedTuple):
    """Text of the answer."""

    text: str
    logprobs: Logprobs = ()


class Reasoning(NamedTuple):
    """Text of the model's reasoning."""

    text: str
    logprobs: Logprobs = ()


class ToolCall(NamedTuple):
    """One complete tool call; the id is empty where LM Studio sent none."""

    id: str
    name: str
    arguments: dict[str, Any]


class End(NamedTuple):
    """The end of a complete answer."""

    finish_reason: str
    usage: Mapping[str, Any]
    stats: Mapping[str, Any]


class Failure(NamedTuple):
    """The end of an answer that failed."""

    error: errors.LMStudioError


Part = Content | Reasoning | ToolCall | End | Failure


OPEN = "<think>"
CLOSE = "</think>"
# How JSON begins that is an answer: thoughts do not.
JSON_STARTS = ("{", "[")


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """What is known beforehand of the `<think>` tags in a text.

    The templates of some models (GLM, MiniMax, Nemotron) open the thoughts in the prompt, and where LM Studio does not
    know that (its issues 1495 and 1368), the text begins inside of them: only `</think>` shows where they end.

    `opening` is whether an opening tag at the start of the text begins thoughts. `always` is whether the text begins
    inside of them, unless it is JSON. `likely` is whether a text that is whole begins so, if a closing tag is all that
    it has; without it the tag must also be at the beginning or the end of a line. `drop_close` is whether a closing tag
    that nothing has opened is left out, whatever is before it.
    """

    opening: bool = True
    always: bool = False
    likely: bool = False
    drop_close: bool = False

    @property
    def matter(self) -> bool:
        """Whether a text that comes in pieces may have to be changed."""
        return self.opening or self.always or self.drop_close

    def begin_in_thoughts(self, text: str) -> bool:
        """Return whether a text that is whole begins inside the thoughts."""
        before, closed, after = text.partition(CLOSE)
        if not closed or OPEN in before or before.lstrip().startswith(JSON_STARTS):
            return False
        return self.likely or before.endswith("\n") or after.startswith("\n")


DEFAULT_THINK_TAGS = ThinkTags()


def split_thoughts(text: str) -> tuple[str, str]:
    """Return the (reasoning, content) of a text that is whole and begins inside the thoughts."""
    thought, _, content = text.partition(CLOSE)
    return thought.strip(), content.lstrip()


class ThinkSplitter:
    """Split `<think>...</think>` from the start of a text that comes in pieces.

    White space around the opening tag and after the closing one is dropped. A text that does not begin with the tag
    passes unchanged, but for what `tags` say.
    """

    __slots__ = ("_held", "_state", "_tags", "is_assumed")

    def __init__(self, tags: ThinkTags = DEFAULT_THINK_TAGS) -> None:
        self._held = ""
        self._tags = tags
        # In this order: before the opening tag; after it, in white space; in the reasoning; after the closing tag, in
        # white space; in the content, of which a closing tag is left out; in the content, for good.
        self._state: Literal["start", "opened", "think", "after", "unopened", "content"]
        self._state = "start" if tags.opening or tags.always else "unopened"
        self.is_assumed = False
        """Whether the text is taken for reasoning, though no tag has said so yet."""

    def feed(self, text: str) -> tuple[str, str]:
        """Return what of the text so far is known to be (reasoning, content)."""
        if self._state == "content":
            return "", text
        text, self._held = self._held + text, ""
        if self._state == "start":
            rest = text.lstrip()
            if len(rest) < len(OPEN) and OPEN.startswith(rest):
                self._held = text
                return "", ""
            if rest.startswith(OPEN):
                self._state = "opened"
                text = rest.removeprefix(OPEN)
            elif self._tags.always and not rest.startswith(JSON_STARTS):
                self._state = "opened"
                self.is_assumed = True
            else:
                self._state = "unopened" if self._tags.drop_close else "content"
        thought = ""
        if self._state == "opened":
            text = text.lstrip()
            if text:
                self._state = "think"
        if self._state == "think":
            thought, closed, text = self._until_closed(text)
            if not closed:
                return thought, ""
        content = ""
        if self._state == "unopened":
            content, text = self._until_unopened_close(text)
        if self._state == "after":
            text = text.lstrip()
            if text:
                self._state = "content"
        return thought, content + text

    def _until_closed(self, text: str) -> tuple[str, bool, str]:
        """Return the reasoning in a text, whether it has ended, and what comes after it."""
        thought, closed, rest = text.partition(CLOSE)
        end = len(thought) if closed else len(thought) - _overlap(thought, CLOSE)
        if self.is_assumed:
            end = len(thought[:end].rstrip())
        if closed:
            self._state = "after"
            self.is_assumed = False
            return thought[:end], True, rest
        self._held = thought[end:]
        return thought[:end], False, ""

    def _until_unopened_close(self, text: str) -> tuple[str, str]:
        """Return the text up to a closing tag that nothing has opened, and what comes after the tag."""
        before, closed, after = text.partition(CLOSE)
        if OPEN in before:
            self._state = "content"
            return text, ""
        if closed:
            self._state = "after"
            return before, after
        end = len(text) - max(_overlap(text, OPEN), _overlap(text, CLOSE))
        self._held = text[end:]
        return text[:end], ""

    def flush(self) -> tuple[str, str]:
        """Return what was held back, as (reasoning, content)."""
        held, self._held = self._held, ""
        return (held, "") if self._state == "think" else ("", held)

    def reasoning_is_separate(self) -> None:
        """Take it that the text holds no reasoning, since LM Studio sends that on its own."""
        self._tags = DEFAULT_THINK_TAGS
        if self._state == "unopened" and not self._held:
            self._state = "content"


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of the text may begin the tag."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-n:])), 0)


class _SurrogateJoiner:
    """Join surrogate pairs whose halves are in two pieces of text, which JSON can write as escapes."""

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


def _loads(text: str) -> Any:
    """Parse JSON; raise ValueError for what is not, and for NaN and Infinity, which RFC 8259 (section 6) excludes."""
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
        return text if len(text) <= QUOTED_ARGUMENTS else f"{text[:QUOTED_ARGUMENTS]}..."

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a call has come: LM Studio 0.3.21 ends some answers with an entry that has only a type."""
        return not self.name and not self.text.strip()

    def is_complete(self) -> bool:
        """Return whether the arguments are an object already: further fragments cannot belong to this call."""
        try:
            return isinstance(_loads(self.text), dict)
        except ValueError:
            return False

    def finish(self) -> ToolCall:
        """Return the call; raise ValueError with what is wrong with it."""
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
    """Assemble tool calls from the fragments of a stream.

    A fragment without a name continues the call at its index, whatever id it carries: LM Studio 0.3.15 sent fragments
    with empty names and without ids, other versions fragments with empty ids or with a new id each.
    """

    __slots__ = ("_at", "_calls")

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []
        self._at: dict[int, _PartialCall] = {}

    def feed(self, fragments: object) -> None:
        """Add the fragments of one `delta.tool_calls`; anything else is ignored."""
        if not isinstance(fragments, list):
            return
        for position, fragment in enumerate(fragments):
            if isinstance(fragment, dict):
                self._add(position, fragment)

    def _add(self, position: int, fragment: Mapping[str, Any]) -> None:
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        call_id, name, arguments = _text(fragment, "id"), _text(function, "name"), function.get("arguments")
        index = fragment.get("index")
        if not isinstance(index, int):
            index = position if name else max(self._at, default=0)
        call = self._at.get(index)
        if call is None or (name and self._begins_new_call(call, call_id)):
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
    def _begins_new_call(call: _PartialCall, call_id: str) -> bool:
        """Return whether a fragment with a name begins a new call at the index of this one."""
        if call_id and call.id:
            return call_id != call.id
        return call.is_complete()

    def so_far(self) -> list[tuple[str, str, str]]:
        """Return id, name and arguments of each call, as far as they have come."""
        return [(call.id, call.name, call.text) for call in self._calls if not call.is_empty]

    def finish(self) -> list[ToolCall]:
        """Return the calls and forget them; raise ValueError with what is wrong with one."""
        return [call.finish() for call in self._pop()]

    def finish_cut(self) -> list[ToolCall]:
        """Return those calls that were complete when the answer reached its limit of tokens, and forget all."""
        calls = self._pop()
        if calls and not calls[-1].text.strip():
            calls.pop()  # its arguments had not begun
        whole = []
        for call in calls:
            with suppress(ValueError):
                whole.append(call.finish())
        return whole

    def _pop(self) -> list[_PartialCall]:
        calls, self._calls, self._at = self._calls, [], {}
        return [call for call in calls if not call.is_empty]

    def __bool__(self) -> bool:
        return any(not call.is_empty for call in self._calls)


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key)
    return value if isinstance(value, str) else ""


class AnswerReader:
    """Read the SSE stream of `/v1/chat/completions` or `/v1/completions`.

    `feed` takes bytes cut anywhere, `flush` the end of the stream; both return parts and never raise. `max_event_size`
    is in bytes. With `recover`, an event whose JSON is broken is repaired if it can be. `think_tags` is how reasoning
    is found in the text; None leaves the text as it is.
    """

    def __init__(
        self, *, max_event_size: int, recover: bool = False, think_tags: ThinkTags | None = DEFAULT_THINK_TAGS
    ) -> None:
        self._decoder = sse.Decoder(max_event_size)
        self._recover = recover
        self._splitter = ThinkSplitter(think_tags) if think_tags and think_tags.matter else None
        self._calls = ToolCallAssembler()
        self._content = _SurrogateJoiner()
        self._reasoning = _SurrogateJoiner()
        self._logprobs: list[Mapping[str, Any]] = []
        self.finish_reason = ""
        """LM Studio's, empty until it has come."""
        self._usage: Mapping[str, Any] = {}
        self._stats: Mapping[str, Any] = {}
        self._ended = False
        self.started = False
        """Whether output of the model, or the end of the answer, has come."""
        self.model = ""
        """The model that the answer names as its own, once an event has named one."""
        self.outputs = 0
        """How many events have brought output of the model: no more than it has written tokens."""

    @property
    def assumes_thoughts(self) -> bool:
        """Whether what has come is taken for reasoning, though no tag has said so."""
        return self._splitter is not None and self._splitter.is_assumed

    def feed(self, data: bytes) -> list[Part]:
        """Return the parts that these bytes complete."""
        parts: list[Part] = []
        self._read(self._decoder.feed(data), parts, at_end=False)
        return parts

    def flush(self) -> list[Part]:
        """Return what was held back, and the end or the failure of the answer."""
        parts: list[Part] = []
        self._read(self._decoder.flush(), parts, at_end=True)
        if not self._ended:
            if self.finish_reason:
                self._end(parts)
            else:
                self._fail(parts, HTTPStatus.BAD_GATEWAY, "LM Studio ended the stream before its answer was finished")
        return parts

    def _read(self, events: Iterator[sse.Event], parts: list[Part], *, at_end: bool) -> None:
        if self._ended:
            return
        try:
            for event in events:
                self._read_event(event, parts, at_end)
                if self._ended:
                    return
        except sse.EventTooLargeError as e:
            message = f"LM Studio sent an event of more than {e.limit} bytes; the option max_buffer_size sets the limit"
            self._fail(parts, HTTPStatus.BAD_GATEWAY, message)

    def _read_event(self, event: sse.Event, parts: list[Part], at_end: bool) -> None:
        data = event.data
        if data.strip() == sse.DONE:
            self.finish_reason = self.finish_reason or DEFAULT_FINISH
            self._end(parts)
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            if not data.strip() or at_end:
                return  # empty, or cut off by the end of the stream, which `flush` reports
            chunk = repair.loads(data) if self._recover else None
            if chunk is None:
                message = f"LM Studio sent an event that is not JSON: {data[:QUOTED_EVENT]}"
                self._fail(parts, HTTPStatus.BAD_GATEWAY, message)
                return
        if not isinstance(chunk, dict):
            return
        if event.type == "error" or chunk.get("error"):
            self._fail_with(parts, errors.from_event(chunk))
            return
        self._read_chunk(chunk, parts)

    def _read_chunk(self, chunk: Mapping[str, Any], parts: list[Part]) -> None:
        if not self.model:
            self.model = model_of(chunk)
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
                self._calls.feed(delta["tool_calls"])
                if self._calls:
                    self.started = True
                    self.outputs += 1
        else:
            content, reasoning = choice.get("text"), None
        if reasoning and isinstance(reasoning, str):
            self._emit_reasoning(reasoning, parts)
        if content and isinstance(content, str):
            self._emit_content(content, parts)
        finish = choice.get("finish_reason")
        if finish and isinstance(finish, str):
            self.started = True
            self.finish_reason = finish
            self._emit_held_back(parts)

    def _pop_logprobs(self) -> Logprobs:
        """Return the logprobs that have come since the last part: they belong to the next."""
        if not self._logprobs:
            return ()
        logprobs, self._logprobs = self._logprobs, []
        return logprobs

    def _emit_reasoning(self, text: str, parts: list[Part]) -> None:
        self.started = True
        self.outputs += 1
        if self._splitter is not None:
            self._splitter.reasoning_is_separate()
        text = self._reasoning.feed(text)
        if text:
            parts.append(Reasoning(text, self._pop_logprobs()))

    def _emit_content(self, text: str, parts: list[Part]) -> None:
        self.started = True
        self.outputs += 1
        text = self._content.feed(text)
        if self._splitter is not None:
            thought, text = self._splitter.feed(text)
            if thought:
                parts.append(Reasoning(thought, self._pop_logprobs()))
        if text:
            parts.append(Content(text, self._pop_logprobs()))

    def _emit_held_back(self, parts: list[Part]) -> None:
        """Emit what was held back, and the tool calls, which are complete now."""
        reasoning = self._reasoning.flush()
        content = self._content.flush()
        if self._splitter is not None:
            thought, text = self._splitter.feed(content)
            held_thought, held_text = self._splitter.flush()
            reasoning, content = reasoning + thought + held_thought, text + held_text
        if reasoning:
            parts.append(Reasoning(reasoning, self._pop_logprobs()))
        if content:
            parts.append(Content(content, self._pop_logprobs()))
        if self._calls:
            try:
                parts += self._calls.finish_cut() if self.finish_reason == CUT else self._calls.finish()
            except ValueError as e:
                self._fail(parts, HTTPStatus.INTERNAL_SERVER_ERROR, str(e))

    def _end(self, parts: list[Part]) -> None:
        self._emit_held_back(parts)
        if not self._ended:
            self._ended = True
            self.started = True
            parts.append(End(self.finish_reason, self._usage, self._stats))

    def _fail(self, parts: list[Part], status: HTTPStatus, message: str) -> None:
        self._fail_with(parts, errors.LMStudioError(status, message))

    def _fail_with(self, parts: list[Part], error: errors.LMStudioError) -> None:
        self._ended = True
        self.started = True
        parts.append(Failure(error))


def _logprobs(logprobs: object) -> list[Mapping[str, Any]]:
    entries = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def read_whole(answer: Mapping[str, Any], *, think_tags: ThinkTags | None = DEFAULT_THINK_TAGS) -> list[Part]:
    """Read one `chat.completion` or `text_completion` object."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return [Failure(errors.LMStudioError(HTTPStatus.BAD_GATEWAY, "LM Studio's answer has no choices"))]
    # A whole message is read as one delta; its tool calls have no index, which a delta's need.
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {"content": choice.get("text")}
    if think_tags is not None:
        always = think_tags.always or think_tags.begin_in_thoughts(_text(delta, "content"))
        think_tags = replace(think_tags, always=always)
    reader = AnswerReader(max_event_size=0, think_tags=think_tags)
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        delta["tool_calls"] = [{**call, "index": i} for i, call in enumerate(calls) if isinstance(call, dict)]
    parts: list[Part] = []
    finish = choice.get("finish_reason") or DEFAULT_FINISH
    reader._read_chunk({**answer, "choices": [{**choice, "delta": delta, "finish_reason": finish}]}, parts)
    if not any(isinstance(part, Failure) for part in parts):
        reader._end(parts)
    return parts
