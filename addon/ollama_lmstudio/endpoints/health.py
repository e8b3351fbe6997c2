"""`/health`: whether LM Studio answers."""

from __future__ import annotations

from .. import __version__
from ..lmstudio.errors import LMStudioError, scrub
from ..outcomes import Request, Response
from ..services import Services


async def health(incoming: Request, services: Services) -> Response:
    """Ask LM Studio for its models now; 200 when it answers, 503 when not."""
    started = services.clock.monotonic()
    details: dict[str, object] = {
        "lmstudio_url": services.client.url,
        "proxy_version": __version__,
    }
    try:
        catalog = await services.catalog.refresh()
    except LMStudioError as e:
        error = scrub(e.message, services.secrets)
        return Response.json({"status": "unavailable", "error": error, **details}, status=503)
    milliseconds = round((services.clock.monotonic() - started) / 1e6, 3)
    loaded = sum(len(model.instances) for model in catalog.models)
    return Response.json(
        {
            "status": "ok",
            "models": len(catalog.models),
            "loaded_instances": loaded,
            "response_time_ms": milliseconds,
            **details,
        }
    )
