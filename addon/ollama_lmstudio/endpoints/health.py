"""`/health`: whether LM Studio answers, and `/health/live`: that this process does. They may be polled."""

from __future__ import annotations

from http import HTTPStatus

from .. import __version__
from ..lmstudio.client import HEALTH
from ..lmstudio.errors import LMStudioError, scrub
from ..outcomes import NO_CONTENT_TYPE, Request, Response
from ..services import Services

NANOSECONDS_PER_MILLISECOND = 1e6
# For how long a response is given again, so that LM Studio is not asked for each poll.
KEPT_NANOSECONDS = 3_000_000_000


async def live(request: Request, services: Services) -> Response:
    """Return an empty 200, which tells nothing: it needs no key."""
    return Response(HTTPStatus.OK, b"", NO_CONTENT_TYPE)


async def health(request: Request, services: Services) -> Response:
    """Return 200 when LM Studio answers, 503 when not, as it was asked a few seconds ago at most.

    All who ask while it is being asked get what comes of that.
    """
    if services.health is not None:
        made_at, response = services.health
        if services.clock.monotonic() - made_at < KEPT_NANOSECONDS:
            return response
    response = await _ask(services)
    services.health = services.clock.monotonic(), response
    return response


async def _ask(services: Services) -> Response:
    started = services.clock.monotonic()
    details: dict[str, object] = {"lmstudio_url": services.client.url, "proxy_version": __version__}
    try:
        catalog = await services.catalog.refresh(HEALTH)
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
