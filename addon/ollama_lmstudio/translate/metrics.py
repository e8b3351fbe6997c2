"""Counts and durations of an answer, of LM Studio's usage and stats and of the addon's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..ollama import chunks

NANOSECONDS = 1e9
# Of a model that generates: 20,000 tokens a second are more than any gives to one answer.
LEAST_NS_PER_TOKEN = 50_000
# The end counts as one: between it and the only token of an answer, the model has found out that there are no more.
MIN_TOKENS = 2


@dataclass(slots=True)
class Timings:
    """When things happened, in ns of the monotonic clock; 0 is not yet. `load` is a duration in ns.

    `first` is when the first output of the model came, `finished` when its end did.
    """

    started_ns: int
    forwarded: int = 0
    load: int = 0
    first: int = 0
    finished: int = 0


def generation_time(timings: Timings, usage: Mapping[str, Any], stats: Mapping[str, Any]) -> int:
    """Return how long the model has generated, in ns: as `stats` say, else from its first output to its end.

    0 is for an answer that came at once, which says nothing about the model's speed: no model is as fast as events are
    read that have come together.
    """
    count, speed = _number(usage.get("completion_tokens")), _number(stats.get("tokens_per_second"))
    seconds = _number(stats.get("generation_time")) or (count / speed if count and speed else 0)
    if seconds:
        return max(int(seconds * NANOSECONDS), 1)
    duration = timings.finished - timings.first if timings.first else 0
    return duration if duration >= max(count, MIN_TOKENS) * LEAST_NS_PER_TOKEN else 0


def metrics(
    timings: Timings, ended: int, usage: Mapping[str, Any], stats: Mapping[str, Any], generation: int
) -> chunks.Metrics:
    """Return LM Studio's counts, and the durations of its `stats`, or where it sends none of our clock, in ns.

    What was not measured is 0, which Ollama's writer leaves out. What was takes 1 ns at least, so that it is not.
    Without a `generation_time` any part of the call may have been generation: the whole of it is an upper bound.
    """
    called = timings.forwarded or timings.started_ns
    first = timings.first or ended
    seconds_to_first = _number(stats.get("time_to_first_token")) or _number(stats.get("time_to_first_token_seconds"))
    load = _number(stats.get("model_load_time_seconds"))
    return chunks.Metrics(
        total_duration=max(ended - timings.started_ns, 1),
        load_duration=max(int(load * NANOSECONDS) or timings.load, 1),
        prompt_eval_count=int(_number(usage.get("prompt_tokens"))),
        prompt_eval_cached_count=_cached_count(usage),
        prompt_eval_duration=int(seconds_to_first * NANOSECONDS) or max(first - called, 1),
        eval_count=int(_number(usage.get("completion_tokens"))),
        eval_duration=generation or max((timings.finished or ended) - called if timings.first else 0, 1),
    )


def _cached_count(usage: Mapping[str, Any]) -> int | None:
    """Return how many tokens of the prompt were in the cache; None where LM Studio does not count them."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return cached if isinstance(cached, int) and not isinstance(cached, bool) and cached >= 0 else None


def _number(value: object) -> float:
    """Return a number that is neither negative nor infinite nor NaN, else 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return value if 0 <= value < float("inf") else 0
