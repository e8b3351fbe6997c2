"""Secrets in headers and bodies that must not be shown or saved."""

from __future__ import annotations

import json

from .. import tolerant_json
from ..lmstudio.errors import MASK

LOOPBACK_SECRET_HEADER = "X-Loopback-Secret"
"""The header by which the loopback service recognizes requests of this process."""
SECRET_FIELDS = frozenset({"password"})
"""Names of fields in a request's body, in lower case."""


def without_secrets(body: bytes) -> bytes:
    """Return a body with its password masked, as that of a pull may have one; every other body as it is."""
    lower = body.lower()
    # In its quotes: a text that mentions a password is no reason to parse a whole conversation.
    if not any(f'"{field}"'.encode() in lower for field in SECRET_FIELDS):
        return body
    # Go's encoding/json, and so Ollama, takes invalid UTF-8 as U+FFFD: such a body holds a password too.
    value = tolerant_json.loads(body.decode("utf-8-sig", "replace"))
    if not isinstance(value, dict):
        return body
    secret = [name for name in value if name.lower() in SECRET_FIELDS and value[name]]
    return json.dumps(value | dict.fromkeys(secret, MASK)).encode() if secret else body
