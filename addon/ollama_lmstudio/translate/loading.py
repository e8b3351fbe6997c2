"""The life of a model, as requests ask for it.

LM Studio loads on demand, so a request loads a model from here only if LM Studio would not, or not in the way it is
wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lmstudio.catalog import Model, Resolution
from ..lmstudio.errors import LMStudioError, is_model_not_found, is_no_models_loaded
from ..ollama import times
from ..ollama.durations import KeepAlive
from ..outcomes import Response
from ..services import Services
from .stream import LineFormat


async def ensure_loaded(found: Resolution, services: Services, context_length: int | None = None) -> None:
    """Load a model, unless it is loaded, within the time that the options give."""
    await services.lifetimes.ensure_loaded(found, services.settings.load_timeout_seconds, context_length)


async def prepare(
    found: Resolution, keep_alive: KeepAlive | None, options: Mapping[str, Any], services: Services
) -> None:
    """Load before a request what LM Studio would not load on demand in the right way.

    Afterwards nothing unloads the model, if its use begins at once.
    """
    context_length = _context_length(options, services)
    wanted = context_length is not None or (keep_alive is not None and keep_alive.forever)
    with services.lifetimes.used(found.model):
        unloaded = await services.lifetimes.unloaded(found.model)
        if (wanted or not services.lifetimes.on_demand) and (unloaded or not found.model.loaded):
            await ensure_loaded(found, services, context_length)


def wants_load(error: LMStudioError) -> bool:
    """Whether LM Studio refused because it does not load on demand: it was asked for a model that it has."""
    return is_no_models_loaded(error) or is_model_not_found(error)


def _context_length(options: Mapping[str, Any], services: Services) -> int | None:
    wanted = options.get("num_ctx")
    return wanted if services.settings.num_ctx == "load" and isinstance(wanted, int) and wanted > 0 else None


async def load_answer(
    shape: LineFormat,
    name: str,
    found: Resolution,
    keep_alive: KeepAlive | None,
    options: Mapping[str, Any],
    services: Services,
) -> Response:
    """Load the model for a request without a prompt."""
    with services.lifetimes.used(found.model):
        await ensure_loaded(found, services, _context_length(options, services))
    services.lifetimes.begin(found.model, keep_alive)
    services.lifetimes.end(found.model)
    return _answer(shape, name, "load", services)


async def unload_answer(shape: LineFormat, name: str, model: Model, services: Services) -> Response:
    """Unload the model for a request without a prompt; like Ollama, not before its answers under way have ended."""
    await services.lifetimes.expire(model)
    return _answer(shape, name, "unload", services)


def _answer(shape: LineFormat, name: str, reason: str, services: Services) -> Response:
    created_at = times.rfc3339(services.clock.wall())
    return Response.json(
        shape.build(name, created_at, content="", thinking="", tool_calls=[], done=True, done_reason=reason)
    )
