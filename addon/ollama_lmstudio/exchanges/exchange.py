"""One exchange: a client's request, what becomes of it, and how mitmproxy's hooks reach it.

Everything that affects the state machine is here. An exchange is always in the hands of one Handler: first of one that
decides what becomes of it, then, from its `request` hook on, of the one for that outcome (`handlers.HANDLERS` is the
table). Two are decided before their body has come, in `requestheaders` (`admission.admit`): a refusal, which is
Answered, and an upload, which is Local.

Handler         outcome                request             responseheaders            response          error
--------------  ---------------------  ------------------  -------------------------  ----------------  --------------
Admitted        none yet               decide, hand over   -                          -                 -
Resent          none yet; the user     decide, hand over   -                          -                 -
                replays a flow
Answered        Response               set the response    -                          -                 -
ServerReplayed  RecordedAnswer of      become its call     -                          -                 -
                `server_replay`
Buffered        Call                   send the call       load the model that LM     translate         error response
                                                           Studio would not load      the body
Collected       CollectedCall          send the call       also: translate events     as Buffered, or   error response
                                                           as they come               the one object
Streamed        StreamedCall           send the call       also: hold the head up     as Buffered, if   error response,
                                                           to the first event, then   none was begun    or error line
                                                           translate chunk by chunk
Replayed        streaming Call, of     send the call       translate events for the   the translation   error in the
                Resent                                     flow alone                                   flow
PassedThrough   Passthrough            send it on          pass the body through, or  change the body   error response
                                                           buffer it to change it                       of that API
Local           LocalStream, BodySink  send it to the      pass the body through      -                 503
                                       loopback service

A call or a request that is passed on names a model, and so does LM Studio's answer: that of another model is never
told (`substitution`). It is looked at before anything is: at the first event of a stream, and in a whole body.

While it runs, a handler tells what it waits for or how far it is (`state`, shown by `watch`). When the process ends, it
tells the client so (`stop`), and the error hook follows.

After `response` or `error`, of which mitmproxy calls exactly one, every exchange is recorded and closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from mitmproxy import http
from mitmproxy.flow import Error

from .. import progress, routes
from ..internals import connections, interception, interface
from ..internals.headers import SealedHeaders
from ..lmstudio.errors import LMStudioError, LMStudioUnreachable
from ..outcomes import Headers, Measured, Outcome, Request, Response
from ..progress import WAITS_FOR_USER, Progress, State, waiting
from ..record.record import Record
from ..record.recorder import Recorder
from ..translate.api_errors import error_answer
from . import responses
from .bridge import Bridge
from .watch import LONG_SECONDS, NS_PER_SECOND

logger = logging.getLogger(__name__)

# After an answer that ended in an error, LM Studio's stream has this long to end by itself: only its end frees the
# client's connection for another request.
LINGER_SECONDS = 1
LAST_CHUNK = b"0\r\n\r\n"
WHOLE = "LM Studio closed the connection in an irregular way, but the answer is whole"
STOPPED = "the proxy in front of LM Studio was stopped: ask again when it runs"


class Handler:
    """One way in which an exchange can go. A hook that the way has no use for does nothing.

    The class itself is the handler of an exchange that could not be admitted.
    """

    uses_connection = False
    """Whether the request goes to another server, on a connection that stays behind."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.bridge = exchange.bridge
        self.flow = exchange.flow
        self.recorder = exchange.recorder

    async def request(self) -> None:
        """Answer the request, or make it another one."""

    async def responseheaders(self) -> None:
        """Choose what happens to the body of a response whose head has come."""

    async def response(self) -> None:
        """Complete a response that has come."""

    def error(self, error: LMStudioError) -> None:
        """Tell the client that there will be no response, or no more of it."""

    def stop(self, error: LMStudioError) -> None:
        """Tell the client that the process ends: with a response, or at the end of the one that it gets."""
        if self.exchange.head_sent or self.flow.response is not None:
            self.error(error)
        else:
            self.exchange.respond_in_error(error_answer(self.exchange.path, error.status, error.message))

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the flow, out of what is measured."""

    def record(self) -> None:
        """Put both sides of the exchange into its flow, at the end."""
        record = self.recorder.record
        if record.upstream_model and record.kind in ("call", "relay"):
            record.context_length = self.bridge.services.catalog.known_context_length(record.upstream_model)
        self.recorder.finish(self.flow, self.bridge.clock.monotonic(), self.measured())

    def state(self, now: int) -> State | None:
        """Return what is shown of the exchange at the time `now`; None where there is nothing to tell."""
        if self.flow.request.timestamp_end is None:
            return None  # the rest of it has not come
        return self.long_wait("waits for LM Studio", now - self.recorder.started_ns)

    @staticmethod
    def long_wait(what: str, duration: int) -> State | None:
        """Return the state of an exchange that has waited for something, if it takes long."""
        seconds = duration / NS_PER_SECOND
        return waiting(what, seconds) if seconds >= LONG_SECONDS else None

    def measured(self) -> Measured | None:
        """Return what a translation has measured; None if nothing was translated."""
        return None

    def close(self) -> None:
        """Release what the handler holds, at the end."""


class Exchange:
    """One flow of a client, while it lives.

    `client_request` is None for one that the user replays, whose answer nobody waits for.
    """

    def __init__(self, flow: http.HTTPFlow, record: Record, bridge: Bridge) -> None:
        self.flow = flow
        self.bridge = bridge
        self.recorder = Recorder(
            bridge.services.settings.max_kept_size,
            bridge.clock.monotonic(),
            record,
            bridge.services.secrets,
            bridge.label,
        )
        self.progress = Progress()
        self.client_request: Request | None = None
        self.cors_headers: Headers = ()
        """Headers that the response carries, whatever it is."""
        self.http10 = flow.request.http_version == "HTTP/1.0"
        self.close_connection = connections.closes(flow.request)
        """Whether the client's connection ends with this exchange, as its request said before it became another."""
        self.was_intercepted = False
        """Whether the user has stopped the request before it was rewritten."""
        self.sealed: SealedHeaders | None = None
        """The headers of the request that is sent, once it is another one."""
        self.head_sent = False
        """Whether the head of the response has been passed to mitmproxy, before LM Studio's body has ended."""
        self.decide_again: Callable[[], Awaitable[Outcome]] | None = None
        """Decides anew what becomes of the request; None for one that the user replays, which is sent as it is."""
        self.handler = Handler(self)

    @property
    def is_replay(self) -> bool:
        """Whether the user replays the exchange. Its flow has the connection of the client that it had then, which may
        be in use for something else.
        """
        return self.client_request is None

    @property
    def path(self) -> str:
        """The client's path, without its query."""
        return self.recorder.record.path

    @property
    def secrets(self) -> tuple[str, ...]:
        """The tokens and keys that neither the client nor the flow may be shown."""
        return self.recorder.secrets

    @property
    def is_answered(self) -> bool:
        """Whether there is nothing more to do about the request: it has its response, or was killed."""
        return bool(self.flow.response or self.flow.error) or not self.flow.live

    # mitmproxy's hooks

    async def request(self) -> None:
        """Answer the request, or make it another one, unless another addon has answered it."""
        if not self.is_answered:
            with progress.of(self.progress):
                await self.handler.request()

    async def responseheaders(self) -> None:
        """Choose what happens to the body of the response."""
        if self.flow.response is None:
            return
        self._forget_secrets()
        interception.may_be_stopped(self.flow)
        with progress.of(self.progress):
            await self.handler.responseheaders()
        self._say_close()

    async def response(self) -> None:
        """Complete the response, and end."""
        if self.flow.response is None:
            return
        try:
            with progress.of(self.progress):
                await self.handler.response()
            self._say_close()
        finally:
            self._end()

    def error(self) -> None:
        """Tell the client, if it is still there, that LM Studio is gone; and end."""
        self._forget_secrets()
        killed = self.flow.error is not None and self.flow.error.msg == Error.KILLED_MESSAGE
        try:
            if self.is_replay or (self.flow.client_conn.connected and not killed):
                self._fail(self._upstream_error(), self.handler.error)
        finally:
            self._end()

    def stop(self) -> None:
        """Tell the client, if it is still there, that the process ends; the error hook follows."""
        self.end(LMStudioError(HTTPStatus.SERVICE_UNAVAILABLE, STOPPED))

    def end(self, error: LMStudioError) -> None:
        """Tell the client, if it is still there, why it gets no answer, or no more of it; the error hook follows."""
        if not self.is_replay and self.flow.client_conn.connected:
            self._fail(error, self.handler.stop)

    def _fail(self, error: LMStudioError, tell: Callable[[LMStudioError], None]) -> None:
        """Record what went wrong as the client is told it: mitmproxy's own words are about its connections."""
        self.recorder.failure = self.recorder.failure or error.message
        tell(error)

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the flow, out of what is measured."""
        self.recorder.started_ns += duration
        self.handler.paused(duration)
        if self.sealed is not None and self.flow.response is None:
            # The user may have reverted the request: its headers are plain ones then.
            self.flow.request.headers = self.sealed.sealed_again(self.flow.request.headers)

    # What is shown while it runs

    @property
    def record(self) -> Record:
        """What is kept with the flow."""
        return self.recorder.record

    @property
    def size(self) -> int:
        """The size of the bodies that are shown."""
        return len(self.flow.request.raw_content or b"") + len(self.recorder.upstream_body.data)

    def state(self, now: int) -> State | None:
        """Return what the exchange waits for at the time `now`, or how far it is; None where nothing is to be told."""
        if self.flow.intercepted:
            return WAITS_FOR_USER
        return self.progress.state() or self.handler.state(now)

    @property
    def waits_for_lmstudio(self) -> bool:
        """Whether a model of LM Studio's has been asked, and nothing here keeps its answer from coming."""
        is_asked = self.record.kind in ("call", "relay") and bool(self.record.upstream_model)
        return is_asked and not (self.flow.intercepted or connections.has_unsent(self.flow))

    @property
    def received(self) -> int:
        """How many bytes of LM Studio's answer have come."""
        return self.recorder.upstream_body.size

    @property
    def is_streaming(self) -> bool:
        """Whether the answer is being passed on while it comes."""
        return bool(self.flow.response and self.flow.response.stream)

    def show(self, state: str) -> None:
        """Store the state in the flow, and update its label."""
        self.record.state = state
        self.recorder.save(self.flow)

    def show_body(self) -> bool:
        """Store what has come of an answer that streams in the flow; return whether that is anything new."""
        return self.is_streaming and self.recorder.update(self.flow)

    # What handlers do

    def respond(self, response: Response) -> None:
        """Set the flow's response."""
        self.flow.response = responses.make(response, self.cors_headers, self.flow.request.method)

    def respond_at_once(self, response: Response) -> None:
        """Respond in the responseheaders hook, whenever LM Studio's stream ends: nothing of it is sent."""
        assert self.flow.response is not None
        self.flow.response.status_code = response.status
        self.flow.response.reason = responses.phrase(response.status)
        self.flow.response.headers = responses.headers(response, self.cors_headers)
        self.flow.response.headers["Content-Length"] = str(len(response.body))
        bodies = [response.body]

        def body() -> bytes:
            return bodies.pop() if bodies else b""

        self.flow.response.stream = lambda data: [body()] if bodies else []
        self.recorder.client_body.add(response.body)
        self.head_sent = True
        self.end_soon(body)

    def respond_in_error(self, response: Response) -> None:
        """Respond in the error hook, past mitmproxy, which would send an error page of its own."""
        if self.is_replay:
            return
        connections.write_last(self.flow, responses.raw(response, self.cors_headers))
        self.respond(response)

    def end_soon(self, last: Callable[[], bytes]) -> None:
        """Write the last bytes to the client and close its connection, should LM Studio's stream not end in time."""
        asyncio.get_running_loop().call_later(LINGER_SECONDS, _end_if_live, self.flow, last)

    def _say_close(self) -> None:
        if self.close_connection and self.flow.response is not None:
            self.flow.response.headers["Connection"] = "close"

    def _forget_secrets(self) -> None:
        if isinstance(self.flow.request.headers, SealedHeaders):
            self.flow.request.headers.forget()

    def _upstream_error(self) -> LMStudioError:
        if self.flow.server_conn.timestamp_tcp_setup is None:
            return LMStudioUnreachable(str(self.bridge.upstream))
        if self.flow.response is not None:
            return LMStudioError(
                HTTPStatus.BAD_GATEWAY, "LM Studio closed the connection before its answer was finished"
            )
        detail = self.flow.error.msg if self.flow.error else ""
        return LMStudioError(HTTPStatus.BAD_GATEWAY, f"LM Studio closed the connection before it answered ({detail})")

    def _end(self) -> None:
        try:
            if self.flow.response is not None and self.flow.response.stream:
                # The function holds the exchange, and the list of flows would hold it.
                self.flow.response.stream = False
            self.handler.record()
            self._count()
            if interface.is_shown():
                interface.render_anew()
        except Exception:
            logger.exception("%s could not be recorded", self.path)
        self.handler.close()
        if self.handler.uses_connection and not self.is_replay:
            self.bridge.idle_connections.left_by(self.flow)
        self.bridge.garbage.ended(self.recorder.kept_bytes)
        # Handlers hold the exchange, and both hold bodies: they are freed now, not when the garbage collector runs.
        del self.handler
        self.decide_again = None

    def _count(self) -> None:
        response = self.flow.response
        status = response.status_code if response is not None else 0
        is_recorded = self.flow.is_replay == "response"
        self.bridge.statistics.add(self.recorder.record, status, is_recorded=is_recorded)
        if self.bridge.metrics is not None:
            self.bridge.metrics.add(self.recorder.record, status, routes.label(self.path), is_recorded=is_recorded)


def _end_if_live(flow: http.HTTPFlow, last: Callable[[], bytes]) -> None:
    if flow.live:
        connections.write_last(flow, last())
