"""The lists of models, in LM Studio's three ways."""

from __future__ import annotations

from .models import SimModel
from .state import Instance, SimState
from .wire import JsonObject

# The settings of an explicit load, apart from the context length.
LOAD_SETTINGS = ("eval_batch_size", "flash_attention", "num_experts", "offload_kv_cache_to_gpu")
DEFAULT_CONFIG: JsonObject = {
    "eval_batch_size": 512,
    "flash_attention": True,
    "offload_kv_cache_to_gpu": True,
}


def openai_models(state: SimState) -> JsonObject:
    """List what `/v1/models` lists: everything on disk, or what is loaded if nothing loads on demand."""
    listed, loaded = [model.key for model in state.listed()], [instance.id for instance in state.loaded()]
    return {"data": [_openai_item(name) for name in (listed if state.jit else loaded)], "object": "list"}


def openai_model(state: SimState, name: str) -> JsonObject | None:
    """Describe one model of `/v1/models`, or return None."""
    return next((item for item in openai_models(state)["data"] if item["id"] == name), None)


def _openai_item(name: str) -> JsonObject:
    return {"id": name, "object": "model", "owned_by": "organization_owner"}


def v0_models(state: SimState) -> list[JsonObject]:
    """List what `/api/v0/models` lists: everything on disk, and a row more for each further instance."""
    rows = []
    for model in state.listed():
        instances = state.instances_of(model)
        first = next((instance for instance in instances if instance.id == model.key), None)
        rows.append(_v0_row(state, model, model.key, first))
        rows += [_v0_row(state, model, other.id, other) for other in instances if other is not first]
    return rows


def _v0_row(state: SimState, model: SimModel, name: str, instance: Instance | None) -> JsonObject:
    loading = any(load.model.key == model.key for load in state.loading)
    row: JsonObject = {
        "id": name,
        "object": "model",
        "type": _v0_type(model),
        "publisher": model.owner,
        "arch": model.architecture,
        "compatibility_type": model.format,
        "quantization": model.quantization,
        "state": "loaded" if instance else "loading" if loading else "not-loaded",
        "max_context_length": model.max_context_length,
    }
    if instance:
        row["loaded_context_length"] = instance.context_length
    if model.type == "llm" and model.tools and model.capabilities_known and state.version.has("capabilities_v0"):
        row["capabilities"] = ["tool_use"]
    return row


def _v0_type(model: SimModel) -> str:
    if model.type == "embedding":
        return "embeddings"
    return "vlm" if model.type == "llm" and model.vision else model.type


def native_model(state: SimState, model: SimModel) -> JsonObject:
    """Describe one model of `/api/v1/models`."""
    quantization = model.quantization
    row: JsonObject = {
        "type": model.type,
        "publisher": model.owner,
        "key": model.key,
        "display_name": model.title,
    }
    if model.type != "embedding":
        row["architecture"] = model.architecture
    row |= {
        "quantization": quantization and {"name": quantization, "bits_per_weight": model.bits_per_weight},
        "size_bytes": model.size_bytes,
        "params_string": model.params_string,
        "loaded_instances": [_native_instance(state, instance) for instance in state.instances_of(model)],
        "max_context_length": model.max_context_length,
        "format": model.format,
    }
    if model.type == "llm" and model.capabilities_known:
        capabilities: JsonObject = {"vision": model.vision, "trained_for_tool_use": model.tools}
        if model.reasoning and state.version.has("reasoning_control"):
            options = list(model.reasoning.allowed_options)
            capabilities["reasoning"] = {"allowed_options": options, "default": model.reasoning.default}
        row["capabilities"] = capabilities
    if model.type == "llm":
        row["description"] = model.description
    if model.type == "decision":
        row |= {"decision_type": "clef", "has_vision_adapter": model.vision}
    if model.variants:
        row |= {"variants": list(model.variants), "selected_variant": model.variants[0]}
    return row


def _native_instance(state: SimState, instance: Instance) -> JsonObject:
    message: JsonObject = {"reasoning_budget_message": ""} if state.version.has("remaining_ttl") else {}
    config: JsonObject
    if instance.model.format == "mlx":
        config = {"context_length": instance.context_length, "parallel": instance.parallel}
    elif instance.model.type == "embedding":
        config, message = {"context_length": instance.context_length}, {}
    else:
        settings = {**DEFAULT_CONFIG, **instance.config}
        config = {
            "context_length": instance.context_length,
            "eval_batch_size": settings.pop("eval_batch_size"),
            "parallel": instance.parallel,
            **settings,
        }
    row: JsonObject = {"id": instance.id, "config": {**config, **message}}
    left = instance.remaining_ttl(state.clock())
    if left is not None and state.version.has("remaining_ttl"):
        row["remaining_ttl_seconds"] = max(0, int(left))
    return row


def load_config(instance: Instance) -> JsonObject:
    """Describe how an instance was loaded, as an explicit load echoes it."""
    length = {"context_length": instance.context_length}
    if instance.model.type == "embedding":
        return length
    return {**length, **DEFAULT_CONFIG, **instance.config}
