"""`/` and `/api/version`: what clients ask before anything else; LM Studio is not needed for it."""

from __future__ import annotations

from http import HTTPStatus

from ..outcomes import Request, Response
from ..services import Services


async def root(request: Request, services: Services) -> Response:
    """Return Ollama's greeting, by which clients recognise it."""
    return Response(HTTPStatus.OK, b"Ollama is running", "text/plain; charset=utf-8")


async def version(request: Request, services: Services) -> Response:
    """Return the option `ollama_version`, which clients compare with the version they need."""
    return Response.json({"version": services.settings.ollama_version})
