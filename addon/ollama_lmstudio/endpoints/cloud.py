"""What belongs to ollama.com: the account, the web tools, the recommendations.

There is no cloud behind this server, and what is answered is what an Ollama says that has none (`OLLAMA_NO_CLOUD`).
"""

from __future__ import annotations

from ..ollama import errors
from ..outcomes import Request, Response
from ..services import Services


async def status(incoming: Request, services: Services) -> Response:
    """Tell that there is no cloud behind this server."""
    return Response.json({"cloud": {"disabled": True, "source": "env"}})


async def me(incoming: Request, services: Services) -> Response:
    """Tell that there is no account. A 401 would send clients to sign in."""
    raise errors.account_unavailable()


async def signout(incoming: Request, services: Services) -> Response:
    """Tell that there is no account to leave."""
    raise errors.signout_failed()


async def web_search(incoming: Request, services: Services) -> Response:
    """Refuse to search the web."""
    raise _unavailable("web search", incoming)


async def web_fetch(incoming: Request, services: Services) -> Response:
    """Refuse to fetch a page."""
    raise _unavailable("web fetch", incoming)


def _unavailable(what: str, incoming: Request) -> errors.OllamaError:
    return errors.cloud_disabled(f"{what} is unavailable") if incoming.body else errors.missing_request_body()


async def recommendations(incoming: Request, services: Services) -> Response:
    """Recommend nothing: what ollama.com recommends is its own."""
    return Response.json({"recommendations": []})
