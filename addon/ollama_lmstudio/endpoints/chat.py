"""`POST /api/chat` -> `/v1/chat/completions`."""

from __future__ import annotations

from ..ollama import errors
from ..ollama.requests import ChatRequest
from ..outcomes import Call, Request, Response
from ..services import Services
from ..threads import LARGE_BYTES, run_in_thread_if_large
from ..translate.inference import Inference, chat_call, load_answer, unload_answer
from ..translate.line_format import CHAT
from ..translate.messages import conversation_to_lmstudio
from ..translate.models import canonical_name, find_model
from ..translate.options import merge_options
from ..translate.thinking import check_thinking
from ..translate.turns import turns_of


async def chat(request: Request, services: Services) -> Response | Call:
    """Answer a chat; without messages, load or unload the model. Checks come in Ollama's order."""
    body = await ChatRequest.read(request.body)
    body.check_top_logprobs()
    if not body.model:
        raise errors.model_required()
    resolved = await find_model(body.model, services)
    model, alias = resolved.model, resolved.alias
    if not body.messages and body.keep_alive is not None and body.keep_alive.unload:
        return await unload_answer(CHAT, body.model, resolved, services)
    check_thinking(body.think, body.model, model, services)
    if model.type != "llm":
        raise errors.chat_unsupported(body.model)
    if body.tools and model.capabilities_known and model.tools is False:
        raise errors.tools_unsupported(canonical_name(body.model))
    body.check_debug()
    options = merge_options(alias, body.options, body.extras)
    body.check_format()
    inference = Inference(request, body, resolved, options, CHAT, services)
    if not body.messages:
        return await load_answer(inference)
    await inference.prepare()
    has_images = any(message.images for message in body.messages)
    # An image of few bytes may have many pixels to be converted.
    size, system = LARGE_BYTES if has_images else len(request.body), options.get("system")
    messages = await run_in_thread_if_large(size, conversation_to_lmstudio, alias, body.messages, system)
    call = chat_call(inference, messages)
    call.turns = turns_of((message.role, message.content) for message in body.messages)
    return call
