"""`/health`: whether LM Studio answers."""

from __future__ import annotations

from http import HTTPStatus

from .. import __version__
from ..lmstudio.errors import LMStudioError, scrub
from ..outcomes import Request, Response
from ..services import Services

NANOSECONDS_PER_MILLISECOND = 1e6


async def health(request: Request, services: Services) -> Response:
    """Ask LM Studio for its models now; 200 when it answers, 503 when not."""
    started = services.clock.monotonic()
    details: dict[str, object] = {"lmstudio_url": services.client.url, "proxy_version": __version__}
    try:
        catalog = await services.catalog.refresh()
    except LMStudioError as e:
        error = scrub(e.message, services.secrets)
        return Response.json(
            {"status": "unavailable", "error": error, **details}, status=HTTPStatus.SERVICE_UNAVAILABLE
        )
    duration = services.clock.monotonic() - started
    return Response.json(
        {
            "status": "ok",
            "models": len(catalog.models),
            "loaded_instances": sum(len(model.instances) for model in catalog.models),
            "response_time_ms": round(duration / NANOSECONDS_PER_MILLISECOND, 3),
            **details,
        }
    )
