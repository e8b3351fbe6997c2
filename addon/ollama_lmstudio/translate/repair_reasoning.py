"""How hard to think, in words that LM Studio takes, in requests that are passed through."""

from __future__ import annotations

from typing import Any

from ..lmstudio.catalog import Model
from .passthrough import PassedRequest
from .thinking import EFFORTS, OFF, think_to_lmstudio

NONE = "none"
"""LM Studio's word for not to think at all."""
# Ollama's, for the most that a model can.
MOST = ("max", "ultra")


def repair_chat_effort(request: PassedRequest) -> bool:
    """Set `reasoning_effort` to a word of LM Studio's, which does not read `reasoning.effort`; in Ollama that wins."""
    body = request.body
    given = body.get("reasoning_effort")
    wanted = _nested(body.get("reasoning")) or given
    if not isinstance(wanted, str):
        return False
    made = effort_to_lmstudio(wanted, request.resolved.model)
    if made == given:
        return False
    if made is None:
        body.remove("reasoning_effort")
    else:
        body.set("reasoning_effort", made)
    return True


def repair_response_effort(request: PassedRequest) -> bool:
    """Set `reasoning.effort` to a word of LM Studio's, also where the request has Ollama's own `think`."""
    body, model = request.body, request.resolved.model
    reasoning, think = body.get("reasoning"), body.get("think")
    given = _nested(reasoning)
    made = given
    if isinstance(given, str):
        made = effort_to_lmstudio(given, model)
    elif given is None and isinstance(think, bool | str):
        made = think_to_lmstudio(think, model)
    if made == given:
        return False
    rest = {key: value for key, value in reasoning.items() if key != "effort"} if isinstance(reasoning, dict) else {}
    body.set("reasoning", rest if made is None else {**rest, "effort": made})
    return True


def effort_to_lmstudio(effort: str, model: Model) -> str | None:
    """Return LM Studio's word for an effort; None for the model's default, as which Ollama takes an unknown word."""
    if effort in (NONE, *EFFORTS):
        return effort
    if effort in MOST:
        return _most(model)
    return NONE if effort.lower() in OFF else None


def _most(model: Model) -> str:
    if model.reasoning is None:
        return EFFORTS[-1]
    options = {option.lower() for option in model.reasoning.allowed_options}
    allowed = [level for level in EFFORTS if level in options]
    # Other models can only think or not.
    return allowed[-1] if allowed else "high"


def _nested(reasoning: Any) -> Any:
    return reasoning.get("effort") or None if isinstance(reasoning, dict) else None
