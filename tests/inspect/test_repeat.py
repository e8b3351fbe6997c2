"""A request that is asked again: what is changed in it, and what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.exceptions import CommandError
from mitmproxy.test import tflow
from tests.inspect.conftest import flow_of, snapshot

from ollama_lmstudio.inspect import repeat
from ollama_lmstudio.options import Upstream
from ollama_lmstudio.record import record as records
from ollama_lmstudio.record.record import Kind, Record

UPSTREAM = Upstream("http", "lmstudio", 1234, "/prefix")
OLLAMA: dict[str, Any] = {"model": "llama3.2", "messages": [], "options": {"seed": 1}, "think": True}
OPENAI = {"model": "llama3.2", "messages": [], "temperature": 1}


def asked(body: Any, path: str = "/api/chat", kind: Kind = "call", **fields: Any) -> http.HTTPFlow:
    """Return the flow of an exchange that has ended."""
    flow = tflow.tflow(resp=True)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = (("content-type", "application/json"), ("content-length", "9"), ("content-encoding", "gzip"))
    values: dict[str, Any] = {"request": data, "request_size": len(data), "limit": 1000, "headers": headers} | fields
    Record(kind=kind, method="POST", path=path, model="llama3.2", **values).save(flow.metadata)
    return flow


def again(flow: http.HTTPFlow, *changes: str) -> http.HTTPFlow:
    (made,), _ = repeat.all_again([flow], changes, UPSTREAM)
    return made


CHANGED: dict[str, tuple[dict[str, Any], str, list[str], dict[str, Any]]] = {
    "nothing": (OLLAMA, "/api/chat", [], OLLAMA),
    "a model": (OLLAMA, "/api/chat", ["model=qwen3:8b"], OLLAMA | {"model": "qwen3:8b"}),
    "an option": (OLLAMA, "/api/chat", ["temperature=0.5"], OLLAMA | {"options": {"seed": 1, "temperature": 0.5}}),
    "an option by its full name": (OLLAMA, "/api/chat", ["options.seed=2"], OLLAMA | {"options": {"seed": 2}}),
    "options that were none": (
        {"model": "a", "prompt": "b"},
        "/api/generate",
        ["top_k=3", "seed=4"],
        {"model": "a", "prompt": "b", "options": {"top_k": 3, "seed": 4}},
    ),
    "fields": (
        OLLAMA,
        "/api/chat",
        ["think=false", "format=json", "keep_alive=5m", "stream=false"],
        OLLAMA | {"think": False, "format": "json", "keep_alive": "5m", "stream": False},
    ),
    "a list": (OLLAMA, "/api/chat", ['stop=["a","b"]'], OLLAMA | {"options": {"seed": 1, "stop": ["a", "b"]}}),
    "a value that is away then": (
        OLLAMA,
        "/api/chat",
        ["seed=null", "think=null"],
        {"model": "llama3.2", "messages": [], "options": {}},
    ),
    "a name in another case": (
        {"Model": "a", "messages": []},
        "/api/chat",
        ["model=b"],
        {"Model": "b", "messages": []},
    ),
    "a value with an equals sign": (OLLAMA, "/api/chat", ["system=a=b"], OLLAMA | {"system": "a=b"}),
    "a field of another API": (OPENAI, "/v1/chat/completions", ["temperature=0"], OPENAI | {"temperature": 0}),
    "a new field of another API": (OPENAI, "/v1/chat/completions", ["seed=7"], OPENAI | {"seed": 7}),
    "embeddings": (
        {"model": "a", "input": "b"},
        "/api/embed",
        ["dimensions=8"],
        {"model": "a", "input": "b", "dimensions": 8},
    ),
}


@pytest.mark.parametrize(("body", "path", "changes", "expected"), CHANGED.values(), ids=CHANGED)
def test_changes(body: dict[str, Any], path: str, changes: list[str], expected: dict[str, Any]) -> None:
    before = json.dumps(body)
    made = again(asked(body, path), *changes)
    assert json.loads(made.request.content or b"") == expected
    assert json.dumps(body) == before


def test_without_changes_not_a_byte_differs() -> None:
    body = b'{ "model" : "\\u0061", "messages":[] }'
    assert again(asked(body)).request.content == body


def test_it_is_a_fresh_request_of_the_clients() -> None:
    flow = asked(OLLAMA, conversation="3f2a9c1e", query="a=b", upstream_model="x", dropped=("y",), status=200)
    made = again(flow, "model=qwen3")
    record = records.of(made)
    assert record is not None
    assert (record.kind, record.method, record.path, record.query) == ("", "POST", "/api/chat", "a=b")
    assert (record.model, record.conversation, record.repeats) == ("qwen3", "3f2a9c1e", flow.id)
    assert (record.upstream_model, record.dropped, record.status, record.numbers) == ("", (), 0, None)
    assert record.request == made.request.content
    assert made.request.pretty_url == "http://lmstudio:1234/api/chat?a=b"
    assert made.request.headers["content-type"] == "application/json"
    assert made.request.headers["content-length"] == str(len(record.request))
    assert "content-encoding" not in made.request.headers
    assert made.id != flow.id
    assert not made.live
    assert made.response is None


def test_what_was_asked_with_everything_is_asked_again() -> None:
    flow = flow_of(snapshot())
    made = again(flow, "model=qwen3")
    assert json.loads(made.request.content or b"")["messages"][1]["content"] == "What is this?\nLook."


REFUSED = {
    "a list of models": (asked(b"", "/api/tags", "answer"), "it asks no model"),
    "a call of the bridge's": (asked(OPENAI, "/v1/chat/completions", "own"), "it asks no model"),
    "somebody else's": (tflow.tflow(), "it asks no model"),
    "no HTTP": (tflow.ttcpflow(), "it asks no model"),
    "no JSON": (asked(b"{"), "its body is no JSON object"),
    "a list": (asked(b"[]"), "its body is no JSON object"),
    "a body that was cut": (
        asked(b"x" * 1000, request_size=2000),
        "only 1.0 kB of its 2.0 kB are kept: a larger max_kept_size keeps all of the next ones",
    ),
}


@pytest.mark.parametrize(("flow", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_asked_again_is_said(flow: Any, reason: str) -> None:
    with pytest.raises(CommandError) as raised:
        repeat.all_again([flow], [], UPSTREAM)
    assert str(raised.value) == f"nothing can be asked again: {reason}"


def test_the_others_are_asked_all_the_same() -> None:
    made, left_out = repeat.all_again([asked(OLLAMA), tflow.tflow(), asked(OLLAMA)], [], UPSTREAM)
    assert len(made) == 2
    assert left_out == {"it asks no model": 1}


def test_no_flow() -> None:
    with pytest.raises(CommandError, match="there is no such flow"):
        repeat.all_again([], [], UPSTREAM)


@pytest.mark.parametrize("change", ["model", "=3", " =3", ""])
def test_a_wrong_change_is_said_before_anything_is_asked(change: str) -> None:
    with pytest.raises(CommandError, match="NAME=VALUE"):
        repeat.all_again([asked(OLLAMA)], [change], UPSTREAM)
