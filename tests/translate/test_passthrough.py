"""LM Studio's list of models, with further entries."""

from __future__ import annotations

import json

import pytest

from ollama_lmstudio.translate.passthrough import add_models


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": null}'])
def test_a_list_that_is_none_stays_as_it_is(body: bytes) -> None:
    assert add_models(body, [{"id": "x"}]) == body


def test_entries_are_added_to_a_list() -> None:
    body = json.dumps({"data": [{"id": "\u00e9"}], "object": "list"}).encode()
    assert json.loads(add_models(body, [{"id": "x"}])) == {
        "data": [{"id": "\u00e9"}, {"id": "x"}],
        "object": "list",
    }
