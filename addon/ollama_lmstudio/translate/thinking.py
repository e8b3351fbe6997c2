"""Ollama's `think` as LM Studio's `reasoning_effort`, and which models think."""

from __future__ import annotations

from ..lmstudio.answer import ThinkTags
from ..lmstudio.catalog import Model
from ..ollama import errors
from ..services import Services

# What `think: "max"` becomes: the first of these that the model allows.
MAX_EFFORTS = ("xhigh", "high")
# OpenAI's default, for a model that does not think by default and allows no levels.
DEFAULT_EFFORT = "medium"
# The options of a model that cannot but think, and has its thoughts in `<think>` tags: those with levels (gpt-oss) have
# other tags, which LM Studio knows.
ONLY_ON = frozenset(("on", "enabled"))


def thinks(model: Model, services: Services) -> bool | None:
    """Return whether a model thinks; None where LM Studio does not tell."""
    if model.reasoning is not None:
        return any(option != "off" for option in model.reasoning.allowed_options)
    return False if model.capabilities_known and _lists_reasoning(services) else None


def _lists_reasoning(services: Services) -> bool:
    """Return whether this LM Studio lists which models think: versions before 0.4.8 do not."""
    catalog = services.catalog.last
    return catalog is not None and any(model.reasoning for model in catalog.models)


def think_tags(model: Model, services: Services, *, templated: bool, streaming: bool, hidden: bool) -> ThinkTags:
    """Return what is known of the `<think>` tags in a model's answer.

    `hidden` is whether the client wants no thoughts. What a stream has told cannot be taken back: there a text without
    an opening tag is reasoning only if the model cannot but think, which nothing but a template can make it do.
    """
    thinking = thinks(model, services)
    if thinking is False:
        return ThinkTags(opening=False, drop_close=streaming and hidden)
    options = {option.lower() for option in model.reasoning.allowed_options} if model.reasoning else set()
    always = templated and bool(options) and options <= ONLY_ON
    return ThinkTags(always=always, likely=thinking is True, drop_close=streaming and hidden)


def check_thinking(think: bool | str | None, name: str, model: Model, services: Services) -> None:
    """Raise Ollama's error (400) if `think` is asked of a model that cannot."""
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
    allowed = reasoning.allowed_options
    if think is False:
        if "off" in allowed:
            return "none"
        return "low" if "low" in allowed and "on" not in allowed else None
    candidates: tuple[str, ...] = ()
    if isinstance(think, str):
        candidates = MAX_EFFORTS if think == "max" else (think,)
    level = next((level for level in candidates if level in allowed), None)
    if level is None and reasoning.default == "off":
        return DEFAULT_EFFORT
    return level
