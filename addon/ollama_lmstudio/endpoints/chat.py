"""`POST /api/chat` -> `/v1/chat/completions`."""

from __future__ import annotations

from ..ollama import errors
from ..ollama.requests import ChatRequest
from ..outcomes import Call, Request, Response
from ..services import Services
from ..threads import run_in_thread_if_large
from ..translate import inference, loading, mapping
from ..translate.stream import CHAT


async def chat(incoming: Request, services: Services) -> Response | Call:
    """Answer a chat; without messages, load or unload the model. Checks come in Ollama's order."""
    request = await ChatRequest.read(incoming.body)
    request.check_top_logprobs()
    if not request.model:
        raise errors.model_required()
    found = await inference.find_model(request.model, services)
    model = found.model
    if not request.messages and request.keep_alive is not None and request.keep_alive.unload:
        return await loading.unload_answer(CHAT, request.model, model, services)
    inference.check_thinking(request.think, request.model, model, services)
    if model.type == "embedding":
        raise errors.chat_unsupported(request.model)
    if request.tools and model.capabilities_known and model.tools is False:
        raise errors.tools_unsupported(inference.canonical_name(request.model))
    request.check_debug()
    given = inference.merge_options(found, request.options, request.extras)
    request.check_format()
    if not request.messages:
        return await loading.load_answer(CHAT, request.model, found, request.keep_alive, given, services)
    await loading.prepare(found, request.keep_alive, given, services)
    mapped = mapping.options_to_lmstudio(given, request.extras, mapping.CHAT_COMPLETIONS)
    response_format = request.format if request.format is not None else given.get("format")
    system = given.get("system")
    messages = await run_in_thread_if_large(len(incoming.body), inference.converse, found, request.messages, system)
    body = inference.chat_body(
        found,
        messages,
        mapped,
        response_format=response_format,
        tools=request.tools,
        tool_choice=request.extras.get("tool_choice"),
        think=request.think,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
        keep_alive=request.keep_alive,
    )
    wishes = inference.response_options(request, body)
    return inference.make_call(
        mapping.CHAT_COMPLETIONS,
        body,
        found,
        request.model,
        incoming,
        services,
        CHAT,
        wishes,
        split_think=request.think is not False and inference.thinks(model, services) is not False,
        keep_alive=request.keep_alive,
        unsupported=mapped.unsupported,
    )
