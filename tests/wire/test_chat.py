"""Chats through a real mitmdump, asserting on both sides."""

from __future__ import annotations

import json

import httpx
from lmstudio_sim import Sim

CHAT = "llama-3.2-3b-instruct"
HI = [{"role": "user", "content": "hi"}]


def test_stream(client: httpx.Client, sim: Sim) -> None:
    response = client.post("/api/chat", json={"model": CHAT, "messages": HI})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert response.text.isascii()
    assert response.text.endswith("\n")
    assert "".join(line["message"]["content"] for line in lines) == "You said: hi"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] == 4
    assert lines[-1]["prompt_eval_count"] > 0
    # One call, and nothing else, on a warm path.
    assert [(request.method, request.path) for request in sim.requests] == [("POST", "/v1/chat/completions")]
    assert sim.requests[0].json == {
        "model": CHAT,
        "messages": HI,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_one_object(client: httpx.Client, sim: Sim) -> None:
    response = client.post("/api/chat", json={"model": CHAT, "messages": HI, "stream": False})
    answer = response.json()
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert answer["message"] == {"role": "assistant", "content": "You said: hi"}
    assert answer["done_reason"] == "stop"
    assert answer["total_duration"] >= answer["load_duration"] > 0
    assert [request.path for request in sim.requests] == ["/v1/chat/completions"]
