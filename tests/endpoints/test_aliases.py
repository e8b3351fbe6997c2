"""Aliases: how they are made, copied and deleted, and what /api/show and lists show of them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ollama_lmstudio import options
from ollama_lmstudio.endpoints import show
from ollama_lmstudio.endpoints.copy import copy
from ollama_lmstudio.endpoints.create import create
from ollama_lmstudio.endpoints.delete import delete
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Instance, Model
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.ollama import wire
from ollama_lmstudio.ollama.requests import ShowRequest
from ollama_lmstudio.outcomes import LocalStream, Request, Response
from ollama_lmstudio.services import Services
from ollama_lmstudio.state.aliases import Alias, AliasStore
from ollama_lmstudio.translate import listing
from ollama_lmstudio.translate.models import ResolvedModel
from ollama_lmstudio.translate.names import Resolver

LOADED = Model(
    "google/gemma",
    variants=("google/gemma@q4", "google/gemma@q8"),
    instances=(Instance("google/gemma@q8"), Instance("my-gemma")),
)
CATALOG = Catalog(
    (
        Model("a/same", display_name="Same"),
        Model("b/same", display_name="Same"),
        Model("c", display_name="C"),
        LOADED,
    )
)


class Source:
    """Answers with one list."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def catalog(self, purpose: str = "") -> Catalog:
        return self._catalog


@pytest.fixture
def services(tmp_path: Path) -> Services:
    values = {option.name: option.default for option in options.OPTIONS} | {"state_dir": str(tmp_path / "state")}
    settings = options.parse(values)
    cache = CatalogCache(Source(CATALOG), 300, Resolver)
    asyncio.run(cache.get())
    return Services(settings, Client(str(settings.lmstudio_url)), cache, AliasStore(settings.state_dir.data))


def alias(**values: Any) -> Alias:
    return Alias("mine:latest", "c", 1, 2, **values)


def found(**values: Any) -> ResolvedModel:
    return ResolvedModel(Model("c"), "c", alias(**values))


def post(endpoint: Any, services: Services, body: dict[str, Any]) -> Response:
    incoming = Request("POST", "/api/create", "", {}, json.dumps(body).encode(), 0)

    async def answer() -> Response:
        given = await endpoint(incoming, services)
        if isinstance(given, LocalStream):
            return Response(200, b"".join([wire.line(dict(line)) async for line in given.lines]))
        assert isinstance(given, Response)
        return given

    return asyncio.run(answer())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("gemma", "google/gemma"),
        ("gemma:q4", "google/gemma@q4"),
        ("google/gemma@q8", "google/gemma@q8"),
        ("my-gemma", "google/gemma"),
    ],
)
def test_a_target_is_what_lasts(services: Services, source: str, target: str) -> None:
    assert post(create, services, {"model": "mine", "from": source}).status == 200
    assert post(copy, services, {"source": source, "destination": "copy"}).status == 200
    assert {entry.target for entry in services.aliases.all().values()} == {target}


def test_what_lmstudio_cannot_apply_is_said_once(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name in ("one", "two"):
        post(create, services, {"model": name, "from": "c", "template": "{{ .Prompt }}", "system": "S"})
    assert [record.getMessage() for record in caplog.records] == [
        "LM Studio has no template: accepted, not sent (said once)"
    ]


def test_a_full_disk_is_a_507(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    post(create, services, {"model": "old", "from": "c"})

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    created = post(create, services, {"model": "mine", "from": "c"})
    copied = post(copy, services, {"source": "c", "destination": "mine"})
    deleted = post(delete, services, {"model": "old"})
    assert {answer.status for answer in (created, copied, deleted)} == {507}
    assert b"no space left" in created.body
    assert [entry.name for entry in services.aliases.all().values()] == ["old:latest"]


def test_a_digest_is_of_what_an_alias_adds(services: Services) -> None:
    model = Model("c")
    plain = listing.digest(model, services)
    first = listing.digest(model, services, alias(parameters={"a": 1, "b": 2}))
    assert first == listing.digest(model, services, Alias("other", "c", 7, 8, parameters={"b": 2, "a": 1}))
    others = [alias(), alias(system="S"), alias(license=["L"]), alias(messages=[{"role": "user", "content": ""}])]
    assert len({plain, first, *(listing.digest(model, services, other) for other in others)}) == 6


def test_an_alias_of_a_model_that_is_gone_is_not_listed(services: Services) -> None:
    def edit(entries: dict[str, Alias]) -> None:
        entries["x/gone"] = Alias("gone", "nosuch", 1, 2)
        entries["x/there"] = Alias("there", "c", 1, 2)

    services.aliases.change(edit)
    assert [entry.name for entry in listing.list_entries(CATALOG, services)] == [
        "a/same:latest",
        "b/same:latest",
        "c:latest",
        "google/gemma:latest",
        "there",
    ]


@pytest.mark.parametrize(("index", "basename"), [(0, "Same (a/same)"), (1, "Same (b/same)"), (2, "C")])
def test_a_basename_is_unique(services: Services, index: int, basename: str) -> None:
    target = CATALOG.models[index]
    answer = show.describe(ResolvedModel(target, target.key), ShowRequest(model="x"), services)
    assert answer["model_info"]["general.basename"] == basename


def test_embedding_length_is_what_was_seen(services: Services) -> None:
    target = ResolvedModel(Model("c", architecture="bert"), "c")
    assert "bert.embedding_length" not in show.describe(target, ShowRequest(), services)["model_info"]
    services.dimensions["c"] = 768
    assert show.describe(target, ShowRequest(), services)["model_info"]["bert.embedding_length"] == 768


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "plain"),
        ('a "b"', 'a "b"'),
        (" a", '" a"'),
        ("a\nb", '"a\nb"'),
        ('a\n"b"', '"""a\n"b""""'),
        ("\ta", "\ta"),
    ],
)
def test_modelfile_quotes_as_ollama_does(services: Services, text: str, written: str) -> None:
    answer = show.describe(found(system=text), ShowRequest(), services)
    assert answer["modelfile"].endswith(f"FROM c\nSYSTEM {written}\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.7, "0.7"), (2.0, "2"), (1e-05, "1e-05"), (7, "7"), (True, "true"), ('a"', '"a\\""'), (["x", "y"], '"x"')],
)
def test_parameters_are_shown_as_go_writes_them(services: Services, value: Any, shown: str) -> None:
    lines = show.describe(found(parameters={"key": value}), ShowRequest(), services)["parameters"].split("\n")
    assert lines[0] == f"key{' ' * 28}{shown}"
