"""`GET /api/status`: whether ollama.com can be used. The response is an Ollama's that runs with `OLLAMA_NO_CLOUD`."""

from __future__ import annotations

from ..outcomes import Request, Response
from ..services import Services


async def status(request: Request, services: Services) -> Response:
    """Return that the cloud is disabled."""
    return Response.json({"cloud": {"disabled": True, "source": "env"}})
