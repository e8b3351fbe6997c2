"""Ask again from the page: with another model, temperature or system text, or with a message that was edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mitmproxy import http

from .. import tolerant_json
from ..inspect import repeat
from ..inspect import snapshot as snapshots
from ..inspect.repeat import NotRepeatable
from ..options import Upstream

_SYSTEM = "system"
# Where a request has its system text: in its messages, or in a field that its API has for it.
_FIELDS = {"/v1/responses": "instructions", "/api/v1/chat": "system_prompt"}


def ask_again(flow: http.HTTPFlow, wanted: Mapping[str, Any], upstream: Upstream) -> http.HTTPFlow:
    """Return a flow that asks again what another one asked, with the changes that the page sends.

    `wanted` has `changes`, the names and values of fields and options; `system`, a text; and `messages`, the new texts
    of messages by their numbers. Raises NotRepeatable.
    """
    changes = wanted.get("changes")
    made = [(str(name), value) for name, value in changes.items()] if isinstance(changes, dict) else []
    snapshot = snapshots.of(flow)
    body = tolerant_json.loads(snapshot.client_body) if snapshot else None
    if snapshot is not None and isinstance(body, dict):
        made += _said(body, wanted, snapshot.client_path)
    return repeat.flow_again(flow, made, upstream)


def _said(body: dict[str, Any], wanted: Mapping[str, Any], path: str) -> list[tuple[str, Any]]:
    """Return the changes of what was said, as fields of the request."""
    system, texts = wanted.get(_SYSTEM), wanted.get("messages")
    texts = {int(at): str(text) for at, text in texts.items() if at.isdigit()} if isinstance(texts, dict) else {}
    if not isinstance(system, str) and not texts:
        return []
    messages = body.get("messages")
    if not isinstance(messages, list):
        return _in_fields(body, system, texts, path)
    # The page numbers the messages as the views do, where a system text of its own field is the first one.
    before = 1 if body.get(_SYSTEM) else 0
    changed = [
        {**message, "content": texts[at + before]} if at + before in texts and isinstance(message, dict) else message
        for at, message in enumerate(messages)
    ]
    if isinstance(system, str):
        if before or path.startswith("/v1/messages"):
            return [(_SYSTEM, system or None), ("messages", changed)]
        rest = changed[1:] if changed and _role(changed[0]) == _SYSTEM else changed
        changed = [{"role": _SYSTEM, "content": system}, *rest] if system else rest
    return [("messages", changed)]


def _in_fields(body: dict[str, Any], system: object, texts: dict[int, str], path: str) -> list[tuple[str, Any]]:
    made: list[tuple[str, Any]] = []
    name = _FIELDS.get(path, _SYSTEM)
    if isinstance(system, str):
        made.append((name, system or None))
    prompt = next((name for name in ("prompt", "input") if isinstance(body.get(name), str)), "")
    at = 1 if body.get(name) else 0
    if texts:
        if not prompt or set(texts) != {at}:
            raise NotRepeatable("its messages cannot be edited here")
        made.append((prompt, texts[at]))
    return made


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None
