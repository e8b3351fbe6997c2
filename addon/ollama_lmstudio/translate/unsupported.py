"""Logging of what clients ask for and LM Studio has nothing for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..ollama.quoting import escape
from ..services import Services

logger = logging.getLogger(__name__)

# Clients can make up names without end: at most so many are logged for one request, and in all, each cut to a length.
LOGGED_PER_REQUEST = 10
LOGGED_IN_ALL = 200
LOGGED_CHARACTERS = 60


def log_unsupported(names: Sequence[str], services: Services) -> None:
    """Log what LM Studio has nothing for, each name once."""
    left = LOGGED_PER_REQUEST
    for name in map(_shortened, names[:LOGGED_IN_ALL]):
        if not left or len(services.logged_once) >= LOGGED_IN_ALL:
            return
        if name not in services.logged_once:
            services.logged_once.add(name)
            left -= 1
            logger.info("LM Studio has no %s: accepted, not sent (said once)", name)


def _shortened(name: str) -> str:
    """Return a name that a client made up, escaped for a line of the log."""
    return escape(name if len(name) <= LOGGED_CHARACTERS else f"{name[:LOGGED_CHARACTERS]}...")
