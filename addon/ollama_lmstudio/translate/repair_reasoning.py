"""How hard to think, in words that LM Studio takes, in requests that are passed through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..lmstudio.catalog import Model
from .passthrough import PassedRequest
from .thinking import think_to_lmstudio

# LM Studio's words, the least first; `none` is not to think at all.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
# Ollama's, for the most that a model can.
MOST = ("max", "ultra")


def repair_chat_effort(request: PassedRequest) -> bool:
    """Set `reasoning_effort` to a word of LM Studio's, which does not read `reasoning.effort`; in Ollama that wins."""
    body = request.body
    given = body.get("reasoning_effort")
    made = effort_to_lmstudio(_nested(body.get("reasoning")) or given, request.resolved.model)
    # An empty one is none to Ollama, and a mistake to LM Studio.
    if made == given or (made is None and given != ""):
        return False
    body.set("reasoning_effort", made)
    return True


def repair_response_effort(request: PassedRequest) -> bool:
    """Set `reasoning.effort` to a word of LM Studio's, also where the request has Ollama's own `think`."""
    body, model = request.body, request.resolved.model
    reasoning, think = body.get("reasoning"), body.get("think")
    given = _nested(reasoning)
    made = effort_to_lmstudio(given, model)
    if given is None and isinstance(think, bool | str):
        made = think_to_lmstudio(think, model)
    if made is None or made == given:
        return False
    rest = reasoning if isinstance(reasoning, Mapping) else {}
    body.set("reasoning", {**rest, "effort": made})
    return True


def effort_to_lmstudio(effort: Any, model: Model) -> str | None:
    """Return LM Studio's word for an effort; None for one that Ollama does not know."""
    if effort not in MOST:
        return effort if effort in EFFORTS else None
    if model.reasoning is None:
        return EFFORTS[-1]
    allowed = [level for level in EFFORTS if level in model.reasoning.allowed_options]
    # Other models can only think or not.
    return allowed[-1] if allowed else "high"


def _nested(reasoning: Any) -> Any:
    return reasoning.get("effort") or None if isinstance(reasoning, Mapping) else None
