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


LMSTUDIO_CHOICES = ("none", "auto", "required")
# What clients write for the three that LM Studio takes; `any` is Anthropic's word.
CHOICES: Mapping[str, str] = {**{word: word for word in LMSTUDIO_CHOICES}, "any": "required"}


def tool_choice_to_lmstudio(choice: Any, tools: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """Return tool_choice and the tools to offer.

    LM Studio takes only strings: where functions are named, those alone are offered, and one of them is required. A
    choice that says nothing is `auto`, as Ollama ignores tool_choice altogether.
    """
    mode, names = _read_choice(choice)
    named = [tool for tool in tools if tool_name(tool) in names]
    if names and not named:
        return "auto", tools
    return mode, named or tools


def _read_choice(choice: Any) -> tuple[str, list[Any]]:
    """Return LM Studio's word, and the names of the functions of which one is to be called, if there are such."""
    match choice:
        case str():
            return (CHOICES[choice], []) if choice in CHOICES else ("required", [choice])
        case {"type": str(kind)} if kind in CHOICES:
            return CHOICES[kind], []
        # On chat completions one level deeper than on responses.
        case {"type": "allowed_tools", "allowed_tools": {"tools": list(tools)} as allowed}:
            return CHOICES.get(str(allowed.get("mode")), "auto"), [tool_name(tool) for tool in tools]
        case {"type": "allowed_tools", "tools": list(tools)}:
            return CHOICES.get(str(choice.get("mode")), "auto"), [tool_name(tool) for tool in tools]
        case Mapping() if (name := tool_name(choice)) is not None:
            return "required", [name]
    return "auto", []


def tool_name(tool: Any) -> str | None:
    """Return the name of a function, of its definition or of a choice: beside its type on `/v1/responses`."""
    if not isinstance(tool, Mapping):
        return None
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    return name if isinstance(name, str) else None
