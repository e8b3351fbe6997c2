"""`POST /api/experimental/web_search` and `.../web_fetch`: ollama.com's web tools, which are not here.

They are refused as an Ollama refuses them that runs with `OLLAMA_NO_CLOUD`.
"""

from __future__ import annotations

from ..ollama import errors
from ..outcomes import Request, Response
from ..services import Services


async def web_search(request: Request, services: Services) -> Response:
    """Raise Ollama's 403."""
    raise _unavailable("web search", request)


async def web_fetch(request: Request, services: Services) -> Response:
    """Raise Ollama's 403."""
    raise _unavailable("web fetch", request)


def _unavailable(tool: str, request: Request) -> errors.OllamaError:
    return errors.cloud_disabled(f"{tool} is unavailable") if request.body else errors.missing_request_body()
