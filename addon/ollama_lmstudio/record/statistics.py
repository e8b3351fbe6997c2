"""What has been asked so far, in memory that does not grow with the number of requests.

Of every model, and of every key that has a name, there are counters, and a histogram of what a median is told of. Its
buckets are 1 % wide, so that a median or percentile is true to half a percent, over all requests and not over a sample
of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .record import LEFT, Numbers, Record

# The last parts of the paths that ask a model for something, in every API.
ENDPOINTS = frozenset(
    {"chat", "completions", "embed", "embeddings", "generate", "messages", "responses", "systemone"},
)
# Clients may name any model. Those over this number are counted together.
MAX_MODELS = 200
# The names of keys may change while the process runs.
MAX_KEYS = 200
OTHERS = "(others)"

_BUCKET = math.log(1.01)
_FIRST_ERROR = 400


@dataclass(slots=True)
class Histogram:
    """Positive values, counted in buckets of a hundredth of their size: some thousand buckets at most."""

    count: int = 0
    low: float = 0.0
    high: float = 0.0
    _buckets: dict[int, int] = field(default_factory=dict)

    def add(self, value: float) -> None:
        """Count a value; one that is not positive was not measured."""
        if value <= 0:
            return
        bucket = math.floor(math.log(value) / _BUCKET)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.low = min(self.low, value) if self.count else value
        self.high = max(self.high, value)
        self.count += 1

    def quantile(self, share: float) -> float:
        """Return the value that this share of all values does not exceed (nearest rank); 0 if there are none."""
        rank, seen = math.ceil(share * self.count), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                # The middle of the bucket, but never outside of what was seen: a single value is told as it is.
                return min(max(math.exp((bucket + 0.5) * _BUCKET), self.low), self.high)
        return 0.0


@dataclass(slots=True)
class ModelStatistics:
    """What has been asked of one model, or by one key. `first_token` is in ns, `speed` in tokens per second."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    first_token: Histogram = field(default_factory=Histogram)
    speed: Histogram = field(default_factory=Histogram)


class Statistics:
    """Count the exchanges that have ended, by LM Studio's name of the model, or the client's where there is none.

    They begin with the process, and again when the script is loaded anew: `since` is in seconds since the epoch.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self._models: dict[str, ModelStatistics] = {}
        self._keys: dict[str, ModelStatistics] = {}

    @property
    def models(self) -> Mapping[str, ModelStatistics]:
        """What is known of each model, in the order in which they were first asked."""
        return self._models

    @property
    def keys(self) -> Mapping[str, ModelStatistics]:
        """What each key that has a name was used for, in the order in which they were first used."""
        return self._keys

    @property
    def requests(self) -> int:
        """How often any model was asked."""
        return sum(model.requests for model in self._models.values())

    def add(self, record: Record, status: int, *, is_recorded: bool = False) -> None:
        """Count an exchange, if it asked a model; `status` is what the client got, 0 for nothing.

        The numbers of an answer that is a recorded one are those of another time.
        """
        name = record.upstream_model or record.model
        if not name or record.kind == "own" or record.path.rpartition("/")[2] not in ENDPOINTS:
            return
        counted = [_of(self._models, name, MAX_MODELS)]
        if record.key:
            counted.append(_of(self._keys, record.key, MAX_KEYS))
        is_error = not record.error.startswith(LEFT) and (record.error or not 0 < status < _FIRST_ERROR)
        for statistics in counted:
            statistics.requests += 1
            statistics.errors += bool(is_error)
            if record.numbers is not None and not is_recorded:
                _add_numbers(statistics, record.numbers)


def _of(all_of_them: dict[str, ModelStatistics], name: str, limit: int) -> ModelStatistics:
    """Return the statistics of a name; of one over the limit, those of all others."""
    if name not in all_of_them and len(all_of_them) >= limit:
        name = OTHERS
    statistics = all_of_them.get(name)
    if statistics is None:
        statistics = all_of_them[name] = ModelStatistics()
    return statistics


def _add_numbers(model: ModelStatistics, numbers: Numbers) -> None:
    model.prompt_tokens += numbers.prompt_tokens
    model.answer_tokens += numbers.answer_tokens
    model.first_token.add(numbers.first_token)
    model.speed.add(numbers.tokens_per_second)
