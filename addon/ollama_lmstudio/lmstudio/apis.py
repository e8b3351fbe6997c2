"""LM Studio's own APIs: OpenAI's with Anthropic's, and the two versions of its own."""

from __future__ import annotations

from typing import Final

PREFIXES: Final = ("/v1/", "/api/v0/", "/api/v1/")
"""How the paths of each begin."""
