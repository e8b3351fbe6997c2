"""Regular expressions whose quantifiers are possessive, where Python can be trusted with them."""

from __future__ import annotations

import re
import sys

# Before, they match what they should not (https://github.com/python/cpython/issues/106052). Debian 12 has 3.11.2.
_TRUSTED = sys.version_info >= (3, 11, 5)
_POSSESSIVE = re.compile(rb"([*+?}])\+")


def compiled(pattern: bytes, flags: int = 0) -> re.Pattern[bytes]:
    """Compile a pattern that matches the same without its possessive quantifiers, only slower.

    In it a `+` after another quantifier is never a character.
    """
    return re.compile(pattern if _TRUSTED else _POSSESSIVE.sub(rb"\1", pattern), flags)
