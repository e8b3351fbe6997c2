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
_SYSTEM_FIELDS = (_SYSTEM, *_FIELDS.values())
# Python reads no number of thousands of digits.
_DIGITS = 10
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


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
    texts = texts if isinstance(texts, dict) else {}
    texts = {int(at): str(text) for at, text in texts.items() if at.isdecimal() and len(at) < _DIGITS}
    # The names of Ollama's fields are matched in any case.
    given = {name.lower(): value for name, value in body.items()}
    name = next((name for name in ("messages", "input") if isinstance(given.get(name), list)), "")
    prompt = next((name for name in ("prompt", "input") if isinstance(given.get(name), str)), "")
    messages = list(given[name]) if name else []
    fields = [name for name in _SYSTEM_FIELDS if given.get(name)]
    made: list[tuple[str, Any]] = []
    for at, text in texts.items():
        # The page numbers the messages as the views do, where a system text of its own field is the first one.
        place = at - len(fields)
        if 0 <= place < len(messages):
            messages[place] = _with_text(messages[place], text, at)
        elif prompt and place == 0:
            made.append((prompt, text))
        else:
            raise NotRepeatable(f"it has no message {at + 1} that can be edited")
    if isinstance(system, str):
        place = next((at for at, message in enumerate(messages) if _role(message) == _SYSTEM), -1)
        if fields or (place < 0 and (name != "messages" or path.startswith("/v1/messages"))):
            made.append((fields[0] if fields else _FIELDS.get(path, _SYSTEM), system or None))
        else:
            messages[max(place, 0) : place + 1] = [{"role": _SYSTEM, "content": system}] if system else []
    if name and messages != given[name]:
        made.append((name, messages))
    return made


def _with_text(message: object, text: str, at: int) -> dict[str, Any]:
    """Return a message with another text; what else it has, as pictures, stays."""
    if isinstance(message, dict):
        content = message.get("content")
        if isinstance(content, list):
            places = [place for place, part in enumerate(content) if _is_text(part)]
            if places:
                parts = [part for place, part in enumerate(content) if place not in places[1:]]
                parts[places[0]] = {**content[places[0]], "text": text}
                return {**message, "content": parts}
        elif "role" in message or isinstance(content, str):
            return {**message, "content": text}
    raise NotRepeatable(f"message {at + 1} has no text that can be edited")


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None
