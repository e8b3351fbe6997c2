"""Text that may hold halves of surrogate pairs, which JSON can write as escapes (RFC 8259, section 8.2)."""

from __future__ import annotations


def well_formed(text: str) -> str:
    """Return the text with surrogate pairs joined and each lone surrogate replaced by U+FFFD.

    That is what JavaScript's `String.prototype.toWellFormed` and Go's decoder make of it, and it can be encoded.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    # Nearly every text: encoding it once is cheaper than twice and decoding it.
    return text
