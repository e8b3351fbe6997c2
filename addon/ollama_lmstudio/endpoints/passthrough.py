"""`/v1/*`, `/api/v0/*`, `/api/v1/*`: LM Studio's own APIs. The model's name is mapped, and two things are repaired that
Ollama takes and LM Studio refuses. No other byte changes, but that aliases are added to the list of models.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import names, wire
from ..ollama.errors import OllamaError
from ..ollama.requests import ChatRequest
from ..outcomes import PLAIN_JSON, Passthrough, Request, Response
from ..services import Services
from ..threads import run_in_thread_if_large
from ..translate import mapping
from ..translate.inference import ResolvedModel, display_not_found, find_aliases, find_model
from ..translate.listing import ListEntry
from ..translate.spans import Span, elements, members, replaced

logger = logging.getLogger(__name__)

# Here a model is named that need not be on disk, or by the id of an instance.
UNRESOLVED = ("/api/v1/models/download", "/api/v1/models/unload")
MODELS = "/v1/models"
RESPONSES = "/v1/responses"

Change = tuple[Span, str]


async def passthrough(incoming: Request, services: Services) -> Passthrough | Response:
    """Send a request on, with LM Studio's key for the model's name."""
    if incoming.method == "GET" and incoming.path == MODELS and services.aliases.all():
        return await _models(incoming, services)
    if incoming.method == "GET" and incoming.path.startswith(f"{MODELS}/"):
        return await describe(incoming, services)
    size = len(incoming.body)
    parsed = None if incoming.path.startswith(UNRESOLVED) else await run_in_thread_if_large(size, named, incoming.body)
    if parsed is None:
        return Passthrough(incoming.path, incoming.body)
    text, found = parsed
    model = found["model"]
    try:
        target = await find_model(model.value, services)
    except (OllamaError, LMStudioError) as e:
        if names.is_cloud(model.value) and incoming.path.startswith("/v1/"):
            raise  # Ollama has its own form for this on all of its APIs
        return error_answer(incoming.path, e.status, scrub(e.message, services.secrets), "model")
    changes = [(model, json.dumps(target.id, ensure_ascii=False))]
    if services.settings.repair_passthrough and incoming.method == "POST":
        changes += await run_in_thread_if_large(size, repairs, incoming.path, text, found, services)
    body = replaced(text, changes).encode("utf-8", "surrogateescape")
    with services.lifetimes.using(target.model):
        await services.lifetimes.wait_for_unload(target.model)
    services.lifetimes.acquire(target.model, None)
    release = partial(services.lifetimes.release, target.model)
    return Passthrough(incoming.path, body, model=target.id, asked=model.value, release=release)


def named(body: bytes) -> tuple[str, dict[str, Span]] | None:
    """Parse a body that names a model: its text, and the members of the object.

    None for a body without a name, also for one that is not JSON: LM Studio is to say so, not we.
    """
    if b'"model"' not in body and b"\\u" not in body:
        return None
    text = body.decode("utf-8", "surrogateescape")
    try:
        found = members(text)
    except ValueError:
        return None
    model = found.get("model")
    return (text, found) if model is not None and isinstance(model.value, str) and model.value else None


async def _models(incoming: Request, services: Services) -> Passthrough | Response:
    """Add the aliases to LM Studio's list."""
    try:
        aliases = find_aliases(await services.catalog.get(), services)
    except LMStudioError:
        aliases = []
    entries = [model_entry(found.alias.name, found) for found in aliases if found.alias is not None]
    return Passthrough(incoming.path, incoming.body, lambda body: with_models(body, entries) if entries else body)


async def describe(incoming: Request, services: Services) -> Response:
    """Describe one model. LM Studio would not know it by the client's name for it."""
    asked = unquote(incoming.path.removeprefix(f"{MODELS}/"))
    try:
        found = await find_model(asked, services, display_not_found)
    except (OllamaError, LMStudioError) as e:
        return error_answer(incoming.path, e.status, scrub(e.message, services.secrets))
    return _with_newline(model_entry(asked, found), 200)


def model_entry(name: str, found: ResolvedModel) -> dict[str, Any]:
    """Give a model as `/v1/models` lists it."""
    entry = ListEntry(found.model, found.alias)
    return {"id": name, "object": "model", "created": entry.modified // 10**9, "owned_by": entry.namespace}


def with_models(body: bytes, entries: list[dict[str, Any]]) -> bytes:
    """Add entries to LM Studio's list; what is not one stays as it is."""
    try:
        answer = json.loads(body)
        answer["data"] += entries
    except (ValueError, TypeError, KeyError):
        return body
    return json.dumps(answer, ensure_ascii=False, indent=2).encode()


# What Ollama takes and LM Studio refuses.


def repairs(path: str, text: str, found: Mapping[str, Span], services: Services) -> list[Change]:
    """Give the changes that make of a body which Ollama takes one that LM Studio takes too.

    What Ollama would refuse as well stays as it is, and so does everything that LM Studio takes.
    """
    changes: list[Change] = []
    for key, repair in REPAIRS.get(path, {}).items():
        if key in found and (made := list(repair(text, found[key]))):
            changes += made
            _mention(f"{key} of {path}", services)
    return changes


def _mention(what: str, services: Services) -> None:
    if what not in services.logged_once:
        services.logged_once.add(what)
        logger.info("LM Studio would refuse the %s: repaired, see the option repair_passthrough (said once)", what)


def _tools(text: str, tools: Span, *, flat: bool = False) -> Iterator[Change]:
    """Bring the definitions that LM Studio refuses into the form that it takes.

    In `flat` ones the keys of the function stand beside the type.
    """
    if not isinstance(tools.value, list) or not any(_needs_repair(tool, flat) for tool in tools.value):
        return
    for tool in elements(text, tools.start):
        if _needs_repair(tool.value, flat) and (taken := _taken(text[tool.start : tool.end], flat)) is not None:
            yield tool, mapping.dumps(_to_lmstudio(taken, flat)).decode()


def _needs_repair(tool: object, flat: bool) -> bool:
    if flat and not (isinstance(tool, Mapping) and tool.get("type") == "function"):
        return False
    return _to_lmstudio(tool, flat) != tool


def _to_lmstudio(tool: object, flat: bool) -> Mapping[str, Any]:
    (made,) = mapping.tools_to_lmstudio([{"function": tool} if flat else tool])
    function: Mapping[str, Any] = made["function"]
    return function if flat else made


def _taken(tool: str, flat: bool) -> Any:
    """Read a definition as Ollama does; None for one that it refuses."""
    wrapped = f'{{"function":{tool}}}' if flat else tool
    try:
        (taken,) = ChatRequest.decode(f'{{"tools":[{wrapped}]}}'.encode("utf-8", "surrogateescape")).tools
    except OllamaError:
        return None
    return taken["function"] if flat else taken


def _response_format(text: str, response_format: Span) -> Iterator[Change]:
    """Ask for any object by a schema."""
    wanted = response_format.value
    if isinstance(wanted, Mapping) and wanted.get("type") == "json_object":
        yield response_format, mapping.dumps(mapping.format_to_lmstudio("json")).decode()


# By path, what repairs the value of a key. `/api/v0/chat/completions` refuses the same, but Ollama has no such path:
# who asks there knows LM Studio.
REPAIRS: Mapping[str, Mapping[str, Callable[[str, Span], Iterator[Change]]]] = {
    mapping.CHAT_COMPLETIONS: {"tools": _tools, "response_format": _response_format},
    RESPONSES: {"tools": partial(_tools, flat=True)},
}


# What an error of each API calls itself, by status.
_OPENAI_TYPES = {400: "invalid_request_error", 404: "not_found_error", 413: "invalid_request_error"}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
}
_ANTHROPIC_TYPES |= {503: "overloaded_error"}


def error_answer(path: str, status: int, message: str, parameter: str | None = None) -> Response:
    """Give an error in the shape of the API that a path belongs to: Ollama's for those that it has too.

    `parameter` is what LM Studio's own APIs name as the cause.
    """
    if path.startswith("/v1/messages"):
        error = {"type": _ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        return _with_newline({"type": "error", "error": error, "request_id": f"req_{secrets.token_hex(12)}"}, status)
    if path.startswith("/v1/"):
        kind = _OPENAI_TYPES.get(status, "api_error")
        return _with_newline({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
    kind = "invalid_request" if status < 500 else "internal_error"
    code = "model_not_found" if status == 404 else None
    error_object = {"message": message, "type": kind, "param": parameter, "code": code}
    return Response.json({"error": error_object}, status=status, content_type=PLAIN_JSON)


def _with_newline(value: object, status: int) -> Response:
    return Response(status, wire.line(value), PLAIN_JSON)
