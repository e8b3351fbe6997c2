"""Errors in the shape of the API that a path belongs to: OpenAI's, Anthropic's, LM Studio's own, Ollama's."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus

from ..ollama import wire
from ..outcomes import PLAIN_JSON, Response
from .paths import LMSTUDIOS_OWN, MAYBE_MISSING, MESSAGES, RESPONSES, SYSTEMONE

# The `type` of an error by its status: as Ollama's OpenAI-compatible API has it ...
OPENAI_TYPES: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "invalid_request_error",
}
# ... and its Anthropic-compatible one.
ANTHROPIC_TYPES: Mapping[int, str] = {
    HTTPStatus.BAD_REQUEST: "invalid_request_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}
OTHER_TYPE = "api_error"
# The `code` of an error of LM Studio's own API.
LMSTUDIO_CODES: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "invalid_api_key",
    HTTPStatus.NOT_FOUND: "model_not_found",
}
MISSING_CODE = "not_implemented"
ANTHROPIC_ID_BYTES = 12


def error_answer(path: str, status: int, message: str, parameter: str | None = None) -> Response:
    """Return an error in the shape of the API that a path belongs to: on `/v1` as Ollama writes it.

    `parameter` is what LM Studio's own APIs name as the cause.
    """
    if path.startswith(MESSAGES):
        error = {"type": ANTHROPIC_TYPES.get(status, OTHER_TYPE), "message": message}
        request_id = f"req_{secrets.token_hex(ANTHROPIC_ID_BYTES)}"
        return json_line({"type": "error", "error": error, "request_id": request_id}, status)
    if path.startswith("/v1/") and path != SYSTEMONE:
        kind = OPENAI_TYPES.get(status, OTHER_TYPE)
        return json_line({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
    if path.startswith(LMSTUDIOS_OWN):
        return _lmstudio_error(status, message, parameter, LMSTUDIO_CODES.get(status))
    return Response.error(status, message)


def error_event(path: str, status: int, message: str) -> bytes:
    """Return an error as the last event of a stream of the API that a path belongs to, as LM Studio writes it."""
    body = json.loads(error_answer(path, status, message).body)
    if path == RESPONSES:
        body = {"type": "error", "code": body["error"]["type"], "message": message, "param": None}
    elif path.startswith(LMSTUDIOS_OWN):
        body = {"type": "error", **body}
    return f"event: error\ndata: {json.dumps(body)}\n\n".encode()


def missing_answer(method: str, path: str) -> Response | None:
    """Return the error for a path that this LM Studio does not have, where another one has it, or Ollama.

    None for a path that none has: that is a 404 like any other.
    """
    message = f"This LM Studio does not have {method} {path}; a newer version may."
    if path.startswith(LMSTUDIOS_OWN):
        return _lmstudio_error(HTTPStatus.NOT_FOUND, message, None, MISSING_CODE)
    if path in MAYBE_MISSING or path == MESSAGES:
        return error_answer(path, HTTPStatus.NOT_FOUND, message)
    return None


def _lmstudio_error(status: int, message: str, parameter: str | None, code: str | None) -> Response:
    kind = "invalid_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
    error = {"message": message, "type": kind, "param": parameter, "code": code}
    return Response.json({"error": error}, status=status, content_type=PLAIN_JSON)


def json_line(value: object, status: int = HTTPStatus.OK) -> Response:
    """Return a response of JSON and a newline, which Go's encoder ends it with on these APIs of Ollama's."""
    return Response(status, wire.line(value), PLAIN_JSON)
