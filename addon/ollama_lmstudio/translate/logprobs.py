"""Log probabilities of tokens: LM Studio's as Ollama's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def logprob_to_ollama(entry: Mapping[str, Any], top: int) -> dict[str, Any]:
    """Return LM Studio's entry as Ollama's: always with `bytes`, with `top_logprobs` only if `top` is not 0."""
    token = entry.get("token")
    token = token if isinstance(token, str) else ""
    result: dict[str, Any] = {"token": token, "logprob": entry.get("logprob", 0)}
    if token:
        given = entry.get("bytes")
        result["bytes"] = given if isinstance(given, list) and given else list(token.encode("utf-8", "replace"))
    if top > 0:
        alternatives = entry.get("top_logprobs")
        alternatives = [a for a in alternatives if isinstance(a, dict)] if isinstance(alternatives, list) else []
        result["top_logprobs"] = [logprob_to_ollama(a, 0) for a in alternatives[:top]]
    return result
