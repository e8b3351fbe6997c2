"""The way between LM Studio's keys and Ollama's names.

LM Studio answers a name it does not know with whatever model is loaded, so a name is resolved here first, and
only by rules that cannot pick a different model: there is no score and no nearest match.

A name is looked up in one index after another, and the first that knows it decides:

1. as it is written, with the publisher and then without: key, key and variant, instance id
2. in letters and digits: `gpt-oss:20b` is `openai/gpt-oss-20b`
3. as the beginning of a key, up to the end of a part of it: `llama3.1:8b` begins `llama-3.1-8b-instruct`

Case, `:latest`, a registry host and `library/` are no part of a name, and neither is the `text-embedding-`
that LM Studio puts before the keys of embedding models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .catalog import EMBEDDING_PREFIX, Catalog, Model, bare_key

DEFAULT_TAG: Final = "latest"
DEFAULT_NAMESPACE: Final = "library"


@dataclass(frozen=True, slots=True)
class Resolution:
    """A model, and the id that makes LM Studio use it: its key, a variant or an instance."""

    model: Model
    id: str


def ollama_name(key: str) -> str:
    """Name an LM Studio key as Ollama does: `key:latest`, or `key:q4_k_m` for `key@q4_k_m`.

    A variant never becomes the default tag, nor a tag that ends in `cloud`: Ollama's clients take that for a
    model that runs elsewhere.
    """
    tagged = _TAGGED_KEY.fullmatch(key)
    if tagged is None:
        return f"{key}:{DEFAULT_TAG}"
    name, tag = tagged.groups()
    if tag.lower() == DEFAULT_TAG or tag.lower().endswith("cloud"):
        return f"{name}-{tag}:{DEFAULT_TAG}"
    return f"{name}:{tag}"


def exact(catalog: Catalog, id_: str) -> Resolution | None:
    """Return the model whose key, or one of whose variants, is this id; None if LM Studio has it no longer."""
    keyed = (model for model in catalog.models if model.key == id_)
    of_variant = (model for model in catalog.models if id_ in _variants(model))
    model = next(keyed, None) or next(of_variant, None)
    return Resolution(model, id_) if model else None


class Resolver:
    """Find the model of one catalog that a client means."""

    def __init__(self, catalog: Catalog) -> None:
        self._stages: tuple[_Index, ...] = tuple({} for _ in range(6))
        self._letters: _Index = {}
        self._beginnings: _Index = {}
        for model in catalog.models:
            self._add(model)

    def resolve(self, name: str) -> Resolution | None:
        """Return the model and the id to send, or None if no model fits, or if several do.

        Of several that fit equally well the loaded one is taken, if only one of them is.
        """
        forms = list(_forms(_fold(name)))
        for form in forms:
            for index in self._stages:
                if found := index.get(form):
                    return _the_one(found)
        spoken = [_in_letters(form) for form in forms if not form.endswith(f":{DEFAULT_TAG}")]
        for index in (self._letters, self._beginnings):
            for form in spoken:
                if found := index.get(form):
                    return _the_one(found)
        return None

    def _add(self, model: Model) -> None:
        key = Resolution(model, model.key)
        variants = [(variant, Resolution(model, variant)) for variant in _variants(model)]
        if model.quantization:
            # A model of one quantization has no variants, and its key already means this one.
            variants.append((f"{model.key}@{model.quantization}", key))
        keys = [(model.key, key)]
        instances = [(instance.id, Resolution(model, instance.id)) for instance in model.instances]

        _enter(self._stages[0], _fold(ollama_name(model.key)), key)
        for stage, names in enumerate((keys, variants, instances)):
            for name, resolution in names:
                for alias in _with_publisher(model, name):
                    _enter(self._stages[stage], alias, resolution)
                for alias in _without_publisher(model, name):
                    _enter(self._stages[stage + 3], alias, resolution)
        for name, resolution in (*keys, *variants):
            for alias in (*_with_publisher(model, name), *_without_publisher(model, name)):
                _enter(self._letters, _in_letters(alias), resolution)
        for alias in (*_with_publisher(model, model.key), *_without_publisher(model, model.key)):
            for beginning in _beginnings(alias):
                _enter(self._beginnings, beginning, key)


_Index = dict[str, list[Resolution]]

_TAGGED_KEY: Final = re.compile(r"(.+)[@:]([^@:/]+)", re.DOTALL)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://")
# A dot between digits belongs to the number: `3.1` is one part, `3-1` are two.
_PART: Final = re.compile(r"(?:[^\W_]|(?<=\d)\.(?=\d))+")


def _enter(index: _Index, form: str, resolution: Resolution) -> None:
    """Add what a form can mean, once per model; the first id that a model enters stays."""
    entries = index.setdefault(form, [])
    if all(entry.model is not resolution.model for entry in entries):
        entries.append(resolution)


def _the_one(found: list[Resolution]) -> Resolution | None:
    loaded = found if len(found) == 1 else [resolution for resolution in found if resolution.model.loaded]
    return loaded[0] if len(loaded) == 1 else None


def _variants(model: Model) -> Iterator[str]:
    yield from model.variants
    if model.selected_variant and model.selected_variant not in model.variants:
        yield model.selected_variant


def _fold(name: str) -> str:
    return name.strip().lower()


def _without_publisher(model: Model, name: str) -> Iterator[str]:
    bare = _fold(bare_key(name))
    yield bare
    if model.type == "embedding" and bare.startswith(EMBEDDING_PREFIX):
        yield bare.removeprefix(EMBEDDING_PREFIX)


def _with_publisher(model: Model, name: str) -> Iterator[str]:
    """Yield the name as LM Studio writes it, and under the publisher that LM Studio tells."""
    yield _fold(name)
    if model.publisher:
        for bare in _without_publisher(model, name):
            yield f"{_fold(model.publisher)}/{bare}"


def _forms(name: str) -> Iterator[str]:
    """Yield what a folded name may be written as in the catalog, the most literal form first."""
    yield from _tag_forms(name)
    name = _SCHEME.sub("", name, count=1)
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first):
        yield from _tag_forms(name := rest)
    if name.startswith(f"{DEFAULT_NAMESPACE}/"):
        yield from _tag_forms(name.removeprefix(f"{DEFAULT_NAMESPACE}/"))


def _tag_forms(name: str) -> Iterator[str]:
    yield name
    head, slash, model = name.rpartition("/")
    model, colon, tag = model.rpartition(":")
    if colon:
        yield head + slash + (model if tag == DEFAULT_TAG else f"{model}@{tag}")


def _in_letters(name: str) -> str:
    """Reduce a name to its letters and digits; the publisher stays apart, and so do numbers side by side.

    Two numbers must not run together: `qwen3:4b` is `qwen3-4b`, but not `qwen-34b`.
    """
    *_, last = ("", *_beginnings(name))
    return last


def _beginnings(name: str) -> Iterator[str]:
    """Yield the letters and digits of a name up to the end of each of its parts."""
    publisher, slash, rest = name.partition("/")
    text = publisher + slash if slash else ""
    previous = ""
    for part in _PART.findall(rest if slash else name):
        text += "-" + part if previous[-1:].isdigit() and part[0].isdigit() else part
        previous = part
        yield text
