"""The bridge from Ollama's API to LM Studio that you can see through."""

from __future__ import annotations

from . import lazy

__version__ = "0.1.0"

lazy.install()
