"""A row of the page's list."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mitmproxy.test import tflow
from tests.inspect.conftest import NUMBERS, answered, flow_of, record, snapshot

from ollama_lmstudio.page.rows import CLIENT_CHARACTERS, row_of
from ollama_lmstudio.record.arrivals import Arrivals
from ollama_lmstudio.record.record import PREFIX, Numbers


def row(kept: Any = None, **changed: Any) -> dict[str, Any]:
    found = row_of(flow_of(snapshot(kept or record(), **changed)))
    assert found is not None
    # It is sent as JSON.
    assert json.loads(json.dumps(found)) == found
    return found


def test_a_chat() -> None:
    found = row(record(prompt="What is this?", conversation="ab12", key="alice", context_length=4096))
    assert (
        found.items()
        >= {
            "endpoint": "chat",
            "isChat": True,
            "model": "llama3.2",
            "upstreamModel": "llama-3.2-3b-instruct",
            "client": "ollama-python/0.6 127.0.0.1" if "127" in found["client"] else found["client"],
            "key": "alice",
            "conversation": "ab12",
            "prompt": "What is this?",
            "status": 200,
            "context": 4096,
            "total": 2400.0,
            "firstToken": 310.0,
            "generation": 2000.0,
            "promptTokens": 512,
            "answerTokens": 87,
            "speed": 43.5,
            "doneReason": "stop",
        }.items()
    )
    assert "error" not in found
    assert "isOwn" not in found


def test_what_is_not_known_is_left_out() -> None:
    found = row(record(numbers=None))
    assert not {"total", "load", "speed", "prompt", "key", "state", "isRunning", "repeats"} & found.keys()
    assert all(found.values())


@pytest.mark.parametrize(
    ("path", "is_chat"),
    [
        ("/api/chat", True),
        ("/api/generate", True),
        ("/v1/chat/completions", True),
        ("/v1/responses", True),
        ("/v1/messages", True),
        ("/api/v1/chat", True),
        ("/api/embed", False),
        ("/api/show", False),
    ],
)
def test_what_asks_a_model_to_say_something(path: str, is_chat: bool) -> None:
    assert row(record(path=path)).get("isChat", False) is is_chat


def test_an_answer_of_the_bridges_own() -> None:
    found = row_of(flow_of(answered("/api/version", {"version": "0.5"})))
    assert found is not None
    assert found["endpoint"] == "version"
    assert "isChat" not in found


def test_a_call_of_the_bridges_own() -> None:
    found = row(record(kind="own", path="/v1/models", purpose="model list"))
    assert found["isOwn"]
    assert found["purpose"] == "model list"


def test_a_failure() -> None:
    assert "no such model" in row(record(error="no such model"), status=404, response=b"")["error"]
    # While it runs, it may be called once more.
    assert "error" not in row(record(error="no such model", state="loading"), status=404, response=b"")


def test_what_runs_has_a_first_token_when_it_has_come() -> None:
    arrivals = Arrivals()
    arrivals.sizes.append(10)
    arrivals.times.append(1_234_000_000)
    flow = flow_of(snapshot(record(numbers=None, state="3 tokens", arrivals=arrivals.packed(0))))
    assert flow.response is not None
    flow.response.timestamp_end = None
    found = row_of(flow)
    assert found is not None
    assert found["isRunning"]
    assert found["firstToken"] == 1234.0


def test_other_flows_have_none() -> None:
    assert row_of(tflow.tflow(resp=True)) is None
    assert row_of(flow_of(snapshot(record(kind="report")))) is None


@pytest.mark.parametrize(
    ("agent", "host", "expected"),
    [
        ("curl/8.5", "127.0.0.1", "curl/8.5"),
        ("Mozilla/5.0 (X11; Linux)", "::1", "Mozilla/5.0"),
        ("", "::ffff:127.0.0.1", ""),
        ("", "192.168.0.9", "192.168.0.9"),
        ("ollama-js/0.5 (x)", "fe80::1", "ollama-js/0.5 fe80::1"),
        ("x" * 500, "127.0.0.1", "x" * CLIENT_CHARACTERS),
    ],
)
def test_the_client(agent: str, host: str, expected: str) -> None:
    flow = flow_of(snapshot(record(headers=(("User-Agent", agent),))))
    flow.client_conn.peername = (host, 5000)
    found = row_of(flow)
    assert found is not None
    assert found.get("client", "") == expected


@pytest.mark.parametrize("peername", [None, (), ("",), (None, 1)])
def test_a_client_without_an_address(peername: Any) -> None:
    """As one of a flow from a file, or over a socket of another kind."""
    flow = flow_of(snapshot())
    flow.client_conn.peername = peername
    found = row_of(flow)
    assert found is not None
    assert found["client"].startswith("ollama-python/0.6")


@pytest.mark.parametrize("value", [5, "x", b"\xff", None, [], {}, [[1]], {"total": "x"}, float("nan"), -1, "\ud800"])
def test_a_file_may_have_anything_in_it(value: Any) -> None:
    flow = flow_of(snapshot())
    for name in list(flow.metadata):
        if name not in (f"{PREFIX}kind", f"{PREFIX}path"):
            flow.metadata[name] = value
    found = row_of(flow)
    assert found is not None
    json.dumps(found, allow_nan=False)


def test_times_that_are_not_known() -> None:
    flow = flow_of(snapshot(record(numbers=Numbers())))
    flow.request.timestamp_start = None  # type: ignore[assignment]
    found = row_of(flow)
    assert found is not None
    assert found["at"] == flow.timestamp_created
    assert NUMBERS.total
    assert "total" not in found
