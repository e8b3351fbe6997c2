"""Fill in the middle: the tokens that each family of code models was trained with.

LM Studio's `/v1/completions` knows no `suffix`, so the prompt is built here, with the tokens of the model's family.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..lmstudio.catalog import Model

Template = Callable[[str, str], str]

# A pattern in LM Studio's key or architecture -> the prompt with the family's tokens. The first match
# counts.
FAMILIES: tuple[tuple[str, str], ...] = (
    (r"qwen[\d.]*-?coder", "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"),
    (r"code-?qwen", "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"),
    (r"code-?gemma", "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"),
    (r"code-?llama", "<PRE> {prefix} <SUF>{suffix} <MID>"),
    (r"deepseek-coder", "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>"),
    (r"star-?coder", "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"),
    (r"granite-?([\w.]+-)?code", "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"),
    (r"granite-?(3\.3|4)", "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"),
    (r"stable-?code", "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>"),
    (r"codestral|devstral", "[SUFFIX]{suffix}[PREFIX]{prefix}"),
)
_PATTERNS = tuple((re.compile(pattern), template) for pattern, template in FAMILIES)


def template_for(model: Model) -> Template | None:
    """Return the function that joins a prompt and its suffix for a model; None if its family has no such tokens."""
    if model.type != "llm":
        return None
    identity = f"{model.key} {model.architecture or ''}".lower()
    template = next((template for pattern, template in _PATTERNS if pattern.search(identity)), None)
    if template is None:
        return None
    before, _, after = template.partition("{prefix}")

    def join(prompt: str, suffix: str) -> str:
        # Not str.format: the prompt may hold braces.
        return before.replace("{suffix}", suffix) + prompt + after.replace("{suffix}", suffix)

    return join
