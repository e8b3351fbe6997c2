"""`POST /api/generate` -> `/v1/chat/completions`, or `/v1/completions` where no template may be applied."""

from __future__ import annotations

from typing import Any

from ..ollama import errors
from ..ollama.requests import GenerateRequest, Message
from ..outcomes import Call, Request, Response
from ..services import Services
from ..translate import fim, inference, loading, mapping
from ..translate.context import Turn, pack, unpack
from ..translate.inference import ResolvedModel
from ..translate.stream import GENERATE


async def generate(incoming: Request, services: Services) -> Response | Call:
    """Complete a prompt; without one, load or unload the model. Checks come in Ollama's order."""
    request = await GenerateRequest.read(incoming.body)
    request.check_top_logprobs()
    if not request.model:
        raise errors.model_not_found(request.model)
    found = await inference.find_model(request.model, services)
    model = found.model
    if not request.prompt and request.keep_alive is not None and request.keep_alive.unload:
        return await loading.unload_answer(GENERATE, request.model, model, services)
    request.check_raw()
    inference.check_thinking(request.think, request.model, model, services)
    if model.type == "embedding":
        raise errors.generate_unsupported(request.model)
    template = fim.template_for(model) if request.suffix else None
    if request.suffix and template is None:
        raise errors.insert_unsupported(inference.canonical_name(request.model))
    request.check_debug()
    given = inference.merge_options(found, request.options, request.extras)
    request.check_format()
    if not request.prompt and not request.suffix:
        return await loading.load_answer(GENERATE, request.model, found, request.keep_alive, given, services)
    await loading.prepare(found, request.keep_alive, given, services)

    if template is not None:
        return _completion(request, template(request.prompt, request.suffix), found, given, incoming, services, [])
    system = request.system or given.get("system") or ""
    earlier = _earlier(request, services)
    policy = services.settings.generate_endpoint
    if request.raw or (policy == "completions" and not request.images):
        prompt = request.prompt
        if not request.raw:
            said = _messages(request, system, earlier, found)
            prompt = "\n\n".join(message["content"] for message in said if isinstance(message["content"], str))
        return _completion(request, prompt, found, given, incoming, services, earlier)
    return _chat(request, system, earlier, found, given, incoming, services)


def _earlier(request: GenerateRequest, services: Services) -> list[Turn]:
    """Give the turns that `context` holds; that of a real Ollama cannot be read."""
    turns = unpack(request.context) if request.context else []
    if turns is None:
        inference.log_unsupported(["way to read the context of another server"], services)
    return turns or []


def _messages(request: GenerateRequest, system: str, earlier: list[Turn], found: ResolvedModel) -> list[dict[str, Any]]:
    """Give the conversation that a prompt continues."""
    turns = [Message(turn.role, turn.content) for turn in earlier]
    return inference.converse(found, [*turns, Message("user", request.prompt, images=request.images)], system)


def _chat(
    request: GenerateRequest,
    system: str,
    earlier: list[Turn],
    found: ResolvedModel,
    given: dict[str, Any],
    incoming: Request,
    services: Services,
) -> Call:
    """Ask as a chat of one turn, so that LM Studio applies the model's template, as Ollama does."""
    mapped = mapping.options_to_lmstudio(given, request.extras, mapping.CHAT_COMPLETIONS)
    if request.template:
        mapped.unsupported.append("template")
    body = inference.chat_body(
        found,
        _messages(request, system, earlier, found),
        mapped,
        response_format=request.format if request.format is not None else given.get("format"),
        think=request.think,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
        keep_alive=request.keep_alive,
    )
    return _call(mapping.CHAT_COMPLETIONS, body, mapped.unsupported, request, found, incoming, services, earlier)


def _completion(
    request: GenerateRequest,
    prompt: str,
    found: ResolvedModel,
    given: dict[str, Any],
    incoming: Request,
    services: Services,
    earlier: list[Turn],
) -> Call:
    """Ask for the bare completion of a prompt."""
    if request.images:
        raise errors.OllamaError(400, "LM Studio has no images in raw prompts")
    mapped = mapping.options_to_lmstudio(given, request.extras, mapping.COMPLETIONS)
    for name, value in (("format", request.format), ("logprobs", request.logprobs)):
        if value:
            mapped.unsupported.append(f"{name} for raw prompts")
    body = inference.completion_body(found, prompt, mapped, request.keep_alive)
    return _call(mapping.COMPLETIONS, body, mapped.unsupported, request, found, incoming, services, earlier)


def _call(
    path: str,
    body: dict[str, Any],
    unsupported: list[str],
    request: GenerateRequest,
    found: ResolvedModel,
    incoming: Request,
    services: Services,
    earlier: list[Turn],
) -> Call:
    def context(answer: str) -> list[int]:
        return pack([*earlier, Turn("user", request.prompt), Turn("assistant", answer)])

    # What comes from a raw prompt is the model's text as it is.
    split = request.think is not False and not request.raw and inference.thinks(found.model, services) is not False
    wishes = inference.response_options(request, body)
    return inference.make_call(
        path,
        body,
        found,
        request.model,
        incoming,
        services,
        GENERATE,
        wishes,
        split_think=split,
        context=None if request.raw else context,
        keep_alive=request.keep_alive,
        unsupported=unsupported,
    )
