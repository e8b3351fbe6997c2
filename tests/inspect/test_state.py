"""The line of an exchange that runs."""

from __future__ import annotations

from dataclasses import replace

from tests.inspect.conftest import record, snapshot
from tests.inspect.test_render import internal_call

from ollama_lmstudio.inspect import summary
from ollama_lmstudio.record.record import Record


def test_the_state_comes_first() -> None:
    running = snapshot(replace(record(numbers=None), state="31 tokens, 24.6 tok/s"), response=None)
    assert summary.comment(running).startswith("31 tokens, 24.6 tok/s  ")
    assert "llama3.2" in summary.comment(running)


def test_a_call_of_the_bridge_is_none_of_a_client() -> None:
    running = internal_call(record=Record(kind="own", purpose="load", state="loading qwen3-70b, 23 s"))
    assert summary.comment(running).startswith("(bridge) load  loading qwen3-70b, 23 s")
    assert summary.mark(running) == ":gear:"


def test_a_refusal_after_which_the_model_is_loaded_is_no_failure_yet() -> None:
    kept = replace(record(numbers=None), state="loading llama3.2, 3 s")
    assert summary.mark(snapshot(kept, status=400)) == ""
    assert summary.mark(snapshot(replace(kept, state=""), status=400)) == ":x:"
