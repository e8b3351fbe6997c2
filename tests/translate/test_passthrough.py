"""LM Studio's list of models, with further entries."""

from __future__ import annotations

import json

import pytest

from ollama_lmstudio.translate.passthrough import complete_list, is_json_of_another_encoding, members_with_model

LIST = {"data": [{"id": "\u00e9", "object": "model", "owned_by": "me"}], "object": "list"}
BODY = json.dumps(LIST).encode()


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"data": null}', b'{"data": 5}', b'{"error": "no"}', b"[" * 9999]
)
def test_a_list_that_is_none_stays_as_it_is(body: bytes, dated: bool) -> None:
    assert complete_list(body, [{"id": "x"}], dated=dated) == body


@pytest.mark.parametrize("body", [b'{"data": [5]}', b'{"data": [{"id": "x"}, null]}'])
def test_entries_that_are_none_stay_as_they_are(body: bytes) -> None:
    assert complete_list(body, [], dated=True) == body


def test_entries_are_added_to_a_list() -> None:
    assert json.loads(complete_list(BODY, [{"id": "x"}], dated=False)) == LIST | {"data": [*LIST["data"], {"id": "x"}]}


def test_entries_get_a_date() -> None:
    (entry,) = json.loads(complete_list(BODY, [], dated=True))["data"]
    assert list(entry) == ["id", "object", "created", "owned_by"]
    assert (entry["id"], entry["owned_by"]) == ("\u00e9", "me")
    assert entry["created"] > 1_700_000_000


def test_a_list_that_lacks_nothing_keeps_its_bytes() -> None:
    assert complete_list(BODY, [], dated=False) == BODY
    dated = b'{"data":[{"id":"x","created":1}]  }'
    assert complete_list(dated, [], dated=True) == dated
    assert complete_list(b'{"data":[]}', [], dated=True) == b'{"data":[]}'


@pytest.mark.parametrize(
    ("body", "text", "name"),
    [
        ('{"model":"m", "a":1}', None, "m"),
        ('{"model":"m","Model":"n"}', None, "m"),
        ('{"a": "\u00e9", "MODEL": "m"}', '{"a": "\u00e9", "model": "m"}', "m"),
        ('{"\\u004dodel":"m","a":[1.0]}', '{"model": "m", "a": [1.0]}', "m"),
        ('{"Model":"m","mOdel":"n"}', '{"Model": "m", "model": "n"}', "n"),
        ('{"Model":"m","a":"\\ud83d"}', '{"model": "m", "a": "\ufffd"}', "m"),
    ],
)
def test_the_name_of_a_model_is_found_in_any_case(body: str, text: str | None, name: str) -> None:
    """LM Studio knows one case only, and answers with the loaded model for a body that names none."""
    found = members_with_model(body.encode())
    assert found is not None
    assert found[0] == (text or body)
    assert found[1]["model"].value == name


@pytest.mark.parametrize("body", [b'{"models":"m"}', b'{"Model":3}', b'["Model"]', b'{"Model":', b'{"a":"\\u00e9"}'])
def test_no_name(body: bytes) -> None:
    assert members_with_model(body) is None


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b"{}", False),
        ("application/json", b"", False),
        ("application/json", b'{"a":"\xc3\xa9"}', False),
        ("application/json", b"\xef\xbb\xbf{}", True),
        ("", b"\xff\xfe{\0}\0", True),
        ("text/plain; charset=utf-16", b"\0{\0}", True),
        ("application/x-www-form-urlencoded", b"{\0\0\0}\0\0\0", True),
        ("Application/Problem+JSON", b"{\0}\0", True),
        ("multipart/form-data; boundary=x", b"\0{", False),
        ("application/octet-stream", b"\xef\xbb\xbf", False),
    ],
)
def test_json_of_another_encoding(content_type: str, body: bytes, expected: bool) -> None:
    assert is_json_of_another_encoding(content_type, body) is expected
