"""A request on one of LM Studio's own APIs: it is sent on, and its response comes back as it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from mitmproxy import http

from .. import routes
from ..internals import connections, held_heads
from ..lmstudio import sse
from ..lmstudio.answering_model import FirstEvent
from ..lmstudio.errors import LMStudioError, is_unknown_route, scrub, scrub_bytes
from ..ollama.errors import OllamaError
from ..outcomes import INTERNAL_ERROR, Passthrough, Response
from ..progress import State
from ..threads import run_in_thread_if_large
from ..translate.api_errors import error_answer, error_event, missing_answer
from ..units import size
from . import downstream, eviction, substitution, upstream
from .exchange import WHOLE, Exchange, Handler

logger = logging.getLogger(__name__)

# LM Studio says with a 200 that it does not have a path. No such response is larger.
UNKNOWN_ROUTE_BYTES = 4096
# The headers of a response that belong to its body.
OF_THE_BODY = (*downstream.NOT_FOR_CLIENTS, "content-length", "content-type", "date", "etag")
# What LM Studio says of a token that it refuses may repeat it.
TOKEN_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class PassedThrough(Handler):
    """Pass the body through as it comes, unless it is to be changed, may repeat the token, or may be no answer."""

    uses_connection = True

    def __init__(self, exchange: Exchange, passthrough: Passthrough) -> None:
        super().__init__(exchange)
        self._passthrough = passthrough

    async def request(self) -> None:
        headers = upstream.passthrough_headers(self.flow.request)
        await upstream.send(self.exchange, self._passthrough.path, self._passthrough.body, headers)

    def state(self, now: int) -> State | None:
        come = self.recorder.upstream_body.size
        return State("answers", size(come), flows=True) if come else super().state(now)

    async def responseheaders(self) -> None:
        response, clock = self.flow.response, self.bridge.clock.monotonic
        assert response is not None
        self.recorder.set_upstream_head(response)
        if response.raw_content is not None:
            return
        chunked = "chunked" in response.headers.get("transfer-encoding", "")
        if self._has_events_of_model(response) and await self._is_substitute():
            return
        downstream.pass_headers(self.exchange)
        if not self._is_buffered(response):
            add = self.recorder.add_upstream
            downstream.pass_body(self.exchange, lambda data: add(data, clock()), chunked=chunked)

    def _has_events_of_model(self, response: http.Response) -> bool:
        content_type = response.headers.get("content-type", "")
        return (
            bool(self._passthrough.model)
            and response.status_code == HTTPStatus.OK
            and self._passthrough.rewrite is None
            and sse.is_event_stream(content_type)
        )

    async def _is_substitute(self) -> bool:
        """Hold the head up to the first event, and return whether that is another model's: the client is answered then.

        Where it does not come in time, LM Studio's list tells.
        """
        first, read, asked = FirstEvent(self.bridge.services.settings.max_buffer_size), 0, self._passthrough.model

        def has_come(held: held_heads.HeldBody) -> bool:
            nonlocal read
            for _, data in held.data[read:]:
                first.feed(data)
            read = len(held.data)
            return first.has_come

        held = await held_heads.hold(self.flow, self.bridge.clock.monotonic, has_come, held_heads.HOLD_SECONDS)
        if held is None or (held.over and not has_come(held)):
            return False
        if not has_come(held):
            is_substitute = await substitution.is_gone(self.exchange, asked)
        else:
            is_substitute = await substitution.is_substitute(self.exchange, asked, first.model)
        if is_substitute:
            response = await eviction.while_client_waits(held, self._answer_for_substitute())
            if response is not None:
                self.exchange.respond_at_once(response)
        return is_substitute

    async def _answer_for_substitute(self) -> Response:
        """Return the client's response in place of another model's answer: an error, or the answer of the right one."""
        # The model is not used any more: a reload of it may be waiting for that.
        self.close()
        try:
            outcome = await substitution.decide_again(self.exchange, self._passthrough.model)
            if isinstance(outcome, Response):
                return outcome
            assert isinstance(outcome, Passthrough)
            self._passthrough = outcome
            path, asked = outcome.path, outcome.model
            status, content_type, body = await substitution.call_once_more(self.exchange, path, outcome.body, asked)
            self.recorder.add_upstream(body, self.bridge.clock.monotonic())
            if status == HTTPStatus.OK and outcome.rewrite is not None:
                body = await run_in_thread_if_large(len(body), outcome.rewrite, body)
        except (LMStudioError, OllamaError) as e:
            return error_answer(self.exchange.path, e.status, scrub(e.message, self.exchange.secrets))
        except Exception:
            # Whatever goes wrong, the other model's answer must not be what is left.
            logger.exception("%s: the request could not be sent once more", self.exchange.path)
            return error_answer(self.exchange.path, HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR)
        return Response(status, scrub_bytes(body, self.exchange.secrets), content_type, self._other_headers())

    def _other_headers(self) -> tuple[tuple[str, str], ...]:
        """Return LM Studio's headers that do not depend on the body."""
        assert self.flow.response is not None
        headers = self.flow.response.headers.copy()
        upstream.remove_hop_by_hop(headers)
        return tuple((name, value) for name, value in headers.items(multi=True) if name.lower() not in OF_THE_BODY)

    def _is_buffered(self, response: http.Response) -> bool:
        if response.status_code in TOKEN_REFUSED or eviction.may_be_told(self.exchange, response):
            return True
        if response.status_code != HTTPStatus.OK:
            return False
        length = response.headers.get("content-length", "")
        is_short = length.isdecimal() and int(length) <= UNKNOWN_ROUTE_BYTES
        is_whole = bool(self._passthrough.model) and "json" in response.headers.get("content-type", "")
        return self._passthrough.rewrite is not None or is_short or is_whole

    async def response(self) -> None:
        response = self.flow.response
        assert response is not None
        if self.exchange.head_sent:
            return
        body = response.raw_content or b""
        status, content_type = response.status_code, response.headers.get("content-type", "")
        asked = self._passthrough.model
        if await substitution.is_whole_substitute(self.exchange, asked, status, content_type, body):
            self.exchange.respond(await self._answer_for_substitute())
            return
        self.recorder.add_upstream(body, self.bridge.clock.monotonic())
        if response.status_code in TOKEN_REFUSED:
            upstream.set_body(response, scrub_bytes(body, self.exchange.secrets))
        if is_unknown_route(body):
            missing = missing_answer(self.recorder.record.method, self.exchange.path)
            self.exchange.respond(missing or routes.NOT_FOUND)
        elif evicted := eviction.error_of(self.exchange, response, body):
            self.exchange.respond(evicted)
        elif self._passthrough.rewrite is not None and response.status_code == HTTPStatus.OK:
            await self._rewrite(response, body, self._passthrough.rewrite)
        if self.flow.response is response and "content-length" not in response.headers:
            # It came in chunks, as a proxy in between may send it. Without a length it would end with the connection.
            upstream.set_body(response, response.raw_content or b"")

    async def _rewrite(self, response: http.Response, body: bytes, rewrite: Callable[[bytes], bytes]) -> None:
        try:
            changed = await run_in_thread_if_large(len(body), rewrite, body)
        except OllamaError as e:
            self.exchange.respond(error_answer(self.exchange.path, e.status, e.message))
            return
        if changed != body:
            response.headers.pop("etag", None)
            upstream.set_body(response, changed)

    def error(self, error: LMStudioError) -> None:
        response, message = self.flow.response, scrub(error.message, self.exchange.secrets)
        if not self.exchange.head_sent or response is None:
            self.exchange.respond_in_error(error_answer(self.exchange.path, error.status, message))
        elif sse.is_event_stream(response.headers.get("content-type", "")):
            event = b""
            if sse.has_ended(self.recorder.end_of_upstream()):
                self.recorder.failure = WHOLE
            else:
                # An event that has come in part ends here, with a blank line.
                event = b"\n\n" + error_event(self.exchange.path, error.status, message)
            chunked = "chunked" in response.headers.get("transfer-encoding", "")
            connections.write_last(self.flow, downstream.last_bytes([event] if event else [], chunked=chunked))

    def close(self) -> None:
        if self._passthrough.release is not None:
            self._passthrough.release()
            self._passthrough.release = None
