"""LM Studio's model list, in any of its three shapes: of 0.4, of 0.3.6, and OpenAI's.

The shape decides, not the path that was requested: LM Studio answers 200 to unknown paths, too.
Every field but the key is optional and lenient: a value of the wrong type is None, and the rest of the entry is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictStr,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

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
        key, is_further_instance = _split_instance(id_)
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


def parse_catalog(payload: object) -> Catalog:
    """Return the catalog of a parsed model list: `{"models": [...]}` (0.4), or `{"data": [...]}` (0.3.6, and OpenAI's).

    An entry without a usable key is skipped, and `skipped` says which.
    Raises NotACatalog when there is no such list, or when no entry of it is usable.
    """
    body = payload if isinstance(payload, Mapping) else {}
    if isinstance(rows := body.get("models"), list):
        catalog = _parse_rows("v1", rows)
    elif isinstance(rows := body.get("data"), list):
        is_v0 = any(isinstance(row, Mapping) and ("type" in row or "state" in row) for row in rows)
        catalog = _parse_rows("v0" if is_v0 else "openai", rows)
    else:
        raise NotACatalog("neither 'models' nor 'data' is a list")
    if rows and not catalog.models:
        raise NotACatalog(f"no usable entry: {catalog.skipped[0]}")
    return catalog


def model_type(key: str, type_name: str | None = None) -> ModelType:
    """Return the type of a model by LM Studio's word for it, or by its key where it has none.

    A word that is not known here is "other": what it does is not known, and least of all that it chats.
    """
    if type_name:
        return MODEL_TYPES.get(type_name.lower(), "other")
    return "embedding" if bare_key(key).lower().startswith(EMBEDDING_PREFIX) else "llm"


def _type_name(type_name: str | None) -> str | None:
    """Return LM Studio's word for a type that is neither a chat model's nor an embedding model's."""
    return type_name if type_name and MODEL_TYPES.get(type_name.lower()) not in ("llm", "embedding") else None


def bare_key(key: str) -> str:
    """Return a key without its publisher: `gpt-oss-20b` for `openai/gpt-oss-20b`."""
    return key.partition("/")[2] or key


# The entries as they come over the wire, as recorded from LM Studio 0.4 and 0.3.

T = TypeVar("T")


def _none_if_wrong(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    try:
        return validate(value)
    except ValidationError:
        return None


Lenient = Annotated[T | None, WrapValidator(_none_if_wrong)]
LenientList = Annotated[list[Lenient[T]] | None, WrapValidator(_none_if_wrong)]
Count = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Key = Annotated[StrictStr, StringConstraints(pattern=r"\S")]


class _V1Quantization(BaseModel):
    name: Lenient[StrictStr] = None
    bits_per_weight: Lenient[Number] = None


class _V1Config(BaseModel):
    context_length: Lenient[Count] = None


class _V1Instance(BaseModel):
    id: Key
    config: Lenient[dict[StrictStr, object]] = None
    remaining_ttl_seconds: Lenient[Number] = None

    def to_instance(self) -> Instance:
        config = self.config or {}
        return Instance(
            id=self.id,
            context_length=_V1Config.model_validate(config).context_length,
            remaining_ttl_seconds=self.remaining_ttl_seconds,
            config=config,
        )


class _V1Reasoning(BaseModel):
    allowed_options: LenientList[StrictStr] = None
    default: Lenient[StrictStr] = None

    def to_reasoning(self) -> ReasoningOptions:
        return ReasoningOptions(_present(self.allowed_options), self.default)


class _V1Capabilities(BaseModel):
    vision: Lenient[StrictBool] = None
    trained_for_tool_use: Lenient[StrictBool] = None
    reasoning: Lenient[_V1Reasoning] = None


class _V1Entry(BaseModel):
    key: Key
    type: Lenient[StrictStr] = None
    publisher: Lenient[StrictStr] = None
    display_name: Lenient[StrictStr] = None
    architecture: Lenient[StrictStr] = None
    quantization: Lenient[_V1Quantization] = None
    size_bytes: Lenient[Count] = None
    params_string: Lenient[StrictStr] = None
    loaded_instances: LenientList[_V1Instance] = None
    max_context_length: Lenient[Count] = None
    format: Lenient[StrictStr] = None
    capabilities: Lenient[_V1Capabilities] = None
    has_vision_adapter: Lenient[StrictBool] = None
    description: Lenient[StrictStr] = None
    variants: LenientList[Key] = None
    selected_variant: Lenient[Key] = None

    def to_model(self) -> Model:
        quantization = self.quantization or _V1Quantization()
        capabilities = self.capabilities or _V1Capabilities()
        reasoning = capabilities.reasoning
        return Model(
            key=self.key,
            type=model_type(self.key, self.type),
            type_name=_type_name(self.type),
            publisher=self.publisher,
            display_name=self.display_name,
            architecture=self.architecture,
            quantization=quantization.name,
            bits_per_weight=quantization.bits_per_weight,
            size_bytes=self.size_bytes,
            params=self.params_string,
            max_context_length=self.max_context_length,
            format=self.format,
            description=self.description,
            # Decision models have no `capabilities`.
            vision=self.has_vision_adapter if capabilities.vision is None else capabilities.vision,
            tools=capabilities.trained_for_tool_use,
            reasoning=reasoning.to_reasoning() if reasoning else None,
            capabilities_known=self.capabilities is not None,
            instances=tuple(entry.to_instance() for entry in _present(self.loaded_instances)),
            variants=_present(self.variants),
            selected_variant=self.selected_variant,
        )


class _V0Entry(BaseModel):
    id: Key
    type: Lenient[StrictStr] = None
    publisher: Lenient[StrictStr] = None
    arch: Lenient[StrictStr] = None
    compatibility_type: Lenient[StrictStr] = None
    quantization: Lenient[StrictStr] = None
    state: Lenient[StrictStr] = None
    max_context_length: Lenient[Count] = None
    loaded_context_length: Lenient[Count] = None
    capabilities: LenientList[StrictStr] = None

    def to_model(self) -> Model:
        key, is_further_instance = _split_instance(self.id)
        loaded = self.state == "loaded" or (self.state is None and is_further_instance)
        return Model(
            key=key,
            type=model_type(key, self.type),
            type_name=_type_name(self.type),
            publisher=self.publisher,
            architecture=self.arch,
            quantization=self.quantization,
            max_context_length=self.max_context_length,
            format=self.compatibility_type,
            vision=None if self.type is None else self.type == "vlm",
            tools=None if self.capabilities is None else "tool_use" in self.capabilities,
            capabilities_known=self.capabilities is not None,
            instances=(Instance(self.id, self.loaded_context_length),) if loaded else (),
            state=self.state,
        )


class _OpenAIEntry(BaseModel):
    id: Key

    def to_model(self) -> Model:
        key, is_further_instance = _split_instance(self.id)
        instances = (Instance(self.id),) if is_further_instance else ()
        return Model(key=key, type=model_type(key), instances=instances)


_ENTRIES: Final[Mapping[Source, type[_V1Entry | _V0Entry | _OpenAIEntry]]] = {
    "v1": _V1Entry,
    "v0": _V0Entry,
    "openai": _OpenAIEntry,
}
_KEY_FIELDS: Final[Mapping[Source, str]] = {"v1": "key", "v0": "id", "openai": "id"}

_FURTHER_INSTANCE: Final = re.compile(r"(?P<key>.*\S):[0-9]+", re.DOTALL)


def _split_instance(entry_id: str) -> tuple[str, bool]:
    """Split `key:2`, the id of a further instance of `key`; the older lists have an entry for each."""
    match = _FURTHER_INSTANCE.fullmatch(entry_id)
    return (match["key"], True) if match else (entry_id, False)


def _present(values: list[T | None] | None) -> tuple[T, ...]:
    return tuple(value for value in values or () if value is not None)


def _parse_rows(source: Source, rows: list[dict[str, object]]) -> Catalog:
    entry_model = _ENTRIES[source]
    models: dict[str, Model] = {}
    skipped = []
    for number, row in enumerate(rows):
        try:
            entry = entry_model.model_validate(row)
        except ValidationError:
            skipped.append(f"entry {number} has no usable {_KEY_FIELDS[source]}")
            continue
        model = replace(entry.to_model(), raw=row)
        first = models.get(model.key)
        models[model.key] = _merge(first, model, _KEY_FIELDS[source]) if first else model
    return Catalog(tuple(models.values()), source, tuple(skipped))


def _merge(first: Model, further: Model, key_field: str) -> Model:
    """Merge two entries of one key: the instances of both, and the rest from the entry that is not an instance's.

    Linked devices can have the same key, and instances of the same id: each of them is one that can be unloaded.
    """
    described = first if first.raw[key_field] == first.key else further
    state = "loaded" if "loaded" in (first.state, further.state) else described.state
    return replace(described, instances=(*first.instances, *further.instances), state=state)
