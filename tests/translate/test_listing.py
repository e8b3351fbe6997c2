"""How LM Studio's models look in Ollama's lists."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_lmstudio.endpoints.tags import tags
from ollama_lmstudio.lmstudio.catalog import Model, ReasoningOptions
from ollama_lmstudio.outcomes import Request
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate import listing

MakeServices = Callable[..., Services]

LLM = Model(
    "qwen/qwen3-8b",
    architecture="qwen3",
    quantization="Q4_K_M",
    size_bytes=5_000_000_000,
    params="8B",
    max_context_length=40960,
    format="gguf",
    vision=False,
    tools=True,
    reasoning=ReasoningOptions(("off", "on"), "on"),
    capabilities_known=True,
)


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ("26B-A4B", 26_000_000_000),
        ("137M", 137_000_000),
        ("22.57M", 22_570_000),
        ("7.6B", 7_600_000_000),
        ("270m", 270_000_000),
        ("1T", 1_000_000_000_000),
        ("500K", 500_000),
        ("E4B", 4_000_000_000),
        ("1.5 B", 1_500_000_000),
        ("", None),
        ("unknown", None),
        ("7", None),
        (None, None),
    ],
)
def test_parameter_count(params: str | None, count: int | None) -> None:
    assert listing.parameter_count(Model("m", params=params)) == count


def test_a_digest_stays_the_same(make_services: MakeServices) -> None:
    services = make_services(LLM)
    digest = listing.digest(LLM, services)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    loaded = replace(LLM, state="loaded", display_name="Qwen", publisher="q", description="d")
    assert listing.digest(loaded, services) == digest
    assert listing.digest(LLM, make_services(LLM, Model("other"))) == digest


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "qwen/qwen3-9b"},
        {"key": "qwen/qwen3-8b@q8_0"},
        {"size_bytes": 5_000_000_001},
        {"size_bytes": None},
        {"quantization": "Q8_0"},
        {"quantization": None},
        {"vision": True},
        {"tools": False},
        {"reasoning": None},
        {"type": "embedding"},
    ],
    ids=str,
)
def test_a_digest_tells_models_apart(changed: dict[str, Any], make_services: MakeServices) -> None:
    services = make_services(LLM)
    other = replace(LLM, **changed)
    assert listing.digest(other, services) != listing.digest(LLM, services)


def test_a_digest_of_half_a_character(make_services: MakeServices) -> None:
    assert len(listing.digest(Model("a\ud800"), make_services())) == 64


@pytest.mark.parametrize(
    ("model", "capabilities"),
    [
        (LLM, ["completion", "tools", "thinking"]),
        (replace(LLM, vision=True), ["completion", "tools", "vision", "thinking"]),
        (replace(LLM, tools=False, reasoning=None), ["completion"]),
        (replace(LLM, tools=None), ["completion", "thinking"]),
        (replace(LLM, reasoning=ReasoningOptions(("off",), "off")), ["completion", "tools"]),
        (replace(LLM, key="qwen2.5-coder-7b", reasoning=None), ["completion", "tools", "insert"]),
        # What LM Studio does not say is not taken for a no: older versions say nothing of tools.
        (Model("m"), ["completion", "tools"]),
        (Model("m", tools=False), ["completion"]),
        (Model("text-embedding-nomic", type="embedding"), ["embedding"]),
        (replace(LLM, type="embedding"), ["embedding"]),
    ],
)
def test_capabilities(model: Model, capabilities: list[str], make_services: MakeServices) -> None:
    assert listing.capabilities(model, make_services(model)) == capabilities


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (LLM, "qwen3"),
        (Model("m"), "unknown"),
        (Model("text-embedding-Nomic-v1.5", type="embedding"), "nomic-bert"),
        (Model("bge-m3", type="embedding"), "bert"),
        (Model("bge-m3", type="embedding", architecture="xlm-roberta"), "xlm-roberta"),
    ],
)
def test_family(model: Model, family: str) -> None:
    assert listing.family(model) == family


def test_an_entry(make_services: MakeServices) -> None:
    services = make_services(LLM)
    entry = listing.tag_entry(listing.ListEntry(LLM), services)
    assert list(entry) == ["name", "model", "modified_at", "size", "digest", "details", "capabilities"]
    assert entry | {"digest": ""} == {
        "name": "qwen/qwen3-8b:latest",
        "model": "qwen/qwen3-8b:latest",
        "modified_at": "2025-01-01T00:00:00.000000Z",
        "size": 5_000_000_000,
        "digest": "",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "qwen3",
            "families": ["qwen3"],
            "parameter_size": "8B",
            "quantization_level": "Q4_K_M",
            "context_length": 40960,
        },
        "capabilities": ["completion", "tools", "thinking"],
    }
    datetime.fromisoformat(entry["modified_at"])


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


maybe_text = st.none() | st.text(max_size=5)
any_model = st.builds(
    Model,
    key=st.text(min_size=1, max_size=10),
    type=st.sampled_from(["llm", "embedding"]),
    architecture=maybe_text,
    quantization=maybe_text,
    params=maybe_text,
    format=maybe_text,
    size_bytes=st.none() | st.integers(0, 10**12),
    max_context_length=st.none() | st.integers(0, 10**7),
    vision=st.none() | st.booleans(),
    tools=st.none() | st.booleans(),
    capabilities_known=st.booleans(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(model=any_model)
def test_nothing_is_ever_null(model: Model, make_services: MakeServices) -> None:
    """Clients take one null in one entry for an end of the whole list."""
    services = make_services(model)
    entry = json.loads(asyncio.run(tags(Request("GET", "/api/tags", "", {}, b"", 0), services)).body)["models"][0]
    assert None not in leaves(entry)
    details = entry["details"]
    for key in ("format", "family", "parameter_size", "quantization_level"):
        assert isinstance(details[key], str)
        assert details[key]
    assert details["parent_model"] == ""
    assert details["families"] == [details["family"]]
    assert type(entry["size"]) is int
    closed = {"completion", "tools", "insert", "vision", "embedding", "thinking"}
    assert entry["capabilities"]
    assert set(entry["capabilities"]) <= closed


def test_tags_keeps_lm_studios_order(make_services: MakeServices) -> None:
    answer = asyncio.run(tags(Request("GET", "/api/tags", "", {}, b"", 0), make_services(Model("b"), Model("a@q8_0"))))
    assert [entry["name"] for entry in json.loads(answer.body)["models"]] == ["b:latest", "a:q8_0"]
    answer = asyncio.run(tags(Request("GET", "/api/tags", "", {}, b"", 0), make_services()))
    assert answer.body == b'{"models":[]}'
