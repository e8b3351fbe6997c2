"""The comment and the mark of an exchange."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.test import tflow
from mitmproxy.utils import emoji
from tests.inspect.conftest import (
    CALL,
    EVENTS,
    NUMBERS,
    answered,
    chunk,
    dumps,
    flow_of,
    ndjson,
    record,
    snapshot,
    sse,
)
from tests.inspect.test_render import TAG, V1_MODEL, internal_call

from ollama_lmstudio.inspect import snapshot as snapshots
from ollama_lmstudio.inspect import summary
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.record.record import Numbers, Record

LENGTH = replace(NUMBERS, done_reason="length")
GONE = "LM Studio closed the connection before its answer was finished"
MS = 1_000_000


def request(body: object, path: str, **changed: Any) -> Record:
    """Make the record of another request."""
    return record(body, path=path, model="nomic:latest", numbers=None, **changed)


def failed(status: int, error: object, **changed: Any) -> Snapshot:
    """Make an exchange that was answered with an error."""
    kept = record(model="nope", numbers=None, **changed)
    return snapshot(
        kept, response=error if isinstance(error, bytes) else dumps(error), status=status, reason="Not Found"
    )


CASES: dict[str, tuple[Snapshot, str, str]] = {
    "a chat": (snapshot(), "chat llama3.2  43.5 tok/s, first token 310 ms, 512 + 87 tokens", ""),
    "generate": (
        snapshot(record(path="/api/generate", model="m:latest", numbers=Numbers(first_token=9 * MS, answer_tokens=1))),
        "generate m  first token 9.0 ms, ? + 1 tokens",
        "",
    ),
    "a prompt": (
        snapshot(record(prompt="Why is the sky blue?", answer="Because of Rayleigh.", model="qwen/qwen3-8b:latest")),
        '"Why is the sky blue?"  qwen3-8b  43.5 tok/s, first token 310 ms, 512 + 87 tokens',
        "",
    ),
    "a long prompt, and all signs": (
        snapshot(
            record(
                prompt="Describe both of these pictures in one sentence.",
                answer="-> get_weather(), get_time()",
                signs="[2 images] [tools] [thinking]",
                numbers=None,
            )
        ),
        '"Describe both of these pi..." -> get_weather(), get_time() [2 images] [tools] [thinking]  llama3.2',
        "",
    ),
    "a tool's result": (
        snapshot(record(prompt="<- 22 degrees", numbers=None)),
        '<- "22 degrees"  llama3.2',
        "",
    ),
    "an image alone": (snapshot(record(signs="[1 image]", numbers=None)), "[1 image]  llama3.2", ""),
    "what waits": (
        snapshot(record(prompt="hi", state="loading llama3.2, 23 s", status=0, numbers=None), status=0, response=None),
        'loading llama3.2, 23 s  "hi"  llama3.2',
        "",
    ),
    "what waits for a load that LM Studio has refused to do on demand": (
        failed(400, "no model loaded", prompt="hi", state="loading nope, 23 s"),
        'loading nope, 23 s  "hi"  nope',
        "",
    ),
    "a passed prompt": (
        snapshot(record(kind="relay", path="/v1/chat/completions", prompt="hi", numbers=NUMBERS)),
        '"hi"  llama3.2  43.5 tok/s, first token 310 ms, 512 + 87 tokens',
        "",
    ),
    "thousands of tokens": (
        snapshot(record(numbers=replace(NUMBERS, prompt_tokens=12_345, answer_tokens=1))),
        "chat llama3.2  first token 310 ms, 12,345 + 1 tokens",
        "",
    ),
    "a client that left while the answer came": (
        snapshot(
            record(prompt="hi", error="Client disconnected.", numbers=Numbers(first_token=9 * MS, answer_tokens=31)),
            connection_error="Client disconnected.",
        ),
        'Client disconnected, after 31 tokens  "hi"  llama3.2  first token 9.0 ms',
        ":scissors:",
    ),
    "a chat that was killed while the answer came": (
        snapshot(record(prompt="hi", error="Connection killed.", numbers=Numbers(answer_tokens=1))),
        'Connection killed, after 1 token  "hi"  llama3.2',
        ":scissors:",
    ),
    "a chat that was cut off": (
        snapshot(record(numbers=LENGTH)),
        "chat llama3.2  43.5 tok/s, first token 310 ms, 512 + 87 tokens, cut off: length",
        ":scissors:",
    ),
    "a chat that broke": (
        snapshot(record(error=GONE)),
        f"✗ {GONE}, after 87 tokens  chat llama3.2  43.5 tok/s, first token 310 ms",
        ":x:",
    ),
    "a chat that broke with many words": (
        snapshot(record(error="word " * 40)),
        f"✗ {('word ' * 40)[:117]}..., after 87 tokens  chat llama3.2  43.5 tok/s, first token 310 ms",
        ":x:",
    ),
    "a chat that broke before anything was measured": (
        snapshot(record(error=GONE, numbers=None)),
        f"✗ {GONE}  chat llama3.2",
        ":x:",
    ),
    "a client that left before there was an answer": (
        snapshot(record(numbers=None), status=0, response=None, connection_error="Client disconnected."),
        "✗ Client disconnected.  chat llama3.2",
        ":x:",
    ),
    "a client that has waited in vain": (
        snapshot(
            record(prompt="hi", numbers=Numbers(total=3_200 * MS)),
            status=0,
            response=None,
            connection_error="Client disconnected.",
        ),
        '✗ Client disconnected, after 3.2 s  "hi"  llama3.2',
        ":x:",
    ),
    "an unknown model": (
        failed(404, {"error": "model 'nope' not found"}),
        "✗ 404 model 'nope' not found  chat",
        ":x:",
    ),
    "an error of OpenAI's kind": (
        failed(404, {"error": {"message": "no such model", "code": "model_not_found"}}),
        "✗ 404 no such model  chat nope",
        ":x:",
    ),
    "an error that is a text": (
        failed(405, b"405 method not allowed\n"),
        "✗ 405 method not allowed  chat nope",
        ":x:",
    ),
    "an error without a body": (failed(404, b""), "✗ 404 Not Found  chat nope", ":x:"),
    "a load": (
        snapshot(record(numbers=None), response=dumps({"done": True, "done_reason": "load"})),
        "chat llama3.2  loaded",
        "",
    ),
    "an answer without numbers": (snapshot(record(numbers=None)), "chat llama3.2", ""),
    "embed": (
        snapshot(
            request({"model": "nomic", "input": ["a", "b", "c"]}, "/api/embed"),
            response=dumps({"embeddings": [[0.5] * 768] * 3}),
        ),
        "embed  3 texts, 768 dimensions, nomic",
        "",
    ),
    "embeddings": (
        snapshot(request({"prompt": "a"}, "/api/embeddings"), response=dumps({"embedding": [1, 2]})),
        "embeddings  1 text, 2 dimensions, nomic",
        "",
    ),
    "embeddings of LM Studio's": (
        snapshot(
            request({"input": "a"}, "/v1/embeddings", kind="relay"),
            response=b'{\n "data": [\n {"index": 0,\n "embedding": [\n 0.1,\n 0.2,\n 0.3\n]}]}',
        ),
        "v1/embeddings  1 text, 3 dimensions, nomic",
        "",
    ),
    "embeddings in base64": (
        snapshot(
            request({"input": "a"}, "/v1/embeddings", kind="relay"),
            response=b'{"object":"list","data":[{"object":"embedding","embedding":"AAAAPwAAAL8AAAA/","index":0}]}',
        ),
        "v1/embeddings  1 text, 3 dimensions, nomic",
        "",
    ),
    "no embedding": (
        snapshot(request({"input": []}, "/api/embed"), response=dumps({"embeddings": []})),
        "embed  nomic",
        "",
    ),
    "tags": (answered("/api/tags", {"models": [TAG] * 7}), "tags  7 models", ""),
    "ps": (answered("/api/ps", {"models": [TAG]}), "ps  1 model", ""),
    "models of LM Studio's": (
        snapshot(Record(kind="relay", method="GET", path="/v1/models"), response=dumps({"data": []})),
        "v1/models  0 models",
        "",
    ),
    "show": (
        answered("/api/show", {"capabilities": ["completion", "tools"]}, method="POST", request=b'{"model":"qwen3"}'),
        "show qwen3  completion tools",
        "",
    ),
    "version": (answered("/api/version", {"version": "0.33.0"}), "version  0.33.0", ""),
    "health": (answered("/health", {"status": "ok", "models": 3}), "health  ok", ""),
    "root": (answered("/", b"Ollama is running"), "root", ""),
    "copy": (
        answered("/api/copy", b"", method="POST", request=b'{"source":"a","destination":"b"}'),
        "copy  a -> b",
        "",
    ),
    "pull": (
        snapshot(
            Record(kind="served", method="POST", path="/api/pull", model="m"),
            response=ndjson({"status": "pulling manifest"}, {"status": "success"}),
        ),
        "pull m  success",
        "",
    ),
    "a blob": (
        snapshot(
            Record(kind="served", method="POST", path="/api/blobs/sha256:" + "ab" * 32, request_size=12_000_000),
            call=b"",
            response=b"",
            status=201,
        ),
        "blobs  sha256:abababababab, 12.0 MB",
        "",
    ),
    "a blob that is not there": (
        answered("/api/blobs/sha256:" + "ab" * 32, b"", method="HEAD", status=404),
        "blobs  not there, sha256:abababababab",
        "",
    ),
    "a replay": (
        snapshot(replayed=True),
        "chat llama3.2  43.5 tok/s, first token 310 ms, 512 + 87 tokens, replay",
        ":repeat:",
    ),
    "a replay that failed": (
        replace(failed(404, {"error": "no"}), replayed=True),
        "✗ 404 no  chat nope  replay",
        ":x:",
    ),
    "an internal call": (
        internal_call(response=dumps({"models": [V1_MODEL] * 7}), duration=3 * MS),
        "(bridge) model list for name resolution  7 models, 3.0 ms",
        ":gear:",
    ),
    "an internal call that failed": (
        internal_call(status=0, response=None, duration=3 * MS, connection_error="LM Studio is not reachable"),
        "(bridge) model list for name resolution  LM Studio is not reachable  3.0 ms",
        ":gear:",
    ),
    "a poll": (
        internal_call(
            record=Record(kind="own", purpose="download progress"), response=dumps({"status": "downloading"})
        ),
        "(bridge) download progress  downloading",
        ":gear:",
    ),
    "an internal call without a purpose": (
        internal_call(record=Record(kind="own"), response=b"{}"),
        "(bridge) call",
        ":gear:",
    ),
}


@pytest.mark.parametrize(("case", "comment", "mark"), CASES.values(), ids=CASES)
def test_comments_and_marks(case: Snapshot, comment: str, mark: str) -> None:
    assert summary.comment(case) == comment
    assert summary.mark(case) == mark


def test_the_name_of_a_key_ends_the_comment() -> None:
    assert summary.comment(snapshot(record(key="alice"))) == f"{summary.comment(snapshot(record()))}  by alice"


def test_mitmproxy_knows_all_marks() -> None:
    assert {mark for _, mark in summary.MARKS} <= set(emoji.emoji)


def test_a_comment_is_one_short_line() -> None:
    error = "what\x1b[31m\nhappened\u2028 " + "x" * 10_000
    comment = summary.comment(snapshot(record(model="m" * 500 + "\ud800", error=error, numbers=None)))
    assert len(comment) <= summary.COMMENT_CHARACTERS
    assert comment.isprintable()


def test_large_bodies_are_not_parsed() -> None:
    models = dumps({"models": [TAG] * 10_000})
    assert len(models) > summary.PARSED_BYTES
    assert summary.comment(answered("/api/tags", models)) == "tags"
    lines = EVENTS * 10_000 + b'\n{"status":"success"}\n'
    pull = snapshot(Record(kind="served", path="/api/pull", model="m"), response=lines)
    assert summary.comment(pull) == "pull m  success"


@given(
    st.sampled_from(["call", "relay", "served", "answer", "own", ""]),
    st.sampled_from(
        ["/api/chat", "/api/embed", "/api/copy", "/api/pull", "/api/blobs/x", "/api/tags", "/api/show", "?"]
    ),
    st.binary(),
    st.none() | st.binary(),
    st.sampled_from([0, 200, 404]),
    st.text(),
)
def test_never_raises(kind: Any, path: str, asked: bytes, response: bytes | None, status: int, text: str) -> None:
    kept = Record(kind=kind, path=path, request=asked, model=text, purpose=text)
    whole = Snapshot(kept, "POST", path, (), asked, status, text, (), response)
    summary.comment(whole).encode()
    summary.mark(whole)


def test_the_users_comment_and_mark_stay() -> None:
    flow = flow_of(snapshot())
    summary.label(flow)
    assert flow.comment.startswith('<- "18 degrees" [tools]  llama3.2  ')
    flow.comment, flow.marked = "look here", ":star:"
    summary.label(flow)
    assert (flow.comment, flow.marked) == ("look here", ":star:")


def test_a_label_that_is_not_the_users_changes() -> None:
    flow = flow_of(snapshot(kept=record(status=0, numbers=None), response=None, status=0))
    summary.label(flow)
    before = flow.comment
    record(error="gone").save(flow.metadata)
    summary.label(flow)
    assert (flow.comment != before, "gone" in flow.comment) == (True, True)


WAITS = {"kind": "", "model": "", "numbers": None, "state": "loading m, 23 s"}
REFUSED = {"kind": "answer", "numbers": None}


@pytest.mark.parametrize(
    ("kept", "status", "comment"),
    [
        (
            record({"model": "m", "messages": [{"role": "user", "content": "Why?"}]}, **WAITS),
            0,
            'loading m, 23 s  "Why?"',
        ),
        (record({"model": "m", "prompt": "Why?"}, path="/api/generate", **WAITS), 0, 'loading m, 23 s  "Why?"'),
        (record({"messages": [{"role": "user", "content": "Why?"}], "tools": [1]}, **REFUSED), 404, '"Why?" [tools]'),
        # A file of an older version has no first words.
        (record({"messages": [{"role": "user", "content": "Why?"}]}), 200, '"Why?"  llama3.2  43.5 tok/s'),
        (record({"messages": 1, "model": "m"}, **REFUSED), 400, "chat llama3.2"),
        (record(b"{", **REFUSED), 400, "chat llama3.2"),
    ],
)
def test_a_request_that_became_no_call_is_told_by_its_prompt(kept: Record, status: int, comment: str) -> None:
    """Two that wait for a model to load would look the same."""
    response = dumps({"error": "not found"}) if status else None
    call = CALL if kept.kind == "call" else kept.request
    flow = flow_of(snapshot(kept, call=call, status=status, response=response))
    summary.label(flow)
    assert comment in flow.comment
    kept_prompt = Record.load(flow.metadata).prompt
    assert kept_prompt == ("Why?" if '"' in comment else "")


def test_a_foreign_flow_is_left_alone() -> None:
    flow = tflow.tflow()
    summary.label(flow)
    assert (flow.comment, flow.marked, flow.metadata) == ("", "", {})


@pytest.mark.parametrize("case", [case for case, _, _ in CASES.values()], ids=CASES)
def test_a_summary_needs_no_more_than_its_snapshot_has(case: Snapshot) -> None:
    flow = flow_of(case)
    short, whole = snapshots.for_summary(flow, case.record), snapshots.of(flow)
    assert whole is not None
    assert (summary.comment(short), summary.mark(short)) == (summary.comment(whole), summary.mark(whole))


def test_the_label_is_made_of_the_record_that_is_given() -> None:
    flow = flow_of(snapshot())
    flow.metadata.clear()
    summary.label(flow, record(numbers=LENGTH))
    assert (flow.comment.endswith("cut off: length"), flow.marked) == (True, ":scissors:")


def test_the_comment_is_of_use_in_a_narrow_column() -> None:
    comment = summary.comment(snapshot(record(prompt="Explain how a rainbow comes about", model="qwen3")))
    assert comment[:35] == '"Explain how a rainbow com..."  qwe'
    failed_comment = summary.comment(snapshot(record(prompt="hi", error=GONE)))
    assert failed_comment.startswith(f"✗ {GONE}")


@pytest.mark.parametrize(
    ("events", "answer", "signs"),
    [
        (EVENTS, "It is a dot.", "[tools]"),
        (
            sse(chunk(reasoning_content="Let me see."), chunk(content="A dot."), chunk("stop")),
            "A dot.",
            "[tools] [thinking]",
        ),
        (
            sse(chunk(tool_calls=[{"index": 0, "id": "1", "function": {"name": "weather", "arguments": "{}"}}])),
            "-> weather()",
            "[tools]",
        ),
        (EVENTS * 10_000, "It is a dot." * 6 + "It is...", "[tools]"),
        (
            dumps({"choices": [{"message": {"role": "assistant", "content": "Hello " * 5000}}]}),
            "Hello " * 12 + "Hello...",
            "[tools]",
        ),
        (b"", "", "[tools]"),
        (None, "", "[tools]"),
    ],
)
def test_what_was_passed_through_is_read_when_it_has_ended(events: bytes | None, answer: str, signs: str) -> None:
    kept = record(kind="relay", path="/v1/chat/completions", prompt="hi", signs="[tools]")
    flow = flow_of(snapshot(kept, response=events))
    summary.label(flow, kept)
    assert (kept.answer, kept.signs) == (answer, signs)
    assert flow.metadata.get("ollama_answer", "") == answer


def test_a_passed_through_answer_of_thoughts_gets_its_sign_once() -> None:
    kept = record(kind="relay", path="/v1/chat/completions", prompt="hi", signs="[tools]")
    flow = flow_of(snapshot(kept, response=sse(chunk(reasoning_content="Hm."))))
    for _ in range(3):
        summary.label(flow, kept)
    assert (kept.answer, kept.signs) == ("", "[tools] [thinking]")


def test_a_passed_through_stream_is_not_parsed_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("ollama_lmstudio.inspect.jsontext.read")
    kept = record(kind="relay", path="/v1/chat/completions", prompt="hi", numbers=None, state="12.0 kB")
    coming = replace(snapshot(kept, response=EVENTS * 100), is_streaming=True)
    assert summary.comment(coming) == '12.0 kB  "hi"  llama3.2'
