"""The model that a client names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ..lmstudio.catalog import Catalog, Resolution
from ..ollama import errors, names
from ..ollama.errors import OllamaError
from ..services import Services
from ..state.aliases import Alias
from .names import LONGEST_REMEMBERED, REMEMBERED

NotFound = Callable[[str], OllamaError]


@dataclass(frozen=True, slots=True)
class ResolvedModel(Resolution):
    """The model that a client named, and the alias that it used for it."""

    alias: Alias | None = None


async def find_model(
    name: str,
    services: Services,
    not_found: NotFound = errors.model_not_found,
    invalid: NotFound = errors.invalid_model_name,
) -> ResolvedModel:
    """Return the model that a client names; an alias goes before LM Studio's own names.

    Raises OllamaError: 403 for one of ollama.com's models, `not_found` for one that LM Studio does not have, or
    `invalid` if that is no name in Ollama's grammar; LMStudioError when LM Studio cannot be asked.
    """
    base, key = _read(name) if len(name) <= LONGEST_REMEMBERED else _read.__wrapped__(name)
    alias = services.aliases.get(key) if key is not None else None
    catalog = services.catalog
    if alias is not None:
        resolved = await catalog.exact(alias.target)
    elif key is not None or "@" in name:
        resolved = await catalog.resolve(base)
    else:
        resolved = await catalog.as_written(base) if base else None
    if resolved is None:
        raise invalid(name) if key is None else not_found(name)
    return ResolvedModel(resolved.model, resolved.id, alias)


async def is_found(name: str, services: Services) -> bool:
    """Return whether a name means one model that LM Studio has, or an alias of one."""
    try:
        await find_model(name, services)
    except OllamaError:
        return False
    return True


async def has_own_name(name: str, services: Services) -> bool:
    """Return whether this is the name of a model that LM Studio has, and none in Ollama's grammar."""
    return names.key_of(name) is None and await is_found(name, services)


@lru_cache(REMEMBERED)
def _read(name: str) -> tuple[str, str | None]:
    """Return a name without its source, and the key of an alias of that name; None for a name that none can have.

    LM Studio's keys may contain what Ollama's names cannot, such as an `@`.
    """
    if names.is_cloud(name):
        raise errors.cloud_disabled("remote model is unavailable")
    return names.split_source(name)[0], names.key_of(name)


def find_aliases(catalog: Catalog, services: Services) -> list[ResolvedModel]:
    """Return the aliases whose models LM Studio has."""
    resolved = ((catalog.exact(alias.target), alias) for alias in services.aliases.all().values())
    return [ResolvedModel(target.model, target.id, alias) for target, alias in resolved if target is not None]


def display_not_found(name: str) -> OllamaError:
    """Return the error of `/api/show` and `/v1/models/:model`, which name the model as lists show it."""
    return errors.model_not_found(names.unchecked(name).display)


def canonical_name(name: str) -> str:
    """Return the full name, with registry and namespace, that Ollama uses in some of its errors."""
    try:
        return names.parse_name(name).canonical
    except OllamaError:
        return name
