"""JSON that may be none: what clients, models and files hold."""

from __future__ import annotations

import json
from typing import Any


def loads(data: bytes | str) -> Any:
    """Return the value of a JSON text; None for one that is not JSON, or is nested too deeply for Python's parser."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def is_json(data: bytes | str) -> bool:
    """Return whether a text is JSON that Python's parser can read."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
