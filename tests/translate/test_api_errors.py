"""Errors in the shape of each API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_lmstudio.translate.api_errors import error_event


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/chat/completions", {"error": {"message": "m", "type": "api_error", "param": None, "code": None}}),
        ("/v1/messages", {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}),
        ("/v1/responses", {"type": "error", "code": "api_error", "message": "m", "param": None}),
        (
            "/api/v1/chat",
            {"type": "error", "error": {"message": "m", "type": "internal_error", "param": None, "code": None}},
        ),
    ],
)
def test_the_error_at_the_end_of_a_stream(path: str, told: dict[str, Any]) -> None:
    event = error_event(path, 503, "m").decode()
    assert event.endswith("\n\n")
    name, _, data = event.strip().partition("\ndata: ")
    assert name == "event: error"
    found = json.loads(data)
    found.pop("request_id", None)
    assert found == told
