"""`GET /api/ps`: what LM Studio has in memory."""

from __future__ import annotations

from typing import Any

from ..lmstudio.catalog import Instance, Model
from ..ollama import times
from ..outcomes import Request, Response
from ..services import Services
from ..translate.listing import ListEntry, details, digest, list_entries, size


async def ps(incoming: Request, services: Services) -> Response:
    """List the loaded models, the one that stays longest first, each with its aliases.

    A model loaded twice is one entry.
    """
    catalog = await services.catalog.refresh()
    now = services.clock.wall()
    loaded = [(_expires(entry.model), entry) for entry in list_entries(catalog, services) if entry.model.instances]
    loaded.sort(key=lambda pair: pair[0], reverse=True)
    return Response.json({"models": [_entry(entry, now + expires, services) for expires, entry in loaded]})


def _expires(model: Model) -> int:
    """Give how long a model stays, in ns; one without a time to live stays for ever."""
    return max(map(_remaining, model.instances))


def _remaining(instance: Instance) -> int:
    seconds = instance.remaining_ttl_seconds
    return times.FOREVER if seconds is None else int(min(seconds * 1e9, times.FOREVER))


def _entry(entry: ListEntry, expires_at: int, services: Services) -> dict[str, Any]:
    model = entry.model
    # LM Studio does not say where a model's layers are: all of it counts as being on the GPU.
    return {
        "name": entry.name,
        "model": entry.name,
        "size": size(model),
        "digest": digest(model, services, entry.alias),
        "details": details(model),
        "expires_at": times.rfc3339(expires_at),
        "size_vram": size(model),
        "context_length": model.instances[0].context_length or model.max_context_length or 0,
    }
