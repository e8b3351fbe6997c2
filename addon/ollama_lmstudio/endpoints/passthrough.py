"""`/v1/*`, `/api/v0/*`, `/api/v1/*`: LM Studio's own APIs.

The model's name is mapped, aliases are added to the list of models, and what Ollama takes and LM Studio does not is
repaired (`translate/repairs.py`). No other byte changes.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import names
from ..ollama.errors import OllamaError
from ..outcomes import Passthrough, Request, Response
from ..services import Services
from ..threads import LARGE_BYTES, run_in_thread_if_large
from ..translate import first_words, loading
from ..translate.api_errors import error_answer, json_line
from ..translate.json_body import JSONBody
from ..translate.json_spans import Unreadable
from ..translate.models import ResolvedModel, display_not_found, find_aliases, find_model
from ..translate.options import merge_options
from ..translate.passthrough import (
    PassedRequest,
    complete_list,
    is_json_of_another_encoding,
    members_with_model,
    model_entry,
)
from ..translate.paths import MODELS
from ..translate.repairs import repaired
from ..translate.turns import turns_of_values

UNREADABLE = "the body is nested too deeply to be read, or holds a number of thousands of digits"
NOT_UTF8 = (
    "the body is not UTF-8, or begins with a byte order mark: JSON is sent in UTF-8 without one (RFC 8259, section 8.1)"
)
# The model that these name need not be on disk, is named by the id of an instance, or is of a kind that LM Studio does
# not list: should it not have the path, it is to say so.
UNRESOLVED = ("/api/v1/models/download", "/api/v1/models/unload", "/v1/audio/")


async def passthrough(request: Request, services: Services) -> Passthrough | Response:
    """Pass a request through, with LM Studio's key for the model's name."""
    if request.method == "GET" and request.path == MODELS:
        return await _list_models(request, services)
    if request.method == "GET" and request.path.startswith(f"{MODELS}/"):
        return await _describe_model(request, services)
    if request.path.startswith(UNRESOLVED):
        return Passthrough(request.path, request.body)
    if is_json_of_another_encoding(request.headers.get("content-type", ""), request.body):
        return error_answer(request.path, HTTPStatus.BAD_REQUEST, NOT_UTF8)
    size = len(request.body)
    try:
        parsed = await run_in_thread_if_large(size, members_with_model, request.body)
    except Unreadable:
        return error_answer(request.path, HTTPStatus.BAD_REQUEST, UNREADABLE)
    if parsed is None:
        return Passthrough(request.path, request.body)
    text, members = parsed
    name = members["model"].value
    try:
        resolved = await find_model(name, services)
    except (OllamaError, LMStudioError) as e:
        if names.is_cloud(name) and request.path.startswith("/v1/"):
            raise  # Ollama returns this error in its own shape on all of its APIs
        return error_answer(request.path, e.status, scrub(e.message, services.secrets), "model")
    turns = turns_of_values(members["messages"].value) if "messages" in members else None
    passed = PassedRequest(request.path, JSONBody(text, members), name, resolved, services)
    words = first_words.of_members(passed.body.get)
    try:
        # An image of few bytes may have many pixels to be converted.
        body = await run_in_thread_if_large(LARGE_BYTES if ";base64," in text else size, repaired, passed)
    except OllamaError as e:
        return error_answer(request.path, e.status, e.message)
    model = resolved.model
    try:
        await _prepare(request, resolved, services)
    except (OllamaError, LMStudioError) as e:
        return error_answer(request.path, e.status, scrub(e.message, services.secrets))
    services.lifetimes.acquire(model, None)
    release = partial(services.lifetimes.release, model)
    return Passthrough(
        request.path, body, passed.rewrite, model=resolved.id, asked=name, release=release, turns=turns, words=words
    )


async def _prepare(request: Request, resolved: ResolvedModel, services: Services) -> None:
    """Load the model as for a request of Ollama's own API, on the paths that Ollama has too; see `loading.prepare`."""
    if request.method == "POST" and request.path.startswith("/v1/"):
        alias = resolved.alias if services.settings.repair_passthrough else None
        await loading.prepare(resolved, merge_options(alias, None, {}), services)
        return
    # LM Studio's own APIs have loads, and a context length, of their own.
    with services.lifetimes.using(resolved.model):
        await services.lifetimes.settled(resolved.model)


async def _list_models(request: Request, services: Services) -> Passthrough:
    """Pass `GET /v1/models` through, with the aliases added to LM Studio's list."""
    entries = await _alias_entries(services) if services.aliases.all() else []
    rewrite = partial(complete_list, entries=entries, dated=services.settings.repair_passthrough)
    return Passthrough(request.path, request.body, rewrite)


async def _alias_entries(services: Services) -> list[dict[str, Any]]:
    try:
        aliases = find_aliases(await services.catalog.get(), services)
    except LMStudioError:
        return []
    return [model_entry(resolved.alias.name, resolved) for resolved in aliases if resolved.alias is not None]


async def _describe_model(request: Request, services: Services) -> Response:
    """Answer `GET /v1/models/:model` here: LM Studio does not know the client's names."""
    name = request.path.removeprefix(f"{MODELS}/")
    try:
        resolved = await find_model(name, services, display_not_found)
    except (OllamaError, LMStudioError) as e:
        return error_answer(request.path, e.status, scrub(e.message, services.secrets))
    return json_line(model_entry(name, resolved))
