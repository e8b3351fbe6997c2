"""Strings that may hold surrogates, as JSON's `\\ud83d` escapes make them."""

from __future__ import annotations


def well_formed(text: str) -> str:
    """Return `text` with surrogate pairs joined and each lone surrogate replaced by U+FFFD.

    JSON may escape either half of a pair alone (RFC 8259, section 8.2), and Python keeps what it says. The
    result is what JavaScript's `String.prototype.toWellFormed` and Go's decoder make of it, and encodes as UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
