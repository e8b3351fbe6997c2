"""Ollama's `options` as keys of LM Studio's request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..ollama.options import check_options
from ..state.aliases import Alias
from .paths import CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS

# Ollama's options -> LM Studio's keys. Where several stand for one key, the first that is given wins.
OPTION_TO_LMSTUDIO: tuple[tuple[str, str], ...] = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("repeat_penalty", "repeat_penalty"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("max_tokens", "max_tokens"),
    ("num_predict", "max_tokens"),
    ("logit_bias", "logit_bias"),
)
_LMSTUDIO_KEYS = dict(OPTION_TO_LMSTUDIO)

# Keys of OpenAI's API that LM Studio knows, taken from `options` or the top level of the request as they are.
OPENAI_KEYS = frozenset(
    {"draft_model", "max_completion_tokens", "parallel_tool_calls", "preset", "reasoning_effort", "user"}
)

_SAMPLING_KEYS = frozenset(key for _, key in OPTION_TO_LMSTUDIO)

# The keys above that each of LM Studio's endpoints takes.
ENDPOINT_KEYS: Mapping[str, frozenset[str]] = {
    CHAT_COMPLETIONS: _SAMPLING_KEYS | OPENAI_KEYS,
    COMPLETIONS: _SAMPLING_KEYS | (OPENAI_KEYS - {"parallel_tool_calls", "reasoning_effort"}),
    EMBEDDINGS: frozenset({"user"}),
}

# A key that an endpoint lacks -> the key with nearly the same effect there.
SUBSTITUTES: Mapping[str, str] = {"repeat_penalty": "frequency_penalty"}

# Options that are used here, and not sent.
BRIDGE_OPTIONS = frozenset({"system", "format", "num_ctx"})


def lmstudio_key(option: str) -> str:
    """Return the key that an option becomes; its own name where the table has none."""
    return _LMSTUDIO_KEYS.get(option, option)


@dataclass(slots=True)
class MappedOptions:
    """The keys for LM Studio's body, and the names of the options that LM Studio has no key for."""

    body: dict[str, Any] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)


def merge_options(alias: Alias | None, options: Mapping[str, Any] | None, extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's options, checked, with an alias's parameters for those that it does not give.

    A parameter also gives way to another option that becomes the same key of LM Studio's (`num_predict`, `max_tokens`),
    and to such a key at the top level of the request (`extras`). Raises OllamaError (500) for a value of a wrong type.
    """
    checked = check_options(options)
    given = {**checked.known, **checked.unknown}
    if alias is None:
        return given
    taken = {lmstudio_key(name) for name, value in given.items() if value is not None} | set(extras)
    # Ollama, too, finds out that a model's parameter is of a wrong type when the model is used.
    parameters = check_options(alias.parameters)
    defaults = {
        name: value
        for name, value in (*parameters.known.items(), *parameters.unknown.items())
        if lmstudio_key(name) not in taken
    }
    return {**given, **defaults}


def options_to_lmstudio(options: Mapping[str, Any], extras: Mapping[str, Any], endpoint: str) -> MappedOptions:
    """Return `options`, and keys at the top level of the request (`extras`), for one of LM Studio's endpoints.

    Nulls, empty strings and empty lists count as absent. A negative max_tokens means no limit, so it is left out.
    """
    allowed = ENDPOINT_KEYS[endpoint]
    mapped = MappedOptions()
    given = {name: value for name, value in options.items() if not _is_empty(value)}
    settled: set[str] = set()
    for name, key in OPTION_TO_LMSTUDIO:
        if name not in given or key in settled:
            continue
        settled.add(key)
        value = _value_to_lmstudio(key, given[name])
        substitute = SUBSTITUTES.get(key)
        if key in allowed:
            if value is not None:
                mapped.body[key] = value
        elif substitute in allowed and substitute not in given:
            mapped.body[str(substitute)] = value
        else:
            mapped.unsupported.append(name)
    for source in (given, extras):
        for key, value in source.items():
            if key in OPENAI_KEYS and key in allowed and not _is_empty(value):
                mapped.body.setdefault(key, value)
    known = _LMSTUDIO_KEYS.keys() | OPENAI_KEYS | BRIDGE_OPTIONS
    mapped.unsupported += [name for name in given if name not in known]
    return mapped


def _is_empty(value: object) -> bool:
    return value is None or value == "" or value == []


def _value_to_lmstudio(key: str, value: Any) -> Any:
    if key == "max_tokens" and isinstance(value, (int, float)):
        return int(value) if value >= 0 else None
    if key == "logit_bias" and isinstance(value, list):
        return _logit_bias(value)
    return value


def _logit_bias(pairs: list[Any]) -> dict[str, Any]:
    """Return a list of `[token, bias]` pairs as OpenAI's object."""
    biases: dict[str, Any] = {}
    for pair in pairs:
        match pair:
            case [token, bias]:
                biases[str(token)] = bias
    return biases
