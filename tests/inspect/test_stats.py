"""The statistics as people read them, and as CSV."""

from __future__ import annotations

import csv
import io
import re

from ollama_lmstudio.inspect import stats
from ollama_lmstudio.record.record import Numbers, Record
from ollama_lmstudio.record.statistics import Statistics

MODEL = "llama-3.2-3b-instruct"
ODD = 'my "odd", model'


def some() -> Statistics:
    statistics = Statistics(0)
    statistics.add(Record(kind="answer", path="/api/chat", model=ODD), 404)
    for first_token in (300_000_000, 602_000_000, 1_200_000_000):
        numbers = Numbers(
            first_token=first_token, generation=2_000_000_000, prompt_tokens=1_000, answer_tokens=first_token // 10**7
        )
        record = Record(kind="call", path="/api/chat", model="llama3.2", upstream_model=MODEL, numbers=numbers)
        statistics.add(record, 200)
    return statistics


def test_the_table_is_aligned_and_the_most_asked_comes_first() -> None:
    title, legend, blank, *rows = stats.lines(some(), {MODEL: 2})
    assert re.fullmatch(r"4 requests since \d\d:\d\d:\d\d", title)
    assert "median" in legend
    assert blank == ""
    # True to half a percent: 602 ms and 30.1 tok/s.
    assert rows == [
        "asked  failed   first   95 %  tok/s  prompt  answer  loads  model",
        "    3       0  601 ms  1.2 s   29.9   3,000     210      2  llama-3.2-3b-instruct",
        '    1       1       -      -      -       0       0      0  my "odd", model',
    ]


def test_csv_can_be_read_again() -> None:
    text = stats.as_csv(some(), {MODEL: 2})
    assert text.endswith("\r\n")
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == [
        {
            "model": MODEL,
            "requests": "3",
            "errors": "0",
            "first_token_median_ms": "601",
            "first_token_p95_ms": "1190",
            "tokens_per_second_median": "29.9",
            "prompt_tokens": "3000",
            "answer_tokens": "210",
            "loads": "2",
        },
        {
            "model": ODD,
            "requests": "1",
            "errors": "1",
            "first_token_median_ms": "",
            "first_token_p95_ms": "",
            "tokens_per_second_median": "",
            "prompt_tokens": "0",
            "answer_tokens": "0",
            "loads": "0",
        },
    ]


def test_keys_have_a_table_and_rows_of_their_own() -> None:
    statistics = some()
    numbers = Numbers(prompt_tokens=5, answer_tokens=7)
    statistics.add(Record(kind="call", path="/api/chat", upstream_model=MODEL, key="alice", numbers=numbers), 200)
    assert stats.lines(statistics, {})[-3:] == [
        "",
        "asked  failed  first  95 %  tok/s  prompt  answer  key",
        "    1       0      -     -      -       5       7  alice",
    ]
    rows = list(csv.DictReader(io.StringIO(stats.as_csv(statistics, {MODEL: 2}), newline="")))
    assert [(row["model"], row["key"], row["requests"], row["loads"]) for row in rows] == [
        (MODEL, "", "4", "2"),
        (ODD, "", "1", "0"),
        ("", "alice", "1", ""),
    ]


def test_nothing_was_asked() -> None:
    assert stats.lines(Statistics(0), {}) == ["no model has been asked yet"]
    assert stats.as_csv(Statistics(0), {}).count("\r\n") == 1
