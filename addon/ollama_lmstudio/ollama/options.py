"""The `options` of a request: those that Ollama knows, and their types.

The names are the JSON names of Ollama's `api.Options`; the types are those in its error texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import errors

OPTIONS = {
    "num_keep": "integer",
    "seed": "integer",
    "num_predict": "integer",
    "top_k": "integer",
    "top_p": "float32",
    "min_p": "float32",
    "typical_p": "float32",
    "repeat_last_n": "integer",
    "temperature": "float32",
    "repeat_penalty": "float32",
    "presence_penalty": "float32",
    "frequency_penalty": "float32",
    "stop": "array",
    "num_ctx": "integer",
    "num_batch": "integer",
    "num_gpu": "integer",
    "main_gpu": "integer",
    "use_mmap": "boolean",
    "num_thread": "integer",
    "draft_num_predict": "integer",
}


@dataclass(frozen=True, slots=True)
class Options:
    """Hold checked options: those `known` to Ollama, of the right type, and `unknown` ones as they were sent."""

    known: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)


def check_options(raw: Mapping[str, Any] | None) -> Options:
    """Check the types of the options that Ollama knows; drop nulls and the fractions of integers.

    Unlike other keys of a request, these are case-sensitive. Options that Ollama does not know (`max_tokens`,
    `mirostat`) are returned as they are. Raises OllamaError (500, as recorded) for the first one of a wrong type.
    """
    options = Options()
    for name, value in (raw or {}).items():
        go_type = OPTIONS.get(name)
        if go_type is None:
            options.unknown[name] = value
        elif value is not None:
            options.known[name] = _check(name, go_type, value)
    return options


def _check(name: str, go_type: str, value: object) -> object:
    match go_type, value:
        case "boolean", bool():
            return value
        case (("integer" | "float32"), bool()):
            pass
        case "integer", int() | float():
            return int(value)
        case "float32", int() | float():
            return value
        case "array", list():
            if not all(isinstance(item, str) for item in value):
                raise errors.option_strings(name)
            return value
    raise errors.option_type(name, go_type)
