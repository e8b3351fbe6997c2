"""LM Studio's keys as Ollama's names, and Ollama's names back to LM Studio's models.

LM Studio answers a name it does not know with whatever model is loaded, so a name is resolved here first, and
only by rules that cannot pick a different model: there is no score and no nearest match.

A name is looked up in one index after another, and the first that knows it decides:

1. as it is written, with the publisher and then without: key, key and variant, instance id
2. in letters and digits: `gpt-oss:20b` is `openai/gpt-oss-20b`
3. as the beginning of a key, up to the end of a part of it: `llama3.1:8b` begins `llama-3.1-8b-instruct`

Case, `:latest`, a registry host and `library/` are no part of a name, and neither is the `text-embedding-`
that LM Studio puts before the keys of embedding models.

LM Studio makes keys of the names of folders, which Ollama's grammar of names need not allow: letters like é, spaces,
a dot in the publisher. Such a name is only looked up as it is written: Ollama refuses all others.

A Hugging Face repository, `hf.co/unsloth/Qwen3-4B-GGUF:Q4_K_M`, is `qwen3-4b` of the publisher `unsloth` with the
quantization `q4_k_m`: LM Studio drops `-GGUF` when it makes a key of a repository's name. It is one repository, so its
name is no beginning of another's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from ..lmstudio.catalog import EMBEDDING_PREFIX, Catalog, Model, Resolution, bare_key
from .downloads import HUGGING_FACE

DEFAULT_TAG: Final = "latest"
DEFAULT_NAMESPACE: Final = "library"
CLOUD_SUFFIX: Final = "cloud"
"""How the tag of a model ends that runs on ollama.com."""
LOCAL_TAG: Final = "local"
"""What is no tag, but says that the model does not run there."""


def ollama_name(key: str) -> str:
    """Return the Ollama name of an LM Studio key: `key:latest`, or `key:q4_k_m` for `key@q4_k_m`.

    A variant never becomes the default tag, nor one of those that say where a model runs: Ollama's clients take one
    that ends in `cloud` for a model that runs elsewhere.
    """
    tagged = _TAGGED_KEY.fullmatch(key)
    if tagged is None:
        return f"{key}:{DEFAULT_TAG}"
    name, tag = tagged.groups()
    if tag.lower() in (DEFAULT_TAG, LOCAL_TAG) or tag.lower().endswith(CLOUD_SUFFIX):
        return f"{name}-{tag}:{DEFAULT_TAG}"
    return f"{name}:{tag}"


# Clients use few names, again and again: what these mean is remembered, unless they are longer than any name is.
REMEMBERED: Final = 256
LONGEST_REMEMBERED: Final = 512


class Resolver:
    """Find the model of one catalog that a client means."""

    def __init__(self, catalog: Catalog) -> None:
        self._remembered = lru_cache(REMEMBERED)(self._find)
        # One index each for keys, variants and instance ids: a name is looked for in that order.
        self._with_publisher: tuple[_Index, _Index, _Index] = ({}, {}, {})
        self._without_publisher: tuple[_Index, _Index, _Index] = ({}, {}, {})
        self._reduced: _Index = {}
        self._beginnings: _Index = {}
        for model in catalog.models:
            self._add(model)

    def resolve(self, name: str) -> Resolution | None:
        """Return the model and the id to send, or None if no model fits, or if several do.

        Of several that fit equally well the loaded one is taken, if only one of them is.
        """
        return self._remembered(name) if len(name) <= LONGEST_REMEMBERED else self._find(name)

    def as_written(self, name: str) -> Resolution | None:
        """Return the model that has this very name, with its publisher or without; None if there is not one."""
        found = self._known(_tag_spellings(_fold(name)))
        return _only_candidate(found) if found else None

    def _known(self, spellings: Iterable[str]) -> list[Resolution] | None:
        """Return what the first spelling can mean that is one of a model."""
        indexes = (*self._with_publisher, *self._without_publisher)
        return next((found for spelling in spellings for index in indexes if (found := index.get(spelling))), None)

    def _find(self, name: str) -> Resolution | None:
        spellings = list(_spellings(_fold(name)))
        repositories = [shorter for spelling in spellings for shorter in _repository_spellings(spelling)]
        if known := self._known((*spellings, *repositories)):
            return _only_candidate(known)
        reduced = _all_reduced(spellings)
        beginnings = [] if _host(_fold(name)) in HUGGING_FACE else reduced
        for index, candidates in (
            (self._reduced, reduced + _all_reduced(repositories)),
            (self._beginnings, beginnings),
        ):
            for spelling in candidates:
                if found := index.get(spelling):
                    return _only_candidate(found)
        return None

    def _add(self, model: Model) -> None:
        by_key = Resolution(model, model.key)
        variants = [(variant, Resolution(model, variant)) for variant in model.all_variants]
        if model.quantization:
            # A model of one quantization has no variants, and its key already means this one.
            variants.append((f"{model.key}@{model.quantization}", by_key))
        keys = [(model.key, by_key)]
        instances = [(instance.id, Resolution(model, instance.id)) for instance in model.instances]

        _enter(self._with_publisher[0], _fold(ollama_name(model.key)), by_key)
        kinds = (keys, variants, instances)
        for full, bare, entries in zip(self._with_publisher, self._without_publisher, kinds, strict=True):
            for name, resolution in entries:
                for alias in _with_publisher(model, name):
                    _enter(full, alias, resolution)
                for alias in _without_publisher(model, name):
                    _enter(bare, alias, resolution)
        for name, resolution in (*keys, *variants):
            for alias in (*_with_publisher(model, name), *_without_publisher(model, name)):
                _enter(self._reduced, _letters_and_digits(alias), resolution)
        for alias in (*_with_publisher(model, model.key), *_without_publisher(model, model.key)):
            for beginning in _beginnings(alias):
                _enter(self._beginnings, beginning, by_key)


_Index = dict[str, list[Resolution]]

_TAGGED_KEY: Final = re.compile(r"(.+)[@:]([^@:/]+)", re.DOTALL)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://")
_REPOSITORY: Final = re.compile(r"(?P<name>[^/]+/[^/]*[^/@:])-gguf(?P<tag>[@:][^/@:]+)?")
_UNSLOTH_TAG: Final = re.compile(r"@ud-(\w+_xl)")
# A dot between digits belongs to the number: `3.1` is one part, `3-1` are two.
_PART: Final = re.compile(r"(?:[^\W_]|(?<=\d)\.(?=\d))+")


def _enter(index: _Index, spelling: str, resolution: Resolution) -> None:
    """Add what a spelling can mean, once per model; the first id that a model enters stays."""
    entries = index.setdefault(spelling, [])
    if all(entry.model is not resolution.model for entry in entries):
        entries.append(resolution)


def _only_candidate(found: list[Resolution]) -> Resolution | None:
    """Return the only model found, or the only loaded one of several; else None."""
    candidates = found if len(found) == 1 else [resolution for resolution in found if resolution.model.loaded]
    return candidates[0] if len(candidates) == 1 else None


def _fold(name: str) -> str:
    """Return a name without what makes no difference; macOS writes é as two characters in the names of files."""
    folded = name.strip().lower()
    return folded if folded.isascii() else unicodedata.normalize("NFC", folded)


def _without_publisher(model: Model, name: str) -> Iterator[str]:
    bare = _fold(bare_key(name))
    yield bare
    if model.type == "embedding" and bare.startswith(EMBEDDING_PREFIX):
        yield bare.removeprefix(EMBEDDING_PREFIX)


def _with_publisher(model: Model, name: str) -> Iterator[str]:
    """Yield the name as LM Studio writes it, and under the publisher that LM Studio reports."""
    yield _fold(name)
    if model.publisher:
        for bare in _without_publisher(model, name):
            yield f"{_fold(model.publisher)}/{bare}"


def _spellings(name: str) -> Iterator[str]:
    """Yield what a folded name may be written as in the catalog, the most literal spelling first."""
    yield from _tag_spellings(name)
    name = _SCHEME.sub("", name, count=1)
    if host := _host(name):
        yield from _tag_spellings(name := name[len(host) + 1 :])
    if name.startswith(f"{DEFAULT_NAMESPACE}/"):
        yield from _tag_spellings(name.removeprefix(f"{DEFAULT_NAMESPACE}/"))


def _host(name: str) -> str:
    """Return the host that a folded name begins with, after a scheme or not; an empty string if there is none."""
    first, slash, _ = _SCHEME.sub("", name, count=1).partition("/")
    return first if slash and ("." in first or ":" in first) else ""


def _repository_spellings(spelling: str) -> Iterator[str]:
    """Yield what LM Studio may have made of a Hugging Face repository's name, which ends in `-gguf`.

    Unsloth's quantizations are named `UD-Q4_K_XL`, of which LM Studio keeps `q4_k_xl`; there are no others of that
    size in the same repository.
    """
    repository = _REPOSITORY.fullmatch(spelling)
    if repository is not None:
        name, tag = repository["name"], repository["tag"] or ""
        yield name + tag
        if dynamic := _UNSLOTH_TAG.fullmatch(tag):
            yield f"{name}@{dynamic[1]}"


def _all_reduced(spellings: list[str]) -> list[str]:
    return [_letters_and_digits(spelling) for spelling in spellings if not spelling.endswith(f":{DEFAULT_TAG}")]


def _tag_spellings(name: str) -> Iterator[str]:
    """Yield a name as it is, and with its tag as LM Studio writes a variant: `key@tag`, the default tag left out."""
    yield name
    head, slash, model = name.rpartition("/")
    model, colon, tag = model.rpartition(":")
    if colon:
        yield head + slash + (model if tag == DEFAULT_TAG else f"{model}@{tag}")


def _letters_and_digits(name: str) -> str:
    """Reduce a name to its letters and digits; the publisher stays apart, and so do adjacent numbers.

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
