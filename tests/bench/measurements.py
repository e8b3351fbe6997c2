"""The measurements: each takes all variants in turns and returns rows of the table."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from tests.bench.client import PACED, Ask, Dialect, Run, Stream, Variant, run
from tests.bench.processes import resident_mb, settle
from tests.bench.variants import Recipe, StandIn, proxy

Key = tuple[str, int | None]
T = TypeVar("T")

# So that two runs have the same orders.
SEED = 12
# Orders of a round that are looked at, to take the one that is most balanced with those before.
CANDIDATES = 300
# One answer is soon over: so many are timed each turn.
ANSWERS_PER_TURN = 5
MEMORY_CONNECTIONS = 8
WARM_CHATS = 20
# Memory is looked at after this share of the requests, too: it should not have grown since.
EARLY_SHARE = 5


@dataclass(frozen=True)
class Settings:
    """How much is measured; see the command line."""

    rounds: int
    samples: int
    streams: int
    tokens: int
    paced_tokens: int
    rate: int
    requests: int
    starts: int


@dataclass(frozen=True)
class Row:
    """A line of the table: a number for each variant, NaN where it has none."""

    title: str
    values: dict[Key, float]


def balanced_orders(count: int, rounds: int) -> Iterator[tuple[int, ...]]:
    """Yield an order of `count` things for each round, in which none is favoured by its neighbours.

    Each comes after each other about equally often, also from one round to the next, and about equally often in each
    place. A rotation does not do: there each nearly always comes after the same one, and has that one's leftovers, or
    the pause that looking into its answers took, always on its own account.
    """
    generator = random.Random(SEED)
    neighbours: Counter[tuple[int, int]] = Counter()
    places: Counter[tuple[int, int]] = Counter()
    last = -1

    def imbalance(order: tuple[int, ...]) -> tuple[bool, int]:
        after = sum(2 * neighbours[pair] + 1 for pair in pairwise((last, *order)))
        return order[0] == last, after + sum(2 * places[place] + 1 for place in enumerate(order))

    for _ in range(rounds):
        order = min((tuple(generator.sample(range(count), count)) for _ in range(CANDIDATES)), key=imbalance)
        neighbours.update(pairwise((last, *order)))
        places.update(enumerate(order))
        last = order[-1]
        yield order


@dataclass
class Bench:
    """The measurements of all variants; they count the answers that were not whole."""

    variants: list[Variant]
    recipes: list[Recipe]
    server: StandIn
    settings: Settings
    folder: Path
    answers: int = 0
    bad: Counter[str] = field(default_factory=Counter)

    def turns(self, things: Sequence[T], rounds: int) -> Iterator[T]:
        """Give each thing once a round in balanced orders, when all processes have nothing left to do."""
        pids = [self.server.pid, *{pid for variant in self.variants for pid in variant.pids}]
        for order in balanced_orders(len(things), rounds):
            for number in order:
                settle(pids)
                yield things[number]

    def checked(self, result: Run) -> Run:
        """Look into the answers of a run."""
        self.answers += len(result.streams)
        result.bad = result.problems()
        self.bad.update(result.bad)
        return result

    def medians(self, title: str, values: dict[Key, list[float]]) -> Row:
        """Make a row of the median of each variant's numbers."""
        return Row(title, {key: statistics.median(found) if found else math.nan for key, found in values.items()})

    # Tokens at full speed

    def stream(self) -> list[Row]:
        """Measure one stream at full speed."""
        return self.throughput("1 stream", 1, ANSWERS_PER_TURN)

    def streams(self) -> list[Row]:
        """Measure many streams at full speed."""
        return self.throughput(f"{self.settings.streams} streams", self.settings.streams, 1)

    def throughput(self, title: str, count: int, repeats: int) -> list[Row]:
        """Measure tokens per second and processor time per token, with the requests and their connections."""
        tokens = self.settings.tokens
        speeds: dict[Key, list[float]] = defaultdict(list)
        costs: dict[Key, list[float]] = defaultdict(list)
        for variant in self.variants:
            self.checked(run(variant, variant.dialect.chat("hi", tokens), count))
        for variant in self.turns(self.variants, self.settings.rounds):
            for _ in range(repeats):
                result = self.checked(run(variant, variant.dialect.chat("hi", tokens), count))
                speeds[variant.key].append(count * tokens / result.elapsed * 1e9)
                costs[variant.key].append(result.processor_seconds / (count * tokens) * 1e6)
        return [
            self.medians(f"tokens/s, {title}", speeds),
            self.medians(f"CPU per token at full speed, {title}, us", costs),
        ]

    # Short answers

    def first(self) -> list[Row]:
        """Measure the time to the first token of a short answer."""
        return self.short("first token", lambda dialect: dialect.chat("hi", 1), lambda stream: stream.first_token)

    def tags(self) -> list[Row]:
        """Measure the list of models."""
        return self.short("GET /api/tags", lambda dialect: dialect.tags(), lambda stream: stream.whole)

    def version(self) -> list[Row]:
        """Measure what is answered without LM Studio."""
        return self.short("GET /api/version", lambda dialect: dialect.version(), lambda stream: stream.whole)

    def short(self, title: str, ask: Callable[[type[Dialect]], Ask], took: Callable[[Stream], int]) -> list[Row]:
        """Measure how long a short answer takes, one at a time, on kept connections and on new ones."""
        kept: dict[Key, list[float]] = defaultdict(list)
        new: dict[Key, list[float]] = defaultdict(list)
        with ExitStack() as stack:
            ways = []
            for variant in self.variants:
                ways.append((variant, kept[variant.key], [stack.enter_context(variant.connect())]))
                ways.append((variant, new[variant.key], []))
            for variant, _, socks in ways:
                self.checked(run(variant, ask(variant.dialect), socks=socks))
            for variant, times, socks in self.turns(ways, self.settings.rounds * self.settings.samples):
                result = self.checked(run(variant, ask(variant.dialect), socks=socks))
                if not result.bad:
                    times.append(took(result.streams[0]) / 1e6)
        return [
            self.medians(f"{title}, kept connection, p50 ms", kept),
            self.medians(f"{title}, new connection, p50 ms", new),
        ]

    # Tokens at a model's pace

    def paced(self) -> list[Row]:
        """Measure tokens that come at a pace: what each costs, how evenly they come, how long they are on their way."""
        settings = self.settings
        costs: dict[Key, list[float]] = defaultdict(list)
        gaps: dict[Key, list[float]] = defaultdict(list)
        latencies: dict[Key, list[float]] = defaultdict(list)
        for variant in self.turns(self.variants, settings.rounds):
            ask = variant.dialect.chat(PACED, settings.paced_tokens)
            result = self.checked(run(variant, ask, settings.streams))
            costs[variant.key].append(result.steady_cost())
            gaps[variant.key] += result.gaps()
            latencies[variant.key] += result.latencies()
        pace = f"{settings.streams} x {settings.rate} tokens/s"
        rows = [self.medians(f"CPU per token at {pace}, us", costs)]
        for what, values in (("gap between tokens", gaps), ("from LM Studio to the client", latencies)):
            for percent in (50, 99):
                row = {key: percentile(found, percent) for key, found in values.items()}
                rows.append(Row(f"{what} at {pace}, p{percent} ms", row))
        return rows

    # What it takes besides

    def memory(self) -> list[Row]:
        """Measure the memory of fresh proxies after so many short chats."""
        early, late = self.settings.requests // EARLY_SHARE, self.settings.requests
        marks: dict[int, dict[Key, float]] = {early: {}, late: {}}
        for recipe in self.recipes:
            with ExitStack() as stack:
                variant = stack.enter_context(proxy(recipe, self.folder))
                assert variant.pid is not None
                socks = [stack.enter_context(variant.connect()) for _ in range(MEMORY_CONNECTIONS)]
                done = 0
                for mark, values in marks.items():
                    while done < mark:
                        count = min(MEMORY_CONNECTIONS, mark - done)
                        self.checked(run(variant, variant.dialect.chat("hi", 1), count, socks))
                        done += count
                    settle([variant.pid])
                    values[variant.key] = resident_mb(variant.pid)
        return [Row(f"RSS after {mark:,} requests, MB", values) for mark, values in marks.items()]

    def upstream(self) -> list[Row]:
        """Count the requests that LM Studio gets for each chat with a model that is loaded."""
        counts: dict[Key, float] = {}
        for variant in self.variants:
            ask = variant.dialect.chat("hi", 1)
            with variant.connect() as sock:
                self.checked(run(variant, ask, socks=[sock]))
                self.server.requests()
                for _ in range(WARM_CHATS):
                    self.checked(run(variant, ask, socks=[sock]))
                counts[variant.key] = self.server.requests() / WARM_CHATS
        return [Row("upstream requests per warm chat", counts)]

    def start(self) -> list[Row]:
        """Measure the time from the start of a proxy to its first answer."""
        times: dict[Key, list[float]] = defaultdict(list)
        for recipe in self.turns(self.recipes, self.settings.starts):
            with proxy(recipe, self.folder) as variant:
                times[variant.key].append(variant.start_seconds)
        return [self.medians("start to first answer, s", times)]


# What `--rows` chooses from, in the order of the table.
MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "stream": Bench.stream,
    "streams": Bench.streams,
    "first": Bench.first,
    "tags": Bench.tags,
    "version": Bench.version,
    "paced": Bench.paced,
    "memory": Bench.memory,
    "upstream": Bench.upstream,
    "start": Bench.start,
}


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent of the values do not exceed; NaN for none."""
    return sorted(values)[len(values) * percent // 100] if values else math.nan
