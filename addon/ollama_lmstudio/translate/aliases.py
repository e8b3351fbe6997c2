"""Aliases: names for LM Studio's models, with what they add to requests. /api/create and /api/copy make them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ..lmstudio.catalog import Catalog
from ..ollama import names
from ..ollama.errors import OllamaError
from ..ollama.names import Name
from ..services import Services
from ..state.aliases import Alias
from .models import ResolvedModel, is_found
from .options import options_to_lmstudio
from .paths import CHAT_COMPLETIONS


async def check_source(text: str, error: OllamaError, services: Services) -> None:
    """Raise `error` for a name that Ollama's grammar does not have, and no model of LM Studio's either."""
    if "@" not in text and names.key_of(text) is None and not await is_found(text, services):
        raise error


def check_new_name(text: str, error: OllamaError) -> Name:
    """Return a name for an alias, parsed; raise `error` for one that could never be used, as ollama.com's models'."""
    try:
        name = names.parse_name(text)
    except OllamaError:
        raise error from None
    if names.is_cloud(name.display):
        raise error
    return name


def alias_of(resolved: ResolvedModel, services: Services) -> Alias:
    """Return the alias that a client named, or for a model itself one that adds nothing."""
    if resolved.alias is not None:
        return resolved.alias
    # An instance's id means nothing once that is unloaded: then the alias is of the model.
    lasting = Catalog((resolved.model,)).exact(resolved.id)
    now = services.clock.wall()
    return Alias("", lasting.id if lasting else resolved.model.key, now, now)


def not_applied(alias: Alias, services: Services) -> list[str]:
    """Return what an alias holds, and LM Studio has nothing for, in the words of a Modelfile."""
    given = ("template", "adapters", "renderer", "parser", "requires", "capabilities")
    parameters = options_to_lmstudio(alias.parameters, {}, CHAT_COMPLETIONS).unsupported
    if "num_ctx" in alias.parameters and services.settings.num_ctx == "ignore":
        parameters.append("num_ctx")
    return [name for name in given if getattr(alias, name)] + [f"parameter {name}" for name in parameters]


async def store_alias(alias: Alias, name: Name, services: Services) -> None:
    """Write an alias under a name; one that exists keeps its spelling and its date of creation. Raises StoreError."""

    def edit(aliases: dict[str, Alias]) -> None:
        old = aliases.get(name.key)
        created = old.created if old else alias.modified
        aliases[name.key] = replace(alias, name=old.name if old else name.display, created=created)

    await asyncio.to_thread(services.aliases.change, edit)
