"""LM Studio's models in Ollama's lists. Values that LM Studio does not have are derived, so that they stay the same."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..lmstudio.catalog import Catalog, Model
from ..ollama import names, times
from ..services import Services
from ..state.aliases import Alias
from . import fim
from .models import find_aliases
from .names import ollama_name
from .thinking import thinks

SECOND = 10**9
"""In ns, as all times are here."""

# LM Studio has no dates: every model gets this one, so that clients that sort by date keep the order of the list.
MODIFIED = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * SECOND

_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)\s*([KMBT])", re.IGNORECASE)
_SCALE = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One entry of a list: a model under its own name, or under an alias."""

    model: Model
    alias: Alias | None = None

    @property
    def name(self) -> str:
        """The name that clients see."""
        return self.alias.name if self.alias else display_name(self.model)

    @property
    def modified(self) -> int:
        """When it was modified, in ns since the epoch."""
        return self.alias.modified if self.alias else MODIFIED

    @property
    def modified_at(self) -> str:
        """When it was modified, as RFC 3339 has it."""
        return times.rfc3339(self.modified)

    @property
    def namespace(self) -> str:
        """The namespace of its name: `library` for a name without one."""
        return names.unchecked(self.name).namespace


def list_entries(catalog: Catalog, services: Services) -> list[ListEntry]:
    """Return LM Studio's models, then their aliases; an alias hides the model that has the same name."""
    aliases = services.aliases.all()
    models = [ListEntry(model) for model in catalog.models if names.key_of(display_name(model)) not in aliases]
    return models + [ListEntry(resolved.model, resolved.alias) for resolved in find_aliases(catalog, services)]


def display_name(model: Model) -> str:
    """Return the name that clients see."""
    return ollama_name(model.key)


def size(model: Model) -> int:
    """Return the bytes on disk; 0 where LM Studio does not tell."""
    return model.size_bytes or 0


def context_length(model: Model) -> int | None:
    """Return the context length of the loaded model, else the longest that it can have; None where neither is known."""
    return model.context_length_for(model.key) or model.max_context_length


def capabilities(model: Model, services: Services, alias: Alias | None = None) -> list[str]:
    """Return the capabilities of a model, of those that Ollama has, and those that an alias adds.

    A model of a type that Ollama does not have is shown under LM Studio's word for it, as no model for chats.
    """
    added = alias.capabilities if alias else []
    return list(dict.fromkeys((*_own_capabilities(model, services), *added)))


def _own_capabilities(model: Model, services: Services) -> list[str]:
    match model.type:
        case "embedding":
            return ["embedding"]
        case "decision":
            return ["decision", "vision"] if model.vision else ["decision"]
        case "other":
            return [(model.type_name or "unknown").lower()]
    has = {
        "completion": True,
        "tools": model.tools is not False if not model.capabilities_known else bool(model.tools),
        "insert": fim.template_for(model) is not None,
        "vision": bool(model.vision),
        "thinking": thinks(model, services) is True,
    }
    return [capability for capability, present in has.items() if present]


def digest(model: Model, services: Services, alias: Alias | None = None) -> str:
    """Return 64 hexadecimal digits that change only when the model, its capabilities or what an alias adds change.

    Clients use it as the model's identity, and cache what they know of the model under it.
    """
    facts = [model.key, str(model.size_bytes), str(model.quantization), *capabilities(model, services)]
    if alias is not None:
        # Aliases that differ in name and dates alone are the same model.
        facts.append(json.dumps(asdict(replace(alias, name="", created=0, modified=0)), sort_keys=True))
    identity = "\n".join(facts)
    return hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()


def family(model: Model) -> str:
    """Return the architecture; for embedding models, of which LM Studio tells none, the usual one."""
    if model.architecture:
        return model.architecture
    if model.type == "embedding":
        return "nomic-bert" if "nomic" in model.key.lower() else "bert"
    return "unknown"


def parameter_count(model: Model) -> int | None:
    """Return the number of parameters: `26B-A4B` has 26 billion, of which 4 are active."""
    match = _PARAMETERS.search(model.params or "")
    return round(float(match[1]) * _SCALE[match[2].upper()]) if match else None


def details(model: Model) -> dict[str, Any]:
    """Return the `details` that all of Ollama's lists have; never a null, on which clients break."""
    return {
        "parent_model": "",
        "format": model.format or "gguf",
        "family": family(model),
        "families": [family(model)],
        "parameter_size": model.params or "unknown",
        "quantization_level": model.quantization or "unknown",
    }


def tag_entry(entry: ListEntry, services: Services) -> dict[str, Any]:
    """Return one entry of /api/tags."""
    model = entry.model
    length = {"context_length": model.max_context_length} if model.max_context_length else {}
    return {
        "name": entry.name,
        "model": entry.name,
        "modified_at": entry.modified_at,
        "size": size(model),
        "digest": digest(model, services, entry.alias),
        "details": {**details(model), **length},
        "capabilities": capabilities(model, services, entry.alias),
    }
