"""Bodies of which some members change."""

from __future__ import annotations

import json

import pytest

from ollama_lmstudio.translate.json_body import JSONBody
from ollama_lmstudio.translate.json_spans import members

TEXT = '{ "a" : [1.0,\t{"b":1e5}, {"c": "\\u00e9"} ],\n "model":"m" , "n":null} '


def body(text: str = TEXT) -> JSONBody:
    return JSONBody(text, members(text))


def test_what_is_not_set_keeps_its_bytes() -> None:
    assert body().encode() == TEXT.encode()
    same = body()
    same.set("a", same.get("a"))
    assert same.encode() == TEXT.encode()


def test_members_are_replaced_and_added() -> None:
    changed = body()
    changed.set("n", {"é": 1})
    changed.set("new", [True, None])
    changed.set("model", "k")
    changed.set("newer", 1)
    assert changed.encode() == (
        TEXT.replace('"m"', '"k","new":[true,null],"newer":1').replace("null}", '{"é":1}}').encode()
    )


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"x":1,"model":"m"}', '{"model":"m"}'),
        ('{ "x" : [1, 2] ,\n "model":"m" }', '{ "model":"m" }'),
        ('{"model":"m","x":1}', '{"model":"m"}'),
        ('{"model":"m" ,\n"x":{"a":1}  } rest', '{"model":"m"   } rest'),
        ('{"a":1,"x":"y, z","model":"m"}', '{"a":1,"model":"m"}'),
        ('{"a":1,"model":"m"}', '{"a":1,"model":"m"}'),
    ],
)
def test_a_member_is_removed(text: str, left: str) -> None:
    changed = body(text)
    changed.remove("x")
    assert changed.get("x") is None
    assert changed.encode() == left.encode()
    changed.set("new", 1)
    assert changed.encode() == left.replace('"model":"m"', '"model":"m","new":1').encode()


def test_members_are_read_as_they_are_now() -> None:
    changed = body()
    assert [changed.get(key) for key in ("model", "n", "none")] == ["m", None, None]
    assert [changed.source(key) for key in ("model", "n", "none")] == ['"m"', "null", "null"]
    assert changed.element_sources("a") == ["1.0", '{"b":1e5}', '{"c": "\\u00e9"}']
    changed.set("none", 1)
    changed.set("n", 2)
    assert [changed.get(key) for key in ("n", "none")] == [2, 1]


def test_other_elements_of_a_list_keep_their_bytes() -> None:
    changed = body()
    one, two, three = changed.get("a")
    changed.set("a", [one, {"d": 1}, three])
    assert changed.encode() == TEXT.replace('{"b":1e5}', '{"d":1}').encode()
    changed.set("a", [{"new": 1}, three, one, two])
    assert b'"a" : [{"new":1},{"c": "\\u00e9"},1.0,{"b":1e5}],\n' in changed.encode()
    changed.set("a", [])
    assert b'"a" : [],\n' in changed.encode()
    changed.set("a", "text")
    assert b'"a" : "text",\n' in changed.encode()


@pytest.mark.parametrize("text", ['{"model":"m"}', '{"model":1,"x":1,"model":"m"}', '{"model":"m"} rest'])
def test_what_is_added_stands_after_the_model(text: str) -> None:
    changed = body(text)
    changed.set("y", 2)
    assert changed.encode() == text.replace('"model":"m"', '"model":"m","y":2').encode()


def test_text_that_is_none() -> None:
    text = b'{"a":["\xff",{"b":"\xff\\ud800\\ud83d\\ude00"}],"model":"m"}'.decode("utf-8", "surrogateescape")
    changed = body(text)
    assert changed.encode() == text.encode("utf-8", "surrogateescape")
    changed.set("a", [changed.get("a")[0], {"b": changed.get("a")[1]["b"]}])
    before, _, after = changed.encode().partition(b",")
    assert before == b'{"a":["\xff"'
    assert json.loads(after.partition(b"]")[0]) == {"b": "\ufffd\ufffd\U0001f600"}
