"""Lenient parsing, and text for display."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inspect.conftest import PNG

from ollama_lmstudio.inspect import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)

NESTED: list[Any] = []
for _ in range(299):
    NESTED = [NESTED]

CUT: dict[str, tuple[str, Any]] = {
    "in a text": ('{"a": "hel', {"a": "hel"}),
    "in a text of a list": ('["one", "tw', ["one", "tw"]),
    "in an escape": ('{"a": "x\\', {"a": "x"}),
    "in a long escape": ('{"a": "x\\u00', {"a": "x"}),
    "in a long escape after a backslash that is a text": ('{"a": "x\\\\\\u00', {"a": "x\\"}),
    "after a backslash that is a text": ('{"a": "x\\\\', {"a": "x\\"}),
    "in a key": ('{"a": 1, "b', {"a": 1}),
    "after a key": ('{"a": 1, "b"', {"a": 1}),
    "after a colon": ('{"a": 1, "b":', {"a": 1}),
    "in a word": ('{"a": 1, "b": tr', {"a": 1}),
    "in a number": ('{"a": [1, 23', {"a": [1]}),
    "after a comma": ('{"a": [{"b": 1},', {"a": [{"b": 1}]}),
    "after a bracket": ('{"a": [{', {"a": [{}]}),
    "with brackets in texts": ('{"a": "}]", "b": ["{', {"a": "}]", "b": ["{"]}),
    "not cut, but with a line break in a text": ('{"a": "x\ny"}', {"a": "x\ny"}),
    # What pydantic_core.from_json(allow_partial="trailing-strings") gives an error for.
    "with a line break in a text": ('{"a": "x\ny", "b": "z', {"a": "x\ny", "b": "z"}),
    "with half of a character": ('{"a": "x\\ud83d", "b": "z', {"a": "x\ud83d", "b": "z"}),
    "nested deeper than pydantic-core goes": ('{"a": "x", "b": ' + "[" * 300, {"a": "x", "b": NESTED}),
    "wrongly closed": ('{"a": [1, 2}, "b": 3}', {"a": [1]}),
}


@pytest.mark.parametrize(("text", "value"), CUT.values(), ids=CUT)
def test_what_had_come_of_a_text_that_is_cut(text: str, value: Any) -> None:
    found = jsontext.read(text)
    assert found.value == value
    assert found.problem.startswith("broken: ")


PROBLEMS: dict[str, tuple[bytes, Any, str]] = {
    "nothing": (b" \n", None, "empty"),
    "no JSON": (b"<html>", None, "not JSON: Expecting value at character 1"),
    "more than one": (b'{"a":1} {"b":2}', {"a": 1}, "8 characters follow"),
    "too deep": (b"[" * 200_000, None, "nested too deeply"),
    "a byte order mark": (b"\xef\xbb\xbf{}", {}, ""),
    "no UTF-8": (b'"\xff"', "\ufffd", ""),
    "a number too long": (b"1" * 5000, None, ""),
}


@pytest.mark.parametrize(("data", "value", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_problems(data: bytes, value: Any, problem: str) -> None:
    found = jsontext.read(data)
    assert found.value == value
    assert found.problem == problem or (not problem and found.problem.startswith("not JSON"))


@given(VALUES, st.integers(0, 400))
def test_every_begin_can_be_read(value: Any, end: int) -> None:
    """What is whole is read as it is; of what is cut, nothing is there that was not."""
    text = json.dumps(value)
    assert jsontext.read(text) == (value, "")
    found = jsontext.read(text[:end])
    if isinstance(value, dict) and text[:end].startswith("{"):
        assert set(found.value) <= set(value)


@given(st.binary())
def test_never_raises(data: bytes) -> None:
    jsontext.read(data)
    text = data.decode("utf-8", "replace")
    jsontext.shortened(jsontext.without_base64(text), 10, 3)
    assert len(jsontext.one_line(text, 20)) <= 20


BASE64: dict[str, tuple[str, str]] = {
    "a data URL": (f'{{"url":"data:image/png;base64,{PNG}"}}', '{"url":"[image/png, 70 bytes]"}'),
    "a data URL without a type": (f"data:;base64,{PNG} end", "[image/png, 70 bytes] end"),
    "with parameters": (f"data:image/svg+xml;charset=utf-8;base64,{PNG}", "[image/svg+xml, 70 bytes]"),
    "an image": (f'["{PNG}"]', '["[image/png, 70 bytes]"]'),
    "a JPEG with escaped slashes": ('["\\/9j\\/' + "A" * 600 + '"]', '["[base64, 454 bytes]"]'),
    "a JPEG": ("/9j/" + "A" * 76, "[image/jpeg, 60 bytes]"),
    "whatever is long": ("x " + "Q" * 4000 + "== y", "x [base64, 3.0 kB] y"),
    "what is not that long": ("Q" * 511, "Q" * 511),
    "words": ("word " * 1000, "word " * 1000),
    "no base64": ("data:image/png,abc", "data:image/png,abc"),
}


@pytest.mark.parametrize(("text", "shown"), BASE64.values(), ids=BASE64)
def test_base64_is_a_note(text: str, shown: str) -> None:
    assert jsontext.without_base64(text) == shown


def test_long_texts_are_cut_in_their_middle() -> None:
    assert jsontext.cut("a" * 100, 100) == "a" * 100
    assert jsontext.cut("a" * 75 + "b" * 1000 + "c" * 25, 100) == (
        "a" * 75 + "\n[... 1,000 characters left out ...]\n" + "c" * 25
    )


def test_long_values_are_shortened() -> None:
    text = jsontext.pretty({"s": "a" * 75 + "b" * 1000 + "c" * 25, "v": [0.5] * 768, "few": [1, 2, 3], "t": "[1,2]"})
    assert jsontext.shortened(text, 100, 2) == (
        f'{{\n  "s": "{"a" * 75} [... 1,000 characters left out ...] {"c" * 25}",\n'
        '  "v": [0.5, 0.5, ... 766 more],\n  "few": [1, 2, 3],\n  "t": "[1,2]"\n}'
    )


@given(VALUES)
def test_an_excerpt_of_what_is_short_is_all_of_it(value: Any) -> None:
    text = jsontext.excerpt(value, 100_000, 10_000, 5_000)
    assert json.loads(text) == value
    assert jsontext.shortened(jsontext.pretty(value), 10_000, 5_000) == text


def test_an_excerpt_ends_each_list_and_object_with_how_much_more_it_has() -> None:
    value = {"v": [0.5] * 768, "s": "a" * 75 + "b " * 500 + "c" * 25, "l": [{}, {"x": PNG}, {"y": 1}], "more": 1}
    assert jsontext.excerpt(value, 195, 100, 2) == (
        '{\n  "v": [0.5, 0.5, ... 766 more],\n'
        f'  "s": "{"a" * 75} [... 1,000 characters left out ...] {"c" * 25}",\n'
        '  "l": [\n    {},\n    ... 2 more\n  ],\n  ... 1 more\n}'
    )
    assert jsontext.excerpt([PNG], 180, 22, 2) == '[\n  "[image/png, 70 bytes]"\n]'


def test_an_excerpt_takes_no_time_for_what_is_not_shown() -> None:
    class Untouched(dict[str, int]):
        def values(self) -> Any:
            raise AssertionError("looked at, though nothing of it is shown")

    text = jsontext.excerpt([["x" * 50] * 3, Untouched(a=1)], 40, 100, 5)
    assert text == f'[\n  [\n    "{"x" * 50}",\n    ... 2 more\n  ],\n  ... 1 more\n]'


def test_an_excerpt_of_what_is_nested_too_deeply_says_so() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert jsontext.excerpt(value, 10_000_000, 100, 5) == jsontext.TOO_DEEP


def test_a_text_on_one_line() -> None:
    assert jsontext.one_line("a\x00\x1b[31m\r\nb\u2028c") == "a [31m b c"


@pytest.mark.parametrize(
    "text", ['{"a":"' + '\\"' * 500_000, "{" * 1_000_000, '"' * 1_000_000, "[1," * 300_000, "data:" * 200_000]
)
def test_time_grows_with_the_length_only(text: str) -> None:
    """What took a time that grows with the square of the length would not end today."""
    jsontext.read(text)
    jsontext.shortened(jsontext.without_base64(text), 100, 5)


def test_an_image_of_megabytes_is_noted() -> None:
    image = f'["iVBORw0KGgo{"A" * 4_000_000}"]'
    assert jsontext.without_base64(image) == '["[image/png, 3.0 MB]"]'
