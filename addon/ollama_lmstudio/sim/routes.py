"""LM Studio's routes: one table, and a handler for each."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote

from . import listings
from .answer import Dialect
from .anthropic import Messages, anthropic_error, message_prompt
from .backend import Backend
from .connection import SimExchange
from .decisions import decide
from .engine import GenerationError, outlived
from .generate import Prompt, embedding
from .inference import NativeInference, SimInference, Stateful, native_load_failure
from .models import Version
from .native import NativeChat
from .openai import Chat, Completion, embeddings
from .responses import Responses, response_prompt
from .state import Instance
from .validate import (
    CHAT_KEYS,
    COMPLETION_KEYS,
    EMBEDDING_KEYS,
    chat_prompt,
    check_native,
    completion_prompt,
    embedding_inputs,
    native_prompt,
    read_body,
)
from .wire import JSON_TYPE, ApiError, JsonObject, native_error, openai_error, plain_error

GREETING = b'{"lmstudio":true}'

Found = re.Match[str]
Handler = Callable[[Backend, SimExchange, Found], Awaitable[None]]


@dataclass(frozen=True)
class SimRoute:
    """A route, the feature it came with, and the keys of a request it takes notice of."""

    method: str
    pattern: re.Pattern[str]
    handle: Handler
    since: str | None = None
    known_keys: frozenset[str] = frozenset()


def find_route(method: str, path: str, version: Version) -> tuple[SimRoute, Found] | tuple[None, None]:
    """Find the route of a request, as Express does: whatever the case, with or without a final slash."""
    for route in ROUTES:
        if route.method == method and (route.since is None or version.has(route.since)):
            found = route.pattern.fullmatch(path)
            if found:
                return route, found
    return None, None


# Lists and models


async def greeting(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Answer that this is LM Studio."""
    await exchange.reply(200, JSON_TYPE, GREETING, backend.extra_headers)


async def openai_models(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """List the models in OpenAI's way."""
    await backend.send(exchange, listings.openai_models(backend.state))


async def openai_model(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Describe a model in OpenAI's way."""
    name = unquote(found["id"])
    item = listings.openai_model(backend.state, name)
    if item is None:
        raise plain_error(f"Model with identifier '{name}' not found", 404)
    await backend.send(exchange, item)


async def v0_models(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """List the models in the way of the older REST API."""
    await backend.send(exchange, {"data": listings.v0_models(backend.state), "object": "list"})


async def v0_model(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Describe a model in the way of the older REST API; only its id will do."""
    name = unquote(found["id"])
    item = next((item for item in listings.v0_models(backend.state) if item["id"] == name), None)
    if item is None:
        raise openai_error(f"Model with identifier '{name}' not found", status=404)
    await backend.send(exchange, item)


async def native_models(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """List the models with their instances."""
    await backend.send(
        exchange, {"models": [listings.native_model(backend.state, model) for model in backend.state.listed()]}
    )


async def load(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Load a model, again if it is loaded; the answer comes when that is done."""
    body = read_body(exchange.record.body, native=True)
    check_native(body, "load")
    model = backend.state.find(body["model"])
    if model is None:
        message = f"Model {body['model']} not found in downloaded models"
        raise ApiError(404, {"error": {"type": "model_not_found", "message": message}})
    config = {key: body[key] for key in listings.LOAD_SETTINGS if key in body}
    # The load goes on when the client has gone.
    work = backend.engine.load(model, context_length=body.get("context_length"), config=config)
    loaded: Instance | str = await outlived(backend.engine.background(work))
    if isinstance(loaded, str):
        raise native_load_failure(model, loaded)
    answer: JsonObject = {
        "type": model.type,
        "instance_id": loaded.id,
        "load_time_seconds": round(model.load_seconds, 3),
        "status": "loaded",
    }
    if body.get("echo_load_config"):
        answer["load_config"] = listings.load_config(loaded)
    await backend.send(exchange, answer)


async def unload(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Unload an instance."""
    body = read_body(exchange.record.body, native=True)
    check_native(body, "unload")
    name = body["instance_id"]
    instance = backend.state.instance(name)
    if instance is None:
        message = f"Model with instance identifier '{name}' is not loaded."
        raise ApiError(404, {"error": {"type": "model_not_found", "message": message}})
    backend.engine.remove(instance)
    await backend.send(exchange, {"instance_id": name})


async def download(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Begin a download."""
    body = read_body(exchange.record.body, native=True)
    check_native(body, "download")
    name = body["model"]
    if "quantization" in body and not name.startswith("https://huggingface.co/"):
        message = "Quantization can only be specified for Hugging Face URLs"
        raise native_error(message, code="invalid_value", param="quantization")
    await backend.send(exchange, backend.state.start_download(name, body.get("quantization")))


async def download_status(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Answer with the state of a download."""
    await backend.send(exchange, backend.state.download_status(found["id"]))


# Inference


async def chat(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Complete a chat."""
    prompt = chat_prompt(read_body(exchange.record.body), backend.version)
    await SimInference(backend, exchange, prompt, Chat, v0=_is_v0(found), model_error_indent=4).run()


async def completions(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Complete a text, without a template."""
    prompt = completion_prompt(read_body(exchange.record.body))
    await SimInference(backend, exchange, prompt, Completion, v0=_is_v0(found)).run()


async def embed(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Embed texts."""
    body = read_body(exchange.record.body)
    texts = embedding_inputs(body)
    inference = SimInference(backend, exchange, Prompt(body, text="\n".join(texts)), Dialect, kind="embedding")
    instance, _ = await inference.instance()
    try:
        async with backend.engine.slot(instance) as run:
            await run.pause(exchange.fault.prefill)
            vectors = [embedding(text, instance.model, instance.context_length) for text in texts]
    except GenerationError as problem:
        raise plain_error(problem.message, problem.status) from None
    await backend.send(exchange, embeddings(instance, vectors))


async def responses(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Answer in the way of OpenAI's newer API."""
    prompt = response_prompt(read_body(exchange.record.body))
    await Stateful(backend, exchange, prompt, Responses).run()


async def messages(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Answer in the way of Anthropic."""
    try:
        prompt = message_prompt(read_body(exchange.record.body))
        await SimInference(backend, exchange, prompt, Messages).run()
    except ApiError as problem:
        error = problem.body["error"]
        if "type" in problem.body:
            raise
        raise anthropic_error(error if isinstance(error, str) else error["message"], problem.status) from None


async def systemone(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Answer questions with a decision model."""
    await decide(backend, exchange)


async def native_chat(backend: Backend, exchange: SimExchange, found: Found) -> None:
    """Answer in LM Studio's own way."""
    body = read_body(exchange.record.body, native=True)
    prompt = native_prompt(body)
    await NativeInference(backend, exchange, prompt, NativeChat).run()


def _is_v0(found: Found) -> bool:
    return found.string.lower().startswith("/api/v0/")


def _route(
    method: str,
    pattern: str,
    handle: Handler,
    since: str | None = None,
    known_keys: frozenset[str] = frozenset(),
) -> SimRoute:
    return SimRoute(method, re.compile(f"{pattern}/?", re.IGNORECASE), handle, since, known_keys)


ROUTES = (
    _route("GET", "/lmstudio-greeting", greeting),
    _route("GET", "/v1/models", openai_models),
    _route("GET", "/v1/models/(?P<id>.+?)", openai_model),
    _route("POST", "/v1/chat/completions", chat, known_keys=CHAT_KEYS),
    # Without CORS a preflight runs into the handler, here alone.
    _route("OPTIONS", "/v1/chat/completions", chat),
    _route("POST", "/v1/completions", completions, known_keys=COMPLETION_KEYS),
    _route("POST", "/v1/embeddings", embed, known_keys=EMBEDDING_KEYS),
    _route("POST", "/v1/responses", responses, "responses"),
    _route("POST", "/v1/messages", messages, "messages"),
    _route("POST", "/v1/systemone", systemone, "systemone"),
    _route("GET", "/api/v0/models", v0_models, "api_v0"),
    _route("GET", "/api/v0/models/(?P<id>.+?)", v0_model, "api_v0"),
    _route("POST", "/api/v0/chat/completions", chat, "api_v0", CHAT_KEYS),
    _route("POST", "/api/v0/completions", completions, "api_v0", COMPLETION_KEYS),
    _route("POST", "/api/v0/embeddings", embed, "api_v0", EMBEDDING_KEYS),
    _route("POST", "/api/v1/chat", native_chat, "api_v1"),
    _route("GET", "/api/v1/models", native_models, "api_v1"),
    _route("POST", "/api/v1/models/load", load, "api_v1"),
    _route("POST", "/api/v1/models/unload", unload, "api_v1"),
    _route("POST", "/api/v1/models/download", download, "api_v1"),
    _route("GET", "/api/v1/models/download/status/(?P<id>[^/]+)", download_status, "api_v1"),
)

# Where faults strike unless they name a path.
INFERENCE_PATHS = frozenset(
    f"{base}/{name}" for base in ("/v1", "/api/v0") for name in ("chat/completions", "completions", "embeddings")
) | {"/v1/responses", "/v1/messages", "/api/v1/chat"}
