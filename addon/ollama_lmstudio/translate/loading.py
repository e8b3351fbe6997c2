"""Loading a model as a request asks for it, and the responses to requests without a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lmstudio.catalog import Model
from ..lmstudio.resolve import Resolution
from ..ollama import times
from ..ollama.durations import KeepAlive
from ..outcomes import Response
from ..services import Services
from .stream import LineFormat


async def ensure_loaded(model: Resolution, services: Services, context_length: int | None = None) -> None:
    """Load a model, unless it is loaded, within the option `load_timeout_seconds`."""
    await services.lifetimes.ensure_loaded(model, services.settings.load_timeout_seconds, context_length)


async def prepare(
    model: Resolution, keep_alive: KeepAlive | None, options: Mapping[str, Any], services: Services
) -> None:
    """Load a model before a request, where LM Studio would not load it on demand, or not in the way asked for."""
    await services.lifetimes.prepare(
        model,
        keep_alive,
        timeout=services.settings.load_timeout_seconds,
        context_length=_context_length(options, services),
    )


def _context_length(options: Mapping[str, Any], services: Services) -> int | None:
    num_ctx = options.get("num_ctx")
    return num_ctx if services.settings.num_ctx == "load" and isinstance(num_ctx, int) and num_ctx > 0 else None


async def load_answer(
    shape: LineFormat,
    name: str,
    found: Resolution,
    keep_alive: KeepAlive | None,
    options: Mapping[str, Any],
    services: Services,
) -> Response:
    """Load the model for a request without a prompt."""
    with services.lifetimes.using(found.model):
        await ensure_loaded(found, services, _context_length(options, services))
    services.lifetimes.acquire(found.model, keep_alive)
    services.lifetimes.release(found.model)
    return _answer(shape, name, "load", services)


async def unload_answer(shape: LineFormat, name: str, model: Model, services: Services) -> Response:
    """Unload the model for a request without a prompt; like Ollama, not before its answers under way have ended."""
    await services.lifetimes.unload_when_idle(model)
    return _answer(shape, name, "unload", services)


def _answer(shape: LineFormat, name: str, reason: str, services: Services) -> Response:
    created_at = times.rfc3339(services.clock.wall())
    return Response.json(
        shape.build(name, created_at, content="", thinking="", tool_calls=[], done=True, done_reason=reason)
    )
