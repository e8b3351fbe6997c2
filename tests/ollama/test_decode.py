"""Go's JSON decoder."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_lmstudio.ollama import decode as go
from ollama_lmstudio.ollama.errors import OllamaError

BYTE = go.Struct("Byte", {"of": go.UINT8}, lambda values, _: values)
INNER = go.Struct("Inner", {"text": go.STRING, "flags": go.Slice(go.BOOL)}, lambda values, _: values)


def _own(value: Any) -> Any:
    if value == "bad":
        raise OllamaError(400, "own error")
    return go.unmarshal(INNER, value)


OUTER = go.Struct(
    "Outer",
    {
        "name": go.STRING,
        "count": go.INT,
        "on": go.Pointer(go.BOOL, nil=True),
        "inner": INNER,
        "list": go.Slice(INNER),
        "own": go.Pointer(go.Custom("api.Own", _own, lambda: None)),
        "any": go.ANYTHING,
        "files": go.Dictionary(go.STRING),
        "bytes": go.Slice(go.UINT8, "api.Bytes"),
    },
    lambda values, extras: {key: value for key, value in values.items() if value} | {"extras": extras},
)


def decode(body: str | bytes) -> Any:
    return go.decode(OUTER, body if isinstance(body, bytes) else body.encode())[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("null", {"on": True, "extras": {}}),
        (' \r\n\t{"on":false} trailing', {"extras": {}}),
        ('{"on":false,"on":null}', {"on": True, "extras": {}}),
        ('{"name":"a","name":"b"}', {"name": "b", "on": True, "extras": {}}),
        ('{"name":"a","name":null}', {"name": "a", "on": True, "extras": {}}),
        ('{"NAME":"a"}', {"name": "a", "on": True, "extras": {}}),
        ('{"li\u017ft":[]}', {"on": True, "extras": {}}),
        ('{"files":null,"x":{"b":1,"a":[1.0,null]}}', {"on": True, "extras": {"x": {"b": 1, "a": [1.0, None]}}}),
        ('{"files":{"a":"b","c":null}}', {"files": {"a": "b", "c": ""}, "on": True, "extras": {}}),
        ('{"bytes":[1,null,255]}', {"bytes": [1, 0, 255], "on": True, "extras": {}}),
        ('{"inner":null}', {"inner": {"text": "", "flags": []}, "on": True, "extras": {}}),
        (
            '{"list":[null,{"text":"t"}]}',
            {
                "list": [{"text": "", "flags": []}, {"text": "t", "flags": []}],
                "inner": {"text": "", "flags": []},
                "on": True,
                "extras": {},
            },
        ),
        ('{"any":-0}', {"on": True, "extras": {}}),
        ('{"any":1e-5}', {"any": 1e-5, "on": True, "extras": {}}),
        ('{"any":12345678901234567890}', {"any": 12345678901234567890, "on": True, "extras": {}}),
    ],
)
def test_values(body: str, expected: dict[str, Any]) -> None:
    assert decode(body) == {"inner": {"text": "", "flags": []}} | expected


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
        (b'"\\ud83d\\ud83d\\ude00"', "\ufffd😀"),
        (b'"\\\\ud83d"', "\\ud83d"),
        (b'"\\\\\\ud83d"', "\\\ufffd"),
        (b'"a\xff"', "a\ufffd"),
        (b'"\xe2\x82"', "\ufffd\ufffd"),
        (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
        ('"\u2028\x7f\x85"'.encode(), "\u2028\x7f\x85"),
    ],
)
def test_text(body: bytes, text: str) -> None:
    assert decode(b'{"name":' + body + b"}")["name"] == text


STRUCT = "json: cannot unmarshal {} into Go struct field {} of type {}"
VALUE = "json: cannot unmarshal {} into Go value of type {}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "missing request body"),
        (" \n", "missing request body"),
        ("{", "unexpected EOF"),
        ("5.", "unexpected EOF"),
        ("5.x", "invalid character 'x' after decimal point in numeric literal"),
        ('{"any":NaN}', "invalid character 'N' looking for beginning of value"),
        ('{"any":-Infinity}', "invalid character 'I' in numeric literal"),
        ("\ufeff{}", "invalid character 'ï' looking for beginning of value"),
        ("[]", VALUE.format("array", "api.Outer")),
        ('"x"', VALUE.format("string", "api.Outer")),
        ("5", VALUE.format("number", "api.Outer")),
        ("5.5", VALUE.format("number", "api.Outer")),
        ("true", VALUE.format("bool", "api.Outer")),
        ('{"name":5}', STRUCT.format("number", "Outer.name", "string")),
        ('{"NAME":5}', STRUCT.format("number", "Outer.name", "string")),
        ('{"name":{}}', STRUCT.format("object", "Outer.name", "string")),
        ('{"on":"yes"}', STRUCT.format("string", "Outer.on", "bool")),
        ('{"count":true}', STRUCT.format("bool", "Outer.count", "int")),
        ('{"count":1.50}', STRUCT.format("number 1.50", "Outer.count", "int")),
        ('{"count":1e2}', STRUCT.format("number 1e2", "Outer.count", "int")),
        ('{"count":9223372036854775808}', STRUCT.format("number 9223372036854775808", "Outer.count", "int")),
        ('{"bytes":[256]}', STRUCT.format("number 256", "Outer.bytes", "uint8")),
        ('{"bytes":{}}', STRUCT.format("object", "Outer.bytes", "api.Bytes")),
        ('{"inner":[]}', STRUCT.format("array", "Outer.inner", "api.Inner")),
        ('{"inner":{"text":5}}', STRUCT.format("number", "Inner.inner.text", "string")),
        ('{"inner":{"flags":[1]}}', STRUCT.format("number", "Inner.inner.flags", "bool")),
        ('{"inner":{"flags":{}}}', STRUCT.format("object", "Inner.inner.flags", "[]bool")),
        ('{"list":[5]}', STRUCT.format("number", "Outer.list", "api.Inner")),
        ('{"list":[{"text":5}]}', STRUCT.format("number", "Inner.list.text", "string")),
        ('{"own":5}', STRUCT.format("number", "Outer.own", "api.Inner")),
        ('{"own":{"text":5}}', STRUCT.format("number", "Outer.own.text", "string")),
        ('{"files":[]}', STRUCT.format("array", "Outer.files", "map[string]string")),
        ('{"files":{"a":1}}', STRUCT.format("number", "Outer.files", "string")),
        ('{"any":[1e999]}', STRUCT.format("number 1e999", "Outer.any", "float64")),
        ('{"inner":{"text":"x"},"name":5}', STRUCT.format("number", "Outer.name", "string")),
        # The first one counts ...
        ('{"name":5,"on":5}', STRUCT.format("number", "Outer.name", "string")),
        ('{"name":5,"name":"x"}', STRUCT.format("number", "Outer.name", "string")),
        # ... unless a type that decodes itself fails ...
        ('{"name":5,"own":"bad"}', "own error"),
        ('{"name":5,"own":{"text":5}}', STRUCT.format("number", "Outer.own.text", "string")),
        # ... or the syntax is wrong.
        ('{"name":5,"own":"bad",}', "invalid character '}' looking for beginning of object key string"),
    ],
)
def test_errors(body: str, message: str) -> None:
    with pytest.raises(OllamaError) as caught:
        decode(body)
    assert (caught.value.status, caught.value.message) == (400, message)


def test_digits_without_end() -> None:
    digits = "9" * 5000
    with pytest.raises(OllamaError) as caught:
        decode(f'{{"count":{digits}}}')
    assert caught.value.message == STRUCT.format(f"number {digits}", "Outer.count", "int")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    deepest = opening * go.MAX_DEPTH + "1" + closing * go.MAX_DEPTH
    brackets_in_text = '{"x":"' + "[" * 500 + '\\"{"}'
    many = f'{{"any":[{",".join(["[]"] * 500)}]}}'
    assert decode(brackets_in_text)["extras"]["x"] == "[" * 500 + '"{'
    assert len(decode(many)["any"]) == 500
    assert go.decode(go.ANYTHING, deepest.encode())[0]
    for depth in (go.MAX_DEPTH + 1, 10_001, 200_000):
        for end in ("", "1" + closing * depth):
            with pytest.raises(OllamaError) as caught:
                go.decode(go.ANYTHING, (opening * depth + end).encode())
            assert caught.value.message == f"invalid character '{opening[0]}' exceeded max depth"


@given(st.binary() | st.text(alphabet='{}[]",:\\ud8e.-+tfn 1namelistonw').map(str.encode))
def test_nothing_but_ollama_errors(body: bytes) -> None:
    with suppress(OllamaError):
        decode(body)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"format": [ 1 ] }', "[ 1 ]"),
        ('{ "a" : {"format":1} , "Format":"\\"x" , "b":[]}', '"\\"x"'),
        ('{"format":1,"format":2.50}', "2.50"),
        ("{}", ""),
    ],
)
def test_member_text(text: str, expected: str) -> None:
    assert go.member_text(text, "format") == expected


def test_brackets_in_a_text_are_no_reason_to_look_for_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go, "syntax_error", lambda *_: pytest.fail("nothing is wrong"))
    text = '\\"[{' * 300
    assert go.decode(go.OBJECT, f'{{"prompt": "{text}"}}'.encode())[0] == {"prompt": '"[{' * 300}


def test_an_unknown_key_is_not_compared_with_every_field() -> None:
    class Name(str):
        def lower(self) -> str:
            pytest.fail("a field's name is folded once")

    struct = go.Struct("T", {"Known": go.INT}, lambda values, extras: values | extras)
    struct.fields = {Name(name): go_type for name, go_type in struct.fields.items()}
    found = go.unmarshal(struct, go.Pairs([("known", 1), ("unknown", 2)]))
    assert found == {"Known": 1, "unknown": 2}
