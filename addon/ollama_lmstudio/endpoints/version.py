"""`/` and `/api/version`: what needs no LM Studio."""

from __future__ import annotations

from ..outcomes import Request, Response
from ..services import Services


async def root(incoming: Request, services: Services) -> Response:
    """Say what every client looks for."""
    return Response(200, b"Ollama is running", "text/plain; charset=utf-8")


async def version(incoming: Request, services: Services) -> Response:
    """Tell the version that clients compare with what they need."""
    return Response.json({"version": services.settings.ollama_version})
