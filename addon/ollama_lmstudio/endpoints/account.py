"""`POST /api/me`, `POST /api/signout` and `DELETE /api/user/keys/:key`: there is no account at ollama.com."""

from __future__ import annotations

from ..ollama import errors
from ..outcomes import Request, Response
from ..services import Services


async def me(request: Request, services: Services) -> Response:
    """Raise Ollama's 503: a 401 would make clients ask the user to sign in."""
    raise errors.account_unavailable()


async def signout(request: Request, services: Services) -> Response:
    """Raise Ollama's error for an account that cannot be left."""
    raise errors.signout_failed()
