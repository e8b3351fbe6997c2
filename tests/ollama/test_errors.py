"""Ollama's error texts."""

from __future__ import annotations

import pytest

from ollama_lmstudio.ollama import errors
from ollama_lmstudio.ollama.errors import OllamaError


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.missing_request_body(), 400, "missing request body"),
        (errors.model_required(), 400, "model is required"),
        (errors.invalid_model_name(), 400, "invalid model name"),
        (errors.model_not_found(" No/Such "), 404, "model ' No/Such ' not found"),
        (errors.embedding_model_not_found("x"), 404, 'model "x" not found, try pulling it first'),
        (errors.source_not_found("x"), 404, 'model "x" not found'),
        (errors.invalid_source(""), 400, 'source "" is invalid'),
        (errors.invalid_destination("b b"), 400, 'destination "b b" is invalid'),
        (errors.invalid_name("a b"), 400, 'name "a b" is invalid'),
        (
            errors.conflicting_source("x:cloud:local"),
            400,
            'use either :local or :cloud, not both: "x:cloud:local"',
        ),
        (errors.thinking_unsupported("plain"), 400, '"plain" does not support thinking'),
        (
            errors.tools_unsupported("registry.ollama.ai/library/plain:latest"),
            400,
            "registry.ollama.ai/library/plain:latest does not support tools",
        ),
        (errors.option_type("num_ctx", "integer"), 500, 'option "num_ctx" must be of type integer'),
        (
            errors.invalid_format('"xml"'),
            500,
            'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object',
        ),
        (
            errors.malformed_object(),
            400,
            "Value looks like object, but can't find closing '}' symbol",
        ),
        (errors.digest_mismatch("a", "b"), 400, 'digest mismatch, expected "a", got "b"'),
    ],
)
def test_texts(error: OllamaError, status: int, message: str) -> None:
    assert (error.status, error.message, str(error)) == (status, message, message)


def test_braces_in_an_argument_are_text() -> None:
    assert errors.model_not_found("{0}{").message == "model '{0}{' not found"
