"""The model that a client names: found by name or by alias, or Ollama's error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services import LMStudio

from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Model
from ollama_lmstudio.ollama import errors
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate.models import canonical_name, find_model
from ollama_lmstudio.translate.names import Resolver, ollama_name

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
        ("modèle:latest", "modèle"),
        ("MODÈLE:local", "modèle"),
        ("z.ai/glm:latest", "z.ai/glm"),
        ("glm", "z.ai/glm"),
        (f"{'é' * 600}:latest", "é" * 600),
    ],
)
def test_find_model(name: str, found: str, make_services: MakeServices) -> None:
    models = (PLAIN, Model("big", variants=("big@q4_k_m", "big@q8_0")), *map(Model, ("modèle", "z.ai/glm", "é" * 600)))
    assert find(name, make_services(*models)) == found


@given(st.text("ab1.-_é я/@:", min_size=1, max_size=6).filter(lambda key: key == key.strip()))
def test_what_is_listed_can_be_used(key: str) -> None:
    cache = CatalogCache(LMStudio(Catalog((Model(key), Model("other")))), 300, Resolver)
    assert find(ollama_name(key), cast(Services, SimpleNamespace(aliases={}, catalog=cache))) == key


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
