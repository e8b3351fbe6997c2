"""The parameters of a tool as one reads them in a program: `city: string, unit?: celsius|fahrenheit = celsius`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from . import jsontext

# What fits on a line.
_MAX_PARAMETERS = 20
_MAX_CHOICES = 8
_VALUE_CHARACTERS = 40
# Types within types, as of a list's items: a schema can nest them at will.
_MAX_DEPTH = 4


def parameters(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parameters that a tool's JSON schema has, with their types."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return
    required = schema.get("required")
    required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    for name, value in islice(properties.items(), _MAX_PARAMETERS):
        kind = _type(value)
        default = f" = {_value(value['default'])}" if isinstance(value, Mapping) and "default" in value else ""
        yield f"{name}{'' if name in required else '?'}{f': {kind}' if kind else ''}{default}"
    if len(properties) > _MAX_PARAMETERS:
        yield f"and {len(properties) - _MAX_PARAMETERS:,} more"


def _type(schema: object, depth: int = 0) -> str:
    """Return the type that a schema allows; an empty string where it says none, or nothing that can be read."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return ""
    if isinstance(choices := schema.get("enum"), list) and choices:
        return _either([_value(choice) for choice in choices[: _MAX_CHOICES + 1]])
    if "const" in schema:
        return _value(schema["const"])
    for key in ("anyOf", "oneOf"):
        if isinstance(types := schema.get(key), list):
            return _either([_type(kind, depth + 1) for kind in types[: _MAX_CHOICES + 1]])
    if isinstance(reference := schema.get("$ref"), str):
        return jsontext.one_line(reference.rpartition("/")[2], _VALUE_CHARACTERS)
    kind = schema.get("type")
    if isinstance(kind, list):
        return _either([_value(name) for name in kind[: _MAX_CHOICES + 1]])
    if kind == "array":
        items = _type(schema.get("items"), depth + 1)
        return f"({items})[]" if "|" in items else f"{items}[]" if items else "array"
    return _value(kind) if kind else ""


def _either(kinds: list[str]) -> str:
    more = ["..."] if len(kinds) > _MAX_CHOICES else []
    return "|".join([*dict.fromkeys(filter(None, kinds[:_MAX_CHOICES])), *more])


def _value(value: object) -> str:
    return jsontext.one_line(value if isinstance(value, str) and value else jsontext.compact(value), _VALUE_CHARACTERS)
