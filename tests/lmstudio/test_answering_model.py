"""The model that an answer names as its own, in each API's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_lmstudio.lmstudio.answering_model import FirstEvent, model_of_body

JSON = "application/json; charset=utf-8"
EVENTS = "text/event-stream"

BODIES: dict[str, tuple[Any, str]] = {
    "chat completions": ({"id": "1", "model": "m", "choices": [{"message": {"content": '{"model": "x"}'}}]}, "m"),
    "messages": ({"content": [{"type": "tool_use", "input": {"model": "x"}}], "model": "m"}, "m"),
    "responses": ({"object": "response", "tools": [{"model": "x"}], "model": "m"}, "m"),
    "LM Studio's own": ({"model_instance_id": "m", "output": []}, "m"),
    "embeddings": ({"object": "list", "data": [{"object": "embedding", "embedding": [0.5]}], "model": "m"}, "m"),
    "embeddings of none": ({"object": "list", "data": [{"object": "embedding", "embedding": [0.5]}]}, ""),
    "an escaped name": ({"object": "list", "data": [{"object": "embedding"}], "model": 'a"\\b'}, 'a"\\b'),
    "an error": ({"error": "Unexpected endpoint"}, ""),
    "a name that is none": ({"model": 3}, ""),
    "no object": (["model", "m"], ""),
}
FIRST_EVENTS: dict[str, tuple[str, str]] = {
    "chat completions": ('data: {"model":"m","choices":[{"delta":{"content":"\\"model\\":\\"x\\""}}]}\n\n', "m"),
    "responses": ('event: response.created\ndata: {"type":"response.created","response":{"model":"m"}}\n\n', "m"),
    "messages": ('event: message_start\ndata: {"type":"message_start","message":{"model":"m"}}\n\n', "m"),
    "LM Studio's own": ('event: chat.start\ndata: {"type":"chat.start","model_instance_id":"m"}\n\n', "m"),
    "after a comment": (': ping\n\nevent: ping\ndata: \n\ndata: {"model":"m"}\n\n', "m"),
    "an error": ('event: error\ndata: {"error":{"message":"no"}}\n\n', ""),
    "no JSON": ("data: [DONE]\n\n", ""),
    "not the first": ('data: {"a":1}\n\ndata: {"model":"m"}\n\n', ""),
}


@pytest.mark.parametrize(("value", "model"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_whole_body(value: Any, model: str, indent: int | None) -> None:
    assert model_of_body(JSON, json.dumps(value, indent=indent).encode()) == model


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff"])
def test_a_body_that_is_no_json_names_nobody(body: bytes) -> None:
    assert model_of_body(JSON, body) == ""


@pytest.mark.parametrize(("events", "model"), FIRST_EVENTS.values(), ids=FIRST_EVENTS)
def test_the_first_event_of_a_stream(events: str, model: str) -> None:
    data = events.encode()
    assert model_of_body(EVENTS, data) == model
    first = FirstEvent(1000)
    for byte in data + b'data: {"model":"later"}\n\n':
        first.feed(bytes([byte]))
    assert (first.has_come, first.model) == (True, model)


def test_a_first_event_that_is_too_large_names_nobody() -> None:
    first = FirstEvent(10)
    first.feed(b'data: {"model":"much longer than ten bytes"}\n\n')
    assert (first.has_come, first.model) == (True, "")
