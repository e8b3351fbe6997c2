"""What a model says: scripts and the default answer, turned into the events of one generation.

A script is a list of steps. Each text given to `content` or `reasoning` is a token, and a delta on the wire.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .models import SimModel
from .wire import JsonObject, stringify

TOKEN = re.compile(r" ?\w+| ?[^\w\s]+|\s+")
# What the chat template adds to each message.
TEMPLATE_TOKENS = 4

TextKind = Literal["content", "reasoning"]
Finish = Literal["stop", "length", "tool_calls"]
How = Literal["fin", "rst"]


@dataclass(frozen=True)
class TextStep:
    """Content, one token each."""

    kind: TextKind
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ToolCallStep:
    """Call a tool. `fragments` are the pieces its arguments arrive in, all of them at once if `whole`.

    `index` None is the next free one. `id_per_fragment` is the model that names every fragment anew.
    """

    name: str
    arguments: str
    fragments: tuple[str, ...]
    id: str | None = None
    index: int | None = None
    whole: bool = False
    id_per_fragment: bool = False


@dataclass(frozen=True)
class SleepStep:
    """A pause, in seconds."""

    seconds: float


@dataclass(frozen=True)
class WaitStep:
    """A pause until something has happened."""

    event: threading.Event


@dataclass(frozen=True)
class ErrorStep:
    """Fail: an error event in a stream, a status and an error otherwise."""

    message: str
    status: int = 400


@dataclass(frozen=True)
class HangupStep:
    """Drop the connection."""

    how: How


@dataclass(frozen=True)
class RawStep:
    """Write bytes into the stream as they are."""

    data: bytes


@dataclass(frozen=True)
class EndStep:
    """End with this finish reason, whatever was said."""

    finish_reason: Finish


Step = TextStep | ToolCallStep | SleepStep | WaitStep | ErrorStep | HangupStep | RawStep | EndStep


def content(*texts: str) -> Step:
    """Return a step of content, one token each."""
    return TextStep("content", texts)


def reasoning(*texts: str) -> Step:
    """Return a step of reasoning, one token each."""
    return TextStep("reasoning", texts)


def words(text: str) -> Step:
    """Return a step of content: a text, cut into tokens."""
    return TextStep("content", tuple(tokenize(text)))


def tool_call(
    name: str,
    arguments: JsonObject | str,
    id: str | None = None,  # noqa: A002
    *,
    fragments: int | Sequence[str] = 4,
    index: int | None = None,
    whole: bool = False,
    id_per_fragment: bool = False,
) -> Step:
    """Call a tool with arguments, given as JSON text or what becomes it.

    `fragments` is the number of pieces or the pieces; with `whole` name and arguments come in one delta.
    """
    text = arguments if isinstance(arguments, str) else stringify(arguments).decode()
    if isinstance(fragments, int):
        size = -(-len(text) // fragments) or 1
        fragments = [text[start : start + size] for start in range(0, len(text), size)]
    return ToolCallStep(name, text, tuple(fragments), id, index, whole, id_per_fragment)


def sleep(seconds: float) -> Step:
    """Return a step that pauses, in seconds."""
    return SleepStep(seconds)


def wait(event: threading.Event) -> Step:
    """Return a step that pauses until the event is set, by any thread."""
    return WaitStep(event)


def error(message: str, status: int = 400) -> Step:
    """Fail with LM Studio's error of that message."""
    return ErrorStep(message, status)


def close() -> Step:
    """Close the connection in the middle of the answer."""
    return HangupStep("fin")


def reset() -> Step:
    """Reset the connection in the middle of the answer."""
    return HangupStep("rst")


def raw(data: bytes) -> Step:
    """Write these bytes into a stream."""
    return RawStep(data)


def end(finish_reason: Finish) -> Step:
    """End with a finish reason of choice."""
    return EndStep(finish_reason)


@dataclass
class Prompt:
    """One request, as far as an answer depends on it. `body` is the JSON of the request."""

    body: JsonObject
    text: str = ""
    last_user: str = ""
    tool_results: list[str] = field(default_factory=list)
    messages: int = 1
    images: int = 0
    tools: list[JsonObject] = field(default_factory=list)
    tool_choice: str = "auto"
    schema: JsonObject | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    thinks: bool = True
    top_logprobs: int | None = None

    @property
    def tokens(self) -> int:
        """Count the tokens of the prompt with what the template adds."""
        tools = count_tokens(json.dumps(self.tools)) if self.tools else 0
        return count_tokens(self.text) + TEMPLATE_TOKENS * self.messages + tools


def tokenize(text: str) -> list[str]:
    """Cut a text into word-like tokens; joined they are the text."""
    return TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """Count the word-like tokens of a text."""
    return len(TOKEN.findall(text))


# Events


@dataclass(frozen=True)
class Delta:
    """One token of text."""

    kind: TextKind
    text: str


@dataclass(frozen=True)
class ToolDelta:
    """A piece of a tool call. The first piece of a call has its name."""

    index: int
    id: str | None
    name: str | None
    arguments: str


Event = Delta | ToolDelta | SleepStep | WaitStep | ErrorStep | HangupStep | RawStep


class Generation:
    """One answer: the events of its steps, with the limits of the request applied.

    Iterate it once; counts and reasons are right when the iteration has ended.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        prompt: Prompt,
        *,
        new_call_id: Callable[[], str],
        room: int | None = None,
    ) -> None:
        self._steps = steps
        self._stop = prompt.stop
        self._limit = prompt.max_tokens if prompt.max_tokens is not None and prompt.max_tokens >= 0 else None
        self._room = room
        self._new_call_id = new_call_id
        self._held = ""
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.calls: dict[int, list[str]] = {}
        self.finish_reason: Finish = "stop"
        self.stop_reason = "eosFound"

    def __iter__(self) -> Iterator[Event]:
        for step in self._steps:
            if isinstance(step, EndStep):
                self.finish_reason = step.finish_reason
                return
            if isinstance(step, TextStep):
                yield from self._say(step)
            elif isinstance(step, ToolCallStep):
                yield from self._call(step)
            elif isinstance(step, SleepStep | WaitStep | ErrorStep | HangupStep | RawStep):
                yield step
            else:
                raise TypeError(f"not a step: {step!r}")
            if self.stop_reason not in ("eosFound", "toolCalls"):
                break
        if self._held and self.stop_reason != "stopStringFound":
            yield Delta("content", self._held)

    @property
    def ended_by_model(self) -> bool:
        """Whether the model said its end-of-sequence token, which streams as an empty delta."""
        return self.stop_reason == "eosFound" and self.finish_reason == "stop"

    def _spend(self) -> bool:
        """Count a token; False if there is no room for it."""
        for limit, reason in (
            (self._limit, "maxPredictedTokensReached"),
            (self._room, "contextLengthReached"),
        ):
            if limit is not None and self.completion_tokens >= limit:
                self.finish_reason, self.stop_reason = "length", reason
                return False
        self.completion_tokens += 1
        return True

    def _say(self, step: TextStep) -> Iterator[Event]:
        for text in step.texts:
            if not self._spend():
                return
            if step.kind == "reasoning":
                self.reasoning_tokens += 1
                yield Delta("reasoning", text)
                continue
            if self._stop:
                text = self._until_stop(text)
            if text or not self._stop:
                yield Delta("content", text)
            if self.stop_reason == "stopStringFound":
                return

    def _until_stop(self, text: str) -> str:
        """Return what is sure to be no part of a stop string."""
        text = self._held + text
        found = [position for stop in self._stop if (position := text.find(stop)) >= 0]
        if found:
            self.stop_reason, self._held = "stopStringFound", ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _call(self, step: ToolCallStep) -> Iterator[Event]:
        index = len(self.calls) if step.index is None else step.index
        call_id = self._new_call_id() if step.id is None else step.id
        if index in self.calls:
            # The same index again goes on with the call that has it.
            call = self.calls[index]
        else:
            call = self.calls[index] = [call_id, step.name, ""]
            yield ToolDelta(index, call_id, step.name, step.arguments if step.whole else "")
        self.finish_reason, self.stop_reason = "tool_calls", "toolCalls"
        call[2] += step.arguments
        for fragment in step.fragments:
            if not self._spend():
                return
            if not step.whole:
                yield ToolDelta(index, self._new_call_id() if step.id_per_fragment else None, None, fragment)


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


# The default answer

Generator = Callable[[Prompt, SimModel], Iterable[Step]]


def default_answer(prompt: Prompt, model: SimModel, preamble: str = "") -> list[Step]:
    """Answer sensibly and always alike: echo the prompt, call a fitting tool, or fill in the schema."""
    if prompt.schema is not None:
        return [words(stringify(example(prompt.schema, prompt.last_user)).decode())]
    if prompt.tool_results:
        return [words(f"{preamble}The tool answered: {' '.join(prompt.tool_results)}")]
    steps: list[Step] = []
    if prompt.thinks and model.reasoning is not None:
        steps.append(TextStep("reasoning", tuple(tokenize(f"The user says: {prompt.last_user}\nI will answer that."))))
    if prompt.tools and model.tools and prompt.tool_choice != "none":
        tool = fitting_tool(prompt.tools, prompt.last_user)
        schema = tool.get("parameters") or {}
        steps.append(tool_call(tool["name"], example(schema, prompt.last_user), fragments=3))
        return steps
    seen = f" I see {prompt.images} image{'s' if prompt.images > 1 else ''}." if prompt.images else ""
    steps.append(words(f"{preamble}You said: {prompt.last_user}{seen}"))
    return steps


def fixed_answer(count: int) -> Generator:
    """Return a generator of answers that have this many tokens."""
    steps = [TextStep("content", (" token",) * count)]
    return lambda prompt, model: steps


def fitting_tool(tools: list[JsonObject], request: str) -> JsonObject:
    """Return the function whose name and description share most words with the request."""
    wanted = set(re.findall(r"[a-z]{3,}", request.lower()))

    def shared(function: JsonObject) -> int:
        described = f"{function['name']} {function.get('description', '')}".lower()
        return len(wanted & set(re.findall(r"[a-z]{3,}", described)))

    return max((tool["function"] for tool in tools), key=shared)


def example(schema: Any, request: str = "", root: Any = None) -> Any:
    """Return a value that satisfies a JSON schema; strings are words of the request."""
    root = schema if root is None else root
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        target = root
        for part in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
            target = target.get(part, {}) if part else target
        return example(target, request, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        named = (value for value in schema["enum"] if isinstance(value, str) and value.lower() in request.lower())
        return next(named, schema["enum"][0])
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            return example(schema[choice][0], request, root)
    if schema.get("allOf"):
        merged = {key: value for part in schema["allOf"] for key, value in part.items()}
        return example(merged, request, root)
    kind = schema.get("type", "object" if "properties" in schema else None)
    kind = kind[0] if isinstance(kind, list) else kind
    match kind:
        case "object" | None:
            properties = schema.get("properties") or {}
            return {name: example(part, request, root) for name, part in properties.items()}
        case "array":
            size = max(1, schema.get("minItems", 1))
            return [example(schema.get("items") or {"type": "string"}, request, root)] * size
        case "integer" | "number":
            numbers = re.findall(r"\d+", request)
            value = int(numbers[0]) if numbers else 1
            value = max(value, schema.get("minimum", value))
            return min(value, schema.get("maximum", value))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            text = subject(request).ljust(schema.get("minLength", 0), "x")
            return text[: schema.get("maxLength", len(text))]


def subject(request: str) -> str:
    """Return what a request is about: its last capitalised word but the first, else its last word."""
    found: list[str] = re.findall(r"\w+", request)
    named = [word for word in found[1:] if word[:1].isupper()]
    return (named or found or ["text"])[-1]


# Embeddings

# How many of a vector's numbers each word moves.
WORD_SPREAD = 16


def embedding(text: str, model: SimModel, context_length: int) -> list[float]:
    """Return the vector of a text: the same for the same words, near for texts that share words.

    Words past the context length are cut silently, as LM Studio does.
    """
    kept = text.split()[:context_length]
    noise = random.Random(" ".join(kept))
    vector = [noise.uniform(-0.05, 0.05) for _ in range(model.dimensions)]
    for word in kept:
        place = random.Random(word.lower().strip(".,;:!?\"'"))
        for _ in range(WORD_SPREAD):
            vector[place.randrange(model.dimensions)] += place.choice((-1.0, 1.0))
    length = sum(number * number for number in vector) ** 0.5
    scale = length if model.unit_norm else 1.0
    return [round(number / scale, 9) for number in vector]
