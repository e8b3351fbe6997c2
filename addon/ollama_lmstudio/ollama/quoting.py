"""Go's quoted strings, as they are in Ollama's error texts: `%q`, which is strconv.Quote."""

from __future__ import annotations

_SHORT = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quote(text: str) -> str:
    """Quote `text` as Go's `%q` does: printable characters of any script stay, the rest is escaped."""
    return f'"{escape(text)}"'


def escape(text: str) -> str:
    """Escape `text` for a Go string literal, without the quotes around it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    short = _SHORT.get(character)
    if short is not None:
        return short
    if character.isprintable():
        return character
    code = ord(character)
    if character < " " or character == "\x7f":
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if character <= "\uffff" else f"\\U{code:08x}"
