"""`POST /api/show`: what LM Studio's list says of one model, and what an alias adds. Nothing is loaded for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..lmstudio.catalog import Model
from ..ollama import errors, names
from ..ollama.quoting import quote
from ..ollama.requests import ShowRequest
from ..outcomes import Request, Response
from ..services import Services
from ..state.aliases import Alias
from ..translate.inference import ResolvedModel, display_not_found, find_model
from ..translate.listing import ListEntry, capabilities, details, display_name, family, parameter_count

# Not a template that anything runs: LM Studio applies the model's own, and does not tell it. Clients search this text
# for what a model can do.
TEMPLATE = "{{- if .System }}{{ .System }}{{ end }}{{ .Prompt }}"
TEMPLATE_TOOLS = "{{- if .Tools }}{{ .Tools }}{{ end }}"
TEMPLATE_SUFFIX = "{{- if .Suffix }}{{ .Suffix }}{{ end }}"

# What a model adds to its requests: nothing.
_NOTHING = Alias("", "", 0, 0)


async def show(incoming: Request, services: Services) -> Response:
    """Describe a model or an alias."""
    request = await ShowRequest.read(incoming.body)
    name = request.model
    if not name:
        raise errors.model_required()
    if names.is_cloud(name):
        raise errors.cloud_disabled("remote model details are unavailable")
    found = await find_model(name, services, display_not_found)
    copilot = incoming.headers.get("user-agent", "").startswith("GitHubCopilotChat/")
    return Response.json(describe(found, request, services, basename=name if copilot else None))


def describe(
    found: ResolvedModel, request: ShowRequest, services: Services, *, basename: str | None = None
) -> dict[str, Any]:
    """Give the answer of /api/show.

    The request's `system` and `options` are shown as if they were the model's, the latter in `modelfile` only.
    `basename` replaces the unique name in `general.basename`.
    """
    model, adds = found.model, found.alias or _NOTHING
    entry = ListEntry(model, found.alias)
    can = capabilities(model, services)
    system = request.system or adds.system
    base = adds.target if found.alias else model.key
    return {
        "license": "\n".join(adds.license),
        "modelfile": _modelfile(entry.name, base, adds, system, {**adds.parameters, **(request.options or {})}),
        "parameters": "\n".join(f"{key:<30} {_go_value(item)}" for key, item in _items(adds.parameters)),
        "template": adds.template or _template(can),
        **({"system": system} if system else {}),
        "details": {**details(model), "parent_model": display_name(model) if found.alias else ""},
        **({"messages": adds.messages} if adds.messages else {}),
        "model_info": model_info(
            model,
            basename or _unique_name(entry, services),
            services.dimensions.get(model.key),
            verbose=request.verbose,
        ),
        "capabilities": can,
        "modified_at": entry.modified_at,
    }


def _unique_name(entry: ListEntry, services: Services) -> str:
    """Give the name that a person knows a model by, and its key too where several models have the same."""
    if entry.alias is not None:
        return entry.name.removesuffix(":latest")
    model, catalog = entry.model, services.catalog.last
    shown = model.display_name or model.key
    others = [other for other in catalog.models if other.key != model.key] if catalog else []
    return f"{shown} ({model.key})" if any(other.display_name == shown for other in others) else shown


def _template(can: list[str]) -> str:
    if "completion" not in can:
        return "{{ .Prompt }}"
    return (TEMPLATE_TOOLS if "tools" in can else "") + TEMPLATE + (TEMPLATE_SUFFIX if "insert" in can else "")


def _items(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give parameters one by one, each value of a list by itself."""
    for key, value in parameters.items():
        for item in value if isinstance(value, list) else [value]:
            yield key, item


def _go_value(value: Any) -> str:
    """Write a value as Go's `%#v` does."""
    return quote(value) if isinstance(value, str) else _plain(value)


def _plain(value: Any) -> str:
    """Write a value as Go's `%v` does."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _modelfile(name: str, base: str, adds: Alias, system: str, parameters: Mapping[str, Any]) -> str:
    """Write the text that would make the model anew, commands in Ollama's order."""
    commands = [("FROM", base)]
    commands += [("ADAPTER", path) for path in adds.adapters]
    commands += [("TEMPLATE", adds.template)] if adds.template else []
    commands += [("SYSTEM", system)] if system else []
    commands += [(f"PARAMETER {key}", _plain(item)) for key, item in _items(parameters)]
    commands += [("LICENSE", text) for text in adds.license]
    commands += [(f"MESSAGE {message['role']}", message["content"]) for message in adds.messages]
    return (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {name}\n\n" + "".join(f"{command} {_modelfile_text(text)}\n" for command, text in commands)
    )


def _modelfile_text(text: str) -> str:
    """Quote a text where it would not be read back as it is."""
    if "\n" not in text and text == text.strip(" "):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def model_info(
    model: Model, basename: str, embedding_length: int | None = None, *, verbose: bool = False
) -> dict[str, Any]:
    """Give the facts as Ollama's flat keys, sorted, and LM Studio's own under `lmstudio.`.

    The one key that ends in `context_length` is the loaded instance's, if there is one: it is what a prompt may have
    now.
    """
    architecture = family(model)
    loaded = next((instance.context_length for instance in model.instances if instance.context_length), None)
    length = loaded or model.max_context_length
    info: dict[str, Any] = {"general.architecture": architecture, "general.basename": basename}
    info |= {f"{architecture}.context_length": length} if length else {}
    info |= {f"{architecture}.embedding_length": embedding_length} if embedding_length else {}
    count = parameter_count(model)
    info |= {"general.parameter_count": count} if count else {}
    facts: dict[str, Any] = {
        "lmstudio.key": model.key,
        "lmstudio.publisher": model.publisher,
        "lmstudio.format": model.format,
        "lmstudio.bits_per_weight": model.bits_per_weight,
        "lmstudio.max_context": model.max_context_length,
        "lmstudio.loaded": model.loaded,
    }
    if verbose:
        facts |= {
            "lmstudio.description": model.description,
            "lmstudio.variants": list(model.variants) or None,
            "lmstudio.selected_variant": model.selected_variant,
            "lmstudio.instances": [instance.id for instance in model.instances] or None,
        }
    return dict(sorted((info | {key: value for key, value in facts.items() if value is not None}).items()))
