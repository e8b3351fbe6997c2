"""`GET /api/tags`: LM Studio's models under Ollama's names, and the aliases."""

from __future__ import annotations

from .base import Answer, Incoming, Services
from .models import listed, tag_entry


async def tags(incoming: Incoming, services: Services) -> Answer:
    """List every model that LM Studio has on disk, and every alias of one."""
    catalog = await services.catalog.get(max_age=1)
    return Answer.json({"models": [tag_entry(entry, services) for entry in listed(catalog, services)]})
