"""The schema that `format` becomes, as LM Studio's validator reads it."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_lmstudio.sim import validate
from ollama_lmstudio.sim.models import Version
from ollama_lmstudio.translate.response_format import format_to_lmstudio

VERSION = Version("0.4.25")


@pytest.mark.parametrize(
    ("given_format", "name", "schema"),
    [
        ("json", "json", {"type": "object"}),
        ({"type": "array", "$defs": {"b": 1, "a": 2}}, "format", {"type": "array", "$defs": {"b": 1, "a": 2}}),
        ({}, "format", {}),
    ],
)
def test_format(given_format: Any, name: str, schema: dict[str, Any]) -> None:
    made = format_to_lmstudio(given_format)
    assert made == {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
    prompt = validate.chat_prompt({"messages": [], "response_format": made}, VERSION)
    assert prompt.schema == schema
