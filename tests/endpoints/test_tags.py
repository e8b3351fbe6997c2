"""The list of /api/tags is made anew when something of it is new, and only then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from tests.services import LMStudio

from ollama_lmstudio.endpoints.tags import tags
from ollama_lmstudio.lmstudio.catalog import Catalog, Model, ReasoningOptions
from ollama_lmstudio.outcomes import Request, Response
from ollama_lmstudio.services import Services
from ollama_lmstudio.state.aliases import Alias

MakeServices = Callable[..., Services]


def listed(services: Services) -> Response:
    return asyncio.run(tags(Request("GET", "/api/tags", "", {}, b"", 0), services))


def models(services: Services) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(listed(services).body)["models"]}


def relist(services: Services, *now: Model) -> None:
    cast(LMStudio, services.client).listed = Catalog(now)
    services.catalog.invalidate()


def test_a_list_with_nothing_new_is_not_rendered_again(make_services: MakeServices) -> None:
    services = make_services(Model("a"), Model("b"))
    first = listed(services)
    assert listed(services) is first
    relist(services, Model("a"), Model("b"))
    assert listed(services) is first, "it was read again, and is the same"


def test_what_is_new_is_shown_at_once(make_services: MakeServices) -> None:
    model = Model("a", capabilities_known=True)
    services = make_services(model)
    assert list(models(services)) == ["a:latest"]
    services.aliases.change(lambda entries: entries.update({"x/mine": Alias("mine:latest", "a", 1, 2)}))
    assert list(models(services)) == ["a:latest", "mine:latest"]
    services.aliases.change(lambda entries: entries.update({"x/mine": Alias("mine:latest", "a", 1, 3, system="s")}))
    digests = [entry["digest"] for entry in models(services).values()]
    assert digests[0] != digests[1], "an alias that adds something is another model"
    relist(services, replace(model, size_bytes=7), Model("b", reasoning=ReasoningOptions(("on", "off"))))
    found = models(services)
    assert (found["a:latest"]["size"], list(found)) == (7, ["a:latest", "b:latest", "mine:latest"])
