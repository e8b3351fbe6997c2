"""The way of a request through a model: its name, its load, its place among others, its answer."""

from __future__ import annotations

import asyncio
import string
import time
from dataclasses import replace
from typing import Any, Literal

from .answer import Answer, Dialect
from .backend import Backend
from .connection import SimExchange
from .engine import GenerationError, LoadError, Performance, Run, outlived
from .generate import Generation, Prompt, count_tokens
from .models import SimModel
from .native import NativeChat, event
from .state import Instance
from .validate import check_reasoning
from .wire import ApiError, JsonObject, native_error, openai_error, stringify

# How often a native stream tells of a load.
LOAD_PROGRESS_STEPS = 4
# How much of the context a conversation fills that was cut in the middle.
KEPT_AFTER_CUT = 0.75


class SimInference:
    """One request that a model answers, from its name to the end of the answer."""

    honours_ttl = True

    def __init__(
        self,
        backend: Backend,
        exchange: SimExchange,
        prompt: Prompt,
        dialect: type[Dialect],
        *,
        v0: bool = False,
        kind: Literal["llm", "embedding"] = "llm",
        model_error_indent: int = 2,
    ) -> None:
        self.backend = backend
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
            self.exchange.open_stream(self.backend.extra_headers)
            await self.exchange.flush()
        try:
            instance, load_seconds = await self.instance()
            self.check_model(instance.model)
            async with self.backend.engine.slot(instance) as run:
                reply = await self._perform(run, load_seconds)
            if reply is not None:
                await self.backend.send(self.exchange, reply)
        except GenerationError as problem:
            if not await self._ends_untold(problem):
                await self._fail(self._dialect.refusal(problem.message, problem.status))
        except ApiError as problem:
            await self._fail(problem)

    async def _fail(self, problem: ApiError) -> None:
        """Answer with an error, in the stream if there is one already. Raises ApiError."""
        if not self.exchange.begun or self.exchange.ended:
            raise problem
        for frame in self._dialect.failure(problem):
            await self.exchange.write(frame)
        self.exchange.end_stream()

    async def _ends_untold(self, problem: GenerationError) -> bool:
        """End the answer of a device that was lost in a way that does not tell; return whether it is to end so."""
        match problem.how:
            case "error":
                return False
            case "hang":
                await self.exchange.wait_for_client()
            case "end" if self.exchange.begun:
                self.exchange.end_stream()
            case how:
                self.exchange.drop(rst=how == "rst")
        return True

    def check_model(self, model: SimModel) -> None:
        """Check the request against the model that answers it. Raises ApiError."""

    async def instance(self) -> tuple[Instance, float | None]:
        """Find or load the model. Raises ApiError."""
        await asyncio.sleep(self.exchange.fault.cold_load)
        ttl = self.prompt.body.get("ttl") if self.honours_ttl else None
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
        state, name = self.backend.state, self.prompt.body.get("model")
        return await self.backend.engine.acquire(lambda: state.resolve(name, self._kind), ttl)

    def response_id(self) -> str | None:
        """Return the id under which the conversation is kept, where there is such a thing."""
        return None

    def load_failure(self, problem: LoadError) -> ApiError:
        """Return the error for a load that failed."""
        error = self.backend.state.load_failure(problem.model.key, problem.reason)
        error.indent = self._model_error_indent
        return error

    async def _perform(self, run: Run, load_seconds: float | None) -> JsonObject | None:
        """Generate the answer; stream it, or return it."""
        backend, instance, prompt = self.backend, run.instance, self.prompt
        script = backend.take_script(prompt)
        tokens, overflow = self._fit(instance)
        steps: Any
        if script:
            steps, room = script.steps(prompt) if callable(script.steps) else script.steps, None
        else:
            seen = prompt if instance.model.vision else replace(prompt, images=0)
            steps, room = backend.generator(seen, instance.model), instance.context_length - tokens
        generation = Generation(
            steps, prompt, new_call_id=lambda: backend.engine.new_call_id(instance.model), room=room
        )
        answer = Answer(
            id=self._dialect.id_prefix + backend.engine.new_id(21),
            created=int(time.time()),
            instance=instance,
            prompt=prompt,
            generation=generation,
            version=backend.version,
            new_id=lambda: backend.engine.new_id(22),
            new_call_number=lambda: backend.engine.new_id(15, string.digits),
            response_id=self.response_id(),
            separate_reasoning=backend.settings.separate_reasoning,
            counts_tokens=backend.settings.counts_tokens,
            prompt_tokens=tokens,
            load_seconds=load_seconds,
            cached_tokens=backend.settings.cached_tokens,
        )
        dialect = self._dialect(answer, v0=self._v0)
        performance = Performance(
            self.exchange,
            run,
            dialect,
            delay=backend.settings.token_delay,
            coalesce=backend.settings.coalesce,
            extra_headers=backend.extra_headers,
        )
        try:
            if overflow:
                raise GenerationError(overflow)
            if not self.streams:
                return await performance.whole()
            await performance.stream()
        except GenerationError as problem:
            error = self.exchange.fault.mid_error
            in_stream = self.exchange.begun or error or (overflow and backend.settings.overflow == "stream")
            if not (self.streams and in_stream) or problem.how != "error":
                raise
            frames = dialect.error(problem.message, old_style=bool(error and error.old_style))
            await performance.finish([*frames, *([dialect.done] if error and error.done else [])])
        return None

    def _fit(self, instance: Instance) -> tuple[int, str]:
        """Return the tokens of the prompt as the model gets it, and the error if it does not fit."""
        tokens, room = self.prompt.tokens, instance.context_length
        if tokens <= room:
            return tokens, ""
        if self.backend.settings.overflow == "cut" and count_tokens(self.prompt.last_user) < room:
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


class Stateful(SimInference):
    """A request that may go on with a stored conversation, and is stored itself unless it says not to."""

    honours_ttl = False

    async def run(self) -> None:
        """Answer the request. Raises ApiError for a conversation that is not stored."""
        earlier = self.prompt.body.get("previous_response_id")
        if earlier is not None:
            history = self.backend.responses.get(earlier)
            if history is None:
                raise self.not_stored(earlier)
            self.prompt.text = f"{history}\n{self.prompt.text}"
        await super().run()

    def not_stored(self, response_id: object) -> ApiError:
        """Return the error for a conversation that is not stored."""
        message = f"Response with id '{response_id}' not found"
        return openai_error(message, param="previous_response_id", code="invalid_value")

    def response_id(self) -> str | None:
        """Store the conversation, unless the request says not to."""
        response_id = "resp_" + self.backend.engine.new_id(48, "0123456789abcdef")
        if self.prompt.body.get("store", True) is False:
            return None if self._dialect is NativeChat else response_id
        self.backend.responses[response_id] = self.prompt.text
        return response_id


class NativeInference(Stateful):
    """A native chat: the model must exist, and a stream tells how its load goes."""

    def not_stored(self, response_id: object) -> ApiError:
        """Return the error for a conversation that is not stored."""
        message = f"Response with id '{response_id}' not found"
        return native_error(message, param="previous_response_id", code="invalid_value")

    async def acquire(self, ttl: float | None) -> tuple[Instance, float | None]:
        """Get an instance of exactly the model that is asked for. Raises ApiError, LoadError."""
        engine, length = self.backend.engine, self.prompt.body.get("context_length")
        watch = self._watch if self.streams else None
        return await engine.acquire(self._resolve, ttl, context_length=length, watch=watch)

    def _resolve(self) -> Instance | SimModel:
        state, name = self.backend.state, self.prompt.body["model"]
        instance, model = state.instance(name), state.find(name)
        if instance and instance.model.type == "llm" and not state.prefers(model, instance):
            return instance
        if model is None or model.type != "llm":
            message = state.unknown(name).body["error"]["message"]
            raise native_error(message, code="model_not_found", param="model", status=404)
        return next(iter(state.instances_of(model)), model)

    def check_model(self, model: SimModel) -> None:
        """Check that the model has the reasoning setting that is asked for. Raises ApiError."""
        check_reasoning(self.prompt.body, model, self.backend.version)

    def load_failure(self, problem: LoadError) -> ApiError:
        """Return the error for a load that failed."""
        return native_load_failure(problem.model, problem.reason)

    async def _watch(self, model: SimModel, load: asyncio.Task[Instance | str]) -> None:
        if not self.exchange.begun:
            self.exchange.open_stream(self.backend.extra_headers)
        write, name = self.exchange.write, {"model_instance_id": model.key}
        await write(event("chat.start", **name))
        await write(event("model_load.start", **name))
        for step in range(LOAD_PROGRESS_STEPS):
            await write(event("model_load.progress", **name, progress=step / LOAD_PROGRESS_STEPS))
            await asyncio.wait([load], timeout=model.load_seconds / LOAD_PROGRESS_STEPS)
        if isinstance(await outlived(load), Instance):
            await write(event("model_load.end", **name, load_time_seconds=round(model.load_seconds, 3)))


def native_load_failure(model: SimModel, reason: str) -> ApiError:
    """Return the error of `/api/v1` for a load that failed."""
    message = f'Failed to load model "{model.key}". Error: {reason}'
    return ApiError(500, {"error": {"type": "model_load_failed", "message": message}})
