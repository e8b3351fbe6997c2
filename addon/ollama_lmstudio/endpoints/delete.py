"""`DELETE /api/delete`: an alias is deleted. LM Studio has no call that deletes a model."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from ..ollama import errors, names
from ..ollama.errors import OllamaError
from ..ollama.requests import DeleteRequest
from ..outcomes import NO_CONTENT_TYPE, Request, Response
from ..services import Services
from ..state.aliases import StoreError
from ..translate.aliases import check_source
from ..translate.models import find_model


async def delete(request: Request, services: Services) -> Response:
    """Delete an alias."""
    name = (await DeleteRequest.read(request.body)).model
    if not name:
        raise errors.model_required()
    key = names.key_of(name)
    await check_source(name, errors.invalid_name(name), services)
    if key is not None and services.aliases.get(key) is not None:
        try:
            deleted = await asyncio.to_thread(services.aliases.change, lambda aliases: aliases.pop(key, None))
        except StoreError as e:
            return Response.error(e.status, e.message)
        if deleted is not None:
            return Response(HTTPStatus.OK, b"", NO_CONTENT_TYPE)
    if names.is_cloud(name):
        raise errors.model_not_found(name)
    resolved = await find_model(name, services, invalid=errors.invalid_name)
    raise OllamaError(
        HTTPStatus.BAD_REQUEST,
        f"LM Studio has no call that deletes a model: delete {resolved.model.key} in LM Studio itself, in My Models",
    )
