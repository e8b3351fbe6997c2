"""`GET /api/ps`: the models that LM Studio has loaded, and until when."""

from __future__ import annotations

from typing import Any

from ..lmstudio.catalog import Instance, Model
from ..ollama import times
from ..outcomes import Request, Response
from ..services import Services
from ..translate.listing import ListEntry, details, digest, list_entries, size
from ..translate.metrics import NANOSECONDS


async def ps(request: Request, services: Services) -> Response:
    """List the loaded models, the one that stays longest first, each with its aliases.

    A model that is loaded twice is one entry.
    """
    catalog = await services.catalog.refresh()
    now = services.clock.wall()
    entries = [entry for entry in list_entries(catalog, services) if entry.model.instances]
    loaded = [(_remaining(entry.model, services), entry) for entry in entries]
    loaded.sort(key=lambda pair: pair[0], reverse=True)
    return Response.json({"models": [_entry(entry, now + remaining, services) for remaining, entry in loaded]})


def _remaining(model: Model, services: Services) -> int:
    """Return how long a model stays loaded, in ns: as long as the last of its instances, unless a timer ends it."""
    seconds = services.lifetimes.remaining_seconds(model.key)
    return min(max(map(_instance_remaining, model.instances)), _nanoseconds(seconds))


def _instance_remaining(instance: Instance) -> int:
    return _nanoseconds(instance.remaining_ttl_seconds)


def _nanoseconds(seconds: float | None) -> int:
    return times.FOREVER if seconds is None else int(min(seconds * NANOSECONDS, times.FOREVER))


def _entry(entry: ListEntry, expires_at: int, services: Services) -> dict[str, Any]:
    model = entry.model
    return {
        "name": entry.name,
        "model": entry.name,
        "size": size(model),
        "digest": digest(model, services, entry.alias),
        "details": details(model),
        "expires_at": times.rfc3339(expires_at),
        # LM Studio does not tell which layers are on the GPU: all are counted as being there.
        "size_vram": size(model),
        "context_length": model.context_length_for(model.key) or model.max_context_length or 0,
    }
