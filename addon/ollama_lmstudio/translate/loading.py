"""Models as requests ask for them to be loaded: `keep_alive`, `num_ctx`, and their use by a call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..lifetimes import LoadTerms
from ..ollama.durations import KeepAlive
from ..outcomes import Call
from ..services import Services
from .context_advice import log_if_cut
from .models import ResolvedModel

MAX_TTL_SECONDS = 2_147_483
"""The longest `ttl` that is safe: a timer of Node's of more than 2^31-1 ms fires at once."""


def terms(resolved: ResolvedModel, options: Mapping[str, Any], services: Services) -> LoadTerms:
    """Return how a model is to be loaded for a request with these options."""
    settings = services.settings
    asked = _num_ctx(options) if settings.num_ctx != "ignore" else 0
    wanted = asked or settings.context_length
    # LM Studio loads with more than a model can use, if it is asked to.
    wanted = min(wanted, resolved.model.max_context_length or wanted)
    return LoadTerms(settings.load_timeout_seconds, wanted or None, bool(asked) and settings.num_ctx == "grow")


def _num_ctx(options: Mapping[str, Any]) -> int:
    """Return the request's `num_ctx` as Ollama reads it; 0 if it has none."""
    num_ctx = options.get("num_ctx")
    if isinstance(num_ctx, bool) or not isinstance(num_ctx, int | float):
        return 0
    return int(num_ctx) if 0 < num_ctx < math.inf else 0


async def load(
    resolved: ResolvedModel, keep_alive: KeepAlive | None, options: Mapping[str, Any], services: Services
) -> None:
    """Load a model, for a request that asks for nothing else."""
    await services.lifetimes.load(resolved, keep_alive, ttl(keep_alive), terms(resolved, options, services))


async def prepare(resolved: ResolvedModel, options: Mapping[str, Any], services: Services) -> None:
    """Load a model before a request, where LM Studio would not load it on demand, or not in the way asked for."""
    await services.lifetimes.prepare(resolved, terms(resolved, options, services))


def ttl(keep_alive: KeepAlive | None) -> dict[str, int]:
    """Return a `keep_alive` as LM Studio's `ttl`, in whole seconds; the longest that it can have for a longer one."""
    if keep_alive is None or keep_alive.unload:
        return {}
    return {"ttl": math.ceil(min(keep_alive.seconds, MAX_TTL_SECONDS))}


def acquire(
    call: Call,
    resolved: ResolvedModel,
    keep_alive: KeepAlive | None,
    options: Mapping[str, Any],
    services: Services,
) -> Call:
    """Return the call with its model acquired until it is released, a way to load it, and one to see its load."""

    async def reload() -> None:
        await services.lifetimes.ensure_loaded(resolved, terms(resolved, options, services))

    async def is_loaded() -> bool:
        return await services.lifetimes.is_loaded(resolved.model)

    def release() -> None:
        services.lifetimes.release(resolved.model)
        if call.is_loaded is not None:
            measured = call.translation.measured()
            if measured.metrics.total_duration and not measured.error:
                services.lifetimes.note_loaded(resolved.model)
        log_if_cut(call, resolved, services)

    services.lifetimes.acquire(resolved.model, keep_alive)
    call.release = release
    call.reload = reload
    if services.lifetimes.is_cold(resolved.model):
        call.is_loaded = is_loaded
    return call
