"""The numbers of an answer as lines of text, and what they say about it. What is not known is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..record.record import MEASURABLE, Numbers
from ..translate import context_advice
from ..units import plural
from . import jsontext
from .quantities import duration, speed
from .snapshot import Snapshot
from .summary import CUT_OFF

# From this part of the context on it is said that it ends soon.
NEARLY_FULL = 0.9
# Engines leave the last token of the context unused, or do not.
SPARE_TOKENS = 1
# What is shorter is no pause, but how the operating system hands out what came together.
SHORTEST_PAUSE = 1_000_000
# Where LM Studio is only looked at once a second, the parts of a time are known to the second.
ROUGH = 1_000_000_000
# What is shorter is not known at all then.
LEAST_ROUGH = 2 * ROUGH
# A call with a longer body is not parsed for what it says about its answer: that would hold up the event loop.
PARSED_BYTES = 1_000_000

# What the APIs of LM Studio call the most tokens that an answer may have.
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

CUTS_SILENTLY = "past its end, LM Studio cuts the middle of a conversation silently"


def _tokens(count: int) -> str:
    return f"{count:,} {plural(count, 'token')}"


def _about(nanoseconds: int) -> str:
    return "about " + duration(round(nanoseconds / ROUGH) * ROUGH).replace(".0 s", " s")


def _prompt(numbers: Numbers) -> str:
    cached = numbers.prompt_tokens - numbers.read_tokens if numbers.read_tokens else 0
    cache = f", {cached:,} of them from LM Studio's cache" if cached > 0 else ""
    return f"{_tokens(numbers.prompt_tokens)}{cache}" if numbers.prompt_tokens else ""


def _load(numbers: Numbers) -> str:
    if numbers.is_load_rough and numbers.load >= ROUGH:
        return _about(numbers.load)
    return duration(numbers.load) if numbers.load else ""


def _reading(numbers: Numbers) -> str:
    """Return how long the prompt was read, and how fast: of tokens from the cache that says nothing."""
    if not numbers.first_token or numbers.reading < MEASURABLE:
        return ""
    if numbers.is_load_rough:
        return _about(numbers.reading) if numbers.reading > LEAST_ROUGH else ""
    tokens = numbers.read_tokens or numbers.prompt_tokens
    per_second = f"{tokens / (numbers.reading / ROUGH):,.0f} tok/s" if tokens > 1 else ""
    if per_second and not numbers.read_tokens:
        # Some of the prompt may have been in the cache.
        per_second = f"at most {per_second}"
    return ", ".join(part for part in (duration(numbers.reading), per_second) if part)


def _pause(numbers: Numbers) -> str:
    if numbers.pause < SHORTEST_PAUSE:
        return ""
    events = f"after {numbers.pause_events:,} {plural(numbers.pause_events, 'event')}"
    return f"{duration(numbers.pause)}, {events}, {duration(numbers.pause_after)} from the request"


# Each number's name and text; the text of one that is not known is empty, and it is left out.
NUMBERS: Sequence[tuple[str, Callable[[Numbers], str]]] = (
    ("prompt", _prompt),
    ("answer", lambda numbers: _tokens(numbers.answer_tokens) if numbers.answer_tokens else ""),
    ("speed", speed),
    ("load", _load),
    ("reading the prompt", _reading),
    ("first token", lambda numbers: duration(numbers.first_token) if numbers.first_token else ""),
    ("longest pause", _pause),
    ("total", lambda numbers: duration(numbers.total) if numbers.total else ""),
    ("done reason", lambda numbers: numbers.done_reason),
)


def lines(numbers: Numbers, snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return the name and text of each number that is known, and what is remarkable about them."""
    length = snapshot.record.context_length
    used = numbers.prompt_tokens + numbers.answer_tokens
    # The last list of models may be of before the model was loaded anew.
    length = length if numbers.answer_tokens and used <= length else 0
    is_nearly_full = used >= NEARLY_FULL * length > 0
    known = [
        ("context", _context(used, length)),
        ("warning", CUTS_SILENTLY if is_nearly_full else ""),
        ("cut", _cut(numbers, snapshot)),
    ]
    known += [(name, write(numbers)) for name, write in NUMBERS]
    if numbers.done_reason in CUT_OFF:
        why = _why_cut_off(numbers, _call(snapshot), is_full=_is_full(used, length))
        known[-1] = "done reason", f"{numbers.done_reason}: {why}"
    return [(name, text) for name, text in known if text]


def _is_full(used: int, length: int) -> bool:
    return 0 < length <= used + SPARE_TOKENS


def _context(used: int, length: int) -> str:
    if not length:
        return ""
    full = ", it is full" if _is_full(used, length) else ", it is nearly full" if used >= NEARLY_FULL * length else ""
    return f"{used:,} of {length:,} tokens{full}"


def _cut(numbers: Numbers, snapshot: Snapshot) -> str:
    """Return that LM Studio has cut the prompt, where it must have."""
    read, body = numbers.prompt_tokens, snapshot.body
    if not read or snapshot.record.kind != "call" or len(body) > PARSED_BYTES:
        return ""
    words = context_advice.words_if_cut(body, read)
    return f"of {words:,} words LM Studio has read {_tokens(read)}: it has cut the conversation" if words else ""


def _call(snapshot: Snapshot) -> Mapping[str, Any]:
    if not snapshot.called or len(snapshot.body) > PARSED_BYTES:
        return {}
    value = jsontext.read(snapshot.body).value
    return value if isinstance(value, dict) else {}


def _why_cut_off(numbers: Numbers, call: Mapping[str, Any], *, is_full: bool) -> str:
    if numbers.answer_tokens and numbers.answer_tokens in [call.get(name) for name in LIMITS]:
        return f"cut off at the request's limit of {_tokens(numbers.answer_tokens)}"
    return "cut off, since the context is full" if is_full else "cut off"
