"""`/v1/*`, `/api/v0/*`, `/api/v1/*`: LM Studio's own APIs.

The model's name is mapped, aliases are added to the list of models, and what Ollama takes and LM Studio refuses is
repaired (`translate/repairs.py`). No other byte changes.
"""

from __future__ import annotations

import json
from functools import partial
from urllib.parse import unquote

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import names
from ..ollama.errors import OllamaError
from ..outcomes import Passthrough, Request, Response
from ..services import Services
from ..threads import run_in_thread_if_large
from ..translate.api_errors import error_answer, json_line
from ..translate.json_spans import replaced
from ..translate.models import display_not_found, find_aliases, find_model
from ..translate.passthrough import add_models, members_with_model, model_entry
from ..translate.paths import MODELS
from ..translate.repairs import repairs

# The model that these name need not be on disk, or is named by the id of an instance.
UNRESOLVED = ("/api/v1/models/download", "/api/v1/models/unload")


async def passthrough(request: Request, services: Services) -> Passthrough | Response:
    """Pass a request through, with LM Studio's key for the model's name."""
    if request.method == "GET" and request.path == MODELS and services.aliases.all():
        return await _list_models(request, services)
    if request.method == "GET" and request.path.startswith(f"{MODELS}/"):
        return await _describe_model(request, services)
    if request.path.startswith(UNRESOLVED):
        return Passthrough(request.path, request.body)
    size = len(request.body)
    parsed = await run_in_thread_if_large(size, members_with_model, request.body)
    if parsed is None:
        return Passthrough(request.path, request.body)
    text, members = parsed
    name = members["model"]
    try:
        resolved = await find_model(name.value, services)
    except (OllamaError, LMStudioError) as e:
        if names.is_cloud(name.value) and request.path.startswith("/v1/"):
            raise  # Ollama returns this error in its own shape on all of its APIs
        return error_answer(request.path, e.status, scrub(e.message, services.secrets), "model")
    model = resolved.model
    changes = [(name, json.dumps(resolved.id, ensure_ascii=False))]
    if services.settings.repair_passthrough and request.method == "POST":
        changes += await run_in_thread_if_large(size, repairs, request.path, text, members, services)
    body = replaced(text, changes).encode("utf-8", "surrogateescape")
    with services.lifetimes.using(model):
        await services.lifetimes.settled(model)
    services.lifetimes.acquire(model, None)
    release = partial(services.lifetimes.release, model)
    return Passthrough(request.path, body, model=resolved.id, asked=name.value, release=release)


async def _list_models(request: Request, services: Services) -> Passthrough:
    """Pass `GET /v1/models` through, with the aliases added to LM Studio's list."""
    try:
        aliases = find_aliases(await services.catalog.get(), services)
    except LMStudioError:
        aliases = []
    entries = [model_entry(resolved.alias.name, resolved) for resolved in aliases if resolved.alias is not None]
    return Passthrough(request.path, request.body, lambda body: add_models(body, entries) if entries else body)


async def _describe_model(request: Request, services: Services) -> Response:
    """Answer `GET /v1/models/:model` here: LM Studio does not know the client's names."""
    name = unquote(request.path.removeprefix(f"{MODELS}/"))
    try:
        resolved = await find_model(name, services, display_not_found)
    except (OllamaError, LMStudioError) as e:
        return error_answer(request.path, e.status, scrub(e.message, services.secrets))
    return json_line(model_entry(name, resolved))
