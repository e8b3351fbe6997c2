"""LM Studio's routes: one table, and a handler for each."""

from __future__ import annotations

import asyncio
import re
import string
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from . import listings
from .answer import Answer, Dialect
from .anthropic import Messages, anthropic_error, message_prompt
from .connection import Exchange
from .engine import GenerationError, LoadError, Performance, Run
from .generate import Generation, Prompt, count_tokens, embedding
from .models import SimModel, Version
from .native import NativeChat, event
from .openai import Chat, Completion, embeddings
from .responses import Responses, response_prompt
from .state import Instance
from .validate import (
    CHAT_KEYS,
    COMPLETION_KEYS,
    EMBEDDING_KEYS,
    chat_prompt,
    check_native,
    check_reasoning,
    completion_prompt,
    embedding_inputs,
    native_prompt,
    read_body,
)
from .wire import JSON_TYPE, ApiError, JsonObject, native_error, openai_error, plain_error, stringify

if TYPE_CHECKING:
    from .server import Sim

GREETING = b'{"lmstudio":true}'

Found = re.Match[str]
Handler = Callable[["Sim", Exchange, Found], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    """A route, the feature it came with, and the keys of a request it takes notice of."""

    method: str
    pattern: re.Pattern[str]
    handle: Handler
    since: str | None = None
    known_keys: frozenset[str] = frozenset()


def find_route(method: str, path: str, version: Version) -> tuple[Route, Found] | tuple[None, None]:
    """Find the route of a request, as Express does: whatever the case, with or without a final slash."""
    for route in ROUTES:
        if route.method == method and (route.since is None or version.has(route.since)):
            found = route.pattern.fullmatch(path)
            if found:
                return route, found
    return None, None


# Lists and models


async def greeting(sim: Sim, exchange: Exchange, found: Found) -> None:
    await exchange.reply(200, JSON_TYPE, GREETING, sim.extra_headers)


async def openai_models(sim: Sim, exchange: Exchange, found: Found) -> None:
    await _send(sim, exchange, listings.openai_models(sim.state))


async def openai_model(sim: Sim, exchange: Exchange, found: Found) -> None:
    name = unquote(found["id"])
    item = listings.openai_model(sim.state, name)
    if item is None:
        raise plain_error(f"Model with identifier '{name}' not found", 404)
    await _send(sim, exchange, item)


async def v0_models(sim: Sim, exchange: Exchange, found: Found) -> None:
    await _send(sim, exchange, {"data": listings.v0_models(sim.state), "object": "list"})


async def v0_model(sim: Sim, exchange: Exchange, found: Found) -> None:
    name = unquote(found["id"])
    item = next((item for item in listings.v0_models(sim.state) if item["id"] == name), None)
    if item is None:
        raise openai_error(f"Model with identifier '{name}' not found", status=404)
    await _send(sim, exchange, item)


async def native_models(sim: Sim, exchange: Exchange, found: Found) -> None:
    await _send(sim, exchange, {"models": [listings.native_model(sim.state, model) for model in sim.state.on_disk()]})


async def load(sim: Sim, exchange: Exchange, found: Found) -> None:
    body = read_body(exchange.record.body, native=True)
    check_native(body, "load")
    model = sim.state.find(body["model"])
    if model is None:
        message = f"Model {body['model']} not found in downloaded models"
        raise ApiError(404, {"error": {"type": "model_not_found", "message": message}})
    config = {key: body[key] for key in listings.LOAD_SETTINGS if key in body}
    # The load goes on when the client has gone.
    work = sim.engine.load(model, context_length=body.get("context_length"), config=config)
    loaded = await _shielded(sim.engine.background(work))
    if isinstance(loaded, str):
        raise _native_load_failure(model, loaded)
    answer: JsonObject = {
        "type": model.type,
        "instance_id": loaded.id,
        "load_time_seconds": round(model.load_seconds, 3),
        "status": "loaded",
    }
    if body.get("echo_load_config"):
        answer["load_config"] = listings.load_config(loaded)
    await _send(sim, exchange, answer)


async def unload(sim: Sim, exchange: Exchange, found: Found) -> None:
    body = read_body(exchange.record.body, native=True)
    check_native(body, "unload")
    name = body["instance_id"]
    instance = sim.state.instance(name)
    if instance is None:
        message = f"Model with instance identifier '{name}' is not loaded."
        raise ApiError(404, {"error": {"type": "model_not_found", "message": message}})
    sim.engine.remove(instance)
    await _send(sim, exchange, {"instance_id": name})


async def download(sim: Sim, exchange: Exchange, found: Found) -> None:
    body = read_body(exchange.record.body, native=True)
    check_native(body, "download")
    name = body["model"]
    if "quantization" in body and not name.startswith("https://huggingface.co/"):
        message = "Quantization can only be specified for Hugging Face URLs"
        raise native_error(message, code="invalid_value", param="quantization")
    await _send(sim, exchange, sim.state.start_download(name))


async def download_status(sim: Sim, exchange: Exchange, found: Found) -> None:
    await _send(sim, exchange, sim.state.download_status(found["id"]))


# Inference


async def chat(sim: Sim, exchange: Exchange, found: Found) -> None:
    prompt = chat_prompt(read_body(exchange.record.body), sim.version)
    await Inference(sim, exchange, prompt, Chat, v0=_is_v0(found), model_error_indent=4).run()


async def completions(sim: Sim, exchange: Exchange, found: Found) -> None:
    prompt = completion_prompt(read_body(exchange.record.body))
    await Inference(sim, exchange, prompt, Completion, v0=_is_v0(found)).run()


async def embed(sim: Sim, exchange: Exchange, found: Found) -> None:
    body = read_body(exchange.record.body)
    texts = embedding_inputs(body)
    inference = Inference(sim, exchange, Prompt(body, text="\n".join(texts)), Dialect, kind="embedding")
    instance, _ = await inference.instance()
    try:
        async with sim.engine.slot(instance) as run:
            await run.pause(exchange.fault.prefill)
            vectors = [embedding(text, instance.model, instance.context_length) for text in texts]
    except GenerationError as problem:
        raise plain_error(problem.message, problem.status) from None
    await _send(sim, exchange, embeddings(instance, vectors))


async def responses(sim: Sim, exchange: Exchange, found: Found) -> None:
    prompt = response_prompt(read_body(exchange.record.body))
    await Stateful(sim, exchange, prompt, Responses).run()


async def messages(sim: Sim, exchange: Exchange, found: Found) -> None:
    try:
        prompt = message_prompt(read_body(exchange.record.body))
        await Inference(sim, exchange, prompt, Messages).run()
    except ApiError as problem:
        error = problem.body["error"]
        if "type" in problem.body:
            raise
        raise anthropic_error(error if isinstance(error, str) else error["message"], problem.status) from None


async def native_chat(sim: Sim, exchange: Exchange, found: Found) -> None:
    body = read_body(exchange.record.body, native=True)
    prompt = native_prompt(body)
    await NativeInference(sim, exchange, prompt, NativeChat).run()


class Inference:
    """One request that a model answers, from its name to the end of the answer."""

    def __init__(
        self,
        sim: Sim,
        exchange: Exchange,
        prompt: Prompt,
        dialect: type[Dialect],
        *,
        v0: bool = False,
        kind: Literal["llm", "embedding"] = "llm",
        model_error_indent: int = 2,
    ) -> None:
        self.sim = sim
        self.exchange = exchange
        self.prompt = prompt
        self.streams = prompt.body.get("stream") is True
        self._dialect = dialect
        self._v0 = v0
        self._kind: Literal["llm", "embedding"] = kind
        self._model_error_indent = model_error_indent

    async def run(self) -> None:
        """Answer the request."""
        if self.streams and self.exchange.fault.headers_first:
            self.exchange.open_stream(self.sim.extra_headers)
            await self.exchange.flush()
        try:
            instance, load_seconds = await self.instance()
            self.check_model(instance.model)
            async with self.sim.engine.slot(instance) as run:
                reply = await self._perform(run, load_seconds)
            if reply is not None:
                await _send(self.sim, self.exchange, reply)
        except GenerationError as problem:
            await self._fail(self._dialect.refusal(problem.message, problem.status))
        except ApiError as problem:
            await self._fail(problem)

    async def _fail(self, problem: ApiError) -> None:
        """Answer with an error, in the stream if there is one already. Raises ApiError."""
        if not self.exchange.streaming or self.exchange.ended:
            raise problem
        for frame in self._dialect.failure(problem):
            await self.exchange.write(frame)
        self.exchange.end_stream()

    def check_model(self, model: SimModel) -> None:
        """Check the request against the model that answers it. Raises ApiError."""

    async def instance(self) -> tuple[Instance, float | None]:
        """Find or load the model. Raises ApiError."""
        await _sleep(self.exchange.fault.cold_load)
        ttl = self.prompt.body.get("ttl")
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or ttl <= 0:
            ttl = None
        try:
            return await self.acquire(ttl)
        except LoadError as problem:
            raise self.load_failure(problem) from None
        except ApiError as problem:
            problem.indent = self._model_error_indent
            raise

    async def acquire(self, ttl: float | None) -> tuple[Instance, float | None]:
        """Get the instance that answers to the name in the request. Raises ApiError, LoadError."""
        state, name = self.sim.state, self.prompt.body.get("model")
        return await self.sim.engine.acquire(lambda: state.resolve(name, self._kind), ttl)

    def response_id(self) -> str | None:
        """Return the id under which the conversation is kept, where there is such a thing."""
        return None

    def load_failure(self, problem: LoadError) -> ApiError:
        """Make the error for a load that failed."""
        error = self.sim.state.load_failure(problem.model.key, problem.reason)
        error.indent = self._model_error_indent
        return error

    async def _perform(self, run: Run, load_seconds: float | None) -> JsonObject | None:
        """Generate the answer; stream it, or return it."""
        sim, instance, prompt = self.sim, run.instance, self.prompt
        script = sim.take_script(prompt)
        tokens, overflow = self._fit(instance)
        steps: Any
        if script:
            steps, room = script.steps(prompt) if callable(script.steps) else script.steps, None
        else:
            seen = prompt if instance.model.vision else replace(prompt, images=0)
            steps, room = sim.generator(seen, instance.model), instance.context_length - tokens
        generation = Generation(steps, prompt, new_call_id=lambda: sim.engine.new_call_id(instance.model), room=room)
        answer = Answer(
            id=self._dialect.id_prefix + sim.engine.new_id(21),
            created=int(time.time()),
            instance=instance,
            prompt=prompt,
            generation=generation,
            version=sim.version,
            new_id=lambda: sim.engine.new_id(22),
            new_call_number=lambda: sim.engine.new_id(15, string.digits),
            response_id=self.response_id(),
            separate_reasoning=sim.settings.separate_reasoning,
            prompt_tokens=tokens,
            load_seconds=load_seconds,
        )
        dialect = self._dialect(answer, v0=self._v0)
        performance = Performance(
            self.exchange,
            run,
            dialect,
            delay=sim.settings.token_delay,
            coalesce=sim.settings.coalesce,
            extra_headers=sim.extra_headers,
        )
        try:
            if overflow:
                raise GenerationError(overflow)
            if not self.streams:
                return await performance.whole()
            await performance.stream()
        except GenerationError as problem:
            error = self.exchange.fault.mid_error
            in_stream = self.exchange.streaming or error or (overflow and sim.settings.overflow == "stream")
            if not (self.streams and in_stream):
                raise
            frames = dialect.error(problem.message, old_style=bool(error and error.old_style))
            await performance.finish([*frames, *([dialect.done] if error and error.done else [])])
        return None

    def _fit(self, instance: Instance) -> tuple[int, str]:
        """Return the tokens of the prompt as the model gets it, and the error if it does not fit."""
        tokens, room = self.prompt.tokens, instance.context_length
        if tokens <= room:
            return tokens, ""
        if self.sim.settings.overflow == "cut" and count_tokens(self.prompt.last_user) < room:
            return int(room * KEPT_AFTER_CUT), ""
        detail = {
            "code": 400,
            "message": f"request ({tokens} tokens) exceeds the available context size ({room} tokens), "
            "try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": tokens,
            "n_ctx": room,
        }
        inner = stringify({"error": detail}).decode()
        return tokens, f"Engine protocol predict request returned 400: {inner}"


class Stateful(Inference):
    """A request that may go on with a stored conversation, and is stored itself unless it says not to."""

    async def run(self) -> None:
        """Answer the request. Raises ApiError for a conversation that is not stored."""
        earlier = self.prompt.body.get("previous_response_id")
        if earlier is not None:
            history = self.sim.responses.get(earlier)
            if history is None:
                raise self.not_stored(earlier)
            self.prompt.text = f"{history}\n{self.prompt.text}"
        await super().run()

    def not_stored(self, response_id: object) -> ApiError:
        """Make the error for a conversation that is not stored."""
        message = f"Response with id '{response_id}' not found"
        return openai_error(message, param="previous_response_id", code="invalid_value")

    def response_id(self) -> str | None:
        """Store the conversation, unless the request says not to."""
        response_id = "resp_" + self.sim.engine.new_id(48, "0123456789abcdef")
        if self.prompt.body.get("store", True) is False:
            return None if self._dialect is NativeChat else response_id
        self.sim.responses[response_id] = self.prompt.text
        return response_id


class NativeInference(Stateful):
    """A native chat: the model must exist, and a stream tells how its load goes."""

    def not_stored(self, response_id: object) -> ApiError:
        """Make the error for a conversation that is not stored."""
        message = f"Response with id '{response_id}' not found"
        return native_error(message, param="previous_response_id", code="invalid_value")

    async def acquire(self, ttl: float | None) -> tuple[Instance, float | None]:
        """Get an instance of exactly the model that is asked for. Raises ApiError, LoadError."""
        engine, length = self.sim.engine, self.prompt.body.get("context_length")
        watch = self._watch if self.streams else None
        return await engine.acquire(self._resolve, ttl, context_length=length, watch=watch)

    def _resolve(self) -> Instance | SimModel:
        state, name = self.sim.state, self.prompt.body["model"]
        if instance := state.instance(name):
            return instance
        model = state.find(name)
        if model is None or model.type != "llm":
            message = state.unknown(name).body["error"]["message"]
            raise native_error(message, code="model_not_found", param="model", status=404)
        return next(iter(state.instances_of(model)), model)

    def check_model(self, model: SimModel) -> None:
        """Check that the model has the reasoning setting that is asked for. Raises ApiError."""
        check_reasoning(self.prompt.body, model, self.sim.version)

    def load_failure(self, problem: LoadError) -> ApiError:
        """Make the error for a load that failed."""
        return _native_load_failure(problem.model, problem.reason)

    async def _watch(self, model: SimModel, load: asyncio.Task[Instance | str]) -> None:
        if not self.exchange.streaming:
            self.exchange.open_stream(self.sim.extra_headers)
        write, name = self.exchange.write, {"model_instance_id": model.key}
        await write(event("chat.start", **name))
        await write(event("model_load.start", **name))
        for step in range(LOAD_PROGRESS_STEPS):
            await write(event("model_load.progress", **name, progress=step / LOAD_PROGRESS_STEPS))
            await asyncio.wait([load], timeout=model.load_seconds / LOAD_PROGRESS_STEPS)
        if isinstance(await asyncio.shield(load), Instance):
            await write(event("model_load.end", **name, load_time_seconds=round(model.load_seconds, 3)))


def _native_load_failure(model: SimModel, reason: str) -> ApiError:
    message = f'Failed to load model "{model.key}". Error: {reason}'
    return ApiError(500, {"error": {"type": "model_load_failed", "message": message}})


# How often a native stream tells of a load.
LOAD_PROGRESS_STEPS = 4
# How much of the context a conversation fills that was cut in the middle.
KEPT_AFTER_CUT = 0.75


def _is_v0(found: Found) -> bool:
    return found.string.lower().startswith("/api/v0/")


async def _send(sim: Sim, exchange: Exchange, value: Any) -> None:
    await exchange.reply_json(200, value, extra=sim.extra_headers)


async def _sleep(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _shielded(task: asyncio.Task[Instance | str]) -> Instance | str:
    return await asyncio.shield(task)


def _route(
    method: str,
    pattern: str,
    handle: Handler,
    since: str | None = None,
    known_keys: frozenset[str] = frozenset(),
) -> Route:
    return Route(method, re.compile(f"{pattern}/?", re.IGNORECASE), handle, since, known_keys)


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
