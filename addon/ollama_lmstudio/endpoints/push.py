"""`POST /api/push`: LM Studio has no registry to send a model to, which is said, and nothing else done."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from ..ollama import errors, names
from ..ollama.errors import OllamaError
from ..ollama.requests import PushRequest
from ..outcomes import LocalStream, Request
from ..services import Services
from ..translate.inference import find_model

NOTHING_SENT = "LM Studio has no registry: nothing was sent"


async def push(incoming: Request, services: Services) -> LocalStream:
    """Look for the model, and say that it was not sent anywhere."""
    request = await PushRequest.read(incoming.body)
    if not request.model:
        raise errors.model_required()
    return LocalStream(_lines(request.model, services), request.stream)


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
