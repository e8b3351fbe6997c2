"""The life of a model: loading, keeping, unloading.

LM Studio loads on demand, so almost nothing is loaded from here: only what a client asks to have loaded without a
prompt, to be kept for ever, or loaded with its `num_ctx`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..lmstudio.catalog import Model
from ..lmstudio.resolve import Resolution
from ..ollama import times
from ..ollama.durations import KeepAlive
from .base import Answer, Services
from .stream import Shape

logger = logging.getLogger(__name__)


async def current(model: Model, services: Services) -> Model:
    """Give the model as LM Studio lists it now."""
    catalog = await services.catalog.refresh()
    return next((m for m in catalog.models if m.key == model.key), model)


async def ensure_loaded(found: Resolution, services: Services, context_length: int | None = None) -> None:
    """Load a model, unless it is loaded. One load at a time: LM Studio aborts loads that meet."""
    async with services.loading:
        if (await current(found.model, services)).loaded:
            return
        await services.client.load(found.id, context_length, timeout=services.settings.load_timeout_seconds)
        services.catalog.invalidate()


async def unload(model: Model, services: Services) -> None:
    """Unload every instance of a model."""
    for instance in (await current(model, services)).instances:
        await services.client.unload(instance.id)
    services.catalog.invalidate()


async def prepare(
    found: Resolution, keep_alive: KeepAlive | None, options: Mapping[str, Any], services: Services
) -> None:
    """Load before a request what LM Studio's loading on demand would not load the right way."""
    context_length = _context_length(options, services)
    wanted = context_length is not None or (keep_alive is not None and keep_alive.forever)
    if wanted and not found.model.loaded:
        await ensure_loaded(found, services, context_length)


def afterwards(
    found: Resolution, keep_alive: KeepAlive | None, services: Services
) -> Callable[[], Awaitable[None]] | None:
    """Give what is to be done when the answer has ended, also when the client left: a `keep_alive` of 0 unloads."""
    if keep_alive is None or not keep_alive.unload:
        return None

    async def finish() -> None:
        await unload(found.model, services)

    return finish


def _context_length(options: Mapping[str, Any], services: Services) -> int | None:
    wanted = options.get("num_ctx")
    return wanted if services.settings.num_ctx == "load" and isinstance(wanted, int) and wanted > 0 else None


async def load_answer(
    shape: Shape,
    name: str,
    found: Resolution,
    keep_alive: KeepAlive | None,
    options: Mapping[str, Any],
    services: Services,
) -> Answer:
    """Load the model for a request without a prompt."""
    await ensure_loaded(found, services, _context_length(options, services))
    return _answer(shape, name, "load", services)


async def unload_answer(shape: Shape, name: str, model: Model, services: Services) -> Answer:
    """Unload the model for a request without a prompt."""
    await unload(model, services)
    return _answer(shape, name, "unload", services)


def _answer(shape: Shape, name: str, reason: str, services: Services) -> Answer:
    created_at = times.rfc3339(services.clock.wall())
    return Answer.json(
        shape.build(name, created_at, content="", thinking="", tool_calls=[], done=True, done_reason=reason)
    )
