"""`/v1/*`, `/api/v0/*`, `/api/v1/*`: LM Studio's own APIs. Only the model's name is mapped; no other byte changes, but
that aliases are added to the list of models.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any
from urllib.parse import unquote

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import names, wire
from ..ollama.errors import OllamaError
from .base import PLAIN_JSON, Answer, Incoming, Relay, Services
from .inference import Found, display_not_found, find_aliases, find_model
from .models import Listed

# Here a model is named that need not be on disk, or by the id of an instance.
UNRESOLVED = ("/api/v1/models/download", "/api/v1/models/unload")
MODELS = "/v1/models"

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


async def passthrough(incoming: Incoming, services: Services) -> Relay | Answer:
    """Send a request on, with LM Studio's key for the model's name."""
    if incoming.method == "GET" and incoming.path == MODELS and services.aliases.all():
        return await _models(incoming, services)
    if incoming.method == "GET" and incoming.path.startswith(f"{MODELS}/"):
        return await describe(incoming, services)
    span = None if incoming.path.startswith(UNRESOLVED) else model_span(incoming.body)
    if span is None:
        return Relay(incoming.path, incoming.body)
    text, start, end = span
    name = json.loads(text[start:end])
    try:
        found = await find_model(name, services)
    except (OllamaError, LMStudioError) as e:
        if names.is_cloud(name) and incoming.path.startswith("/v1/"):
            raise  # Ollama has its own form for this on all of its APIs
        return error_answer(incoming.path, e.status, scrub(e.message, services.secrets), "model")
    body = text[:start] + json.dumps(found.id, ensure_ascii=False) + text[end:]
    return Relay(incoming.path, body.encode("utf-8", "surrogateescape"), model=found.id, asked=name)


async def _models(incoming: Incoming, services: Services) -> Relay | Answer:
    """Add the aliases to LM Studio's list."""
    try:
        aliases = find_aliases(await services.catalog.get(), services)
    except LMStudioError:
        aliases = []
    entries = [model_entry(found.alias.name, found) for found in aliases if found.alias is not None]
    return Relay(incoming.path, incoming.body, lambda body: with_models(body, entries) if entries else body)


async def describe(incoming: Incoming, services: Services) -> Answer:
    """Describe one model. LM Studio would not know it by the client's name for it."""
    asked = unquote(incoming.path.removeprefix(f"{MODELS}/"))
    try:
        found = await find_model(asked, services, display_not_found)
    except (OllamaError, LMStudioError) as e:
        return error_answer(incoming.path, e.status, scrub(e.message, services.secrets))
    return _with_newline(model_entry(asked, found), 200)


def model_entry(name: str, found: Found) -> dict[str, Any]:
    """Give a model as `/v1/models` lists it."""
    entry = Listed(found.model, found.alias)
    return {"id": name, "object": "model", "created": entry.modified // 10**9, "owned_by": entry.namespace}


def with_models(body: bytes, entries: list[dict[str, Any]]) -> bytes:
    """Add entries to LM Studio's list; what is not one stays as it is."""
    try:
        answer = json.loads(body)
        answer["data"] += entries
    except (ValueError, TypeError, KeyError):
        return body
    return json.dumps(answer, ensure_ascii=False, indent=2).encode()


def model_span(body: bytes) -> tuple[str, int, int] | None:
    """Find the value of the object's `model`: the text, and from where to where the string stands in it.

    None for a body without one, also for one that is not JSON: LM Studio is to say so, not we.
    """
    if b'"model"' not in body and b"\\u" not in body:
        return None
    text = body.decode("utf-8", "surrogateescape")
    found = None
    try:
        at = _skip(text, 0)
        if text[at : at + 1] != "{":
            return None
        at = _skip(text, at + 1)
        while text[at : at + 1] == '"':
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, at)
            if text[at : at + 1] != ":":
                return None
            start = _skip(text, at + 1)
            value, end = _DECODER.raw_decode(text, start)
            if key == "model":
                found = (text, start, end) if isinstance(value, str) and value else None
            at = _skip(text, end)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
        if text[at : at + 1] != "}":
            return None
    except (ValueError, RecursionError):
        return None
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches nothing too
    return match.end()


# What an error of each API calls itself, by status.
_OPENAI_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}
_ANTHROPIC_TYPES |= {503: "overloaded_error"}


def error_answer(path: str, status: int, message: str, parameter: str | None = None) -> Answer:
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
    return Answer.json({"error": error_object}, status=status, content_type=PLAIN_JSON)


def _with_newline(value: object, status: int) -> Answer:
    return Answer(status, wire.line(value), PLAIN_JSON)
