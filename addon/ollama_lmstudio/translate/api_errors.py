"""Errors in the shapes of the APIs that clients use: Ollama's, OpenAI's, Anthropic's and LM Studio's own."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http import HTTPStatus

from ..lmstudio.apis import PREFIXES
from ..ollama import wire
from ..outcomes import PLAIN_JSON, Response
from .paths import MESSAGES

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
ANTHROPIC_ID_BYTES = 12


def error_answer(path: str, status: int, message: str, parameter: str | None = None) -> Response:
    """Return an error in the shape of the API that a path belongs to: on `/v1` too as Ollama writes it.

    `parameter` is what LM Studio's own APIs name as the cause.
    """
    if not path.startswith(PREFIXES):
        return Response.error(status, message)
    if path.startswith(MESSAGES):
        error = {"type": ANTHROPIC_TYPES.get(status, OTHER_TYPE), "message": message}
        request_id = f"req_{secrets.token_hex(ANTHROPIC_ID_BYTES)}"
        return json_line({"type": "error", "error": error, "request_id": request_id}, status)
    if path.startswith("/v1/"):
        kind = OPENAI_TYPES.get(status, OTHER_TYPE)
        return json_line({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)
    kind = "invalid_request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
    code = "model_not_found" if status == HTTPStatus.NOT_FOUND else None
    error_object = {"message": message, "type": kind, "param": parameter, "code": code}
    return Response.json({"error": error_object}, status=status, content_type=PLAIN_JSON)


def json_line(value: object, status: int = HTTPStatus.OK) -> Response:
    """Return a response of JSON and a newline, which Go's encoder ends it with on these APIs of Ollama's."""
    return Response(status, wire.line(value), PLAIN_JSON)
