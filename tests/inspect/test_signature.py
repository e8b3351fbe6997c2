"""The parameters of tools, with their types, on one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.inspect import signature

UNIT = {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"}

SIGNATURES: dict[str, tuple[dict[str, Any], str]] = {
    "types and enums": (
        {"properties": {"city": {"type": "string"}, "unit": UNIT}, "required": ["city"]},
        "city: string, unit?: celsius|fahrenheit = celsius",
    ),
    "all are required": (
        {"properties": {"a": {"type": "number"}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
        "a: number, b: boolean",
    ),
    "lists": (
        {"properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"type": "array"}}},
        "a?: integer[], b?: array",
    ),
    "lists of several types": (
        {"properties": {"a": {"type": "array", "items": {"enum": ["x", "y"]}}}},
        "a?: (x|y)[]",
    ),
    "null": ({"properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]}, "a: string|null"),
    "any of": (
        {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}}},
        "a?: string|null = null",
    ),
    "references": ({"properties": {"a": {"$ref": "#/$defs/Unit"}}, "$defs": {"Unit": UNIT}}, "a?: Unit"),
    "values that are no strings": ({"properties": {"a": {"enum": [1, 2.5, True, None, ""]}}}, 'a?: 1|2.5|true|null|""'),
    "a constant": ({"properties": {"a": {"const": "x"}}}, "a?: x"),
    "many choices": ({"properties": {"a": {"enum": list(range(100))}}}, "a?: 0|1|2|3|4|5|6|7|..."),
    "no type": ({"properties": {"a": {}, "b": True}}, "a?, b?"),
    "line breaks": ({"properties": {"a": {"type": "x\ny", "default": "b\nc"}}}, "a?: x y = b c"),
    "no properties": ({"type": "object"}, ""),
    "many parameters": (
        {"properties": {f"p{number}": {} for number in range(23)}},
        ", ".join(f"p{number}?" for number in range(20)) + ", and 3 more",
    ),
}


@pytest.mark.parametrize(("schema", "expected"), SIGNATURES.values(), ids=SIGNATURES)
def test_signatures(schema: dict[str, Any], expected: str) -> None:
    assert ", ".join(signature.parameters(schema)) == expected


def test_types_within_types_are_bounded() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        schema = {"type": "array", "items": schema}
    assert list(signature.parameters({"properties": {"a": schema}})) == ["a?: array[][][][]"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "enum", "anyOf", "items", "properties", "required", "default", "$ref"]), inner
        )
    ),
    max_leaves=15,
)


@given(JSON)
def test_never_raises(value: Any) -> None:
    for schema in (value, {"properties": value}, {"properties": {"a": value}}):
        if isinstance(schema, dict):
            assert not any("\n" in part for part in signature.parameters(schema))
