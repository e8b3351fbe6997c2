"""What /api/show returns of a model: everything a client reads, and nothing made up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ollama_lmstudio.endpoints import show
from ollama_lmstudio.lmstudio.catalog import Instance, Model, ReasoningOptions
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.outcomes import Request
from ollama_lmstudio.services import Services

MakeServices = Callable[..., Services]

LLM = Model(
    "qwen/qwen3-8b",
    publisher="qwen",
    display_name="Qwen3 8B",
    architecture="qwen3",
    quantization="Q4_K_M",
    bits_per_weight=4.5,
    params="8B",
    max_context_length=40960,
    format="gguf",
    description="A model.",
    tools=True,
    reasoning=ReasoningOptions(("off", "on"), "on"),
    capabilities_known=True,
    variants=("qwen/qwen3-8b@q4_k_m",),
    selected_variant="qwen/qwen3-8b@q4_k_m",
)
LOADED = replace(LLM, instances=(Instance("a"), Instance("b", 4096), Instance("c", 8192)))
EMBEDDER = Model("text-embedding-nomic-v1.5", type="embedding", max_context_length=2048)
BARE = Model("bare")


def ask(body: dict[str, Any], services: Services, **headers: str) -> dict[str, Any]:
    incoming = Request("POST", "/api/show", "", headers, json.dumps(body).encode(), 0)
    answer = asyncio.run(show.show(incoming, services))
    assert answer.status == 200
    shown: dict[str, Any] = json.loads(answer.body)
    return shown


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize(
    ("model", "key", "length"),
    [
        (LLM, "qwen3.context_length", 40960),
        (LOADED, "qwen3.context_length", 4096),
        (EMBEDDER, "nomic-bert.context_length", 2048),
        (replace(BARE, max_context_length=7), "unknown.context_length", 7),
    ],
)
def test_one_context_length(model: Model, key: str, length: int, verbose: bool, make_services: MakeServices) -> None:
    """Clients take the first key that contains `context_length`: there is no other."""
    info = ask({"model": model.key, "verbose": verbose}, make_services(model))["model_info"]
    assert {name: value for name, value in info.items() if "context_length" in name} == {key: length}
    assert info["general.architecture"] == key.partition(".")[0]


def test_no_context_length_is_made_up(make_services: MakeServices) -> None:
    info = ask({"model": "bare"}, make_services(BARE))["model_info"]
    assert info == {
        "general.architecture": "unknown",
        "general.basename": "bare",
        "lmstudio.key": "bare",
        "lmstudio.loaded": False,
    }


def test_model_info() -> None:
    info = {
        "general.architecture": "qwen3",
        "general.basename": "Qwen3 8B",
        "qwen3.context_length": 40960,
        "general.parameter_count": 8_000_000_000,
        "lmstudio.key": "qwen/qwen3-8b",
        "lmstudio.publisher": "qwen",
        "lmstudio.format": "gguf",
        "lmstudio.bits_per_weight": 4.5,
        "lmstudio.max_context": 40960,
        "lmstudio.loaded": False,
    }
    assert show.model_info(LLM, "Qwen3 8B") == info
    assert show.model_info(LLM, "Qwen3 8B", verbose=True) == info | {
        "lmstudio.description": "A model.",
        "lmstudio.variants": ["qwen/qwen3-8b@q4_k_m"],
        "lmstudio.selected_variant": "qwen/qwen3-8b@q4_k_m",
    }
    assert show.model_info(LOADED, "x", verbose=True)["lmstudio.instances"] == ["a", "b", "c"]


@pytest.mark.parametrize("model", [LLM, LOADED, EMBEDDER, BARE], ids=lambda model: model.key)
@pytest.mark.parametrize("verbose", [False, True])
def test_what_every_client_reads(model: Model, verbose: bool, make_services: MakeServices) -> None:
    shown = ask({"model": model.key, "verbose": verbose}, make_services(model))
    assert list(shown) == [
        "license",
        "modelfile",
        "parameters",
        "template",
        "details",
        "model_info",
        "capabilities",
        *(["thinking"] if model.reasoning else []),
        "modified_at",
    ]
    assert all(isinstance(shown[key], str) for key in ("license", "modelfile", "parameters", "template", "modified_at"))
    assert None not in shown["details"].values()
    assert None not in shown["model_info"].values()
    assert shown["capabilities"]
    assert f"FROM {model.key}\n" in shown["modelfile"]


@pytest.mark.parametrize(
    ("model", "tools", "suffix"),
    [
        (LLM, True, False),
        (replace(LLM, tools=False), False, False),
        (replace(LLM, key="qwen2.5-coder-7b"), True, True),
        (replace(LLM, key="qwen2.5-coder-7b", tools=False), False, True),
        (EMBEDDER, False, False),
    ],
)
def test_the_template_tells_what_a_model_can(
    model: Model, tools: bool, suffix: bool, make_services: MakeServices
) -> None:
    template = ask({"model": model.key}, make_services(model))["template"]
    assert (".Tools" in template, ".Suffix" in template) == (tools, suffix)
    assert ".Prompt" in template


@pytest.mark.parametrize(
    ("agent", "basename"),
    [
        ("GitHubCopilotChat/0.30.1", "qwen3:8b"),
        ("curl/8 GitHubCopilotChat/0.30.1", "Qwen3 8B"),
        ("ollama/0.33.0", "Qwen3 8B"),
    ],
)
def test_copilot_is_told_the_name_that_it_asked_for(agent: str, basename: str, make_services: MakeServices) -> None:
    shown = ask({"model": "qwen3:8b"}, make_services(LLM), **{"user-agent": agent})
    assert shown["model_info"]["general.basename"] == basename


@pytest.mark.parametrize("body", [{"model": "QWEN3:8b"}, {"name": "qwen/qwen3-8b"}, {"name": "x", "model": "qwen3-8b"}])
def test_both_keys_name_a_model(body: dict[str, str], make_services: MakeServices) -> None:
    assert ask(body, make_services(LLM))["model_info"]["lmstudio.key"] == LLM.key


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "model is required"),
        ({"model": ""}, 400, "model is required"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": "nosuch"}, 404, "model 'nosuch:latest' not found"),
        ({"model": "library/nosuch:7b"}, 404, "model 'nosuch:7b' not found"),
        ({"model": "gpt-oss:20b-cloud"}, 403, "ollama cloud is disabled: remote model details are unavailable"),
        ({"model": "x:cloud:local"}, 400, 'use either :local or :cloud, not both: "x:cloud:local"'),
    ],
)
def test_errors(body: dict[str, str], status: int, message: str, make_services: MakeServices) -> None:
    with pytest.raises(OllamaError) as caught:
        ask(body, make_services(LLM))
    assert (caught.value.status, caught.value.message) == (status, message)
