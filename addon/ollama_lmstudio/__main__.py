"""`python -m ollama_lmstudio` is `ollama-lmstudio-proxy`."""

from __future__ import annotations

from .launch import main

main()
