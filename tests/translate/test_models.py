"""The model that a client names: found by name or by alias, or Ollama's error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ollama_lmstudio.lmstudio.catalog import Model
from ollama_lmstudio.ollama import errors
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate.models import canonical_name, find_model

MakeServices = Callable[..., Services]

PLAIN = Model("plain", capabilities_known=True)


def find(name: str, services: Services) -> str:
    return asyncio.run(find_model(name, services)).id


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("plain", "plain"),
        ("PLAIN:latest", "plain"),
        ("plain:local", "plain"),
        (" plain ", "plain"),
        ("registry.ollama.ai/library/plain:latest", "plain"),
        ("big@q4_k_m", "big@q4_k_m"),
        ("big:q4_k_m", "big@q4_k_m"),
    ],
)
def test_find_model(name: str, found: str, make_services: MakeServices) -> None:
    assert find(name, make_services(PLAIN, Model("big", variants=("big@q4_k_m", "big@q8_0")))) == found


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("nosuch", 404, "model 'nosuch' not found"),
        ("NoSuch:7B", 404, "model 'NoSuch:7B' not found"),
        ("nosuch:local", 404, "model 'nosuch:local' not found"),
        ("plai", 404, "model 'plai' not found"),
        ("nosuch@q4", 400, "invalid model name"),
        ("", 400, "invalid model name"),
        ("a b", 400, "invalid model name"),
        ("plain:", 400, "invalid model name"),
        ("/plain", 400, "invalid model name"),
        ("x:cloud:local", 400, 'use either :local or :cloud, not both: "x:cloud:local"'),
        ("plain:cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
        ("plain:20b-cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
    ],
)
def test_names_that_are_not_found(name: str, status: int, message: str, make_services: MakeServices) -> None:
    with pytest.raises(OllamaError) as caught:
        find(name, make_services(PLAIN))
    assert (caught.value.status, caught.value.message) == (status, message)


def test_an_endpoint_has_its_own_words(make_services: MakeServices) -> None:
    with pytest.raises(OllamaError, match='model "x" not found, try pulling it first'):
        asyncio.run(find_model("x", make_services(PLAIN), errors.embedding_model_not_found))


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("plain", "registry.ollama.ai/library/plain:latest"),
        ("ns/Plain:7b", "registry.ollama.ai/ns/Plain:7b"),
        ("key@q4_k_m", "key@q4_k_m"),
    ],
)
def test_canonical_name(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical
