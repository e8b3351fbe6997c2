"""LM Studio's bytes: JSON as JavaScript writes it, SSE frames, headers and the shapes of errors."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from email.utils import formatdate
from typing import Any

JsonObject = dict[str, Any]
Headers = list[tuple[str, str]]

JSON_TYPE = "application/json; charset=utf-8"
SSE_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"

_encode_string = json.JSONEncoder(ensure_ascii=False).encode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def quote(text: str) -> bytes:
    """Write a JSON string as JSON.stringify does: raw UTF-8, lone surrogates escaped."""
    quoted = _encode_string(text)
    try:
        return quoted.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted).encode()


# Numbers from the first up to the second are written without an exponent (ECMA-262, Number::toString).
SMALLEST_FIXED = 1e-6
LARGEST_FIXED = 1e21


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return "null"
    if value == int(value) and abs(value) < LARGEST_FIXED:
        return str(int(value))
    digits = repr(value)
    if "e" not in digits:
        return digits
    if SMALLEST_FIXED <= abs(value) < LARGEST_FIXED:
        return format(Decimal(digits), "f")
    mantissa, exponent = digits.split("e")
    return f"{mantissa}e{int(exponent):+d}"


def _tokens(value: object, indent: int, level: int) -> Iterator[bytes]:
    match value:
        case None:
            yield b"null"
        case bool():
            yield b"true" if value else b"false"
        case str():
            yield quote(value)
        case int():
            yield str(value).encode()
        case float():
            yield _number(value).encode()
        case dict() | list() | tuple():
            opening, closing = (b"{", b"}") if isinstance(value, dict) else (b"[", b"]")
            if not value:
                yield opening + closing
                return
            line = b"\n" + b" " * (indent * (level + 1)) if indent else b""
            separator = opening + line
            members = value.items() if isinstance(value, dict) else ((None, item) for item in value)
            for name, item in members:
                yield separator
                if name is not None:
                    yield quote(name) + (b": " if indent else b":")
                yield from _tokens(item, indent, level + 1)
                separator = b"," + line
            yield (b"\n" + b" " * (indent * level) if indent else b"") + closing
        case _:
            raise TypeError(f"not JSON: {value!r}")


def stringify(value: object, indent: int = 0) -> bytes:
    """Write `value` as JSON.stringify(value, null, indent) does: numbers of JavaScript, no final newline."""
    return b"".join(_tokens(value, indent, 0))


def parse_json(text: bytes | str) -> Any:
    """Read JSON as JSON.parse does; raises ValueError, also for the NaN and Infinity that Python takes."""

    def refuse(constant: str) -> None:
        raise ValueError(f"Unexpected token {constant[0]!r}")

    return json.loads(text, parse_constant=refuse)


def etag(body: bytes) -> str:
    """Compute Express's weak ETag of a body: its length in hex and 27 characters of its SHA-1."""
    digest = base64.b64encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()
    return f'W/"{len(body):x}-{digest[:27]}"'


def http_date() -> str:
    """Return the present time as the `Date` header writes it."""
    return formatdate(usegmt=True)


def data_frame(payload: bytes) -> bytes:
    """Frame one OpenAI-style SSE event."""
    return b"data: " + payload + b"\n\n"


def event_frame(name: str, payload: JsonObject) -> bytes:
    """Frame one named SSE event, as the native, Responses and Messages streams have them."""
    return b"event: " + name.encode() + b"\n" + data_frame(stringify(payload))


class ApiError(Exception):
    """An answer that is an error: a status, a JSON body and its indentation."""

    def __init__(self, status: int, body: JsonObject, *, indent: int = 0) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body
        self.indent = indent


def plain_error(message: str, status: int = 400) -> ApiError:
    """Return the error that most routes answer with: a string."""
    return ApiError(status, {"error": message})


def openai_error(
    message: str,
    *,
    code: str | None = "model_not_found",
    param: str | None = "model",
    status: int = 400,
    indent: int = 2,
) -> ApiError:
    """Return the error object of the OpenAI-style routes."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return ApiError(status, {"error": error}, indent=indent)


def native_error(
    message: str,
    *,
    code: str | None,
    param: str | None = None,
    status: int = 400,
    kind: str = "invalid_request",
) -> ApiError:
    """Return the error object of `/api/v1`; `param` is left out where it is None."""
    error: JsonObject = {"message": message, "type": kind}
    if param is not None:
        error["param"] = param
    error["code"] = code
    return ApiError(status, {"error": error})
