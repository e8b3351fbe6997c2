"""The numbers for Prometheus: what counts, under which labels, and that labels have few values."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ollama_lmstudio.lmstudio.client import CANCELLED, ClientCall
from ollama_lmstudio.record.record import Numbers, Record

pytest.importorskip("prometheus_client", reason="the library of the extra `metrics` is not installed")

from ollama_lmstudio.record import metrics
from ollama_lmstudio.record.metrics import MAX_VALUES, NAMESPACE, OTHERS, Metrics

MODEL = "llama-3.2-3b-instruct"
NUMBERS = Numbers(
    first_token=300_000_000, load=7_000_000_000, generation=2_000_000_000, prompt_tokens=20, answer_tokens=80
)


def record_of(**given: Any) -> Record:
    values: dict[str, Any] = {
        "kind": "call",
        "path": "/api/chat",
        "upstream_model": MODEL,
        "status": 200,
        "numbers": NUMBERS,
    }
    return Record(**(values | given))


def made(under_way: tuple[int, int] = (0, 0)) -> Metrics:
    return Metrics("1.2.3", lambda name: MODEL if name in (MODEL, f"{MODEL}:2") else "", lambda: under_way)


def value(found: Metrics, name: str, **labels: str) -> float | None:
    """Give a sample; None if there is none."""
    sample: float | None = found._registry.get_sample_value(f"{NAMESPACE}_{name}", labels)
    return sample


def text(found: Metrics, accept: str = "") -> tuple[str, str]:
    body, content_type = asyncio.run(found.exposition(accept))
    return body.decode(), content_type


def test_an_answer_counts_once_with_its_numbers() -> None:
    found = made()
    found.add(record_of(key="alice"), 200, "/api/chat")
    found.add(record_of(key="alice", upstream_model=f"{MODEL}:2"), 200, "/api/chat")
    asked = {"endpoint": "/api/chat", "model": MODEL, "status": "200", "key": "alice"}
    assert value(found, "requests_total", **asked) == 2
    assert value(found, "prompt_tokens_total", model=MODEL, key="alice") == 40
    assert value(found, "answer_tokens_total", model=MODEL, key="alice") == 160
    # Seconds, and tokens per second: 80 in 2 s.
    for name, total, below, above in (
        ("first_token_seconds", 0.6, "0.25", "0.5"),
        ("load_seconds", 14, "5.0", "10.0"),
        ("answer_tokens_per_second", 80, "30.0", "40.0"),
    ):
        assert value(found, f"{name}_sum", model=MODEL) == pytest.approx(total)
        assert (value(found, f"{name}_bucket", model=MODEL, le=below), value(found, f"{name}_count", model=MODEL)) == (
            0,
            2,
        )
        assert value(found, f"{name}_bucket", model=MODEL, le=above) == 2


def test_what_is_not_known_has_an_empty_label() -> None:
    found = made()
    found.add(Record(kind="answer", path="/api/chat", model="made-up"), 404, "/api/chat")
    found.add(record_of(upstream_model="gone"), 0, "/api/chat")
    assert value(found, "requests_total", endpoint="/api/chat", model="", status="404", key="") == 1
    assert value(found, "requests_total", endpoint="/api/chat", model="", status="none", key="") == 1
    assert "made-up" not in text(found)[0]
    assert "gone" not in text(found)[0]


def test_what_was_not_measured_is_not_counted() -> None:
    found = made()
    found.add(record_of(numbers=Numbers()), 200, "/api/chat")
    found.add(record_of(numbers=None), 200, "/api/chat")
    for name in ("first_token_seconds_count", "load_seconds_count", "answer_tokens_per_second_count"):
        assert value(found, name, model=MODEL) is None
    assert value(found, "prompt_tokens_total", model=MODEL, key="") is None


def test_a_recorded_answer_is_a_request_and_nothing_of_lmstudios() -> None:
    found = made()
    found.add(record_of(status=500), 500, "/api/chat", is_recorded=True)
    assert value(found, "requests_total", endpoint="/api/chat", model=MODEL, status="500", key="") == 1
    assert value(found, "first_token_seconds_count", model=MODEL) is None
    assert value(found, "upstream_errors_total", source="client", reason="http_5xx") == 0


def test_the_bridges_own_calls_are_no_requests() -> None:
    found = made()
    found.add(record_of(kind="own", path="/api/v1/models"), 200, "/api/v1/*")
    assert "endpoint=" not in text(found)[0]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (record_of(), ""),
        (record_of(status=400), "http_4xx"),
        (record_of(status=503), "http_5xx"),
        (record_of(error="the model has crashed"), "broken_off"),
        (record_of(status=0, error="LM Studio is not reachable"), "no_answer"),
        # Nothing has failed then.
        (record_of(error="Client disconnected."), ""),
        (record_of(status=0, error="Connection killed."), ""),
        (Record(kind="answer", path="/api/chat", error="x"), ""),
        (record_of(kind="relay", status=404), "http_4xx"),
    ],
)
def test_what_lmstudio_did_not_answer_as_it_should(record: Record, reason: str) -> None:
    found = made()
    found.add(record, 200, "/api/chat")
    counted = {name: value(found, "upstream_errors_total", source="client", reason=name) for name in metrics.REASONS}
    assert counted == {name: int(name == reason) for name in metrics.REASONS}


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (200, None, ""),
        (404, None, "http_4xx"),
        (500, "x", "http_5xx"),
        (None, "refused", "no_answer"),
        (None, CANCELLED, ""),
    ],
)
def test_the_bridges_own_calls_that_failed(status: int | None, error: str | None, reason: str) -> None:
    found = made()
    found.add_call(ClientCall("GET", "http://lm/api/v1/models", (), b"", 1.0, status=status, error=error, ended=2.0))
    counted = {name: value(found, "upstream_errors_total", source="bridge", reason=name) for name in metrics.REASONS}
    assert counted == {name: int(name == reason) for name in metrics.REASONS}


def test_labels_have_few_values() -> None:
    found = Metrics("1", lambda name: name, lambda: (0, 0))
    for number in range(MAX_VALUES + 50):
        found.add(record_of(upstream_model=f"m{number}", key=f"k{number}", numbers=None), 200, "/api/chat")
    labels = {"endpoint": "/api/chat", "status": "200"}
    assert value(found, "requests_total", model="m0", key="k0", **labels) == 1
    assert value(found, "requests_total", model=OTHERS, key=OTHERS, **labels) == 50
    # A name that is known stays.
    found.add(record_of(upstream_model="m0", key="k0", numbers=None), 200, "/api/chat")
    assert value(found, "requests_total", model="m0", key="k0", **labels) == 2


def test_what_is_under_way_is_looked_at_when_it_is_asked_for() -> None:
    shown, _ = text(made((5, 3)))
    assert f"{NAMESPACE}_upstream_requests_in_progress 5.0\n" in shown
    assert f"{NAMESPACE}_streams_in_progress 3.0\n" in shown
    assert f'{NAMESPACE}_build_info{{version="1.2.3"}} 1.0\n' in shown
    assert "_created" not in shown


@pytest.mark.parametrize(
    ("accept", "begins", "ends"),
    [
        ("", "text/plain; version=", "\n"),
        ("text/plain", "text/plain; version=", "\n"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text", "# EOF\n"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, begins: str, ends: str) -> None:
    shown, content_type = text(made(), accept)
    assert content_type.startswith(begins)
    assert shown.endswith(ends)


def test_each_has_a_registry_of_its_own() -> None:
    """The script may be loaded anew while the library stays: no name is there twice, and counts begin at 0."""
    before = made()
    before.add(record_of(), 200, "/api/chat")
    assert "/api/chat" not in text(made())[0]


@pytest.mark.parametrize("accept", ["application/openmetrics-text;version=new", "text/plain;version=1.x.0"])
def test_a_version_of_the_format_that_is_no_number_gets_the_usual_one(accept: str) -> None:
    assert text(made(), accept)[1] == text(made())[1]
