"""Text that comes from anywhere.

It may hold halves of surrogate pairs, which JSON can write as escapes (RFC 8259, section 8.2), and controls.
"""

from __future__ import annotations

import re

# White space, the controls of C0 and C1, and those by which Unicode breaks lines or turns their direction: a terminal
# must get none of them.
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


def one_line(text: str, limit: int = 200) -> str:
    """Return the beginning of a text on one line, without control characters."""
    # Runs of white space shrink to one space: four times the limit leaves enough of any common text.
    text = _CONTROL.sub(" ", text[: 4 * limit]).strip()
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


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
