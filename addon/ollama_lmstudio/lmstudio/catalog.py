"""LM Studio's models, as any of its three lists tells them: that of 0.4, of 0.3.6, and OpenAI's.

How a list is read is in catalog_entries.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

ModelType = Literal["llm", "embedding", "decision", "other"]
Source = Literal["v1", "v0", "openai"]

EMBEDDING_PREFIX: Final = "text-embedding-"
"""How LM Studio begins the key of an embedding model."""

MODEL_TYPES: Final[Mapping[str, ModelType]] = {
    "llm": "llm",
    "vlm": "llm",
    "embedding": "embedding",
    "embeddings": "embedding",
    "decision": "decision",
}


class NotACatalog(ValueError):  # noqa: N818
    """Raised when a JSON value is not a model list in any of LM Studio's shapes."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A model in memory, under the id that `unload` wants (case matters).

    `remaining_ttl_seconds` is None for an instance without a TTL, and where LM Studio does not report it (0.4.21).
    """

    id: str
    context_length: int | None = None
    remaining_ttl_seconds: float | None = None
    config: Mapping[str, object] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class ReasoningOptions:
    """The values LM Studio takes as `reasoning` (or `reasoning_effort`) for a model."""

    allowed_options: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One model that LM Studio has on disk; None is "LM Studio did not say".

    `capabilities_known` is False when the entry has no `capabilities`: `tools` and `reasoning` are then
    unknown, not absent. `type_name` is LM Studio's word for a type that is neither a chat model's nor an embedding
    model's. `state` is that of `/api/v0/models` (`loaded`, `not-loaded`, `loading`).
    `raw` is the entry as LM Studio sent it.
    """

    key: str
    type: ModelType = "llm"
    type_name: str | None = None
    publisher: str | None = None
    display_name: str | None = None
    architecture: str | None = None
    quantization: str | None = None
    bits_per_weight: float | None = None
    size_bytes: int | None = None
    params: str | None = None
    max_context_length: int | None = None
    format: str | None = None
    description: str | None = None
    vision: bool | None = None
    tools: bool | None = None
    reasoning: ReasoningOptions | None = None
    capabilities_known: bool = False
    instances: tuple[Instance, ...] = ()
    variants: tuple[str, ...] = ()
    selected_variant: str | None = None
    state: str | None = None
    raw: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def loaded(self) -> bool:
        """Whether an instance of the model is in memory."""
        return bool(self.instances)

    @property
    def all_variants(self) -> tuple[str, ...]:
        """The variants, and the selected one where the list of variants lacks it."""
        if self.selected_variant and self.selected_variant not in self.variants:
            return (*self.variants, self.selected_variant)
        return self.variants

    def instances_for(self, id_: str) -> tuple[Instance, ...]:
        """Return the instances that may answer for an id: those that have it, else the first.

        Linked devices name theirs independently of each other, so that several can have it.
        """
        return tuple(instance for instance in self.instances if instance.id == id_) or self.instances[:1]

    def context_length_for(self, id_: str) -> int | None:
        """Return how many tokens can be relied on when an id is asked; None if that is not known."""
        lengths = [instance.context_length for instance in self.instances_for(id_) if instance.context_length]
        return min(lengths) if lengths else next((i.context_length for i in self.instances if i.context_length), None)


@dataclass(frozen=True, slots=True)
class Resolution:
    """A model, and the id that makes LM Studio use it: its key, a variant or an instance."""

    model: Model
    id: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All models in LM Studio's order, the shape they came in, and why entries were left out."""

    models: tuple[Model, ...] = ()
    source: Source = "v1"
    skipped: tuple[str, ...] = ()

    @property
    def tells_loaded(self) -> bool:
        """Whether the list tells which models are loaded; OpenAI's does not."""
        return self.source != "openai"

    def owner(self, id_: str) -> Model | None:
        """Return the model with this key, variant or instance id, in any case; None if the list has no such model.

        `key:2`, a further instance that the list does not have yet, belongs to the model with the key.
        """
        folded = id_.lower()
        for model in self.models:
            ids = (model.key, *model.all_variants, *(instance.id for instance in model.instances))
            if any(folded == known.lower() for known in ids):
                return model
        key, is_further_instance = split_instance(id_)
        return self.owner(key) if is_further_instance else None

    def exact(self, id_: str) -> Resolution | None:
        """Return the model whose key, or one of whose variants, is this id; None if LM Studio has it no longer."""
        keyed = (model for model in self.models if model.key == id_)
        of_variant = (model for model in self.models if id_ in model.all_variants)
        model = next(keyed, None) or next(of_variant, None)
        return Resolution(model, id_) if model else None

    def context_length(self, id_: str) -> int:
        """Return how many tokens the model with this key, variant or instance id is loaded for; 0 if that is not known.

        LM Studio chooses between several instances of a model: theirs is known only if it is the same.
        """
        for model in self.models:
            if model.key == id_ or id_ in model.all_variants:
                lengths = {instance.context_length for instance in model.instances}
            elif named := [instance for instance in model.instances if instance.id == id_]:
                lengths = {named[0].context_length}
            else:
                continue
            return (lengths.pop() or 0) if len(lengths) == 1 else 0
        return 0


def model_type(key: str, type_name: str | None = None) -> ModelType:
    """Return the type of a model by LM Studio's word for it, or by its key where it has none.

    A word that is not known here is "other": what it does is not known, and least of all that it chats.
    """
    if type_name:
        return MODEL_TYPES.get(type_name.lower(), "other")
    return "embedding" if bare_key(key).lower().startswith(EMBEDDING_PREFIX) else "llm"


def unknown_type(type_name: str | None) -> str | None:
    """Return LM Studio's word for a type that is neither a chat model's nor an embedding model's."""
    return type_name if type_name and MODEL_TYPES.get(type_name.lower()) not in ("llm", "embedding") else None


def bare_key(key: str) -> str:
    """Return a key without its publisher: `gpt-oss-20b` for `openai/gpt-oss-20b`."""
    return key.partition("/")[2] or key


_FURTHER_INSTANCE: Final = re.compile(r"(?P<key>.*\S):[0-9]+", re.DOTALL)


def split_instance(entry_id: str) -> tuple[str, bool]:
    """Split `key:2`, the id of a further instance of `key`; the older lists have an entry for each."""
    match = _FURTHER_INSTANCE.fullmatch(entry_id)
    return (match["key"], True) if match else (entry_id, False)
