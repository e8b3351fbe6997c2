"""The models on the stand-in's disk, and what the versions of LM Studio can do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reasoning:
    """What `capabilities.reasoning` says of a model."""

    allowed_options: tuple[str, ...] = ("off", "on")
    default: str = "on"


GPT_OSS_REASONING = Reasoning(("low", "medium", "high"), "low")
ALWAYS_ON_REASONING = Reasoning(("on",), "on")
LEVELS_REASONING = Reasoning(("off", "low", "medium", "xhigh", "on"), "xhigh")


# What a model is loaded with of which LM Studio knows no context length.
DEFAULT_CONTEXT_LENGTH = 4096


@dataclass(frozen=True)
class SimModel:
    """One downloaded model.

    `load_seconds` is how long a load is silent, `load_outcome` how it ends. `granted_context_length` is what
    the memory guard gives however much was asked for. `capabilities_known=False` leaves `capabilities` out.
    `device` is the linked device that has the model, in the way of LM Link; it is empty for this machine.
    `opens_thoughts` is for a model whose template opens `<think>`: its text begins inside the thoughts, whatever the
    setting that separates reasoning says.
    `type` may be one that no version of LM Studio has yet.
    """

    key: str
    type: str = "llm"
    device: str = ""
    vision: bool = False
    tools: bool = True
    reasoning: Reasoning | None = None
    opens_thoughts: bool = False
    capabilities_known: bool = True
    publisher: str = ""
    display_name: str = ""
    architecture: str | None = "llama"
    quantization: str | None = "Q4_K_M"
    bits_per_weight: float | None = 4
    size_bytes: int = 2_019_377_440
    params_string: str | None = None
    max_context_length: int | None = 131072
    default_context_length: int | None = None
    granted_context_length: int | None = None
    format: Literal["gguf", "mlx", "splash"] | None = "gguf"
    description: str | None = None
    variants: tuple[str, ...] = ()
    loaded: bool = False
    load_seconds: float = 0.0
    load_outcome: Literal["ok", "guardrail", "crash", "abort"] = "ok"
    dimensions: int = 768
    unit_norm: bool = True

    @property
    def owner(self) -> str:
        """The publisher: the given one, else the first part of the key."""
        first, slash, _ = self.key.partition("/")
        return self.publisher or (first if slash else "lmstudio-community")

    @property
    def names(self) -> frozenset[str]:
        """What the model is found by, in small letters: its key, with its quantization or not, and its variants."""
        key = self.key.lower()
        return frozenset((key, f"{key}@{(self.quantization or '').lower()}", *map(str.lower, self.variants)))

    @property
    def title(self) -> str:
        """The display name: the given one, else made of the key."""
        name = self.key.rpartition("/")[2]
        return self.display_name or " ".join(re.split(r"[-_]", name)).title()

    @property
    def is_gpt_oss(self) -> bool:
        """Whether reasoning is called `reasoning` in answers, as for the gpt-oss family alone."""
        return "gpt-oss" in self.key.lower()

    @property
    def context_length(self) -> int:
        """The context length of a load that does not ask for one."""
        return self.default_context_length or self.max_context_length or DEFAULT_CONTEXT_LENGTH


def gpt_oss(key: str = "openai/gpt-oss-20b", **changes: object) -> SimModel:
    """Return a gpt-oss model: always reasoning, in a field of its own name."""
    values: dict[str, object] = {
        "architecture": "gpt-oss",
        "quantization": "MXFP4",
        "params_string": "20B",
        "size_bytes": 12_109_566_560,
        "reasoning": GPT_OSS_REASONING,
    }
    return SimModel(key, **{**values, **changes})  # type: ignore[arg-type]


def embedder(key: str = "text-embedding-nomic-embed-text-v1.5", **changes: object) -> SimModel:
    """Return an embedding model like the one that comes with LM Studio."""
    values: dict[str, object] = {
        "type": "embedding",
        "publisher": "nomic-ai",
        "architecture": "nomic-bert",
        "size_bytes": 84_106_624,
        "max_context_length": 2048,
    }
    return SimModel(key, **{**values, **changes})  # type: ignore[arg-type]


def decider(key: str = "nimble-4b", **changes: object) -> SimModel:
    """Return a decision model: it answers `/v1/systemone` alone, and its context length is not told."""
    values: dict[str, object] = {"type": "decision", "publisher": "nimble", "max_context_length": None}
    return SimModel(key, **{**values, **changes})  # type: ignore[arg-type]


# The first version in which each thing is so.
FEATURES = {
    "api_v0": (0, 3, 6),
    "jit_error_400": (0, 3, 6),
    "tool_calls_finish": (0, 3, 15),
    "tool_name_once": (0, 3, 16),
    "capabilities_v0": (0, 3, 16),
    "stream_usage": (0, 3, 18),
    "stream_error_object": (0, 3, 18),
    "response_format_text": (0, 3, 18),
    "gpt_oss_reasoning": (0, 3, 23),
    "tool_calls_always": (0, 3, 24),
    "responses": (0, 3, 29),
    "api_v1": (0, 4, 0),
    "messages": (0, 4, 1),
    "reasoning_control": (0, 4, 8),
    "reasoning_wording": (0, 4, 7),
    "upgrade_ignored": (0, 4, 15),
    "remaining_ttl": (0, 4, 22),
    # LM Studio does not say since when.
    "systemone": (0, 4, 25),
}


@dataclass(frozen=True)
class Version:
    """A version of LM Studio: `0.4.25`, or `bionic-1.1.7`, which has the server of the newest."""

    name: str

    @property
    def is_bionic(self) -> bool:
        """Whether this is LM Studio Bionic, which cuts long conversations silently."""
        return self.name.startswith("bionic")

    def has(self, feature: str) -> bool:
        """Return whether this version has a feature, one of FEATURES."""
        if self.is_bionic:
            return True
        return tuple(int(part) for part in self.name.split(".")) >= FEATURES[feature]
