"""`GET /api/tags`: LM Studio's models under Ollama's names, and the aliases."""

from __future__ import annotations

from ..outcomes import Request, Response
from ..services import Services
from ..translate.listing import list_entries, tag_entry


async def tags(request: Request, services: Services) -> Response:
    """List the models that LM Studio has on disk, and their aliases."""
    catalog = await services.catalog.get(max_age=1)
    # All that an entry is made of: the last list, which may be another one, tells whether this LM Studio tells what
    # thinks.
    made_of = (catalog, services.catalog.last, services.aliases.all())
    if services.tags is None or services.tags[0] != made_of:
        entries = [tag_entry(entry, services) for entry in list_entries(catalog, services)]
        services.tags = made_of, Response.json({"models": entries})
    return services.tags[1]
