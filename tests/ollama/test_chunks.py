"""The bodies of Ollama's answers, key by key as Ollama writes them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ollama_lmstudio.ollama import chunks, wire
from ollama_lmstudio.ollama.chunks import Metrics

AT = "2026-11-22T08:53:36.326198683Z"
HEAD = f'{{"model":"plain","created_at":"{AT}",'
METRICS = Metrics(747340, 668333, 7, 1500000, 3, 42000000)
METRICS_TEXT = (
    '"total_duration":747340,"load_duration":668333,"prompt_eval_count":7,'
    '"prompt_eval_duration":1500000,"eval_count":3,"eval_duration":42000000'
)
LOGPROBS = [{"token": "a", "logprob": -0.5, "bytes": [97]}]
LOGPROBS_TEXT = '"logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]'
CALL = chunks.tool_call("call_ab12cd34", 0, "f", {"z": 1, "a": 2})
CALL_TEXT = '"tool_calls":[{"id":"call_ab12cd34","function":{"index":0,"name":"f","arguments":{"z":1,"a":2}}}]'


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (
            chunks.chat_chunk("plain", AT, chunks.chat_message("Hello")),
            '"message":{"role":"assistant","content":"Hello"},"done":false}',
        ),
        (
            chunks.chat_chunk("plain", AT, chunks.chat_message(thinking="hmm"), logprobs=LOGPROBS),
            '"message":{"role":"assistant","content":"","thinking":"hmm"},"done":false,' + LOGPROBS_TEXT + "}",
        ),
        (
            chunks.chat_chunk("plain", AT, chunks.chat_message(tool_calls=[CALL])),
            '"message":{"role":"assistant","content":"",' + CALL_TEXT + '},"done":false}',
        ),
        (
            chunks.chat_chunk("plain", AT, chunks.chat_message(), True, "stop", LOGPROBS, METRICS),
            '"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",'
            + LOGPROBS_TEXT
            + ","
            + METRICS_TEXT
            + "}",
        ),
        (chunks.generate_chunk("plain", AT, "Hello"), '"response":"Hello","done":false}'),
        (chunks.generate_chunk("plain", AT, thinking="hm"), '"response":"","thinking":"hm","done":false}'),
        (
            chunks.generate_chunk(
                "plain",
                AT,
                done=True,
                done_reason="length",
                context=[1, 2],
                metrics=METRICS,
                tool_calls=[CALL],
                logprobs=LOGPROBS,
            ),
            '"response":"","done":true,"done_reason":"length","context":[1,2],'
            + ",".join([METRICS_TEXT, CALL_TEXT, LOGPROBS_TEXT])
            + "}",
        ),
        (
            chunks.chat_chunk("plain", AT, chunks.chat_message(), done=True, done_reason="load"),
            '"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}',
        ),
        (
            chunks.chat_chunk("plain", AT, chunks.chat_message(), done=True, done_reason="unload"),
            '"message":{"role":"assistant","content":""},"done":true,"done_reason":"unload"}',
        ),
        (
            chunks.generate_chunk("plain", AT, done=True, done_reason="load"),
            '"response":"","done":true,"done_reason":"load"}',
        ),
        (
            chunks.generate_chunk("plain", AT, done=True, done_reason="unload"),
            '"response":"","done":true,"done_reason":"unload"}',
        ),
    ],
)
def test_chunks(chunk: dict[str, Any], expected: str) -> None:
    assert wire.dumps(chunk).decode() == HEAD + expected


@pytest.mark.parametrize("cached", [0, 18])
def test_a_cached_count_has_its_place_and_may_be_zero(cached: int) -> None:
    metrics = Metrics(747340, 668333, 156, 1500000, 3, 42000000, prompt_eval_cached_count=cached)
    written = wire.dumps(chunks.chat_chunk("m", AT, chunks.chat_message(), done=True, metrics=metrics)).decode()
    assert f'"prompt_eval_count":156,"prompt_eval_cached_count":{cached},"prompt_eval_duration":1500000,' in written


def test_metrics_that_are_not_known_are_left_out() -> None:
    chunk = chunks.generate_chunk("m", AT, done=True, metrics=Metrics(total_duration=5, eval_count=0))
    assert list(chunk) == ["model", "created_at", "response", "done", "total_duration"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            chunks.embed_answer("bert", [wire.Vector([0.5570859909057617, 0.0])], 961237, 909620, 1),
            '{"model":"bert","embeddings":[[0.557086,0]],"total_duration":961237,"load_duration":909620,'
            '"prompt_eval_count":1}',
        ),
        (chunks.embed_answer("bert", []), '{"model":"bert","embeddings":[]}'),
        (chunks.embeddings_answer([0.5670403838157654]), '{"embedding":[0.5670403838157654]}'),
        (chunks.embeddings_answer([]), '{"embedding":[]}'),
        (chunks.progress("success"), '{"status":"success"}'),
        (
            chunks.progress("pulling dd084c7d92a3", "sha256:dd08", 10, 5),
            '{"status":"pulling dd084c7d92a3","digest":"sha256:dd08","total":10,"completed":5}',
        ),
        (
            chunks.progress("pulling dd084c7d92a3", "sha256:dd08", 10),
            '{"status":"pulling dd084c7d92a3","digest":"sha256:dd08","total":10}',
        ),
    ],
)
def test_answers(answer: dict[str, Any], expected: str) -> None:
    assert wire.dumps(answer).decode() == expected


def test_call_ids() -> None:
    ids = {chunks.new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"call_[a-z0-9]{8}", call_id) for call_id in ids)
