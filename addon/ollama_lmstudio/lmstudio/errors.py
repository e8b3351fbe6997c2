"""What LM Studio says when it refuses, peeled out of whatever it was wrapped in.

LM Studio has several error envelopes: `error` as a string, as an object, as a string that holds a JSON array
(zod issues), and texts of its engines with another JSON error inside. A proxy in between adds HTML pages and
empty bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

MAX_DEPTH: Final = 8
"""Envelopes within envelopes that are opened; LM Studio has been seen to use three."""
MAX_ISSUES: Final = 5
"""Validation issues that are spelled out."""
MAX_TEXT: Final = 2000
"""Characters of a message that are kept."""

MASK: Final = "***"


class LMStudioError(Exception):
    """An error from LM Studio, or about it.

    `status` is the HTTP status to give on, `message` one readable text without secrets, `code` and `type` are
    LM Studio's own words, None where it gave none.
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
            503,
            f"LM Studio is not reachable at {where}. Start its server: Developer tab, or `lms server start`.",
        )


class LMStudioTimeout(LMStudioError):  # noqa: N818
    """LM Studio took the request but did not answer in time; it may go on working on it."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(503, f"LM Studio did not answer {what} within {seconds:g} seconds.")


class Peeled(NamedTuple):
    """An error without its envelopes."""

    message: str
    code: str | None = None
    type: str | None = None


def peel(value: object, secrets: Iterable[str] = ()) -> Peeled:
    """Take an error of LM Studio out of its envelopes; never raises.

    `value` is a body (bytes or text) or parsed JSON. The message is never empty and always scrubbed.
    """
    found = _find(value, MAX_DEPTH) or Peeled(f"LM Studio answered with {_describe(value)}")
    return found._replace(message=scrub(found.message, secrets)[:MAX_TEXT])


def error_from_response(status: int, content_type: str, body: object, secrets: Iterable[str] = ()) -> LMStudioError:
    """Make an error of an answer that is one, whatever its status.

    `body` is bytes, text or parsed JSON.
    4xx and 5xx are kept. 502 stands for what is not the client's doing: a success that holds an error,
    a redirect, an endpoint that this LM Studio lacks, a token that it refuses.
    """
    found = None if "html" in content_type.lower() else _find(body, MAX_DEPTH)
    if found is None:
        found = Peeled(f"LM Studio answered {status} with {_describe(body, content_type)}")
    message = scrub(found.message, secrets)[:MAX_TEXT]
    if route := _UNKNOWN_ROUTE.search(message):
        message = f"This LM Studio does not have {route[1]}; a newer version may. It says: {message}"
        status = 502
    elif status in (401, 403):
        message = f"LM Studio answered {status}, check the option lmstudio_token. It says: {message}"
        status = 502
    return LMStudioError(status if _is_error(status) else 502, message, found.code, found.type)


def from_event(value: object, secrets: Iterable[str] = ()) -> LMStudioError:
    """Make an error of an event in a stream: the status is the engine's own where it names one, else 500."""
    peeled = peel(value, secrets)
    named = int(peeled.code) if peeled.code and _STATUS.fullmatch(peeled.code) else 500
    return LMStudioError(named, *peeled)


def unexpected_success(body: object, wanted_keys: Iterable[str], secrets: Iterable[str] = ()) -> LMStudioError | None:
    """Make an error of the parsed JSON of a 2xx that has none of the wanted keys, or return None.

    LM Studio answers 200 to unknown routes, so a 200 proves nothing.
    """
    wanted = tuple(wanted_keys)
    if isinstance(body, Mapping):
        if any(key in body for key in wanted):
            return None
        if body.get("error"):
            return error_from_response(200, "application/json", body, secrets)
    return LMStudioError(502, f"LM Studio answered with something that has no {' or '.join(wanted)}")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask tokens in a text: the given ones, any of LM Studio's form, and the part that LM Studio echoes."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _ECHOED_TOKEN.sub(rf"\g<1>{MASK}", _TOKEN.sub(MASK, text))


def scrub_bytes(data: bytes, secrets: Iterable[str] = ()) -> bytes:
    """Mask tokens in a body, as `scrub` does in a text."""
    if not any(mark in data for mark in (b"sk-lm-", b"API token", *(secret.encode() for secret in secrets if secret))):
        return data
    return scrub(data.decode("utf-8", "surrogateescape"), secrets).encode("utf-8", "surrogateescape")


def is_no_models_loaded(error: LMStudioError) -> bool:
    """Tell whether nothing is loaded and LM Studio would not load on demand."""
    return error.message.startswith("No models loaded")


def is_model_not_found(error: LMStudioError) -> bool:
    """Tell whether LM Studio does not know the model.

    LM Studio 0.3.5 gave the same code to models that it knew and failed to load.
    """
    return "model_not_found" in (error.code, error.type) and not error.message.startswith("Failed to load")


def is_token_refused(error: LMStudioError) -> bool:
    """Tell whether LM Studio wanted a token, or another one."""
    return error.code == "invalid_api_key" or error.message.startswith(_REFUSED)


def is_unknown_route(body: bytes) -> bool:
    """Tell whether the body of a 200 says that LM Studio has no such path or method."""
    return body.startswith(b'{"error":"') and _UNKNOWN_ROUTE.match(body[10:].decode("utf-8", "replace")) is not None


_REFUSED: Final = ("LM Studio answered 401, check", "LM Studio answered 403, check")
_UNKNOWN_ROUTE: Final = re.compile(r"Unexpected endpoint or method\. \((.*?)\)")
_STATUS: Final = re.compile(r"[45][0-9][0-9]")
_TOKEN: Final = re.compile(r"sk-lm-[\w:*-]+")
# LM Studio repeats the first ten characters and stars the others.
_ECHOED_TOKEN: Final = re.compile(r"(API token provided:\s*)(?:[^*\n]{0,10}\*+|\S+?(?=\.?(?:\s|$)))")

# `[Server Error] ...` is a text.
_LOOKS_LIKE_JSON: Final = re.compile(r'\{\s*["}]|\[\s*["\[\]{]')
_MAX_INNER_STARTS: Final = 8


def _is_error(status: int) -> bool:
    return 400 <= status <= 599


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
        # An engine's error may have no message: then it is one itself.
        return found or (Peeled(text) if parsed and depth < MAX_DEPTH else None)
    return _find_inside_text(text, depth) or Peeled(text)


def _find_inside_text(text: str, depth: int) -> Peeled | None:
    """Find the error that an engine answered with and LM Studio put at the end of a text of its own."""
    for match in islice(_LOOKS_LIKE_JSON.finditer(text), _MAX_INNER_STARTS):
        if (parsed := _parse(text[match.start() :])) and (found := _find(parsed[0], depth - 1)):
            return found
    return None


def _find_in_object(value: Mapping[object, object], depth: int) -> Peeled | None:
    found = _find(value.get("error"), depth - 1)
    if found is None and isinstance(value.get("message"), str):
        found = _find(value["message"], depth - 1)
    return found and Peeled(
        found.message, found.code or _word(value.get("code")), found.type or _word(value.get("type"))
    )


def _find_in_issues(issues: Sequence[object]) -> Peeled | None:
    """Put zod's issues into words, e.g. `tools[5].function.parameters.properties: Required`."""
    told = [issue for issue in issues if isinstance(issue, Mapping) and isinstance(issue.get("message"), str)]
    if not told:
        return None
    lines = [f"{_issue_place(issue.get('path'))}{issue['message']}" for issue in told[:MAX_ISSUES]]
    if len(told) > MAX_ISSUES:
        lines.append(f"and {len(told) - MAX_ISSUES} more")
    return Peeled("; ".join(lines), _word(told[0].get("code")))


def _issue_place(path: object) -> str:
    if not isinstance(path, list) or not path:
        return ""
    # Only the tools are validated in this way, and the path starts inside their array.
    root = "tools" if isinstance(path[0], int) else ""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return (root + "".join(steps)).removeprefix(".") + ": "


def _word(value: object) -> str | None:
    if isinstance(value, int) and 400 <= value <= 599:
        return str(value)
    return value if isinstance(value, str) and value else None


def _parse(text: str) -> tuple[object] | None:
    """Parse JSON that the text consists of; a tuple, because null is a value too."""
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None


def _describe(value: object, content_type: str = "") -> str:
    """Say what came instead of an error message."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return "an error that has no message"
    if not value.strip():
        return "an empty body"
    if value.lstrip().startswith("<") or "html" in content_type.lower():
        return f"{content_type.partition(';')[0].strip() or 'text/html'}, not JSON"
    return "JSON that has no error message" if _parse(value) else "broken JSON"
