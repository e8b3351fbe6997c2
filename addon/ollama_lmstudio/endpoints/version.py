"""`/` and `/api/version`: what needs no LM Studio."""

from __future__ import annotations

from .base import Answer, Incoming, Services


async def root(incoming: Incoming, services: Services) -> Answer:
    """Say what every client looks for."""
    return Answer(200, b"Ollama is running", "text/plain; charset=utf-8")


async def version(incoming: Incoming, services: Services) -> Answer:
    """Tell the version that clients compare with what they need."""
    return Answer.json({"version": services.settings.ollama_version})
