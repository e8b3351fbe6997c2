"""JSON as it is sent to LM Studio."""

from __future__ import annotations

import json
from typing import Any

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dumps(value: Any) -> bytes:
    """Return a value as compact JSON in UTF-8, keys in their order; half a surrogate pair becomes `?`."""
    return _ENCODER.encode(value).encode("utf-8", "replace")
