"""`GET /api/tags`: LM Studio's models under Ollama's names."""

from __future__ import annotations

from .base import Answer, Incoming, Services
from .models import tag_entry


async def tags(incoming: Incoming, services: Services) -> Answer:
    """List every model that LM Studio has on disk."""
    catalog = await services.catalog.get(max_age=1)
    return Answer.json({"models": [tag_entry(model, services) for model in catalog.models]})
