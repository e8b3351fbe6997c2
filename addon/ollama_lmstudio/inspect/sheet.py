"""A text for people in the form of YAML, which mitmproxy's tools colour: headings are comments, long texts are blocks.

# POST /api/chat
model: llama3.2
user: |
  What is
  a proxy?
"""

from __future__ import annotations

import re
import textwrap

from ..unicode import well_formed
from . import jsontext

TEXT_CHARACTERS = 20_000
"""How much of one text is shown, of its end a quarter of that."""
SHEET_CHARACTERS = 500_000
"""How long a sheet can be."""

# A line in a text is no longer, if it has spaces.
_PLAIN_CHARACTERS = 80
# A value that YAML reads as one string, or one number.
_PLAIN = re.compile(r"[\w(\[./-](?:(?!: | #)[^\n\r])*")


class Sheet:
    """Collect lines. Base64 is never among them, and nothing that is too long to be read."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._left_out = 0

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._add("" if self._lines else None, f"# {jsontext.one_line(text)}")

    def value(self, key: str, value: object) -> None:
        """Add what fits on one line; nothing at all if it is empty."""
        text = jsontext.one_line(jsontext.without_base64(str(value)), 2000)
        if text:
            self._add(f"{key}: {text}")

    def text(self, key: str, text: str, limit: int = TEXT_CHARACTERS) -> None:
        """Add a text under a key: a short one beside it, others as a block."""
        text = jsontext.cut(jsontext.without_base64(text), limit).rstrip()
        if len(text) <= _PLAIN_CHARACTERS and _PLAIN.fullmatch(text):
            self._add(f"{key}: {text}")
        else:
            self.block(key, [part for line in text.splitlines() for part in _folded(line)])

    def block(self, key: str, lines: list[str]) -> None:
        """Add lines under a key."""
        first = next((line for line in lines if line.strip()), "")
        self._add(f"{key}: |2" if first.startswith(" ") else f"{key}: |", *(f"  {line}".rstrip() for line in lines))

    def raw(self, text: str) -> None:
        """Add a text that is YAML, or JSON, already."""
        self._add(*jsontext.without_base64(text).splitlines())

    def _add(self, *lines: str | None) -> None:
        for line in lines:
            if line is None:
                continue
            if self._left_out or self._size + len(line) > SHEET_CHARACTERS:
                self._left_out += len(line) + 1
                continue
            self._size += len(line) + 1
            self._lines.append(line)

    def __str__(self) -> str:
        lines = list(self._lines)
        if self._left_out:
            lines.append(f"# {self._left_out:,} more characters are not shown")
        return well_formed("\n".join(lines))


def _folded(line: str) -> list[str]:
    """Fold a long line at its spaces: the page that shows it does not."""
    if len(line) <= _PLAIN_CHARACTERS:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    folded = textwrap.wrap(
        line, _PLAIN_CHARACTERS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return folded or [line]
