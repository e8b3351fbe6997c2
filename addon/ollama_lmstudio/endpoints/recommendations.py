"""`GET /api/experimental/model-recommendations`: ollama.com's, of which there are none here."""

from __future__ import annotations

from ..outcomes import Request, Response
from ..services import Services


async def recommendations(request: Request, services: Services) -> Response:
    """Return an empty list."""
    return Response.json({"recommendations": []})
