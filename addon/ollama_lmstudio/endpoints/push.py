"""`POST /api/push`: LM Studio has no registry that a model could be sent to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from ..ollama import errors, names
from ..ollama.errors import OllamaError
from ..ollama.requests import PushRequest
from ..outcomes import LocalStream, Request
from ..services import Services
from ..translate.models import find_model

NOTHING_SENT = "LM Studio has no registry: nothing was sent"


async def push(request: Request, services: Services) -> LocalStream:
    """Check that the model exists, and return that nothing was sent."""
    body = await PushRequest.read(request.body)
    if not body.model:
        raise errors.model_required()
    return LocalStream(_lines(body.model, services), body.stream)


async def _lines(name: str, services: Services) -> AsyncGenerator[Mapping[str, object], None]:
    yield {"status": "retrieving manifest"}
    try:
        await find_model(name, services)
    except OllamaError as e:
        yield {"status": "couldn't retrieve manifest"}
        if e.message == errors.invalid_model_name().message:
            raise errors.unqualified_name(names.unchecked(name).canonical) from None
        raise
    yield {"status": NOTHING_SENT}
    yield {"status": "success"}
