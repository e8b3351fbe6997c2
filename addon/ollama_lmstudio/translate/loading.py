"""Models as requests ask for them to be loaded: `keep_alive`, `num_ctx`, and their use by a call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..ollama.durations import KeepAlive
from ..outcomes import Call
from ..services import Services
from .models import ResolvedModel


async def ensure_loaded(resolved: ResolvedModel, services: Services, context_length: int | None = None) -> None:
    """Load a model, unless it is loaded, within the option `load_timeout_seconds`."""
    await services.lifetimes.ensure_loaded(resolved, services.settings.load_timeout_seconds, context_length)


async def prepare(
    resolved: ResolvedModel, keep_alive: KeepAlive | None, options: Mapping[str, Any], services: Services
) -> None:
    """Load a model before a request, where LM Studio would not load it on demand, or not in the way asked for."""
    await services.lifetimes.prepare(
        resolved,
        keep_alive,
        timeout=services.settings.load_timeout_seconds,
        context_length=context_length(options, services),
    )


def context_length(options: Mapping[str, Any], services: Services) -> int | None:
    """Return the request's `num_ctx`, if the option `num_ctx` says that loads use it."""
    num_ctx = options.get("num_ctx")
    return num_ctx if services.settings.num_ctx == "load" and isinstance(num_ctx, int) and num_ctx > 0 else None


def ttl(keep_alive: KeepAlive | None) -> dict[str, int]:
    """Return a finite `keep_alive` as LM Studio's `ttl`, in whole seconds."""
    if keep_alive is None or keep_alive.forever or keep_alive.unload:
        return {}
    return {"ttl": math.ceil(keep_alive.seconds)}


def acquire(call: Call, resolved: ResolvedModel, keep_alive: KeepAlive | None, services: Services) -> Call:
    """Return the call with its model acquired until the call is released, and a way to load the model."""

    async def reload() -> None:
        await ensure_loaded(resolved, services)

    services.lifetimes.acquire(resolved.model, keep_alive)
    call.release = lambda: services.lifetimes.release(resolved.model)
    call.reload = reload
    return call
