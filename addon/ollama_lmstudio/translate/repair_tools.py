"""Tools and `tool_choice` that Ollama takes and LM Studio refuses, in requests that are passed through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ollama.errors import OllamaError
from ..ollama.requests import ChatRequest
from .passthrough import PassedRequest
from .paths import RESPONSES
from .tools import LMSTUDIO_CHOICES, tool_choice_to_lmstudio, tools_to_lmstudio


def repair_tools(request: PassedRequest) -> bool:
    """Give definitions that LM Studio refuses the form that it takes; what Ollama refuses as well is not changed."""
    tools, flat = request.body.get("tools"), request.path == RESPONSES
    if not isinstance(tools, list) or not any(_needs_repair(tool, flat) for tool in tools):
        return False
    sources = request.body.element_sources("tools")
    made = [
        _repaired(tool, source, flat) if _needs_repair(tool, flat) else tool
        for tool, source in zip(tools, sources, strict=True)
    ]
    if all(new is old for new, old in zip(made, tools, strict=True)):
        return False
    request.body.set("tools", made)
    return True


def _needs_repair(tool: object, flat: bool) -> bool:
    """Return whether LM Studio refuses a definition. `flat` ones have the function's keys beside the type."""
    if flat and not (isinstance(tool, Mapping) and tool.get("type") == "function"):
        return False
    return _to_lmstudio(tool, flat) != tool


def _to_lmstudio(tool: object, flat: bool) -> Mapping[str, Any]:
    (made,) = tools_to_lmstudio([{"function": tool} if flat else tool])
    function: Mapping[str, Any] = made["function"]
    return function if flat else made


def _repaired(tool: object, source: str, flat: bool) -> object:
    """Return a definition for LM Studio, as Ollama reads it; as it is, if Ollama refuses it."""
    wrapped = f'{{"function":{source}}}' if flat else source
    try:
        (decoded,) = ChatRequest.decode(f'{{"tools":[{wrapped}]}}'.encode("utf-8", "surrogateescape")).tools
    except OllamaError:
        return tool
    return _to_lmstudio(decoded["function"] if flat else decoded, flat)


def repair_tool_choice(request: PassedRequest) -> bool:
    """Make the choice of a tool one of LM Studio's words: Ollama takes any choice, and ignores it.

    On `/v1/responses` a choice of what is no function of the request's stays: it is of LM Studio's own tools.
    """
    choice, given = request.body.get("tool_choice"), request.body.get("tools")
    if choice is None or choice in LMSTUDIO_CHOICES:
        return False
    tools = given if isinstance(given, list) else []
    made, offered = tool_choice_to_lmstudio(choice, tools)
    if request.path == RESPONSES and choice != "any" and offered is tools:
        return False
    # With no tool at all, none can be required.
    request.body.set("tool_choice", made if tools else "auto")
    if offered is not tools:
        request.body.set("tools", offered)
    return True
