"""The file of aliases of the proxy that this addon replaces: a JSON object, an entry for each name, and no version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from ..ollama import names
from ..ollama.errors import OllamaError
from ..state.aliases import Alias

NS = 1_000_000_000

T = TypeVar("T")


def parse(data: bytes) -> dict[str, Alias]:
    """Return the aliases in a file. Raises ValueError for a file that is none of that proxy's.

    An entry whose name is none of Ollama's is left out: that proxy took any text. Of two whose names differ in case
    only, the one that was changed last stays.
    """
    try:
        content = json.loads(data)
    except RecursionError as e:
        raise ValueError("too deep") from e
    if not isinstance(content, dict) or not all(_is_entry(entry) for entry in content.values()):
        raise ValueError("none of its files")
    found: dict[str, Alias] = {}
    for text, entry in content.items():
        try:
            name = names.parse_name(text)
        except OllamaError:
            continue
        alias = _alias(name.display, entry)
        if name.key not in found or alias.modified > found[name.key].modified:
            found[name.key] = alias
    return found


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("target_model_id"), str)


def _alias(name: str, entry: Mapping[str, Any]) -> Alias:
    metadata = _of(dict, entry.get("metadata"))
    created = _time(entry.get("created_at"))
    given = metadata.get("license")
    licenses = [given] if isinstance(given, str) else _of(list, given)
    return Alias(
        name=name,
        target=entry["target_model_id"],
        created=created,
        modified=max(created, _time(entry.get("updated_at"))),
        system=_of(str, metadata.get("system_prompt")),
        template=_of(str, metadata.get("template")),
        parameters=_of(dict, metadata.get("parameters")),
        license=[text for text in licenses if isinstance(text, str)],
        adapters={k: v for k, v in _of(dict, metadata.get("adapters")).items() if isinstance(v, str)},
        messages=[message for message in _of(list, metadata.get("messages")) if isinstance(message, dict)],
    )


def _of(kind: type[T], value: object) -> T:
    """Return a value of a type, or an empty one for null and for any other: that proxy kept what it was given."""
    return value if isinstance(value, kind) else kind()


def _time(text: object) -> int:
    """Return a time of RFC 3339 in nanoseconds since the epoch; 0 if it is none."""
    try:
        return int(datetime.fromisoformat(_of(str, text)).timestamp() * NS)
    except (ValueError, OverflowError):
        return 0
