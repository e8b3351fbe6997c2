"""`POST /v1/systemone` -> LM Studio's own: questions to a decision model."""

from __future__ import annotations

from ..ollama import errors
from ..ollama.requests import SystemOneRequest
from ..outcomes import Call, Request
from ..services import Services
from ..threads import run_in_thread_if_large
from ..translate import loading
from ..translate.decisions import DecisionTranslation, decision_body
from ..translate.models import find_model
from ..translate.paths import SYSTEMONE


async def systemone(request: Request, services: Services) -> Call:
    """Ask a decision model. LM Studio loads none on demand, and answers with no other model."""
    body = await SystemOneRequest.read(request.body)
    if not body.model.strip():
        raise errors.model_required()
    resolved = await find_model(body.model, services, errors.embedding_model_not_found)
    if resolved.model.type != "decision":
        raise errors.decision_unsupported(body.model)
    data = await run_in_thread_if_large(len(request.body), decision_body, body, resolved)
    if not resolved.model.loaded:
        await services.lifetimes.ensure_loaded(resolved, loading.terms(resolved, {}, services))
    translation = DecisionTranslation(body.model, request.started_ns, services)
    call = Call(SYSTEMONE, data, translation, model=resolved.id, asked=body.model)
    return loading.acquire(call, resolved, body.keep_alive, {}, services)
