"""Ollama's `format` as OpenAI's `response_format`."""

from __future__ import annotations

from typing import Any


def format_to_lmstudio(schema: Any) -> dict[str, Any]:
    """Return `format` as `response_format`; `"json"` as the schema of any object: LM Studio refuses `json_object`."""
    if schema == "json":
        return _json_schema("json", {"type": "object"})
    return _json_schema("format", schema)


def _json_schema(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
