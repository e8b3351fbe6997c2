"""Text that may hold halves of surrogate pairs, which JSON can write as escapes (RFC 8259, section 8.2)."""

from __future__ import annotations


def well_formed(text: str) -> str:
    """Return the text with surrogate pairs joined and each lone surrogate replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
