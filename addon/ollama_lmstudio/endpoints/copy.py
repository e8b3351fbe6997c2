"""`POST /api/copy`: another name for a model, or for an alias and what it adds. LM Studio itself copies nothing."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus

from ..ollama import errors, names
from ..ollama.requests import CopyRequest
from ..outcomes import NO_CONTENT_TYPE, Request, Response
from ..services import Services
from ..state.aliases import StoreError
from ..translate.aliases import alias_of, check_new_name, check_source, store_alias
from ..translate.listing import ListEntry
from ..translate.models import find_model


async def copy(request: Request, services: Services) -> Response:
    """Make an alias of a model or of another alias."""
    body = await CopyRequest.read(request.body)
    await check_source(body.source, errors.invalid_source(body.source), services)
    name = check_new_name(body.destination, errors.invalid_destination(body.destination))
    resolved = await find_model(body.source, services, errors.source_not_found, errors.invalid_source)
    # A copy onto itself, also under another spelling of the model's own name, changes nothing.
    if name.key != names.key_of(ListEntry(resolved.model, resolved.alias).name):
        alias = replace(alias_of(resolved, services), modified=services.clock.wall())
        try:
            await store_alias(alias, name, services)
        except StoreError as e:
            return Response.error(e.status, e.message)
    return Response(HTTPStatus.OK, b"", NO_CONTENT_TYPE)
