"""`GET /api/ps`: what LM Studio has in memory."""

from __future__ import annotations

from typing import Any

from ..lmstudio.catalog import Instance, Model
from ..ollama import times
from .base import Answer, Incoming, Services
from .models import details, digest, display_name, size


async def ps(incoming: Incoming, services: Services) -> Answer:
    """List the loaded models, the one that stays longest first; a model loaded twice is one entry."""
    catalog = await services.catalog.refresh()
    now = services.clock.wall()
    loaded = [(_expires(model), model) for model in catalog.models if model.instances]
    loaded.sort(key=lambda entry: entry[0], reverse=True)
    return Answer.json({"models": [_entry(model, now + expires, services) for expires, model in loaded]})


def _expires(model: Model) -> int:
    """Give how long a model stays, in ns; one without a time to live stays for ever."""
    return max(map(_remaining, model.instances))


def _remaining(instance: Instance) -> int:
    seconds = instance.remaining_ttl_seconds
    return times.FOREVER if seconds is None else int(min(seconds * 1e9, times.FOREVER))


def _entry(model: Model, expires_at: int, services: Services) -> dict[str, Any]:
    name = display_name(model)
    # LM Studio does not say where a model's layers are: all of it counts as being on the GPU.
    return {
        "name": name,
        "model": name,
        "size": size(model),
        "digest": digest(model, services),
        "details": details(model),
        "expires_at": times.rfc3339(expires_at),
        "size_vram": size(model),
        "context_length": model.instances[0].context_length or model.max_context_length or 0,
    }
