"""`/v1/*`, `/api/v0/*`, `/api/v1/*`: LM Studio's own APIs. Only the model's name is mapped; no other byte changes, but
that aliases are added to the list of models.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import names
from ..ollama.errors import OllamaError
from ..state.aliases import Alias
from .base import PLAIN_JSON, Answer, Incoming, Relay, Services
from .inference import find_aliases, find_model

# Here a model is named that need not be on disk, or by the id of an instance.
UNRESOLVED = ("/api/v1/models/download", "/api/v1/models/unload")
MODELS = "/v1/models"

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


async def passthrough(incoming: Incoming, services: Services) -> Relay | Answer:
    """Send a request on, with LM Studio's key for the model's name."""
    listing = incoming.method == "GET" and (incoming.path == MODELS or incoming.path.startswith(f"{MODELS}/"))
    if listing and services.aliases.all():
        return await _models(incoming, services)
    span = None if incoming.path.startswith(UNRESOLVED) else model_span(incoming.body)
    if span is None:
        return Relay(incoming.path, incoming.body)
    text, start, end = span
    name = json.loads(text[start:end])
    try:
        found = await find_model(name, services)
    except (OllamaError, LMStudioError) as e:
        return error_answer(incoming.path, e.status, scrub(e.message, services.secrets), "model")
    body = text[:start] + json.dumps(found.id, ensure_ascii=False) + text[end:]
    return Relay(incoming.path, body.encode("utf-8", "surrogateescape"))


async def _models(incoming: Incoming, services: Services) -> Relay | Answer:
    """Add the aliases to LM Studio's list, or describe one of them."""
    try:
        aliases = find_aliases(await services.catalog.get(), services)
    except LMStudioError:
        aliases = []
    entries = [_model_entry(found.alias) for found in aliases if found.alias is not None]
    if incoming.path == MODELS:
        return Relay(incoming.path, incoming.body, lambda body: with_models(body, entries) if entries else body)
    asked = unquote(incoming.path.removeprefix(f"{MODELS}/"))
    key = names.key_of(asked)
    entry = next((entry for entry in entries if names.key_of(entry["id"]) == key), None)
    if entry is None:
        return Relay(incoming.path, incoming.body)
    return Answer.json(entry | {"id": asked}, content_type=PLAIN_JSON)


def _model_entry(alias: Alias) -> dict[str, Any]:
    namespace = names.parse_name(alias.name).namespace
    return {"id": alias.name, "object": "model", "created": alias.modified // 10**9, "owned_by": namespace}


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
    """Give an error in the shape of the API that a path belongs to."""
    if path.startswith("/v1/messages"):
        error = {"type": _ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        return Answer.json({"type": "error", "error": error}, status=status, content_type=PLAIN_JSON)
    code = "model_not_found" if status == 404 else None
    if path.startswith("/v1/"):
        kind = _OPENAI_TYPES.get(status, "api_error")
    else:
        kind = "invalid_request" if status < 500 else "internal_error"
    error_object = {"message": message, "type": kind, "param": parameter, "code": code}
    return Answer.json({"error": error_object}, status=status, content_type=PLAIN_JSON)
