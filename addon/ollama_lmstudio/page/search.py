"""Which exchanges have a text in them, in what was asked or answered."""

from __future__ import annotations

import json
import re

from mitmproxy import http

from ..inspect import snapshot as snapshots
from ..record import record as records

# What is said in the requests and the answers of all APIs, whole or in pieces. Parsing JSON would take twenty times as
# long, and all exchanges are searched on mitmproxy's event loop.
_SAID = re.compile(
    rb'"(?:content|text|thinking|reasoning|reasoning_content|response|prompt|system|system_prompt|instructions|input|output'
    rb'|arguments|partial_json|delta|error|message)"'
    rb'\s*:\s*"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
)


def said_in(flow: http.HTTPFlow) -> str:
    """Return what was said in an exchange: the texts of the request, and the pieces of the answer put together."""
    record = records.of(flow)
    if record is None:
        return ""
    snapshot = snapshots.for_summary(flow, record)
    bodies = snapshot.client_body, snapshot.response or b""
    texts = [b"".join(_SAID.findall(bodies[1])), b"\\n".join(_SAID.findall(bodies[0]))]
    return "\n".join((*map(_unescaped, texts), record.error, record.model, record.purpose))


def _unescaped(text: bytes) -> str:
    try:
        found = json.loads(b'"' + text + b'"', strict=False)
    except ValueError:
        return text.decode("utf-8", "replace")
    return found if isinstance(found, str) else ""


def has_text(flow: http.HTTPFlow, wanted: str) -> bool:
    """Return whether an exchange has a text in it, whatever its case."""
    return wanted.casefold() in said_in(flow).casefold()
