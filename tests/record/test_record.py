"""What a flow keeps of both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from mitmproxy import io
from mitmproxy.test import tflow

from ollama_lmstudio.record import record
from ollama_lmstudio.record.record import Numbers, Record

WHOLE = Record(
    kind="call",
    method="POST",
    path="/api/chat",
    query="a=1",
    model="m",
    headers=(("Accept", "*/*"), ("Accept", "text/html")),
    request=b'{"model":"m"}',
    request_size=13,
    upstream_model="org/m",
    dropped=("num_ctx",),
    status=200,
    upstream_headers=(("Content-Type", "text/event-stream"),),
    upstream=b"data: [DONE]\n\n",
    upstream_size=14,
    response_size=99,
    numbers=Numbers(total=5_000_000_000, generation=2_000_000_000, answer_tokens=100, done_reason="stop"),
    error="none",
    purpose="",
)


def test_outlives_a_saved_file(tmp_path: Any) -> None:
    flow = tflow.tflow()
    WHOLE.save(flow.metadata)
    with (tmp_path / "flows").open("wb") as file:
        io.FlowWriter(file).add(flow)
    with (tmp_path / "flows").open("rb") as file:
        (read,) = io.FlowReader(file).stream()
    assert record.of(read) == WHOLE  # type: ignore[arg-type]


def test_what_is_not_known_is_not_written() -> None:
    metadata: dict[Any, Any] = {"ollama_error": "from before"}
    Record(kind="answer", path="/").save(metadata)
    assert metadata == {"ollama_kind": "answer", "ollama_path": "/"}


def test_what_has_changed_is_written_again() -> None:
    metadata: dict[Any, Any] = {}
    kept = replace(WHOLE, headers=(("a", "\ud83d"), ("b", "ü")), dropped=("\ud83d",), numbers=None)
    kept.save(metadata)
    assert (metadata["ollama_headers"], metadata["ollama_dropped"]) == ((("a", "\ufffd"), ("b", "ü")), ("\ufffd",))
    kept.headers, kept.status, kept.error = (("a", "b"),), 404, ""
    kept.numbers = Numbers(total=1)
    kept.save(metadata)
    kept.numbers.total = 2
    kept.save(metadata)
    assert Record.load(metadata) == replace(kept, dropped=("\ufffd",))


def test_a_foreign_flow_has_none() -> None:
    assert record.of(tflow.tflow()) is None


@pytest.mark.parametrize("value", [None, 5, "text", [1], [["a"]], {"total": "much"}, b"\xff"])
def test_values_of_the_wrong_type_are_nothing(value: Any) -> None:
    names = ("numbers", "headers", "dropped", "status", "request", "model", "kind")
    read = Record.load({f"ollama_{name}": value for name in names})
    assert not read.headers
    assert isinstance(read.request, bytes)
    assert isinstance(read.status, int)
    assert isinstance(read.model, str)


def test_speed() -> None:
    assert WHOLE.numbers is not None
    assert WHOLE.numbers.tokens_per_second == 50
    assert Numbers(answer_tokens=1, generation=10**9).tokens_per_second == 0
    assert Numbers(answer_tokens=9, generation=1).tokens_per_second == 0
