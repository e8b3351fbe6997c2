"""What /api/ps lists: LM Studio's instances, the one that stays longest first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from ollama_lmstudio.endpoints.ps import ps
from ollama_lmstudio.lmstudio.catalog import Instance, Model
from ollama_lmstudio.outcomes import Request
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate.listing import digest

MakeServices = Callable[..., Services]

# The services' clock stands at this time.
NOW = "2023-11-14T22:13:20.000000Z"
FOREVER = "2316-02-24T22:00:36.854775807Z"


def listed(services: Services) -> list[dict[str, Any]]:
    body = json.loads(asyncio.run(ps(Request("GET", "/api/ps", "", {}, b"", 0), services)).body)
    assert list(body) == ["models"]
    found: list[dict[str, Any]] = body["models"]
    return found


def loaded(key: str, *seconds: float | None) -> Model:
    return Model(key, instances=tuple(Instance(f"{key}:{n}", None, ttl) for n, ttl in enumerate(seconds)))


def test_nothing_is_loaded(make_services: MakeServices) -> None:
    assert listed(make_services(Model("a"), Model("b"))) == []


def test_an_entry(make_services: MakeServices) -> None:
    model = Model("q/m@q8_0", params="8B", size_bytes=5, max_context_length=9, instances=(Instance("i", 4096, 1.5),))
    services = make_services(model)
    (entry,) = listed(services)
    assert list(entry) == [
        "name",
        "model",
        "size",
        "digest",
        "details",
        "expires_at",
        "size_vram",
        "context_length",
    ]
    assert entry == {
        "name": "q/m:q8_0",
        "model": "q/m:q8_0",
        "size": 5,
        "digest": digest(model, services),
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "unknown",
            "families": ["unknown"],
            "parameter_size": "8B",
            "quantization_level": "unknown",
        },
        "expires_at": "2023-11-14T22:13:21.500000Z",
        "size_vram": 5,
        "context_length": 4096,
    }


@pytest.mark.parametrize(
    ("seconds", "expires_at"),
    [
        ((0.0,), NOW),
        ((60.0,), "2023-11-14T22:14:20.000000Z"),
        ((60.0, 3600.0), "2023-11-14T23:13:20.000000Z"),
        ((3600.0, 60.0), "2023-11-14T23:13:20.000000Z"),
        ((None,), FOREVER),
        ((60.0, None), FOREVER),
        ((1e300,), FOREVER),
    ],
)
def test_when_a_model_goes(seconds: tuple[float | None, ...], expires_at: str, make_services: MakeServices) -> None:
    (entry,) = listed(make_services(loaded("m", *seconds)))
    assert entry["expires_at"] == expires_at
    assert datetime.fromisoformat(entry["expires_at"]).tzinfo is UTC


def test_the_one_that_stays_longest_is_first(make_services: MakeServices) -> None:
    models = [loaded("a", 60.0), loaded("b", None), Model("not-loaded"), loaded("c", 5.0, 90.0), loaded("d", 60.0)]
    assert [entry["name"] for entry in listed(make_services(*models))] == [
        "b:latest",
        "c:latest",
        "a:latest",
        "d:latest",
    ]


@pytest.mark.parametrize(
    ("model", "length"),
    [
        (Model("m", instances=(Instance("i"),)), 0),
        (Model("m", max_context_length=9, instances=(Instance("i"),)), 9),
        (Model("m", max_context_length=9, instances=(Instance("i", 7), Instance("j", 8))), 7),
    ],
)
def test_context_length_is_always_there(model: Model, length: int, make_services: MakeServices) -> None:
    assert [entry["context_length"] for entry in listed(make_services(model))] == [length]
