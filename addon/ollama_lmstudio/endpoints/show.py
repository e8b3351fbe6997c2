"""`POST /api/show`: one model as LM Studio lists it, with what an alias adds. Nothing is loaded."""

from __future__ import annotations

from typing import Any

from ..lmstudio.catalog import Model
from ..ollama import errors, names
from ..ollama.requests import ShowRequest
from ..outcomes import Request, Response
from ..services import Services
from ..state.aliases import Alias
from ..translate.listing import ListEntry, capabilities, context_length, details, display_name, family, parameter_count
from ..translate.modelfile import modelfile, parameter_lines
from ..translate.models import ResolvedModel, display_not_found, find_model
from ..translate.thinking import thinking_choices

# Not the template that is applied: LM Studio applies the model's own, and does not tell it. Clients search this text
# for the capabilities of a model.
TEMPLATE = "{{- if .System }}{{ .System }}{{ end }}{{ .Prompt }}"
TEMPLATE_TOOLS = "{{- if .Tools }}{{ .Tools }}{{ end }}"
TEMPLATE_SUFFIX = "{{- if .Suffix }}{{ .Suffix }}{{ end }}"

# What a model that is named by its own name adds to its requests.
_NO_ALIAS = Alias("", "", 0, 0)


async def show(request: Request, services: Services) -> Response:
    """Describe a model or an alias."""
    body = await ShowRequest.read(request.body)
    name = body.model
    if not name:
        raise errors.model_required()
    if names.is_cloud(name):
        raise errors.cloud_disabled("remote model details are unavailable")
    resolved = await find_model(name, services, display_not_found)
    # Copilot Chat shows `general.basename` as the name of the model: there it is the name that was asked for.
    copilot = request.headers.get("user-agent", "").startswith("GitHubCopilotChat/")
    return Response.json(describe(resolved, body, services, basename=name if copilot else None))


def describe(
    resolved: ResolvedModel, body: ShowRequest, services: Services, *, basename: str | None = None
) -> dict[str, Any]:
    """Return the answer of /api/show.

    The request's `system` and `options` are shown as if they were the model's, the latter in `modelfile` only.
    `basename` replaces the unique name in `general.basename`.
    """
    model, alias = resolved.model, resolved.alias or _NO_ALIAS
    entry = ListEntry(model, resolved.alias)
    model_capabilities = capabilities(model, services, resolved.alias)
    system = body.system or alias.system
    base = alias.target if resolved.alias else model.key
    return {
        "license": "\n".join(alias.license),
        "modelfile": modelfile(entry.name, base, alias, system, {**alias.parameters, **(body.options or {})}),
        "parameters": parameter_lines(alias.parameters),
        "template": alias.template or _template(model_capabilities),
        **{
            key: value
            for key, value in (("system", system), ("renderer", alias.renderer), ("parser", alias.parser))
            if value
        },
        "details": {**details(model), "parent_model": display_name(model) if resolved.alias else ""},
        **({"messages": alias.messages} if alias.messages else {}),
        "model_info": model_info(
            model,
            basename or _unique_name(entry, services),
            services.dimensions.get(model.key),
            verbose=body.verbose,
            tells_loaded=services.catalog.tells_loaded,
        ),
        "capabilities": model_capabilities,
        **({"thinking": choices} if (choices := thinking_choices(model)) else {}),
        "modified_at": entry.modified_at,
        **({"requires": alias.requires} if alias.requires else {}),
    }


def _unique_name(entry: ListEntry, services: Services) -> str:
    """Return the display name of a model, with its key where several models have the same."""
    if entry.alias is not None:
        return entry.name.removesuffix(":latest")
    model, catalog = entry.model, services.catalog.last
    shown = model.display_name or model.key
    others = [other for other in catalog.models if other.key != model.key] if catalog else []
    return f"{shown} ({model.key})" if any(other.display_name == shown for other in others) else shown


def _template(model_capabilities: list[str]) -> str:
    if "completion" not in model_capabilities:
        return "{{ .Prompt }}"
    tools = TEMPLATE_TOOLS if "tools" in model_capabilities else ""
    suffix = TEMPLATE_SUFFIX if "insert" in model_capabilities else ""
    return tools + TEMPLATE + suffix


def model_info(
    model: Model,
    basename: str,
    embedding_length: int | None = None,
    *,
    verbose: bool = False,
    tells_loaded: bool = True,
) -> dict[str, Any]:
    """Return the facts under Ollama's flat keys, and LM Studio's own under `lmstudio.`, sorted.

    Clients search for the one key that ends in `context_length`: it is the loaded instance's, if there is one, which
    limits prompts now.
    """
    architecture = family(model)
    length = context_length(model)
    info: dict[str, Any] = {"general.architecture": architecture, "general.basename": basename}
    info |= {f"{architecture}.context_length": length} if length else {}
    info |= {f"{architecture}.embedding_length": embedding_length} if embedding_length else {}
    count = parameter_count(model)
    info |= {"general.parameter_count": count} if count else {}
    facts: dict[str, Any] = {
        "lmstudio.key": model.key,
        "lmstudio.publisher": model.publisher,
        "lmstudio.format": model.format,
        "lmstudio.type": model.type_name,
        "lmstudio.bits_per_weight": model.bits_per_weight,
        "lmstudio.max_context": model.max_context_length,
        "lmstudio.loaded": model.loaded if tells_loaded else None,
    }
    if verbose:
        facts |= {
            "lmstudio.description": model.description,
            "lmstudio.variants": list(model.variants) or None,
            "lmstudio.selected_variant": model.selected_variant,
            "lmstudio.instances": [instance.id for instance in model.instances] or None,
        }
    return dict(sorted((info | {key: value for key, value in facts.items() if value is not None}).items()))
