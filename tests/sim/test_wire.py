from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.sim.wire import etag, event_frame, native_error, openai_error, parse_json, quote, stringify

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, b"1"),
        (0.5, b"0.5"),
        (51.43709529007664, b"51.43709529007664"),
        (0.00001, b"0.00001"),
        (0.000001, b"0.000001"),
        (1e-7, b"1e-7"),
        (1.5e-9, b"1.5e-9"),
        (1e16, b"10000000000000000"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (-0.0, b"0"),
        (math.nan, b"null"),
        (math.inf, b"null"),
    ],
)
def test_numbers_are_written_as_javascript_does(number: float, text: bytes) -> None:
    assert stringify(number) == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("é 😀 ﷽", '"é 😀 ﷽"'.encode()),
        ('"\\/\n\t\x01\x7f', b'"\\"\\\\/\\n\\t\\u0001\x7f"'),
        ("a\ud83d", b'"a\\ud83d"'),
        ("\u2028", '"\u2028"'.encode()),
    ],
)
def test_strings_are_raw_utf8_with_lone_surrogates_escaped(text: str, quoted: bytes) -> None:
    assert quote(text) == quoted


def test_json_is_indented_like_javascript_does() -> None:
    value = {"a": [1, {"b": None}], "empty": [], "none": {}, "t": True}
    assert stringify(value) == b'{"a":[1,{"b":null}],"empty":[],"none":{},"t":true}'
    assert stringify(value, 2).decode() == json.dumps(value, indent=2)
    assert stringify(value, 4).decode() == json.dumps(value, indent=4)


@given(JSON_VALUES, st.sampled_from([0, 2, 4]))
def test_what_is_written_reads_back(value: object, indent: int) -> None:
    assert json.loads(stringify(value, indent)) == value


def test_other_values_are_no_json() -> None:
    with pytest.raises(TypeError, match="not JSON"):
        stringify({"a": {1, 2}})


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{'a': 1}", "", "[1,]"])
def test_what_javascript_does_not_parse_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_etag_is_the_one_lm_studio_was_seen_to_send() -> None:
    body = b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}'
    assert etag(body) == 'W/"43-qTdCaLfEMe8wb/ShYO0yTUTunEg"'


def test_named_events_are_two_lines() -> None:
    assert event_frame("error", {"message": "x"}) == b'event: error\ndata: {"message":"x"}\n\n'


def test_error_shapes() -> None:
    openai = openai_error("No", code=None, status=404, indent=4)
    assert (openai.status, openai.indent) == (404, 4)
    assert stringify(openai.body) == (
        b'{"error":{"message":"No","type":"invalid_request_error","param":"model","code":null}}'
    )
    native = native_error("No", code="c", param="p")
    assert stringify(native.body) == b'{"error":{"message":"No","type":"invalid_request","param":"p","code":"c"}}'
    assert "param" not in native_error("No", code="c").body["error"]
