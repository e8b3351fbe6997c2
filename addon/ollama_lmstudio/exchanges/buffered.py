"""A call whose response is translated when it is whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus

from ..internals import held_heads
from ..lifetimes import LOOK_SECONDS, wants_load
from ..lmstudio import sse
from ..lmstudio.errors import LMStudioError, error_from_response, is_evicted, is_model_not_found
from ..outcomes import INTERNAL_ERROR, BodyTranslation, Call, Measured, Response
from ..progress import State, loading, waiting
from . import eviction, substitution, upstream
from .exchange import Exchange, Handler
from .watch import NS_PER_SECOND

logger = logging.getLogger(__name__)


class Buffered(Handler):
    """Send a call, and translate its response when all of it has come; events as they come are left to subclasses."""

    uses_connection = True

    def __init__(self, exchange: Exchange, call: Call) -> None:
        super().__init__(exchange)
        self._call = call
        self._early: Response | None = None
        """The client's response, where it is known before LM Studio's is whole."""
        self._is_answered_locally = False
        self._watch: asyncio.Task[None] | None = None
        self._is_loading = False
        """Whether the model has been seen to be loaded by LM Studio, and not to be loaded yet."""
        self._since = 0
        """When the call was sent, or since when its model is loaded."""

    @property
    def translation(self) -> BodyTranslation:
        """How LM Studio's response is translated."""
        return self._call.translation

    async def request(self) -> None:
        self.flow.request.method = "POST"
        headers = upstream.call_headers(self.flow.request)
        await upstream.send(self.exchange, self._call.path, self._call.body, headers)
        self._since = self.bridge.clock.monotonic()
        if self._call.is_loaded is not None and not self.exchange.is_replay:
            self._watch = self.bridge.tasks.spawn(self._watch_load(self._call.is_loaded))

    async def _watch_load(self, is_loaded: Callable[[], Awaitable[bool]]) -> None:
        """Look whether the model is loaded, while LM Studio says nothing: it does so as long as it loads."""
        was_loading = False
        while not self.has_begun:
            await asyncio.sleep(LOOK_SECONDS)
            at = self.bridge.clock.monotonic()
            if self.flow.intercepted:
                continue  # nothing has been sent yet
            try:
                loaded = await is_loaded()
            except LMStudioError:
                continue
            # One that is loaded when it is looked for first may have been loaded all the time.
            was_loading = was_loading or not loaded
            if was_loading and not self.has_begun:
                self.translation.loading(at)
            self._is_loading = not loaded
            if loaded:
                self._since = at if was_loading else self._since
                return

    awaits = "waits for the answer"
    """What is said of a call that LM Studio takes long to answer."""

    def state(self, now: int) -> State | None:
        if self._is_loading and not self.has_begun:
            return waiting(loading(self._call.asked), (now - self._since) / NS_PER_SECOND)
        return self.long_wait(self.awaits, now - (self._since or self.recorder.started_ns))

    @property
    def has_begun(self) -> bool:
        """Whether the model has answered, so that it is loaded."""
        return self.flow.response is not None

    async def responseheaders(self) -> None:
        response = self.flow.response
        assert response is not None
        self.recorder.set_upstream_head(response)
        if response.raw_content is not None:
            return  # it is whole already: a recorded one, or another addon's
        if response.status_code != HTTPStatus.OK:
            await self.refused()
        elif sse.is_event_stream(response.headers.get("content-type", "")):
            await self.stream()

    async def stream(self) -> None:
        """Translate events as they come."""

    async def call_in_turn(self, held: held_heads.HeldBody) -> Response | None:
        """Call once more because the model was evicted before its first token; return the client's response for that.

        None is for a client that has gone meanwhile. LM Studio evicts one model for the next, so that calls for several
        would go on to evict each other: these calls are made one at a time, as Ollama has the next model wait.
        """
        lifetimes, reload = self.bridge.services.lifetimes, self._call.reload
        self.bridge.services.catalog.invalidate()

        async def call() -> Response:
            async with self.bridge.retries:
                await asyncio.sleep(eviction.SETTLE_SECONDS)
                if await substitution.is_gone(self.exchange, self._call.model):
                    return await self.answer_for_substitute()
                if reload is not None and lifetimes.loads_explicitly:
                    await reload()
                return await self._call_once_more()

        try:
            return await eviction.while_client_waits(held, call())
        except LMStudioError as e:
            return self.translation.fail(e)

    async def refused(self) -> None:
        """Where LM Studio does not load models on demand, load the model and call again, unseen by the client.

        It is called again, too, where the model was evicted; one that is gone is not found.
        The one response for which this happens does not stream: the second call is one of the bridge's own, since
        mitmproxy has the connection of the first. From then on models are loaded before they are called.
        """
        response, call = self.flow.response, self._call
        assert response is not None
        held = await held_heads.hold(self.flow, self.bridge.clock.monotonic, lambda held: False)
        if held is None or not held.ended_at or call.reload is None:
            return
        content_type = response.headers.get("content-type", "")
        error = error_from_response(response.status_code, content_type, held.body)
        if is_evicted(error):
            self._early = await self.call_in_turn(held)
            return
        if not wants_load(error):
            return
        try:
            if is_model_not_found(error) and await substitution.is_gone(self.exchange, call.model):
                self._early = await eviction.while_client_waits(held, self.answer_for_substitute())
                return
            self._early = await eviction.while_client_waits(held, self._reload_and_call(call.reload))
        except LMStudioError as e:
            self.recorder.add_upstream(held.body, held.ended_at)
            self._early = self.translation.fail(e)
            return
        if self._early is not None and self.recorder.record.status == HTTPStatus.OK:
            self.bridge.services.lifetimes.not_on_demand()

    async def _reload_and_call(self, reload: Callable[[], Awaitable[None]]) -> Response:
        await reload()
        return await self._call_once_more()

    async def _call_once_more(self) -> Response:
        """Send the call once more, as one of the bridge's own, and return the client's response for what came.

        Raises LMStudioError where nothing came, or the answer of another model.
        """
        call = self._call
        return self._translate(*await substitution.call_once_more(self.exchange, call.path, call.body, call.model))

    async def answer_for_substitute(self) -> Response:
        """Return the client's response in place of another model's answer.

        It is that there is no such model, or, where the name means another one by now, the answer of that.
        """
        # The model is not used any more: a reload of it may be waiting for that.
        self.close()
        try:
            outcome = await substitution.decide_again(self.exchange, self._call.model)
            if isinstance(outcome, Response):
                self._is_answered_locally = True
                return outcome
            assert isinstance(outcome, Call)
            self._call = outcome
            return await self._call_once_more()
        except LMStudioError as e:
            return self.translation.fail(e)
        except Exception:
            # Whatever goes wrong, the other model's answer must not be what is left.
            logger.exception("%s: the call could not be made once more", self.exchange.path)
            return self.translation.fail(LMStudioError(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR))

    async def response(self) -> None:
        if self.exchange.head_sent:
            return
        self.exchange.respond(self._early or await self.checked_response())

    async def checked_response(self) -> Response:
        """Return the client's response, once it is known that the model answered that was asked for."""
        response = self.flow.response
        assert response is not None
        content_type, body = response.headers.get("content-type", ""), response.raw_content or b""
        status, asked = response.status_code, self._call.model
        if await substitution.is_whole_substitute(self.exchange, asked, status, content_type, body):
            return await self.answer_for_substitute()
        return self.translate_response()

    def translate_response(self) -> Response:
        """Return the client's response for the flow's."""
        response = self.flow.response
        assert response is not None
        content_type, body = response.headers.get("content-type", ""), response.raw_content or b""
        return self._translate(response.status_code, content_type, body)

    def _translate(self, status: int, content_type: str, body: bytes) -> Response:
        now = self.bridge.clock.monotonic()
        self.recorder.add_upstream(body, now)
        return self.translation.translate(status, content_type, body, now)

    def error(self, error: LMStudioError) -> None:
        if not self.exchange.head_sent:
            self.exchange.respond_in_error(self.translation.fail(error))

    def stop(self, error: LMStudioError) -> None:
        self.error(error)

    def paused(self, duration: int) -> None:
        self._since += duration
        self.translation.paused(duration)

    def measured(self) -> Measured | None:
        if self._is_answered_locally:
            return None
        return replace(self.translation.measured(), is_load_rough=self._call.is_loaded is not None)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._call.release is not None:
            self._call.release()
            self._call.release = None
