"""The types of Ollama's options."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.options import OPTIONS, Options, check_options

GOOD: dict[str, tuple[Any, Any]] = {
    "integer": (10.9, 10),
    "float32": (0.5, 0.5),
    "boolean": (False, False),
    "array": (["a"], ["a"]),
}
WRONG: dict[str, list[Any]] = {
    "integer": ["1", True, [], {}],
    "float32": ["hot", False, [], {}],
    "boolean": [1, "true", []],
    "array": ["x", 1, {}],
}


@pytest.mark.parametrize(("name", "go_type"), OPTIONS.items())
def test_each_option(name: str, go_type: str) -> None:
    sent, kept = GOOD[go_type]
    checked = check_options({name: sent}).known[name]
    assert checked == kept
    assert type(checked) is type(kept)
    assert check_options({name: None}) == Options()
    for wrong in WRONG[go_type]:
        with pytest.raises(OllamaError) as caught:
            check_options({name: wrong})
        assert (caught.value.status, caught.value.message) == (
            500,
            f'option "{name}" must be of type {go_type}',
        )


def test_integers() -> None:
    assert check_options({"seed": 2**60 + 1, "num_predict": -1.9}).known == {
        "seed": 2**60 + 1,
        "num_predict": -1,
    }


def test_stop_holds_strings() -> None:
    with pytest.raises(OllamaError) as caught:
        check_options({"stop": ["a", 1]})
    assert caught.value.message == 'option "stop" must be of an array of strings'


def test_unknown_options_are_kept_apart() -> None:
    raw = {"top_k": 1, "max_tokens": None, "format": {"b": 1}, "NUM_CTX": "x", "mirostat": True}
    assert check_options(raw) == Options(
        known={"top_k": 1}, unknown={"max_tokens": None, "format": {"b": 1}, "NUM_CTX": "x", "mirostat": True}
    )


def test_no_options() -> None:
    assert check_options(None) == check_options({}) == Options()
