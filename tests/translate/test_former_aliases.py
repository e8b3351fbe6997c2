"""The aliases of the proxy that this addon replaces."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_lmstudio.state.aliases import Alias
from ollama_lmstudio.translate.former_aliases import parse

CREATED = "2026-01-02T03:04:05.123456789+00:00"
UPDATED = "2026-01-02T03:04:06Z"
SECOND = 1_000_000_000
AT = 1767323045 * SECOND


def entry(**changed: Any) -> dict[str, Any]:
    metadata = dict.fromkeys(("system_prompt", "template", "parameters", "license", "adapters", "messages"))
    return {
        "name": "mine",
        "source_model": "llama",
        "target_model_id": "llama-3.2-3b-instruct",
        "created_at": CREATED,
        "updated_at": UPDATED,
        "metadata": metadata | changed,
    }


def read(content: object) -> dict[str, Alias]:
    return parse(json.dumps(content, indent=2).encode())


def test_an_entry_that_adds_nothing() -> None:
    (found,) = read({"Mine": entry()}).items()
    assert found[0] == "registry.ollama.ai/library/mine:latest"
    assert (found[1].name, found[1].target) == ("Mine:latest", "llama-3.2-3b-instruct")
    assert found[1].created // 1000 == AT // 1000 + 123456
    assert found[1].modified == AT + SECOND
    assert found[1] == Alias(found[1].name, found[1].target, found[1].created, found[1].modified)


def test_what_an_entry_adds() -> None:
    message = {"role": "user", "content": "hi"}
    given = entry(
        system_prompt="S",
        template="T",
        parameters={"seed": 3},
        license="MIT",
        adapters={"a.gguf": "sha256:00"},
        messages=[message],
    )
    (found,) = read({"ns/mine:7b": given}).values()
    assert found.name == "ns/mine:7b"
    assert (found.system, found.template, found.parameters, found.license) == ("S", "T", {"seed": 3}, ["MIT"])
    assert (found.adapters, found.messages) == ({"a.gguf": "sha256:00"}, [message])


def test_values_of_any_type_were_kept() -> None:
    given = entry(parameters=[1], license={"x": 1}, adapters=["a"], messages=["hi"])
    (found,) = read({"mine": given}).values()
    assert found == Alias(found.name, found.target, found.created, found.modified)
    for broken in ({"metadata": None}, {"created_at": None}, {"updated_at": "yesterday"}):
        assert len(read({"mine": entry() | broken})) == 1


def test_of_names_that_differ_in_case_the_last_one_stays() -> None:
    later = entry(system_prompt="later") | {"updated_at": "2026-06-01T00:00:00Z"}
    (found,) = read({"Mine": later, "mine": entry()}).values()
    assert found.system == "later"


def test_a_name_that_no_client_could_use_is_left_out() -> None:
    assert set(read({"my model!": entry(), "mine": entry()})) == {"registry.ollama.ai/library/mine:latest"}
    assert read({}) == {}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"a": 1}', b'{"version": 1, "aliases": {}}', b'{"a": {}}', b"[" * 100_000]
)
def test_other_files_are_none(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's, or its own
        parse(data)
