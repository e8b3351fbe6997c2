"""What belongs to ollama.com: the account, the web tools, the recommendations.

There is no cloud behind this server, and what is answered is what an Ollama says that has none (`OLLAMA_NO_CLOUD`).
"""

from __future__ import annotations

from ..ollama import errors
from .base import Answer, Incoming, Services


async def status(incoming: Incoming, services: Services) -> Answer:
    """Tell that there is no cloud behind this server."""
    return Answer.json({"cloud": {"disabled": True, "source": "env"}})


async def me(incoming: Incoming, services: Services) -> Answer:
    """Tell that there is no account. A 401 would send clients to sign in."""
    raise errors.account_unavailable()


async def signout(incoming: Incoming, services: Services) -> Answer:
    """Tell that there is no account to leave."""
    raise errors.signout_failed()


async def web_search(incoming: Incoming, services: Services) -> Answer:
    """Refuse to search the web."""
    raise _unavailable("web search", incoming)


async def web_fetch(incoming: Incoming, services: Services) -> Answer:
    """Refuse to fetch a page."""
    raise _unavailable("web fetch", incoming)


def _unavailable(what: str, incoming: Incoming) -> errors.OllamaError:
    return errors.cloud_disabled(f"{what} is unavailable") if incoming.body else errors.missing_request_body()


async def recommendations(incoming: Incoming, services: Services) -> Answer:
    """Recommend nothing: what ollama.com recommends is its own."""
    return Answer.json({"recommendations": []})
