"""The text of a contentview, as YAML, which mitmproxy highlights: headings are comments, long texts are block scalars.

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
"""At most so much of one text is shown; a quarter of it is of its end."""
SHEET_CHARACTERS = 500_000
"""The whole is no longer: mitmproxy renders all of it on the event loop."""

# Lines of a text are wrapped at this width, and a text that fits is put beside its key.
_WIDTH = 80
# A value is cut at this length.
_VALUE_CHARACTERS = 2000
# One line that is highlighted as one value: it has no `: ` and no ` #`, which would begin a mapping or a comment in a
# plain scalar (YAML 1.2.2, section 7.3.3).
_PLAIN = re.compile(r"[\w(\[./-](?:(?!: | #)[^\n\r])*")


class Sheet:
    """Collects lines, with placeholders for base64, and drops what is over the limit."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._left_out = 0

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._add("" if self._lines else None, f"# {jsontext.one_line(text)}")

    def value(self, key: str, value: object) -> None:
        """Add a key with a value on one line, unless it is empty."""
        text = jsontext.one_line(jsontext.without_base64(str(value)), _VALUE_CHARACTERS)
        if text:
            self._add(f"{key}: {text}")

    def text(self, key: str, text: str, limit: int = TEXT_CHARACTERS) -> None:
        """Add a key with a text: a short one on the same line, others as a block scalar."""
        text = jsontext.cut(jsontext.without_base64(text), limit).rstrip()
        if len(text) <= _WIDTH and _PLAIN.fullmatch(text):
            self._add(f"{key}: {text}")
        else:
            self.block(key, [part for line in text.splitlines() for part in _wrapped(line)])

    def block(self, key: str, lines: list[str]) -> None:
        """Add a key with lines, as a literal block scalar."""
        first = next((line for line in lines if line.strip()), "")
        self._add(f"{key}: |2" if first.startswith(" ") else f"{key}: |", *(f"  {line}".rstrip() for line in lines))

    def raw(self, text: str) -> None:
        """Add a text that is YAML already, as all JSON is."""
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


def _wrapped(line: str) -> list[str]:
    """Return a line, wrapped at its spaces if it is long: mitmweb does not wrap lines."""
    if len(line) <= _WIDTH:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    wrapped = textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return wrapped or [line]
