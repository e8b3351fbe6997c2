"""The text of a contentview: rules that divide it, keys with values, and texts as they were said.

━━ POST /api/chat ━━━━━━━━━━━━━━━━━━━━━━━━
model: llama3.2
── user ──────────────────────────────────
What is
a proxy?
──────────────────────────────────────────
options: {"temperature": 0.2}

It shows its structure without colours, which mitmweb 12 does not have, and a text that is copied out of it is as it was
said: it stands between two rules, not indented and not folded, or on one line after its key.

What a model says may look like a rule. So all rules of a sheet begin with one sign, the sign of its first line, and it
is chosen so that no line of a text begins with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..unicode import well_formed
from . import jsontext

TEXT_CHARACTERS = 20_000
"""At most so much of one text is shown; a quarter of it is of its end."""
SHEET_CHARACTERS = 500_000
"""The whole is no longer: mitmproxy renders all of it on the event loop."""

# Rules are so long, which fits into the narrow column that mitmweb has in a window of 700 pixels.
_WIDTH = 38
# A text of one line that is no longer than this is put beside its key.
_BESIDE = 100
# A value is cut at this length.
_VALUE_CHARACTERS = 2000


class Marks(NamedTuple):
    """How rules begin, and what they are drawn of: those of sections, and those of texts."""

    section: str
    text: str


LINES = Marks("━", "─")
# For a sheet whose texts have lines themselves.
BARS = Marks("█", "░")
_BEGINS = 2

# What looks like the beginning of a rule at the beginning of a line, whatever invisible stands before it.
_INVISIBLE = (
    r"[\s\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]*"
)
_SIGNS = {LINES: "[‒–—―⸺⸻─━┄┅┈┉╌╍═╴╶╸╺╼╾⎯ー－﹘]", BARS: "[▀-▟■□▪▬▭◼◻]"}
_ANY = {marks: re.compile(signs) for marks, signs in _SIGNS.items()}
_LOOKALIKES = {marks: re.compile(f"{_INVISIBLE}((?:{signs}{_INVISIBLE}){{2,}})") for marks, signs in _SIGNS.items()}
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def is_beside(text: str, limit: int = _BESIDE) -> bool:
    """Return whether a text is put beside its key: it is one short line."""
    return len(text) <= min(_BESIDE, limit) and not _CONTROLS.search(text)


_RULES = ("section", "text")


class _Line(NamedTuple):
    """A line of a sheet; `kind` is "section" or "text" for a rule, "said" for a line of a text, else empty."""

    text: str
    kind: str = ""


class Sheet:
    """Collects lines, with placeholders for base64, and drops what is over the limit."""

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._size = 0
        self._left_out = 0

    def heading(self, text: str) -> None:
        """Begin a section."""
        between = [_Line("")] if self._lines else []
        self._add([*between, _Line(jsontext.one_line(text), "section")])

    def value(self, key: str, value: object) -> None:
        """Add a key with a value on one line, unless it is empty."""
        text = jsontext.one_line(jsontext.without_base64(str(value)), _VALUE_CHARACTERS)
        if text:
            self._own(f"{jsontext.one_line(key)}: {text}")

    def text(self, key: str, text: str, limit: int = TEXT_CHARACTERS) -> None:
        """Add a text as it was said: a short line beside its key, others below a rule with the key."""
        key, text = jsontext.one_line(key), jsontext.without_files(text)
        if is_beside(text, limit):
            self._own(f"{key}: {text}" if text else f"{key}:")
            return
        self._add([_Line(key, "text")])
        begin, left_out, end = jsontext.cut_out(text, limit)
        self._add(_Line(line, "said") for line in begin.split("\n"))
        if left_out:
            self._add([_Line(f"{left_out:,} characters are left out here", "text")])
            self._add(_Line(line, "said") for line in end.split("\n"))

    def block(self, key: str, lines: Iterable[str]) -> None:
        """Add a key with lines below it, indented."""
        indented = (f"  {part}".rstrip() for line in lines for part in line.splitlines() or [""])
        self._own(f"{jsontext.one_line(key)}:", *indented)

    def raw(self, text: str) -> None:
        """Add lines as they are, such as JSON, of which no line can be taken for a rule."""
        self._own(*jsontext.without_base64(text).split("\n"))

    def _own(self, *lines: str) -> None:
        """Add lines that nobody said; a text before them ends with a rule."""
        if self._lines and self._lines[-1].kind == "said":
            self._add([_Line("", "text")])
        self._add(map(_Line, lines))

    def _add(self, lines: Iterable[_Line]) -> None:
        for line in lines:
            size = max(len(line.text), _WIDTH if line.kind in _RULES else 0) + 1
            if self._left_out or self._size + size > SHEET_CHARACTERS:
                self._left_out += len(line.text) + 1
                continue
            self._size += size
            self._lines.append(line)

    def __str__(self) -> str:
        lines = self._lines
        if self._left_out:
            lines = [*lines, _Line(f"{self._left_out:,} more characters are not shown", "section")]
        elif lines and lines[-1].kind == "said":
            lines = [*lines, _Line("", "text")]
        marks, begins = _marks(line.text for line in lines if line.kind not in _RULES)
        return well_formed("\n".join(_written(line, marks, begins) for line in lines))


def _marks(lines: Iterable[str]) -> tuple[Marks, int]:
    """Return what rules are drawn of, and with how many signs they begin: as no line of a text does."""
    text = "\n".join(lines)
    longest = {
        marks: max((len(found[1]) for line in text.splitlines() if (found := pattern.match(line))), default=0)
        # Most texts have nothing of the kind.
        if _ANY[marks].search(text)
        else 0
        for marks, pattern in _LOOKALIKES.items()
    }
    marks = next((marks for marks, length in longest.items() if not length), LINES)
    return marks, max(_BEGINS, longest[marks] + 1)


def _written(line: _Line, marks: Marks, begins: int) -> str:
    if line.kind not in _RULES:
        return line.text
    sign = marks.section if line.kind == "section" else marks.text
    begin = f"{sign * begins} {line.text} " if line.text else ""
    return begin + sign * max(begins, _WIDTH - len(begin))


def styled(text: str) -> Iterator[tuple[str, str]]:
    """Yield each line of a sheet with what it is: "section" and "text" are rules, "said" is part of a text.

    The others are "key", which begins with a key and a colon, "added" and "removed" of a difference, and "plain".
    """
    sign = text[:1]
    marks = next((marks for marks in _LOOKALIKES if marks.section == sign), None)
    begins = len(text) - len(text.lstrip(sign)) if marks else 0
    in_text = False
    for line in text.split("\n"):
        kind = _rule(line, marks, begins) if marks else ""
        if kind:
            in_text = kind == "text" and bool(line.strip(line[0]))
            yield kind, line
        elif in_text:
            yield "said", line
        else:
            yield _DIFFERENCE.get(line[:2], "key" if _KEY.match(line) else "plain"), line


_DIFFERENCE = {"+ ": "added", "- ": "removed"}
_KEY = re.compile(r"[^\s{\[\"}\]+-][^:\n]*:(?: |$)")


def _rule(line: str, marks: Marks, begins: int) -> str:
    """Return which rule a line is; an empty string if it is none."""
    for kind, sign in zip(_RULES, marks, strict=True):
        if line.startswith(sign * begins):
            return kind
    return ""
