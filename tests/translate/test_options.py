"""Options as keys of LM Studio's bodies: the table, and the keys that LM Studio's own validator knows."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.sim import validate
from ollama_lmstudio.state.aliases import Alias
from ollama_lmstudio.translate import options as options_module
from ollama_lmstudio.translate.options import ENDPOINT_KEYS, OPTION_TO_LMSTUDIO, merge_options, options_to_lmstudio
from ollama_lmstudio.translate.paths import CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS

OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    *[
        ({name: value}, {name: value})
        for name, value in {
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 40,
            "min_p": 0.05,
            "presence_penalty": -1.5,
            "frequency_penalty": 0.0,
            "repeat_penalty": 1.1,
            "seed": 0,
            "stop": ["a", "b"],
            "max_tokens": 7,
            "logit_bias": {"50256": -100},
        }.items()
    ],
    ({"num_predict": 7}, {"max_tokens": 7}),
    ({"num_predict": 0}, {"max_tokens": 0}),
    ({"num_predict": -1}, {}),
    ({"num_predict": -2}, {}),
    ({"max_tokens": -1}, {}),
    ({"max_tokens": 7.9}, {"max_tokens": 7}),
    ({"num_predict": 5, "max_tokens": 7}, {"max_tokens": 7}),
    ({"max_tokens": -1, "num_predict": 5}, {}),
    ({"max_tokens": None, "num_predict": 5}, {"max_tokens": 5}),
    ({"temperature": None, "stop": [], "seed": None, "top_k": ""}, {}),
    ({"logit_bias": [[15, -100], (16, 1.5), [17], "x", [1, 2, 3]]}, {"logit_bias": {"15": -100, "16": 1.5}}),
    ({"logit_bias": []}, {}),
    ({"num_ctx": 4096, "system": "S", "format": "json"}, {}),
    ({"reasoning_effort": "low", "draft_model": "d"}, {"reasoning_effort": "low", "draft_model": "d"}),
]


@pytest.mark.parametrize(("options", "body"), OPTIONS)
def test_options(options: dict[str, Any], body: dict[str, Any]) -> None:
    mapped = options_to_lmstudio(options, {}, CHAT_COMPLETIONS)
    assert mapped.body == body
    assert mapped.unsupported == []


def test_every_option_of_the_table_is_tested() -> None:
    tested = {name for options, _ in OPTIONS for name in options}
    assert {name for name, _ in OPTION_TO_LMSTUDIO} <= tested


def test_what_lm_studio_has_nothing_for_is_named() -> None:
    options = {"mirostat": 1, "num_gpu": 99, "num_keep": None, "typical_p": 1.0, "seed": 1, "num_ctx": 5}
    mapped = options_to_lmstudio(options, {"whatever": 1}, CHAT_COMPLETIONS)
    assert mapped.body == {"seed": 1}
    assert mapped.unsupported == ["mirostat", "num_gpu", "typical_p"]


@pytest.mark.parametrize(
    ("endpoint", "extras", "body"),
    [
        (CHAT_COMPLETIONS, {"parallel_tool_calls": False, "user": "u"}, {"parallel_tool_calls": False, "user": "u"}),
        (COMPLETIONS, {"parallel_tool_calls": False, "reasoning_effort": "low", "user": "u"}, {"user": "u"}),
        (EMBEDDINGS, {"preset": "p", "user": "u"}, {"user": "u"}),
        (CHAT_COMPLETIONS, {"preset": None, "draft_model": ""}, {}),
        (CHAT_COMPLETIONS, {"messages": [], "model": "other", "stream": False, "temperature": 1}, {}),
    ],
)
def test_keys_at_the_top_level(endpoint: str, extras: dict[str, Any], body: dict[str, Any]) -> None:
    assert options_to_lmstudio({}, extras, endpoint).body == body


def test_an_option_wins_over_a_key_at_the_top_level() -> None:
    mapped = options_to_lmstudio({"preset": "inner"}, {"preset": "outer"}, CHAT_COMPLETIONS)
    assert mapped.body == {"preset": "inner"}


@pytest.mark.parametrize(
    ("options", "body", "dropped"),
    [
        ({"repeat_penalty": 1.2}, {"frequency_penalty": 1.2}, []),
        ({"repeat_penalty": 1.2, "frequency_penalty": 0.1}, {"frequency_penalty": 0.1}, ["repeat_penalty"]),
        ({"repeat_penalty": 1.2, "frequency_penalty": None}, {"frequency_penalty": 1.2}, []),
    ],
)
def test_a_substitute_for_a_key_that_an_endpoint_lacks(
    options: dict[str, Any], body: dict[str, Any], dropped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = ENDPOINT_KEYS[COMPLETIONS] - {"repeat_penalty"}
    monkeypatch.setattr(options_module, "ENDPOINT_KEYS", {COMPLETIONS: lacking})
    mapped = options_to_lmstudio(options, {}, COMPLETIONS)
    assert (mapped.body, mapped.unsupported) == (body, dropped)


def test_no_substitute_where_that_is_lacking_too() -> None:
    mapped = options_to_lmstudio({"repeat_penalty": 1.2, "seed": 1}, {}, EMBEDDINGS)
    assert (mapped.body, mapped.unsupported) == ({}, ["repeat_penalty", "seed"])


def test_lm_studio_knows_the_keys_it_is_sent() -> None:
    ignored = {"user", "parallel_tool_calls", "preset", "max_completion_tokens"}
    assert ENDPOINT_KEYS[CHAT_COMPLETIONS] <= validate.CHAT_KEYS | ignored
    assert ENDPOINT_KEYS[COMPLETIONS] <= validate.COMPLETION_KEYS | ignored
    assert ENDPOINT_KEYS[EMBEDDINGS] <= validate.EMBEDDING_KEYS | ignored


def alias(**values: Any) -> Alias:
    return Alias("mine:latest", "c", 1, 2, **values)


@pytest.mark.parametrize(
    ("parameters", "given", "extras", "merged"),
    [
        ({"seed": 1}, None, {}, {"seed": 1}),
        ({"seed": 1}, {"seed": 2}, {}, {"seed": 2}),
        ({"seed": 1}, {"seed": None}, {}, {"seed": 1}),
        ({"seed": 1, "top_k": 2}, {"top_k": 3}, {}, {"seed": 1, "top_k": 3}),
        ({"max_tokens": 1}, {"num_predict": 2}, {}, {"num_predict": 2}),
        ({"num_predict": 1}, {"max_tokens": 2}, {}, {"max_tokens": 2}),
        ({"num_predict": 1}, {"max_tokens": None}, {}, {"num_predict": 1, "max_tokens": None}),
        ({"stop": ["x"]}, {"stop": []}, {}, {"stop": []}),
        ({"reasoning_effort": "low"}, None, {"reasoning_effort": "high"}, {}),
        ({"num_ctx": 1024}, {"mirostat": 1}, {}, {"num_ctx": 1024, "mirostat": 1}),
    ],
)
def test_parameters_are_defaults(
    parameters: dict[str, Any], given: dict[str, Any] | None, extras: dict[str, Any], merged: dict[str, Any]
) -> None:
    assert merge_options(alias(parameters=parameters), given, extras) == merged
    assert merge_options(None, {"seed": 1, "x": 2}, {}) == {"seed": 1, "x": 2}


def test_options_of_a_wrong_type_are_the_requests_mistake() -> None:
    with pytest.raises(OllamaError) as caught:
        merge_options(alias(), {"seed": "x"}, {})
    assert caught.value.status == 500
