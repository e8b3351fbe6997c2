"""The bridge from Ollama's API to LM Studio that you can see through."""

from __future__ import annotations

__version__ = "0.1.0"
