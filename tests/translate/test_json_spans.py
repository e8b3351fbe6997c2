"""The positions of values in JSON text: found, and replaced without any other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.translate.json_spans import Span, elements, members, replaced

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
layouts = st.fixed_dictionaries({"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, 3])})


@given(st.dictionaries(texts, values, max_size=5), layouts, st.sampled_from(["", " ", "\r\n\t"]), texts)
def test_members(given_object: dict[str, Any], layout: dict[str, Any], space: str, rest: str) -> None:
    text = space + json.dumps(given_object, **layout) + space + rest
    found = members(text)
    assert {key: span.value for key, span in found.items()} == given_object
    assert list(found) == list(given_object)
    for span in found.values():
        assert json.loads(text[span.start : span.end]) == span.value


@given(st.lists(values, max_size=5), layouts, st.sampled_from(["", " ", "\n"]))
def test_elements(given_array: list[Any], layout: dict[str, Any], space: str) -> None:
    text = f"before{space}" + json.dumps(given_array, **layout) + "after"
    found = list(elements(text, len("before" + space)))
    assert [span.value for span in found] == given_array
    for span in found:
        assert json.loads(text[span.start : span.end]) == span.value


@given(st.dictionaries(texts, values, max_size=5), layouts, st.sets(st.integers(0, 4)))
def test_replaced(given_object: dict[str, Any], layout: dict[str, Any], which: set[int]) -> None:
    text = json.dumps(given_object, **layout)
    found = members(text)
    changed = [key for index, key in enumerate(found) if index in which]
    made = replaced(text, [(found[key], '"new"') for key in reversed(changed)])
    expected = {key: "new" if key in changed else value for key, value in given_object.items()}
    assert json.loads(made) == expected
    if not changed:
        assert made == text


def test_the_last_of_several_counts() -> None:
    assert members('{"a":1,"\\u0061":2}') == {"a": Span(2, 16, 17, 7)}


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "[]", '"a"', "null"),
        *("{", '{"a"', '{"a":', '{"a":1', '{"a":1]', '{"a" 1}', "{1:1}", '{"a":1 "b":2}', '{"a":}'),
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_what_is_no_object(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        members(text)
