"""Model names: `[scheme://][host/][namespace/]model[:tag]`, and the suffixes that choose between local and cloud.

The characters and lengths of the parts are those that Ollama accepts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from . import errors

_HOST = "registry.ollama.ai"
_NAMESPACE = "library"
_TAG = "latest"
_CLOUD_SUFFIX = "-cloud"

_FIRST = r"[A-Za-z0-9_]"
_NAME = re.compile(
    r"(?:(?:(?P<scheme>[^/]*?)://)?(?P<host>" + _FIRST + r"[A-Za-z0-9_.:-]{0,349})/"
    r"(?P<namespace>" + _FIRST + r"[A-Za-z0-9_-]{0,79})/"
    r"|(?P<only_namespace>" + _FIRST + r"[A-Za-z0-9_-]{0,79})/)?"
    r"(?P<model>" + _FIRST + r"[A-Za-z0-9_.-]{0,79})"
    r"(?::(?P<tag>" + _FIRST + r"[A-Za-z0-9_.-]{0,79}))?"
)


class Source(Enum):
    """Where a name requests its model to run."""

    UNSPECIFIED = "unspecified"
    LOCAL = "local"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class Name:
    """Hold the parts of a model name, defaults filled in, case as given."""

    model: str
    tag: str = _TAG
    namespace: str = _NAMESPACE
    host: str = _HOST

    @property
    def display(self) -> str:
        """Return the shortest form, with the tag: `plain:latest`, `ns/plain:7b`, `host/ns/plain:latest`."""
        if self.host.lower() != _HOST:
            return self.canonical
        if self.namespace.lower() != _NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def canonical(self) -> str:
        """Return the full form: `registry.ollama.ai/library/plain:latest`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        """Return the full form in lower case, which is the same for all spellings of a name."""
        return self.canonical.lower()


def parse_name(text: str) -> Name:
    """Parse a model name; surrounding white space and a `:local` suffix are ignored.

    Raises OllamaError (400): `invalid model name`, or the conflict that `split_source` reports.
    """
    base, source = split_source(text)
    match = _NAME.fullmatch(text.strip() if source is Source.CLOUD else base)
    if match is None:
        raise errors.invalid_model_name()
    return Name(
        model=match["model"],
        tag=match["tag"] or _TAG,
        namespace=match["namespace"] or match["only_namespace"] or _NAMESPACE,
        host=match["host"] or _HOST,
    )


def unchecked(text: str) -> Name:
    """Split `text` into the parts of a name without checking them, for errors in which Ollama shows invalid names."""
    _, _, text = text.strip().rpartition("://")
    path, _, last = text.rpartition("/")
    model, colon, tag = last.rpartition(":")
    host, _, namespace = path.rpartition("/")
    return Name(model if colon else last, tag if colon else _TAG, namespace or _NAMESPACE, host or _HOST)


def key_of(text: str) -> str | None:
    """Return the key of the name `text`; None if it is not valid."""
    try:
        return parse_name(text).key
    except errors.OllamaError:
        return None


def split_source(text: str) -> tuple[str, Source]:
    """Split off a suffix `:local`, `:cloud` or `-cloud`; return the rest of the name, and the source it requests.

    `foo:20b-cloud` is `foo:20b` in the cloud; a `-cloud` outside of a tag is no suffix. Raises OllamaError (400) if
    there is a second suffix.
    """
    text = text.strip()
    base, source = _cut_source(text)
    if source is not Source.UNSPECIFIED and _cut_source(base)[1] is not Source.UNSPECIFIED:
        raise errors.conflicting_source(text)
    return base, source


def is_cloud(text: str) -> bool:
    """Return whether a name requests a model of ollama.com, which is never looked up here."""
    return _cut_source(text.strip())[1] is Source.CLOUD


def _cut_source(text: str) -> tuple[str, Source]:
    base, colon, suffix = text.rpartition(":")
    suffix = suffix.strip()
    if not colon or "/" in suffix:
        return text, Source.UNSPECIFIED
    match suffix.lower():
        case "local":
            return base, Source.LOCAL
        case "cloud":
            return base, Source.CLOUD
        case lower if lower.endswith(_CLOUD_SUFFIX):
            return f"{base}:{suffix[: -len(_CLOUD_SUFFIX)]}", Source.CLOUD
        case _:
            return text, Source.UNSPECIFIED
