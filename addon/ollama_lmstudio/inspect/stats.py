"""The statistics of each model, and of each key that has a name, as a table for people and as CSV."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..record.statistics import ModelStatistics, Statistics
from ..services import Services
from ..units import plural, rate
from . import jsontext, table
from .quantities import duration

MEDIAN, P95 = 0.5, 0.95
NAME_CHARACTERS = 60
LEGEND = "first token and speed are medians, 95 % came sooner; prompt and answer are tokens"

_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, that in CSV, and what of a model or a key stands in it. `csv` is a number, or empty."""

    heading: str
    csv_heading: str
    text: Callable[[ModelStatistics], str]
    csv: Callable[[ModelStatistics], str]


def _count(heading: str, csv_heading: str, count: Callable[[ModelStatistics], int]) -> Column:
    return Column(heading, csv_heading, lambda model: f"{count(model):,}", lambda model: str(count(model)))


def _first_token(heading: str, csv_heading: str, share: float) -> Column:
    def text(model: ModelStatistics) -> str:
        value = model.first_token.quantile(share)
        return duration(round(value)) if value else "-"

    def in_ms(model: ModelStatistics) -> str:
        value = model.first_token.quantile(share)
        return _digits(value / _NS_PER_MS)

    return Column(heading, csv_heading, text, in_ms)


def _digits(value: float) -> str:
    """Return a number with as many digits as are true."""
    return f"{float(f'{value:.3g}'):g}" if value else ""


def _speed(model: ModelStatistics) -> str:
    value = model.speed.quantile(MEDIAN)
    return rate(value) if value else "-"


COLUMNS = (
    _count("asked", "requests", lambda model: model.requests),
    _count("failed", "errors", lambda model: model.errors),
    _first_token("first", "first_token_median_ms", MEDIAN),
    _first_token("95 %", "first_token_p95_ms", P95),
    Column(
        "tok/s",
        "tokens_per_second_median",
        _speed,
        lambda model: _digits(model.speed.quantile(MEDIAN)),
    ),
    _count("prompt", "prompt_tokens", lambda model: model.prompt_tokens),
    _count("answer", "answer_tokens", lambda model: model.answer_tokens),
)


def loads_of(statistics: Statistics, services: Services) -> dict[str, int]:
    """Return how often each of the models was loaded."""
    catalog = services.catalog.last
    owners = {name: catalog.owner(name) if catalog else None for name in statistics.models}
    return {name: services.lifetimes.loads[model.key] for name, model in owners.items() if model}


def lines(statistics: Statistics, loads: Mapping[str, int]) -> list[str]:
    """Return the statistics as lines of a table, under a line that says since when; `loads` is by the models' names."""
    if not statistics.models:
        return ["no model has been asked yet"]
    requests = statistics.requests
    since = time.strftime("%H:%M:%S", time.localtime(statistics.since))
    # The names last, as long as they are: half of mitmweb's page has room for all of the numbers.
    head = (*(column.heading for column in COLUMNS), "loads", "model")
    rows = [
        (
            *(column.text(model) for column in COLUMNS),
            f"{loads.get(name, 0):,}",
            jsontext.one_line(name, NAME_CHARACTERS),
        )
        for name, model in _most_asked_first(statistics.models)
    ]
    found = [f"{requests:,} {plural(requests, 'request')} since {since}", LEGEND, "", *table.aligned([head, *rows])]
    if statistics.keys:
        head = (*(column.heading for column in COLUMNS), "key")
        rows = [(*(column.text(key) for column in COLUMNS), name) for name, key in _most_asked_first(statistics.keys)]
        found += ["", *table.aligned([head, *rows])]
    return found


def as_csv(statistics: Statistics, loads: Mapping[str, int]) -> str:
    """Return the statistics as CSV (RFC 4180) with a header: durations in ms, and nothing for what is not known.

    Where keys with names were used, they have a column, and rows of their own, in which no model stands.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    has_keys = bool(statistics.keys)
    writer.writerow(("model", *(column.csv_heading for column in COLUMNS), "loads", *(["key"] if has_keys else [])))
    for name, model in _most_asked_first(statistics.models):
        row = (name, *(column.csv(model) for column in COLUMNS), loads.get(name, 0))
        writer.writerow((*row, "") if has_keys else row)
    for name, key in _most_asked_first(statistics.keys):
        writer.writerow(("", *(column.csv(key) for column in COLUMNS), "", name))
    return out.getvalue()


def _most_asked_first(statistics: Mapping[str, ModelStatistics]) -> list[tuple[str, ModelStatistics]]:
    return sorted(statistics.items(), key=lambda item: -item[1].requests)
