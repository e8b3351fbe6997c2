"""The statistics of models: what counts, how precise medians are, and that memory does not grow."""

from __future__ import annotations

import random
import sys
import time

import pytest

from ollama_lmstudio.record.record import Kind, Numbers, Record
from ollama_lmstudio.record.statistics import MAX_MODELS, OTHERS, Histogram, Statistics

MODEL = "llama-3.2-3b-instruct"
NUMBERS = Numbers(first_token=300_000_000, generation=2_000_000_000, prompt_tokens=20, answer_tokens=80)


def record_of(path: str = "/api/chat", kind: Kind = "call", error: str = "", upstream_model: str = MODEL) -> Record:
    return Record(kind=kind, path=path, model="llama3.2", upstream_model=upstream_model, error=error, numbers=NUMBERS)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 999, 20_000])
def test_quantiles_are_true_to_half_a_percent(count: int) -> None:
    source = random.Random(count)
    values = sorted(source.lognormvariate(20, 1.5) for _ in range(count))
    histogram = Histogram()
    for value in source.sample(values, count):
        histogram.add(value)
    for share in (0.5, 0.95, 1.0):
        exact = values[max(0, -int(-share * count // 1) - 1)]
        assert histogram.quantile(share) == pytest.approx(exact, rel=0.0051)


def test_one_value_is_told_as_it_is() -> None:
    histogram = Histogram()
    histogram.add(602_123_456)
    assert histogram.quantile(0.5) == histogram.quantile(0.95) == 602_123_456


def test_what_was_not_measured_is_not_counted() -> None:
    histogram = Histogram()
    histogram.add(0)
    assert (histogram.count, histogram.quantile(0.5)) == (0, 0)


COUNTED = [
    record_of("/api/chat"),
    record_of("/api/generate"),
    record_of("/api/embed"),
    record_of("/api/embeddings"),
    record_of("/v1/chat/completions", "relay"),
    record_of("/v1/embeddings", "relay"),
    record_of("/v1/messages", "relay"),
    record_of("/v1/responses", "relay"),
]


@pytest.mark.parametrize("record", COUNTED, ids=lambda record: record.path)
def test_requests_of_every_api_count(record: Record) -> None:
    statistics = Statistics(0)
    statistics.add(record, 200)
    model = statistics.models[MODEL]
    assert (model.requests, model.errors, model.prompt_tokens, model.answer_tokens) == (1, 0, 20, 80)
    assert (model.first_token.quantile(0.5), model.speed.quantile(0.5)) == (300_000_000, 40)


NOT_COUNTED = [
    record_of("/api/show", "answer"),
    record_of("/api/tags", "answer"),
    record_of("/api/pull", "served"),
    record_of("/v1/chat/completions", "own"),
    Record(kind="answer", path="/api/chat"),
]


@pytest.mark.parametrize("record", NOT_COUNTED, ids=lambda record: f"{record.kind} {record.path}")
def test_what_asks_no_model_does_not_count(record: Record) -> None:
    statistics = Statistics(0)
    statistics.add(record, 200)
    assert not statistics.models


@pytest.mark.parametrize(("record", "status"), [(record_of(), 404), (record_of(error="broke"), 200), (record_of(), 0)])
def test_errors_count(record: Record, status: int) -> None:
    statistics = Statistics(0)
    statistics.add(record, status)
    assert (statistics.models[MODEL].requests, statistics.models[MODEL].errors) == (1, 1)


@pytest.mark.parametrize("error", ["Client disconnected.", "Connection killed."])
def test_who_leaves_has_met_no_error(error: str) -> None:
    statistics = Statistics(0)
    statistics.add(record_of(error=error), 200)
    assert (statistics.models[MODEL].requests, statistics.models[MODEL].errors) == (1, 0)


def test_each_key_that_has_a_name_is_counted() -> None:
    statistics = Statistics(0)
    for key in ("alice", "alice", "bob", ""):
        record = record_of()
        record.key = key
        statistics.add(record, 404 if key == "bob" else 200)
    found = {name: (key.requests, key.errors, key.answer_tokens) for name, key in statistics.keys.items()}
    assert found == {"alice": (2, 0, 160), "bob": (1, 1, 80)}
    assert statistics.requests == 4


def test_a_name_that_lmstudio_does_not_have_is_the_clients() -> None:
    statistics = Statistics(0)
    statistics.add(record_of(kind="answer", upstream_model=""), 404)
    assert list(statistics.models) == ["llama3.2"]


def test_the_numbers_of_a_recorded_answer_are_of_another_time() -> None:
    statistics = Statistics(0)
    statistics.add(record_of(), 200, is_recorded=True)
    model = statistics.models[MODEL]
    assert (model.requests, model.answer_tokens, model.first_token.count) == (1, 0, 0)


def test_clients_that_make_up_names_do_not_fill_the_memory() -> None:
    statistics = Statistics(0)
    for number in range(3 * MAX_MODELS):
        statistics.add(record_of(upstream_model=f"model-{number}"), 200)
    assert len(statistics.models) == MAX_MODELS + 1
    assert statistics.models[OTHERS].requests == 2 * MAX_MODELS
    assert statistics.requests == 3 * MAX_MODELS


def test_many_exchanges_are_cheap_and_leave_the_memory_flat() -> None:
    statistics, source = Statistics(0), random.Random(1)
    record = record_of()
    assert record.numbers is not None

    def size() -> int:
        model = statistics.models[MODEL]
        return sum(sys.getsizeof(histogram._buckets) for histogram in (model.first_token, model.speed))

    sizes = []
    for _ in range(2):
        began = time.process_time()
        for _ in range(20_000):
            record.numbers.first_token = round(source.lognormvariate(20, 1))
            statistics.add(record, 200)
        sizes.append(size())
        assert (time.process_time() - began) / 20_000 < 100e-6
    assert sizes[1] < 100_000
    assert sizes[1] <= 2 * sizes[0]
