"""LM Studio's errors, without the envelopes they come in.

The envelopes, as recorded from LM Studio 0.4: `error` as a string, as an object, as a string that holds a JSON array
(zod issues), and texts of its engines with another JSON error inside. A proxy in between adds HTML pages and
empty bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Final, NamedTuple

import httpx

MAX_DEPTH: Final = 8
"""Envelopes within envelopes that are opened; LM Studio has been seen to use three."""
MAX_ISSUES: Final = 5
"""Validation issues that a message lists; each tool of a request can have several."""
MAX_TEXT: Final = 2000
"""Characters of a message that are kept, in the client's error and in the log."""

MASK: Final = "***"
"""What stands in place of a secret."""


class Peeled(NamedTuple):
    """An error without its envelopes."""

    message: str
    code: str | None = None
    type: str | None = None


class LMStudioError(Exception):
    """An error from LM Studio, or about it.

    `status` is the HTTP status for the client, `message` one readable text without secrets, `code` and `type` are
    LM Studio's own, None where it sent none.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        type: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.type = type


class LMStudioUnreachable(LMStudioError):  # noqa: N818
    """Nothing accepts connections where LM Studio should be."""

    def __init__(self, url: str, reason: str = "") -> None:
        where = f"{url} ({reason})" if reason else url
        super().__init__(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"LM Studio is not reachable at {where}. Start its server: Developer tab, or `lms server start`.",
        )


class LMStudioTimeout(LMStudioError):  # noqa: N818
    """LM Studio took the request but did not answer in time; it may go on working on it."""

    def __init__(self, what: str, seconds: float) -> None:
        message = f"LM Studio did not answer {what} within {seconds:g} seconds."
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, message)


def peel(value: object, secrets: Iterable[str] = ()) -> Peeled:
    """Return an error of LM Studio without its envelopes; never raises.

    `value` is a body (bytes or text) or parsed JSON. The message is never empty and always scrubbed.
    """
    found = _find(value, MAX_DEPTH) or Peeled(f"LM Studio answered with {_describe(value)}")
    return found._replace(message=scrub(found.message, secrets)[:MAX_TEXT])


def error_from_response(status: int, content_type: str, body: object, secrets: Iterable[str] = ()) -> LMStudioError:
    """Return the error of a response that is one, whatever its status.

    `body` is bytes, text or parsed JSON. 4xx and 5xx are kept, except where the client is not the cause: a success that
    holds an error, a redirect, an endpoint that this LM Studio lacks and a token that it refuses become 502, a model
    that was evicted 503.
    """
    found = None if "html" in content_type.lower() else _find(body, MAX_DEPTH)
    found = _OLLAS.get(found.message, found) if found and content_type.startswith("text/plain") else found
    if found is None:
        found = Peeled(f"LM Studio answered {status} with {_describe(body, content_type)}")
    message = scrub(found.message, secrets)[:MAX_TEXT]
    if route := _UNKNOWN_ROUTE.search(message):
        message = f"This LM Studio does not have {route[1]}; a newer version may. It says: {message}"
        status = HTTPStatus.BAD_GATEWAY
    elif status in _TOKEN_REFUSED:
        message = f"{_TOKEN_REFUSED[status]}. It says: {message}"
        status = HTTPStatus.BAD_GATEWAY
    elif _EVICTED.search(message):
        message = f"{message.removesuffix('.')}. {EVICTED_HINT}"
        status = HTTPStatus.SERVICE_UNAVAILABLE
    elif _LINK_LOST.search(message):
        message = _with_link_hint(message)
        status = HTTPStatus.SERVICE_UNAVAILABLE
    elif not httpx.codes.is_error(status):
        status = HTTPStatus.BAD_GATEWAY
    return LMStudioError(status, message, found.code, found.type)


def from_event(value: object, secrets: Iterable[str] = ()) -> LMStudioError:
    """Return the error that an event in a stream holds.

    The status is 503 for a model whose device is lost, the engine's own where it names one, else 503 for a model that
    was evicted, and 500 for all others.
    """
    peeled = peel(value, secrets)
    if _LINK_LOST.search(peeled.message):
        return LMStudioError(HTTPStatus.SERVICE_UNAVAILABLE, _with_link_hint(peeled.message), peeled.code, peeled.type)
    if peeled.code and _STATUS.fullmatch(peeled.code):
        return LMStudioError(int(peeled.code), *peeled)
    is_temporary = _EVICTED.search(peeled.message)
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_temporary else HTTPStatus.INTERNAL_SERVER_ERROR
    return LMStudioError(status, *peeled)


def unexpected_success(body: object, wanted_keys: Iterable[str], secrets: Iterable[str] = ()) -> LMStudioError | None:
    """Return an error for the parsed JSON of a 2xx that has none of the wanted keys, else None.

    LM Studio answers 200 to unknown routes, so a 200 proves nothing.
    """
    wanted = tuple(wanted_keys)
    if isinstance(body, Mapping):
        if any(key in body for key in wanted):
            return None
        if body.get("error"):
            return error_from_response(HTTPStatus.OK, "application/json", body, secrets)
    return LMStudioError(HTTPStatus.BAD_GATEWAY, f"LM Studio answered with something that has no {' or '.join(wanted)}")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask tokens in a text: the given ones, any of LM Studio's form, and the part that LM Studio echoes."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _ECHOED_TOKEN.sub(rf"\g<1>{MASK}", _TOKEN.sub(MASK, text))


def holds_secret(data: bytes, secrets: Iterable[str] = ()) -> bool:
    """Return whether `scrub` may have to mask something."""
    return any(mark in data for mark in (b"sk-lm-", b"API token", *(secret.encode() for secret in secrets if secret)))


def scrub_bytes(data: bytes, secrets: Iterable[str] = ()) -> bytes:
    """Mask tokens in a body, as `scrub` does in a text."""
    if not holds_secret(data, secrets):
        return data
    return scrub(data.decode("utf-8", "surrogateescape"), secrets).encode("utf-8", "surrogateescape")


def is_no_models_loaded(error: LMStudioError) -> bool:
    """Return whether no model is loaded and LM Studio does not load on demand."""
    return error.message.startswith("No models loaded")


def is_model_not_found(error: LMStudioError) -> bool:
    """Return whether LM Studio does not know the model.

    LM Studio 0.3.5 has the same code for a model that it knows and fails to load.
    """
    return "model_not_found" in (error.code, error.type) and not error.message.startswith("Failed to load")


def is_evicted(error: LMStudioError) -> bool:
    """Return whether LM Studio took the model away from a call, or aborted its load, mostly for another model.

    The call is right, and may be made again (LM Studio's issues 671 and 1796). So may one that has lost the linked
    device which was to answer it: another may have the model, too.
    """
    return _EVICTED.search(error.message) is not None or _LINK_LOST.search(error.message) is not None


def lacks_context(message: str) -> bool:
    """Return whether LM Studio, or one of its engines, says that a model is loaded with too little context."""
    return _LACKS_CONTEXT.search(message) is not None


def lacks_memory(error: LMStudioError) -> bool:
    """Return whether LM Studio's guardrails refuse a load for lack of memory."""
    return "insufficient system resources" in error.message


def is_token_refused(error: LMStudioError) -> bool:
    """Return whether LM Studio wanted a token, or another one."""
    return error.code == "invalid_api_key" or error.message.startswith(tuple(_TOKEN_REFUSED.values()))


def is_unknown_route(body: bytes) -> bool:
    """Return whether the body of a 200 says that LM Studio has no such path or method."""
    if not body.startswith(_ERROR_STRING):
        return False
    return _UNKNOWN_ROUTE.match(body.removeprefix(_ERROR_STRING).decode("utf-8", "replace")) is not None


_TOKEN_REFUSED: Final[Mapping[int, str]] = {
    status: f"LM Studio answered {status}, check the option lmstudio_token"
    for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
}
EVICTED_HINT: Final = (
    "LM Studio has unloaded the model for another one, or has lost its engine, before it answered: ask again; if that "
    "does not help, unload the model there."
)
_EVICTED: Final = re.compile(
    r"^Model (?:is )?unloaded\b|Engine protocol (?:startup was aborted|predict request failed: fetch failed)"
)
# What Olla, in front of several LM Studios, says in one word, or in no words of its own.
_OLLAS: Final[Mapping[str, Peeled]] = {
    "model_not_found": Peeled("Olla knows of no LM Studio that has the model", "model_not_found"),
    "model_unavailable": Peeled("Olla says that each LM Studio that has the model is down: ask again when one is back"),
    "Too Many Requests": Peeled(
        "The server in front of LM Studio takes no more requests for now: raise its limit, which counts this bridge as "
        "one client"
    ),
}
# LM Link's own words (LM Studio's issue 2184), alone or as the reason of a load that failed.
_LINK_LOST: Final = re.compile(r"\bLM Link connection\b|\bpeer_keepalive_timeout\b")
LINK_HINT: Final = (
    "The linked device that has the model is not connected: `lms link status` shows which are. Ask again when it is, "
    "or load the model on another."
)
_ERROR_STRING: Final = b'{"error":"'
_UNKNOWN_ROUTE: Final = re.compile(r"Unexpected endpoint or method\. \((.*?)\)")
# E.g. "Context size has been exceeded.", "Reached context length of 4096 tokens", "n_keep (a) >= n_ctx (b)".
_LACKS_CONTEXT: Final = re.compile(r"\bcontext (?:length|size)\b|\bn_ctx\b", re.IGNORECASE)
_STATUS: Final = re.compile(r"[45][0-9][0-9]")
_TOKEN: Final = re.compile(r"sk-lm-[\w:*-]+")
# LM Studio repeats the first ten characters and stars the others.
_ECHOED_TOKEN: Final = re.compile(r"(API token provided:\s*)(?:[^*\n]{0,10}\*+|\S+?(?=\.?(?:\s|$)))")

# Stricter than JSON's grammar: `[Server Error] ...` is a text.
_LOOKS_LIKE_JSON: Final = re.compile(r'\{\s*["}]|\[\s*["\[\]{]')
# Places in a text where an inner JSON is looked for: each costs an attempt to parse the rest of the text.
_MAX_INNER_STARTS: Final = 8


def _with_link_hint(message: str) -> str:
    return f"{message.removesuffix('.')}. {LINK_HINT}"


def _find(value: object, depth: int) -> Peeled | None:
    if depth == 0:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return _find_in_text(value.strip(), depth)
    if isinstance(value, Mapping):
        return _find_in_object(value, depth)
    if isinstance(value, Sequence):
        return _find_in_issues(value)
    return None


def _find_in_text(text: str, depth: int) -> Peeled | None:
    if not text or text.startswith("<"):
        return None
    if _LOOKS_LIKE_JSON.match(text):
        parsed = _parse(text)
        found = parsed and _find(parsed[0], depth - 1)
        # An engine's error may have no message: then its JSON is the message.
        return found or (Peeled(text) if parsed and depth < MAX_DEPTH else None)
    return _find_inside_text(text, depth) or Peeled(text)


def _find_inside_text(text: str, depth: int) -> Peeled | None:
    """Return the error that an engine answered with and LM Studio put at the end of a text of its own."""
    for match in islice(_LOOKS_LIKE_JSON.finditer(text), _MAX_INNER_STARTS):
        if (parsed := _parse(text[match.start() :])) and (found := _find(parsed[0], depth - 1)):
            return found
    return None


def _find_in_object(value: Mapping[object, object], depth: int) -> Peeled | None:
    found = _find(value.get("error"), depth - 1)
    if found is None and isinstance(value.get("message"), str):
        found = _find(value["message"], depth - 1)
    return found and Peeled(
        found.message, found.code or _code_or_type(value.get("code")), found.type or _code_or_type(value.get("type"))
    )


def _find_in_issues(issues: Sequence[object]) -> Peeled | None:
    """Describe zod's issues in one line, e.g. `tools[5].function.parameters.properties: Required`."""
    readable = [issue for issue in issues if isinstance(issue, Mapping) and _text(issue.get("message"))]
    if not readable:
        return None
    lines = [f"{_issue_place(issue.get('path'))}{issue['message']}" for issue in readable[:MAX_ISSUES]]
    if len(readable) > MAX_ISSUES:
        lines.append(f"and {len(readable) - MAX_ISSUES} more")
    return Peeled("; ".join(lines), _code_or_type(readable[0].get("code")))


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _issue_place(path: object) -> str:
    if not isinstance(path, list) or not path:
        return ""
    # Only the tools are validated in this way, and the path starts inside their array.
    root = "tools" if isinstance(path[0], int) else ""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return (root + "".join(steps)).removeprefix(".") + ": "


def _code_or_type(value: object) -> str | None:
    if isinstance(value, int) and httpx.codes.is_error(value):
        return str(value)
    return value if isinstance(value, str) and value else None


def _parse(text: str) -> tuple[object] | None:
    """Parse a text that is JSON as a whole; the value comes in a tuple, because null is a value too."""
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None


def _describe(value: object, content_type: str = "") -> str:
    """Describe what came instead of an error message."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return "an error that has no message"
    if not value.strip():
        return "an empty body"
    if value.lstrip().startswith("<") or "html" in content_type.lower():
        return f"{content_type.partition(';')[0].strip() or 'text/html'}, not JSON"
    return "JSON that has no error message" if _parse(value) else "broken JSON"
