"""Ollama's `think` as LM Studio's `reasoning_effort`, and which models think."""

from __future__ import annotations

from typing import Any

from ..lmstudio.answer import ThinkTags
from ..lmstudio.catalog import Model
from ..ollama import errors
from ..ollama.requests import THINK_LEVELS
from ..services import Services

# How LM Studio names the options that are no levels, in lower case.
OFF = frozenset(("off", "disabled", "none"))
ON = frozenset(("on", "enabled"))
# The levels that LM Studio takes as `reasoning_effort`, the least first.
EFFORTS = ("minimal", "low", "medium", "high", "xhigh")

# What `think: "max"` becomes: the first of these that the model allows.
MAX_EFFORTS = ("xhigh", "high")
# OpenAI's default, for a model that does not think by default and allows no levels.
DEFAULT_EFFORT = "medium"


def thinks(model: Model, services: Services) -> bool | None:
    """Return whether a model thinks; None where LM Studio does not tell."""
    if model.reasoning is not None:
        return any(option.lower() not in OFF for option in model.reasoning.allowed_options)
    return False if model.capabilities_known and _lists_reasoning(services) else None


def _lists_reasoning(services: Services) -> bool:
    """Return whether this LM Studio lists which models think: versions before 0.4.8 do not."""
    catalog = services.catalog.last
    return catalog is not None and any(model.reasoning for model in catalog.models)


def think_tags(model: Model, services: Services, *, templated: bool, streaming: bool, hidden: bool) -> ThinkTags:
    """Return what is known of the `<think>` tags in a model's answer.

    `hidden` is whether the client wants no thoughts. What a stream has told cannot be taken back: there a text without
    an opening tag is reasoning only if the model cannot but think, which nothing but a template can make it do. A model
    with levels (gpt-oss) has other tags, which LM Studio knows.
    """
    thinking = thinks(model, services)
    if thinking is False:
        return ThinkTags(opening=False, drop_close=streaming and hidden)
    options = {option.lower() for option in model.reasoning.allowed_options} if model.reasoning else set()
    always = templated and bool(options) and options <= ON
    return ThinkTags(always=always, likely=thinking is True, drop_close=streaming and hidden)


def thinking_choices(model: Model) -> dict[str, Any] | None:
    """Return the values of `think` that a model takes, and its default, as /api/show has them since 0.34.

    None where LM Studio does not tell both.
    """
    reasoning = model.reasoning
    if reasoning is None or reasoning.default is None:
        return None
    values = [value for option in reasoning.allowed_options if (value := _think_value(option)) is not None]
    default = _think_value(reasoning.default)
    return {"values": list(dict.fromkeys(values)), "default": default} if default in values else None


def _think_value(option: str) -> bool | str | None:
    """Return the value of `think` for one of LM Studio's options; None for a level that its server does not take."""
    word = option.lower()
    if word in OFF or word in ON:
        return word in ON
    return word if word in EFFORTS else None


def check_thinking(think: bool | str | None, name: str, model: Model, services: Services) -> None:
    """Raise Ollama's error (400) if `think` is asked of a model that cannot, or is a word that means nothing.

    Where the words of a model are known, any other means its default.
    """
    if isinstance(think, str) and think not in THINK_LEVELS and model.reasoning is None:
        raise errors.invalid_think_value(think)
    if think and thinks(model, services) is False:
        raise errors.thinking_unsupported(name)


def think_to_lmstudio(think: bool | str | None, model: Model) -> str | None:
    """Return `reasoning_effort` for a model, or None where nothing is to be sent.

    LM Studio takes none, minimal, low, medium, high and xhigh; a model's catalog entry lists the options that it
    allows.
    """
    reasoning = model.reasoning
    if think is None or reasoning is None:
        return None
    allowed = {option.lower() for option in reasoning.allowed_options}
    if think is False:
        if allowed & OFF:
            return "none"
        return "low" if "low" in allowed and not allowed & ON else None
    candidates: tuple[str, ...] = ()
    if isinstance(think, str):
        candidates = MAX_EFFORTS if think == "max" else (think,)
    level = next((level for level in candidates if level in allowed and level in EFFORTS), None)
    if isinstance(think, str) and think not in THINK_LEVELS:
        return level
    if level is None and (reasoning.default or "").lower() in OFF:
        return DEFAULT_EFFORT
    return level
