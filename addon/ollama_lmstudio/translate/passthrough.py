"""What is read and changed in the bodies of requests that are passed through, and in LM Studio's list of models."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..services import Services
from ..unicode import well_formed
from .json_body import JSONBody
from .json_spans import Span, Unreadable, members
from .listing import MODIFIED, SECOND, ListEntry
from .models import ResolvedModel

# What clients send JSON as, apart from its own media type.
_UNSPECIFIC = ("", "text/plain", "application/x-www-form-urlencoded")
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MODEL = re.compile(rb'"model"', re.IGNORECASE)


@dataclass(slots=True)
class PassedRequest:
    """A request that names a model, on its way to LM Studio: `asked` is the name, `resolved` what was found for it.

    `rewrite` changes the body of the answer, if that is a success.
    """

    path: str
    body: JSONBody
    asked: str
    resolved: ResolvedModel
    services: Services
    rewrite: Callable[[bytes], bytes] | None = None


def members_with_model(body: bytes) -> tuple[str, dict[str, Span]] | None:
    """Return the text of a body that names a model, and the members of its object.

    None for a body without a name, also for one that is not JSON: the error is LM Studio's to return. Raises Unreadable
    for JSON that LM Studio can read all the same.
    """
    # A name can also be written in escapes; a body without either is not parsed at all.
    if b'"model"' not in body and b"\\u" not in body and not _MODEL.search(body):
        return None
    text = body.decode("utf-8", "surrogateescape")
    try:
        found = members(text)
    except Unreadable:
        raise
    except ValueError:
        return None
    if "model" not in found:
        text, found = _lower_case(text, found)
    model = found.get("model")
    return (text, found) if model is not None and isinstance(model.value, str) and model.value else None


def is_json_of_another_encoding(content_type: str, body: bytes) -> bool:
    """Return whether a body is JSON with a byte order mark, or in UTF-16 or UTF-32.

    Ollama refuses it. LM Studio may read the name of a model in it that was not looked up here.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in _UNSPECIFIC and "json" not in media_type:
        return False
    # Two of the first four bytes of UTF-16 are zero, three of UTF-32: JSON begins with ASCII.
    return body.startswith(_BYTE_ORDER_MARKS) or b"\0" in body[:4]


def _lower_case(text: str, found: dict[str, Span]) -> tuple[str, dict[str, Span]]:
    """Return text and members with the key `model` as LM Studio reads it: Ollama knows it in any case, as Go does.

    LM Studio would answer with whatever model is loaded.
    """
    key = next((key for key in reversed(found) if key.lower() == "model"), "")
    if not key:
        return text, found
    values = {"model" if name == key else name: span.value for name, span in found.items()}
    text = well_formed(json.dumps(values, ensure_ascii=False))
    return text, members(text)


def model_entry(name: str, resolved: ResolvedModel) -> dict[str, Any]:
    """Return a model as `/v1/models` lists it."""
    entry = ListEntry(resolved.model, resolved.alias)
    return {"id": name, "object": "model", "created": entry.modified // SECOND, "owned_by": entry.namespace}


def complete_list(body: bytes, entries: list[dict[str, Any]], *, dated: bool) -> bytes:
    """Return LM Studio's list of models with further entries and, if `dated`, the date that its own do not have.

    A body that is no such list, or lacks nothing, is returned as it is.
    """
    try:
        models = json.loads(body)
        listed = models["data"]
        made = [_dated(entry) for entry in listed] if dated else list(listed)
    except (ValueError, TypeError, KeyError, RecursionError):
        return body
    if made == listed and not entries:
        return body
    return json.dumps({**models, "data": made + entries}, ensure_ascii=False, indent=2).encode()


def _dated(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry with `created`, which some clients cannot do without, in Ollama's order of keys."""
    first: dict[str, Any] = {key: entry[key] for key in ("id", "object") if key in entry}
    return entry if "created" in entry else {**first, "created": MODIFIED // SECOND, **entry}
