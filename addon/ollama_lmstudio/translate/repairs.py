"""Repairs of passed-through bodies that Ollama takes and LM Studio refuses (the option `repair_passthrough`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ..ollama.errors import OllamaError
from ..ollama.requests import ChatRequest
from ..services import Services
from . import compact_json
from .json_spans import Span, elements
from .paths import CHAT_COMPLETIONS, RESPONSES
from .response_format import format_to_lmstudio
from .tools import tools_to_lmstudio

logger = logging.getLogger(__name__)

Change = tuple[Span, str]
"""A value of a body, and the JSON that replaces it."""


def repairs(path: str, text: str, members: Mapping[str, Span], services: Services) -> list[Change]:
    """Return the changes that make LM Studio take a body that Ollama takes.

    What Ollama refuses as well is not changed, nor is anything that LM Studio takes.
    """
    changes: list[Change] = []
    for key, repair in REPAIRS.get(path, {}).items():
        if key in members and (made := list(repair(text, members[key]))):
            changes += made
            _log_once(f"{key} of {path}", services)
    return changes


def _log_once(repaired: str, services: Services) -> None:
    if repaired not in services.logged_once:
        services.logged_once.add(repaired)
        logger.info("LM Studio would refuse the %s: repaired, see the option repair_passthrough (said once)", repaired)


def _repair_tools(text: str, tools: Span, *, flat: bool = False) -> Iterator[Change]:
    """Yield the definitions that LM Studio refuses in the form that it takes.

    `flat` definitions, of `/v1/responses`, have the function's keys beside the type.
    """
    if not isinstance(tools.value, list) or not any(_needs_repair(tool, flat) for tool in tools.value):
        return
    for tool in elements(text, tools.start):
        if not _needs_repair(tool.value, flat):
            continue
        decoded = _decode_as_ollama(text[tool.start : tool.end], flat)
        if decoded is not None:
            yield tool, compact_json.dumps(_to_lmstudio(decoded, flat)).decode()


def _needs_repair(tool: object, flat: bool) -> bool:
    if flat and not (isinstance(tool, Mapping) and tool.get("type") == "function"):
        return False
    return _to_lmstudio(tool, flat) != tool


def _to_lmstudio(tool: object, flat: bool) -> Mapping[str, Any]:
    (made,) = tools_to_lmstudio([{"function": tool} if flat else tool])
    function: Mapping[str, Any] = made["function"]
    return function if flat else made


def _decode_as_ollama(tool: str, flat: bool) -> Any:
    """Return a definition as Ollama reads it; None for one that it refuses."""
    wrapped = f'{{"function":{tool}}}' if flat else tool
    try:
        (decoded,) = ChatRequest.decode(f'{{"tools":[{wrapped}]}}'.encode("utf-8", "surrogateescape")).tools
    except OllamaError:
        return None
    return decoded["function"] if flat else decoded


def _repair_response_format(text: str, response_format: Span) -> Iterator[Change]:
    """Yield `json_object` as the schema of any object."""
    value = response_format.value
    if isinstance(value, Mapping) and value.get("type") == "json_object":
        yield response_format, compact_json.dumps(format_to_lmstudio("json")).decode()


# Path -> key -> the repair of its value. `/api/v0/chat/completions` refuses the same, but Ollama has no such path: a
# client that uses it was written for LM Studio.
REPAIRS: Mapping[str, Mapping[str, Callable[[str, Span], Iterator[Change]]]] = {
    CHAT_COMPLETIONS: {"tools": _repair_tools, "response_format": _repair_response_format},
    RESPONSES: {"tools": partial(_repair_tools, flat=True)},
}
