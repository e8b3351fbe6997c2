"""`POST /api/generate` -> `/v1/chat/completions`, or `/v1/completions` where no template may be applied."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from ..ollama import errors
from ..ollama.requests import GenerateRequest, Message
from ..ollama.templates import TemplateError, check_template
from ..outcomes import Call, Request, Response
from ..services import Services
from ..threads import run_in_thread_if_large
from ..translate import fim
from ..translate.context import Turn, pack, unpack
from ..translate.inference import Inference, MakeContext, chat_call, completion_call, load_answer, unload_answer
from ..translate.line_format import GENERATE
from ..translate.messages import conversation_to_lmstudio
from ..translate.models import canonical_name, find_model
from ..translate.options import merge_options
from ..translate.thinking import check_thinking
from ..translate.turns import turns_of
from ..translate.unsupported import log_unsupported


async def generate(request: Request, services: Services) -> Response | Call:
    """Complete a prompt; without one, load or unload the model. Checks come in Ollama's order."""
    body = await GenerateRequest.read(request.body)
    body.check_top_logprobs()
    if not body.model:
        raise errors.model_not_found(body.model)
    resolved = await find_model(body.model, services)
    model = resolved.model
    if not body.prompt and body.keep_alive is not None and body.keep_alive.unload:
        return await unload_answer(GENERATE, body.model, resolved, services)
    body.check_raw()
    check_thinking(body.think, body.model, model, services)
    if model.type != "llm":
        raise errors.generate_unsupported(body.model)
    join_suffix = fim.template_for(model) if body.suffix else None
    if body.suffix and join_suffix is None:
        raise errors.insert_unsupported(canonical_name(body.model))
    body.check_debug()
    options = merge_options(resolved.alias, body.options, body.extras)
    body.check_format()
    inference = Inference(request, body, resolved, options, GENERATE, services)
    if not body.prompt and not body.suffix:
        return await load_answer(inference)
    await inference.prepare()

    if join_suffix is not None:
        return _completion(inference, body, join_suffix(body.prompt, body.suffix), [])
    turns = _earlier_turns(body, services)
    call = await _call(inference, body, turns)
    call.turns = turns_of([*turns, Turn("user", body.prompt)])
    return call


async def _call(inference: Inference, body: GenerateRequest, turns: list[Turn]) -> Call:
    """Return the call for a prompt that continues a conversation."""
    if body.raw:
        return _completion(inference, body, body.prompt, turns)
    await run_in_thread_if_large(len(body.template), _check_template, body.template)
    if body.images:
        messages = await asyncio.to_thread(_conversation, inference, body, turns)
    else:
        messages = _conversation(inference, body, turns)
    if inference.services.settings.generate_endpoint == "completions" and not body.images:
        contents = [message["content"] for message in messages if isinstance(message["content"], str)]
        return _completion(inference, body, "\n\n".join(contents), turns)
    # A chat of one turn, so that LM Studio applies the model's template, as Ollama does.
    unsupported = ["template"] if body.template else []
    return chat_call(inference, messages, unsupported=unsupported, context=_context(body, turns))


def _check_template(template: str) -> None:
    """Raise Ollama's error for a template that it cannot parse. One that it can is LM Studio's affair."""
    try:
        check_template(template)
    except TemplateError as e:
        raise errors.OllamaError(HTTPStatus.INTERNAL_SERVER_ERROR, str(e)) from None


def _earlier_turns(body: GenerateRequest, services: Services) -> list[Turn]:
    """Return the turns that `context` holds; none for a real Ollama's, which holds tokens."""
    turns = unpack(body.context) if body.context else []
    if turns is None:
        log_unsupported(["way to read the context of another server"], services)
    return turns or []


def _conversation(inference: Inference, body: GenerateRequest, turns: list[Turn]) -> list[dict[str, Any]]:
    """Return the messages of the conversation that a prompt continues."""
    messages = [Message(turn.role, turn.content) for turn in turns]
    messages.append(Message("user", body.prompt, images=body.images))
    system = body.system or inference.options.get("system")
    return conversation_to_lmstudio(inference.resolved.alias, messages, system)


def _context(body: GenerateRequest, turns: list[Turn]) -> MakeContext | None:
    """Return how the answer's `context` is made; Ollama returns none for raw prompts."""
    if body.raw:
        return None
    return lambda answer: pack([*turns, Turn("user", body.prompt), Turn("assistant", answer)])


def _completion(inference: Inference, body: GenerateRequest, prompt: str, turns: list[Turn]) -> Call:
    """Return the call that completes a prompt as it is, without a template."""
    if body.images:
        raise errors.OllamaError(HTTPStatus.BAD_REQUEST, "LM Studio has no images in raw prompts")
    unsupported = [
        f"{name} for raw prompts" for name, value in (("format", body.format), ("logprobs", body.logprobs)) if value
    ]
    return completion_call(inference, prompt, unsupported=unsupported, context=_context(body, turns))
