"""LM Studio's list of models, with further entries."""

from __future__ import annotations

import json

import pytest

from ollama_lmstudio.translate.passthrough import complete_list

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
