"""Colours of a view's own on mitmproxy 12, in the console and in mitmdump's output.

There a view names a language, and mitmproxy highlights its text as that: YAML, JavaScript, CSS or XML, none of which a
conversation is. So its function that highlights is replaced by one that knows a language more: `Language`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

Chunks = Iterable[tuple[str, str]]
"""Texts, each with its tag: name, string, number, boolean, comment or error; empty for none."""


class Language(str):
    """A language for a view's `syntax_highlight`, which mitmproxy itself, and its page, takes for `none`."""

    highlight: Callable[[str], Chunks]

    @classmethod
    def of(cls, highlight: Callable[[str], Chunks]) -> Language:
        """Return a language whose text `highlight` divides."""
        made = cls("none")
        made.highlight = highlight
        return made


def add_languages() -> None:
    """Let mitmproxy highlight the text of a `Language`. Without it, such a text has no colours."""
    remove_languages()
    module = _module()
    original = getattr(module, "highlight", None)
    if original is None:
        return

    def highlight(text: str, language: Any) -> Chunks:
        if isinstance(language, str) and hasattr(language, "highlight"):
            return list(language.highlight(text))
        found: Chunks = original(text, language)
        return found

    vars(highlight)[_ORIGINAL] = original
    module.highlight = highlight


def remove_languages() -> None:
    """Undo `add_languages`."""
    module = _module()
    original = getattr(getattr(module, "highlight", None), _ORIGINAL, None)
    if original is not None:
        module.highlight = original


_ORIGINAL = "original"


def _module() -> Any:
    """Return mitmproxy's module; None on mitmproxy 11, whose views give each of their texts a style."""
    try:
        return importlib.import_module("mitmproxy_rs.syntax_highlight")
    except ImportError:
        return None
