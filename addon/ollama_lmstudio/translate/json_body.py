"""A JSON object some of whose members change; everything else keeps its bytes."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..unicode import well_formed
from .json_spans import Change, Span, elements, replaced, whole


class JSONBody:
    """The body of a request that is passed through.

    Values that are read must not be modified: `set` takes new ones. In a list that is set, the elements that the list
    had before, as the same objects, keep their bytes as well.
    """

    def __init__(self, text: str, members: Mapping[str, Span]) -> None:
        """Take a text, and the members of its object, one of which must be `model`."""
        self._text = text
        self._members = members
        self._set: dict[str, Any] = {}
        self._removed = ""

    def get(self, key: str) -> Any:
        """Return a member as it is now; None for one that is null or absent, which is the same to Ollama."""
        if key in self._set:
            return self._set[key]
        span = self._members.get(key)
        return span.value if span else None

    def set(self, key: str, value: Any) -> None:
        """Give a member another value, or add it."""
        self._set[key] = value

    def remove(self, key: str) -> None:
        """Take a member away, of which a body may lose only one."""
        self._removed, self._set[key] = key, None

    def replace_elements(self, key: str, replacements: Callable[[Any], list[Any]]) -> bool:
        """Put what `replacements` returns in the place of each element of a list; return whether that changes it."""
        items = self.get(key)
        if not isinstance(items, list):
            return False
        made = [new for item in items for new in replacements(item)]
        if len(made) == len(items) and all(map(operator.is_, made, items)):
            return False
        self.set(key, made)
        return True

    def source(self, key: str) -> str:
        """Return the text of a member as it came; `null` for an absent one."""
        span = self._members.get(key)
        return self._text[span.start : span.end] if span else "null"

    def element_sources(self, key: str) -> list[str]:
        """Return the texts of the elements of a list as they came."""
        return [self._text[span.start : span.end] for span in elements(self._text, self._members[key].start)]

    def encode(self) -> bytes:
        """Return the body as it is now."""
        return replaced(self._text, self._changes()).encode("utf-8", "surrogateescape")

    def _changes(self) -> Iterator[Change]:
        added = ""
        for key, value in self._set.items():
            span = self._members.get(key)
            if key == self._removed:
                if span is not None:
                    yield whole(self._text, span), ""
            elif span is None:
                added += f",{_dumps(key)}:{_dumps(value)}"
            elif isinstance(span.value, list) and isinstance(value, list):
                yield from self._list_changes(span, value)
            elif key != "model":
                yield span, _dumps(value)
        # Valid wherever it stands; the end of the object may be followed by anything.
        yield self._members["model"], _dumps(self.get("model")) + added

    def _list_changes(self, span: Span, value: list[Any]) -> Iterator[Change]:
        spans = list(elements(self._text, span.start))
        if len(value) == len(spans):
            pairs = zip(spans, span.value, value, strict=True)
            yield from ((place, _dumps(new)) for place, old, new in pairs if new is not old)
            return
        sources = {id(old): self._text[place.start : place.end] for place, old in zip(spans, span.value, strict=True)}
        yield span, f"[{','.join(sources.get(id(item)) or _dumps(item) for item in value)}]"


def _dumps(value: Any) -> str:
    """Return a value as compact JSON, keys in their order."""
    return well_formed(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
