"""Tool definitions and `tool_choice` as LM Studio's validator takes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


def tools_to_lmstudio(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Return tool definitions in the form that LM Studio's validator takes; the order of keys stays.

    It requires `parameters`, if present, to be of type object with `properties`, and refuses nulls and other values of
    a wrong type in the keys that it knows. A definition that it takes already is returned as it is.
    """
    return [_tool(tool if isinstance(tool, Mapping) else {}) for tool in tools]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = _without_nulls(tool.get("function"), ("name", "description", "parameters"))
    function.setdefault("name", "")
    if "parameters" in function:
        parameters = _without_nulls(function["parameters"], ("required",))
        parameters |= {"type": "object"}
        if not isinstance(parameters.get("properties"), Mapping):
            parameters["properties"] = {}
        if not isinstance(parameters.get("$defs", {}), Mapping):
            del parameters["$defs"]
        if isinstance(required := parameters.get("required"), list):
            parameters["required"] = [name for name in required if isinstance(name, str)]
        function["parameters"] = parameters
    return {**tool, "type": "function", "function": function}


def _without_nulls(value: Any, keys: Collection[str]) -> dict[str, Any]:
    """Return an object without those of these keys that are null; an empty object for a value that is none."""
    given = value if isinstance(value, Mapping) else {}
    return {key: item for key, item in given.items() if item is not None or key not in keys}


def tool_choice_to_lmstudio(choice: Any, tools: list[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """Return tool_choice and the tools to offer.

    LM Studio takes only strings: for an object that names a function, that function alone is offered, and required.
    """
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        named = [tool for tool in tools if tool["function"]["name"] == name]
        return "required", named or tools
    return choice, tools
