"""LM Studio's model lists as they come over the wire, as recorded from LM Studio 0.4 and 0.3.

The shape decides, not the path that was requested: LM Studio answers 200 to unknown paths, too.
Every field but the key is optional and lenient: a value of the wrong type is None, and the rest of the entry is kept.
Whoever parses a list imports this when it does: pydantic, and what it makes of these classes, take a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Final, TypeVar

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

from .catalog import (
    Catalog,
    Instance,
    Model,
    NotACatalog,
    ReasoningOptions,
    Source,
    model_type,
    split_instance,
    unknown_type,
)


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
            type_name=unknown_type(self.type),
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
        key, is_further_instance = split_instance(self.id)
        loaded = self.state == "loaded" or (self.state is None and is_further_instance)
        return Model(
            key=key,
            type=model_type(key, self.type),
            type_name=unknown_type(self.type),
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
        key, is_further_instance = split_instance(self.id)
        instances = (Instance(self.id),) if is_further_instance else ()
        return Model(key=key, type=model_type(key), instances=instances)


_ENTRIES: Final[Mapping[Source, type[_V1Entry | _V0Entry | _OpenAIEntry]]] = {
    "v1": _V1Entry,
    "v0": _V0Entry,
    "openai": _OpenAIEntry,
}
_KEY_FIELDS: Final[Mapping[Source, str]] = {"v1": "key", "v0": "id", "openai": "id"}


def _present(values: list[T | None] | None) -> tuple[T, ...]:
    return tuple(value for value in values or () if value is not None)


def _parse_rows(source: Source, rows: list[dict[str, object]]) -> Catalog:
    entry_model = _ENTRIES[source]
    entries: dict[str, list[Model]] = {}
    skipped = []
    for number, row in enumerate(rows):
        try:
            entry = entry_model.model_validate(row)
        except ValidationError:
            skipped.append(f"entry {number} has no usable {_KEY_FIELDS[source]}")
            continue
        model = replace(entry.to_model(), raw=row)
        entries.setdefault(model.key, []).append(model)
    models = (found[0] if len(found) == 1 else _merge(found, _KEY_FIELDS[source]) for found in entries.values())
    return Catalog(tuple(models), source, tuple(skipped))


def _merge(entries: list[Model], key_field: str) -> Model:
    """Merge the entries of one key: the instances of all, and the rest from one that is not an instance's.

    Linked devices can have the same key, and instances of the same id: each of them is one that can be unloaded. Of
    their entries the rest is from the first that is loaded, since that answers, else from the first. Where they differ
    in quantization, each is a variant.
    """
    of_models = [model for model in entries if model.raw[key_field] == model.key] or entries[-1:]
    described = next((model for model in of_models if model.loaded), of_models[0])
    variants = dict.fromkeys(variant for model in of_models for variant in model.variants)
    quantizations = dict.fromkeys(model.quantization for model in of_models if model.quantization)
    if not variants and len(quantizations) > 1:
        variants = dict.fromkeys(f"{described.key}@{quantization.lower()}" for quantization in quantizations)
    is_loaded = any(model.state == "loaded" for model in entries)
    return replace(
        described,
        instances=tuple(instance for model in entries for instance in model.instances),
        variants=tuple(variants),
        state="loaded" if is_loaded else described.state,
    )
