"""The addon: mitmproxy's hooks in the order of their life, each a switch. No JSON is touched here.

A client's request is answered here or rewritten into a call to LM Studio, whose answer is translated while it streams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.flow import Error
from mitmproxy.net.http.http1 import connection_close
from mitmproxy.proxy.mode_specs import ReverseMode

from . import access, options, outcomes, routes, startup
from .endpoints import passthrough
from .exchanges import compression, loopback, responses
from .inspect import conversation, jsontext, views
from .inspect.commands import Commands
from .internals import connections, held_heads, interception, interface, playback
from .internals.headers import SealedHeaders
from .lmstudio import client as lmstudio_client
from .lmstudio.cache import CatalogCache
from .lmstudio.client import Client
from .lmstudio.errors import (
    LMStudioError,
    LMStudioUnreachable,
    error_from_response,
    is_unknown_route,
    scrub,
    scrub_bytes,
)
from .ollama.errors import OllamaError
from .record import internal_calls, record, recording
from .record.record import Record
from .record.recorder import Recorder, sum_up
from .services import Clock, Services
from .state.aliases import AliasStore
from .translate.loading import wants_load
from .translate.names import Resolver

logger = logging.getLogger(__name__)

# A client waits no longer than this for the head of a streamed answer that LM Studio has begun: then it is a 200.
HOLD_SECONDS = 20
# LM Studio closes a connection that was idle for 5 s.
IDLE_SECONDS = 4
# Mitmproxy ends silent connections; LM Studio may think about a long prompt for this long.
SILENCE_SECONDS = 3600
# A stream that failed is given this long to end, before its connections are closed.
LINGER_SECONDS = 1
# So often a person is shown how far an answer is: later for each so many bytes, or it would hold others up.
SHOW_SECONDS = 1
SHOWN_BYTES = 2**20
# A request that is turned away is not read to its end if it is larger.
TURNED_AWAY_BYTES = 65536
# No answer to a path that LM Studio does not have is larger.
UNKNOWN_ROUTE_BYTES = 4096

# What Ollama's own registry would be told, and LM Studio has no use for.
WITH_PASSWORD = ("/api/pull", "/api/push")

TOO_LARGE = f"the request's body is larger than {jsontext.size(compression.MAX_BYTES)} when it is decompressed"
NOT_KEPT = "this request of {} is not kept whole (option max_kept_size), so that it cannot be sent again"
LAST_CHUNK = b"0\r\n\r\n"
EVENT_STREAM = "text/event-stream"
TOKEN_REFUSED = (401, 403)
HOP_BY_HOP = (
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)


@dataclass(slots=True)
class Exchange:
    """What is known of a flow while it lives. `extra` are the headers that its answer carries whatever it is."""

    flow: http.HTTPFlow
    recorder: Recorder
    http10: bool
    closes: bool
    """Whether the client's connection ends with this exchange, as its request said before it became another."""
    extra: outcomes.Headers = ()
    incoming: outcomes.Request | None = None
    """The client's request; None for an exchange that a person replays, whose answer nobody waits for."""
    seen: bool = False
    """Whether a person has stopped the request before it was rewritten."""
    recorded: bool = False
    """Whether the answer comes from a recording."""
    sealed: SealedHeaders | None = None
    """The headers of the request as it is sent, once it is another."""
    outcome: outcomes.Call | outcomes.Passthrough | outcomes.LocalStream | outcomes.BodySink | None = None
    ticket: str = ""
    """What the loopback service knows the outcome by, if that is what answers."""
    started: bool = False
    """Whether the head of a translated answer is on its way to the client."""
    repeated: tuple[int, str, bytes] | None = None
    """LM Studio's answer to the call, asked again: status, content type and body."""
    fed: bool = False
    """Whether the translation has had all of LM Studio's answer."""
    lines: list[bytes] = field(default_factory=list)
    """What a replayed answer was translated to while it came."""

    @property
    def path(self) -> str:
        """The client's path."""
        return self.recorder.record.path

    @property
    def arrived(self) -> int:
        """When the request came."""
        return self.recorder.arrived

    def paused(self, duration: int) -> None:
        """Take that the request was held for `duration` ns: that time is nobody's work, and not measured."""
        self.recorder.arrived += duration
        if isinstance(self.outcome, outcomes.Call):
            self.outcome.translation.paused(duration)


class Bridge:
    """Make mitmproxy speak Ollama's API in front of LM Studio."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._exchanges: dict[str, Exchange] = {}
        self._idle_since: dict[str, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._error_pages = connections.ErrorPages()
        self._start = startup.Startup()
        self._loopback = loopback.Loopback()
        self._serving = False
        self._reached: tuple[str, str, bool] | None = None
        """How LM Studio is reached: its URL, the token, and whether its certificate is not looked at."""
        self.addons = [Commands(lambda: self.services, self._spawn)]
        self.services: Services
        self.upstream: options.Upstream
        self.gate: access.Gate

    # Life

    def load(self, loader: Loader) -> None:
        """Add the options."""
        startup.add_options(loader)
        self._error_pages.install(responses.error_page)
        views.install()
        self._start.watch_log()

    def configure(self, updated: Iterable[str]) -> None:
        """Take the options; an OptionsError names the one that is wrong."""
        if not {*options.NAMES, *startup.OWN_OPTIONS}.intersection(updated):
            return
        try:
            settings = options.parse({name: getattr(ctx.options, name) for name in options.NAMES})
        except ValueError as e:
            raise exceptions.OptionsError(str(e)) from None
        settings = replace(settings, listen=self._start.listening(settings.listen))
        self.upstream = self._start.upstream(settings)
        self.gate = access.Gate.make(
            settings.allowed_origins,
            settings.allowed_hosts,
            settings.api_key,
            loopback=settings.listen.is_loopback,
        )
        self._connect(settings)
        self._start.take_over(settings, self.upstream)
        connections.allow_silence(SILENCE_SECONDS)

    def _connect(self, settings: options.Settings) -> None:
        """Let the endpoints have the settings; what is going on goes on, unless LM Studio is another."""
        reached = (str(self.upstream), settings.lmstudio_token, bool(ctx.options.ssl_insecure))
        if reached == self._reached:
            services, before = self.services, self.services.settings
            services.settings = settings
            services.catalog.ttl_seconds = settings.model_resolution_cache_ttl_seconds
            if settings.state_dir != before.state_dir:
                services.aliases = AliasStore(settings.state_dir)
            return
        if self._reached:
            self.services.lifetimes.stop()
            self.services.client.close_soon()
        self._reached = url, token, insecure = reached
        client = Client(url, token or None, verify=not insecure, on_call=self._show)
        catalog = CatalogCache(client, settings.model_resolution_cache_ttl_seconds, Resolver)
        self.services = Services(settings, client, catalog, AliasStore(settings.state_dir), self._clock)

    def running(self) -> None:
        """Serve, and say in the log what a person should know."""
        self._serving = True
        interface.watch_list(self._list_cleared)
        self._spawn(self._start.serve(self.services))

    def done(self) -> None:
        """Stop everything of ours; this runs on every reload too."""
        self._serving = False
        for task in self._tasks:
            task.cancel()
        self._start.stop()
        busy = {exchange.flow.client_conn.id for exchange in self._exchanges.values()}
        asyncio.get_running_loop().call_soon(self._start.close_if_alone, busy)
        self._loopback.stop()
        if self._exchanges:
            ctx.master.addons.add(Rest(self, self._exchanges))
        self._error_pages.remove()
        views.remove()
        if self._reached:
            self.services.lifetimes.stop()
            self.services.client.close_soon()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task in the background failed: %s", error, exc_info=error)

    # Flows

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Look who asks, before the body is read."""
        if not _is_ours(flow):
            return
        try:
            if flow.is_replay:
                self._ask_again(flow)
            else:
                self._admit(flow)
        except Exception:
            # Nobody comes in because looking at them failed.
            logger.exception("%s %s failed", flow.request.method, flow.request.path)
            self._answer(flow, outcomes.Response.error(500, outcomes.INTERNAL_ERROR))

    def _admit(self, flow: http.HTTPFlow) -> None:
        request = flow.request
        exchange = self._begun(flow, Record())
        incoming = exchange.incoming = _incoming(flow, exchange.arrived)
        host, origin = request.host_header or "", incoming.headers.get("origin", "")
        secrets = {name: request.headers.pop(name) for name in access.SECRET_HEADERS if name in request.headers}
        shown = {**incoming.headers, **secrets}
        turned_away = access.check(self.gate, incoming.method, host, shown, routes.allowed_methods(incoming.path))
        exchange.recorder.asked(incoming)
        exchange.recorder.record.save(flow.metadata)
        if turned_away is not None:
            interception.let_pass(flow)
            self._turn_away(flow, turned_away, host)
            return
        if origin and not access.is_same_origin(origin, host):
            exchange.extra = access.cors_headers(self.gate, origin)
        if upload := routes.upload(incoming.method, incoming.path):
            self._to_loopback(flow, exchange, upload(incoming, self.services))
            request.stream = True

    def _ask_again(self, flow: http.HTTPFlow) -> None:
        """Take a recorded exchange that a person replays."""
        kept = record.of(flow)
        assert kept is not None
        kept.forget_answer()
        self._begun(flow, kept).recorder.show(flow)

    def _begun(self, flow: http.HTTPFlow, kept: Record) -> Exchange:
        clock = self._clock.monotonic
        recorder = Recorder(self.services.settings.max_kept_size, clock(), kept, self.services.secrets)
        version = flow.request.http_version
        closes = connection_close(version, flow.request.headers)
        exchange = self._exchanges[flow.id] = Exchange(flow, recorder, version == "HTTP/1.0", closes)
        interception.keep_what_streams(flow)
        interception.end_when_killed(flow, sum_up)
        interception.watch_pauses(flow, clock, partial(self._paused, flow))
        return exchange

    def _paused(self, flow: http.HTTPFlow, duration: int) -> None:
        # Looked up: a flow that is kept must not keep its exchange.
        exchange = self._exchanges.get(flow.id)
        if exchange is None:
            return
        exchange.paused(duration)
        if exchange.sealed is not None and flow.response is None:
            flow.request.headers = exchange.sealed.sealed_again(flow.request.headers)

    def _turn_away(self, flow: http.HTTPFlow, answer: outcomes.Response, host: str) -> None:
        if answer.status == 403 and not self.gate.allows_host(host):
            logger.warning("refused the host name %r: to let it in, set the option allowed_hosts", host)
        self._answer(flow, answer)
        length = flow.request.headers.get("content-length", "")
        large = "transfer-encoding" in flow.request.headers or (length.isdecimal() and int(length) > TURNED_AWAY_BYTES)
        # Otherwise mitmproxy would read all of the body first.
        if large and connections.write_last(flow, responses.raw(answer)):
            flow.kill()

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer a request, or make it the call to LM Studio."""
        exchange = self._exchanges.get(flow.id)
        if exchange is None or exchange.outcome or flow.response or flow.error or not flow.live:
            return
        try:
            if exchange.incoming is not None:
                exchange.incoming = incoming = await self._take(flow, exchange, exchange.incoming)
                if flow.response or flow.error or self._is_recorded(flow, exchange, incoming):
                    return
                outcome = await self._outcome(incoming)
            else:
                outcome = await self._outcome_again(flow, exchange)
        except (OllamaError, LMStudioError) as e:
            outcome = outcomes.Response.error(e.status, scrub(e.message, self.services.secrets))
        except Exception:
            logger.exception("%s %s failed", exchange.recorder.record.method, exchange.path)
            outcome = outcomes.Response.error(500, outcomes.INTERNAL_ERROR)
        exchange.recorder.became(outcome)
        if isinstance(outcome, outcomes.Response) or (exchange.seen and not isinstance(outcome, outcomes.Call)):
            # There is no other side of the request to be seen; an answer waits once, in its own hook.
            interception.let_pass(flow)
        if isinstance(outcome, outcomes.Response):
            self._answer(flow, outcome, exchange.extra)
            return
        if isinstance(outcome, outcomes.LocalStream):
            self._to_loopback(flow, exchange, outcome)
            return
        exchange.outcome = outcome
        await self._drop_idle(flow)
        self._send(flow, exchange, outcome)

    async def _take(self, flow: http.HTTPFlow, exchange: Exchange, incoming: outcomes.Request) -> outcomes.Request:
        """Take a client's request, or what a person made of it who stopped it."""
        if routes.is_passthrough(incoming.path):
            await self._decode(flow, exchange)
        if incoming.path in WITH_PASSWORD:
            _set_body(flow.request, conversation.without_secrets(flow.request.raw_content or b""))
        incoming = replace(incoming, body=flow.request.raw_content or b"")
        exchange.recorder.asked(incoming)
        if interception.is_stopped(flow):
            exchange.recorder.show(flow)
            await interception.wait_for_user(flow)
            exchange.seen = True
            incoming = replace(_incoming(flow, exchange.arrived), body=flow.request.raw_content or b"")
            exchange.recorder.asked(incoming)
        return incoming

    async def _decode(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Decompress a body, as Ollama does on its /v1: the model's name is in it."""
        body, encoding = flow.request.raw_content, flow.request.headers.get("content-encoding")
        if not body or encoding is None:
            return
        try:
            decompressed = await asyncio.to_thread(compression.decompress, body, encoding)
        except compression.TooLarge:
            self._answer(flow, passthrough.error_answer(exchange.path, 413, TOO_LARGE), exchange.extra)
            return
        if decompressed is not None:
            del flow.request.headers["content-encoding"]
            flow.request.content = decompressed

    async def _outcome(self, incoming: outcomes.Request) -> outcomes.Outcome:
        found = routes.find(incoming.method, incoming.path, incoming.query)
        if isinstance(found, outcomes.Response):
            return found
        return await found(incoming, self.services)

    async def _outcome_again(self, flow: http.HTTPFlow, exchange: Exchange) -> outcomes.Outcome:
        """Give what becomes of a replayed exchange: the call as it is now, which a person may have edited."""
        kept, request = exchange.recorder.record, flow.request
        path, body = request.path.partition("?")[0].removeprefix(self.upstream.prefix), request.raw_content or b""
        if kept.call_size > len(body) and jsontext.read(body).problem:
            return outcomes.Response.error(400, NOT_KEPT.format(jsontext.size(kept.call_size)))
        translated = kept.kind == "call" and kept.request_size == len(kept.request)
        if kept.kind in ("own", "relay", "call") and not translated:
            return outcomes.Passthrough(path, body, model=kept.upstream_model, asked=kept.model)
        asked = kept.request if translated else body
        outcome = await self._outcome(
            outcomes.Request(kept.method, kept.path, kept.query, dict(kept.headers), asked, exchange.arrived)
        )
        if translated and isinstance(outcome, outcomes.Call):
            outcome.path, outcome.body = path, body
        return outcome

    def _is_recorded(self, flow: http.HTTPFlow, exchange: Exchange, incoming: outcomes.Request) -> bool:
        """Let a recorded answer be found, if mitmproxy is to answer from a recording."""
        found = recording.find(playback.recorded_flows(), incoming)
        if found is None:
            return False
        recorded, kept = found
        recording.become(flow, recorded)
        playback.prefer_recorded(recorded)
        exchange.recorder.record, exchange.recorded = kept, True
        return True

    def _answer(self, flow: http.HTTPFlow, answer: outcomes.Response, extra: outcomes.Headers = ()) -> None:
        flow.response = responses.make(answer, extra, flow.request.method)

    def _send(self, flow: http.HTTPFlow, exchange: Exchange, outcome: outcomes.Call | outcomes.Passthrough) -> None:
        """Make the request the call to LM Studio."""
        request, upstream = flow.request, self.upstream
        request.scheme, request.host, request.port = upstream.scheme, upstream.host, upstream.port
        request.http_version = "HTTP/1.1"
        query = exchange.recorder.record.query
        request.path = upstream.prefix + outcome.path + (f"?{query}" if query else "")
        secrets: dict[str, str] = {}
        if self.services.settings.lmstudio_token:
            secrets["Authorization"] = f"Bearer {self.services.settings.lmstudio_token}"
        if isinstance(outcome, outcomes.Call):
            request.method = "POST"
            agent = request.headers.get("user-agent", "")
            request.headers = http.Headers(content_type="application/json", accept=f"{EVENT_STREAM}, application/json")
            if agent:
                request.headers["User-Agent"] = agent
        else:
            for name in (
                *HOP_BY_HOP,
                *access.SECRET_HEADERS,
                "if-none-match",
                "origin",
                "access-control-request-method",
            ):
                request.headers.pop(name, None)
        request.headers["Accept-Encoding"] = "identity"
        request.headers["Host"] = upstream.authority
        if outcome.body or request.raw_content:
            _set_body(request, outcome.body)
        request.headers = exchange.sealed = SealedHeaders(request.headers.fields, secrets)
        exchange.recorder.show(flow)

    def _to_loopback(self, flow: http.HTTPFlow, exchange: Exchange, job: loopback.Job) -> None:
        """Let the loopback service answer the request."""
        headers = dict(self._loopback.add(job, self.services.secrets))
        exchange.outcome, exchange.ticket = job, headers[loopback.TICKET_HEADER]
        request = flow.request
        request.scheme, request.host, request.port = "http", loopback.HOST, self._loopback.port
        request.http_version = "HTTP/1.1"
        request.headers = exchange.sealed = SealedHeaders(
            request.headers.fields, {loopback.SECRET_HEADER: headers.pop(loopback.SECRET_HEADER)}
        )
        for name, value in headers.items():
            request.headers[name] = value
        exchange.recorder.became(job)
        exchange.recorder.show(flow)

    async def _drop_idle(self, flow: http.HTTPFlow) -> None:
        since = self._idle_since.pop(flow.client_conn.id, None)
        if since is not None and time.monotonic() - since > IDLE_SECONDS:
            await connections.drop_idle(flow)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Choose how the answer goes on."""
        exchange = self._exchanges.get(flow.id)
        if exchange is None or flow.response is None:
            return
        _forget_secrets(flow)
        interception.may_be_stopped(flow)
        await self._choose(flow, exchange)
        if exchange.closes:
            flow.response.headers["Connection"] = "close"

    async def _choose(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Let LM Studio's answer through as it is, translated as it comes, or translated when it is whole."""
        if exchange.outcome is None or flow.response is None:
            return
        if not exchange.ticket:
            exchange.recorder.answered(flow.response)
        if flow.response.raw_content is not None:
            return  # it is all here: a recorded one, or another addon's
        if exchange.incoming is None and isinstance(exchange.outcome, outcomes.Call):
            self._listen(flow, exchange, exchange.outcome.translation)
            return
        if not isinstance(exchange.outcome, outcomes.Call):
            self._relay(flow, exchange)
            return
        if flow.response.status_code != 200:
            await self._repeat(flow, exchange, exchange.outcome)
            return
        if not _is_event_stream(flow.response.headers.get("content-type", "")):
            return
        translation = exchange.outcome.translation
        if translation.streaming:
            await self._begin(flow, exchange, translation)
        else:
            await self._collect(flow, exchange, translation)

    def _relay(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        assert flow.response is not None
        chunked = "chunked" in flow.response.headers.get("transfer-encoding", "")
        for name in (*HOP_BY_HOP, "access-control-allow-origin", "access-control-allow-headers"):
            flow.response.headers.pop(name, None)
        for name, value in exchange.extra:
            flow.response.headers.add(name, value)
        outcome = exchange.outcome
        if isinstance(outcome, outcomes.Passthrough) and _wants_a_look(flow.response, outcome):
            return
        exchange.closes |= chunked and exchange.http10
        if chunked and not exchange.http10:
            flow.response.headers["Transfer-Encoding"] = "chunked"
        flow.response.stream = self._passer(exchange)
        exchange.started = True
        self._show_progress(flow, exchange)

    def _passer(self, exchange: Exchange) -> Callable[[bytes], list[bytes]]:
        """Give the function that lets through what mitmproxy reads, and keeps it."""
        clock = self._clock.monotonic
        keep = exchange.recorder.told.add if exchange.ticket else lambda data: exchange.recorder.hear(data, clock())

        def pass_on(data: bytes) -> list[bytes]:
            if not data:
                return []
            keep(data)
            return [data]

        return pass_on

    def _listen(self, flow: http.HTTPFlow, exchange: Exchange, translation: outcomes.Translation) -> None:
        """Translate a replayed answer as it comes, for nobody but the flow."""
        assert flow.response is not None
        if flow.response.status_code != 200 or not _is_event_stream(flow.response.headers.get("content-type", "")):
            return
        clock = self._clock.monotonic

        def listen(data: bytes) -> list[bytes]:
            at = clock()
            if data:
                exchange.recorder.hear(data, at)
            lines = translation.feed(data, at) if data else translation.flush(at)
            exchange.recorder.told.add(b"".join(lines))
            exchange.lines += lines
            exchange.fed = not data
            return []

        # What is shown meanwhile is the translation.
        flow.response.headers["Content-Type"] = outcomes.NDJSON
        flow.response.stream = listen
        self._show_progress(flow, exchange)

    async def _begin(self, flow: http.HTTPFlow, exchange: Exchange, translation: outcomes.Translation) -> None:
        """Hold the head of the answer until its first event, so that an error can still have a status of its own."""
        failed = False

        def begun(arrived: held_heads.Arrived) -> bool:
            nonlocal failed
            told, error = translation.failure(arrived.body)
            failed = error is not None
            return told

        arrived = await held_heads.hold(flow, self._clock.monotonic, begun, HOLD_SECONDS)
        assert flow.response is not None
        if arrived is not None:
            told = begun(arrived)
            if failed:
                exchange.recorder.hear(arrived.body, arrived.data[0][0])
                translation.feed(arrived.body, self._clock.monotonic())
                self._fail(flow, exchange, translation.answer())
                return
            if not told and arrived.over:
                return  # nothing but its end came: the response or the error hook tells it
        flow.response.headers = http.Headers(
            responses.fields((("Content-Type", outcomes.NDJSON), *responses.date(), *exchange.extra))
        )
        exchange.closes |= exchange.http10
        if not exchange.http10:
            flow.response.headers["Transfer-Encoding"] = "chunked"
        flow.response.stream = self._streamer(flow, exchange, translation)
        exchange.started = True
        self._show_progress(flow, exchange)

    async def _repeat(self, flow: http.HTTPFlow, exchange: Exchange, call: outcomes.Call) -> None:
        """Where LM Studio does not load on demand, load the model and ask again; the client sees nothing of it.

        This once the answer does not stream: mitmproxy has the first call's connection, so the second is our own. From
        then on models are loaded before they are asked.
        """
        assert flow.response is not None
        arrived = await held_heads.hold(flow, self._clock.monotonic, lambda arrived: False)
        if arrived is None or not arrived.ended_at or call.reload is None:
            return
        content_type = flow.response.headers.get("content-type", "")
        if not wants_load(error_from_response(flow.response.status_code, content_type, arrived.body)):
            return
        try:
            await call.reload()
            status, content_type, body = await self.services.client.post(call.path, call.body)
        except LMStudioError as e:
            call.translation.abort(e)
            exchange.fed = True
            return
        if status == 200:
            self.services.lifetimes.not_on_demand()
        exchange.repeated = (status, content_type, body)
        exchange.recorder.record.status = status

    def _fail(self, flow: http.HTTPFlow, exchange: Exchange, answer: outcomes.Response) -> None:
        """Answer with an error as soon as LM Studio's stream begins with one, whenever it ends."""
        assert flow.response is not None
        flow.response.status_code, flow.response.reason = answer.status, responses.phrase(answer.status)
        flow.response.headers = responses.headers(answer, exchange.extra)
        flow.response.headers["Content-Length"] = str(len(answer.body))
        bodies = [answer.body]
        flow.response.stream = lambda data: [bodies.pop()] if bodies else []
        exchange.recorder.told.add(answer.body)
        exchange.started = True
        # Only the end of LM Studio's stream frees the connection for the client's next request.
        asyncio.get_running_loop().call_later(LINGER_SECONDS, _end_if_live, flow, b"")

    def _streamer(self, flow: http.HTTPFlow, exchange: Exchange, translation: outcomes.Translation) -> Any:
        """Give the function that turns what mitmproxy reads into what it writes. It never returns an empty `bytes`."""
        clock, loop = self._clock.monotonic, asyncio.get_running_loop()
        more_at_hand = held_heads.more_at_hand(flow)
        together: list[bytes] = []
        hear, tell = exchange.recorder.hear, exchange.recorder.told.add

        def translate(data: bytes) -> list[bytes]:
            if data:
                # What was read at once is translated and written at once.
                together.append(data)
                if more_at_hand():
                    return []
            arrived, now = b"".join(together), clock()
            together.clear()
            if arrived:
                hear(arrived, now)
            lines = translation.feed(arrived, now) if arrived else []
            lines += [] if data else translation.flush(now)
            if data and translation.failed:
                # The error line is the last one, even if LM Studio goes on.
                loop.call_later(LINGER_SECONDS, _end_if_live, flow, b"" if exchange.http10 else LAST_CHUNK)
            if not lines:
                return []
            written = b"".join(lines)
            tell(written)
            return [written]

        return translate

    async def _collect(self, flow: http.HTTPFlow, exchange: Exchange, translation: outcomes.Translation) -> None:
        """Take all of a stream, with the times at which it came, for a client that wants one object."""
        taken = 0

        def failed(arrived: held_heads.Arrived) -> bool:
            nonlocal taken
            for at, data in arrived.data[taken:]:
                exchange.recorder.hear(data, at)
                translation.feed(data, at)
            taken = len(arrived.data)
            return translation.failed

        arrived = await held_heads.hold(flow, self._clock.monotonic, failed)
        if arrived is None:
            return
        if failed(arrived):
            self._fail(flow, exchange, translation.answer())
        elif arrived.ended_at:
            translation.flush(arrived.ended_at)
            exchange.fed = True

    async def response(self, flow: http.HTTPFlow) -> None:
        """Translate an answer that was not translated while it came."""
        exchange = self._exchanges.pop(flow.id, None)
        if exchange is None or flow.response is None:
            return
        try:
            self._complete(flow, exchange, flow.response)
        finally:
            self._over(flow, exchange)

    def _complete(self, flow: http.HTTPFlow, exchange: Exchange, response: http.Response) -> None:
        call = exchange.outcome
        if isinstance(call, outcomes.Call) and not exchange.started:
            came = response.status_code, response.headers.get("content-type", ""), response.raw_content or b""
            if not exchange.recorder.heard.size:
                exchange.recorder.hear((exchange.repeated or came)[2], self._clock.monotonic())
            self._answer(
                flow, self._translate(exchange, call.translation, *(exchange.repeated or came)), exchange.extra
            )
        elif isinstance(call, outcomes.Passthrough) and not exchange.started:
            self._look(flow, exchange, call)
        if exchange.closes and flow.response is not None:
            flow.response.headers["Connection"] = "close"

    def _look(self, flow: http.HTTPFlow, exchange: Exchange, relay: outcomes.Passthrough) -> None:
        """Change what LM Studio answered, if it is to be changed, repeats the token, or was none."""
        assert flow.response is not None
        body = flow.response.raw_content or b""
        exchange.recorder.hear(body, self._clock.monotonic())
        if flow.response.status_code in TOKEN_REFUSED:
            _set_body(flow.response, scrub_bytes(body, self.services.secrets))
        if is_unknown_route(body):
            self._answer(flow, routes.NOT_FOUND, exchange.extra)
        elif relay.rewrite is not None and flow.response.status_code == 200:
            flow.response.headers.pop("etag", None)
            _set_body(flow.response, relay.rewrite(body))

    def _translate(
        self, exchange: Exchange, translation: outcomes.Translation, status: int, content_type: str, body: bytes
    ) -> outcomes.Response:
        """Translate a whole body."""
        now = self._clock.monotonic()
        if exchange.fed:
            if exchange.lines and (len(exchange.lines) > 1 or not translation.failed):
                return outcomes.Response(200, b"".join(exchange.lines), outcomes.NDJSON)
        elif status == 200 and _is_event_stream(content_type):
            lines = translation.feed(body, now) + translation.flush(now)
            if translation.streaming and not translation.failed:
                return outcomes.Response(200, b"".join(lines), outcomes.NDJSON)
        else:
            translation.whole(status, content_type, body, now)
        return translation.answer()

    async def error(self, flow: http.HTTPFlow) -> None:
        """Tell a client that LM Studio is gone, in words that it understands."""
        exchange = self._exchanges.pop(flow.id, None)
        if exchange is None:
            return
        _forget_secrets(flow)
        killed = flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE
        try:
            if isinstance(exchange.outcome, outcomes.Call) and exchange.incoming is None:
                exchange.recorder.told.add(b"".join(exchange.outcome.translation.abort(self._upstream_error(flow))))
            elif exchange.outcome is not None and flow.client_conn.connected and not killed:
                self._tell(flow, exchange, exchange.outcome)
        finally:
            self._over(flow, exchange)

    def _tell(
        self, flow: http.HTTPFlow, exchange: Exchange, outcome: outcomes.Call | outcomes.Passthrough | loopback.Job
    ) -> None:
        error = self._upstream_error(flow)
        if isinstance(outcome, outcomes.Call):
            lines = outcome.translation.abort(error)
            if exchange.started:
                exchange.recorder.told.add(b"".join(lines))
                framed = [b"%x\r\n%s\r\n" % (len(line), line) for line in lines]
                connections.write_last(flow, b"".join(lines if exchange.http10 else [*framed, LAST_CHUNK]))
                return
            answer = outcome.translation.answer()
        elif isinstance(outcome, outcomes.Passthrough):
            message = scrub(error.message, self.services.secrets)
            answer = passthrough.error_answer(exchange.path, error.status, message)
        else:
            answer = outcomes.Response.error(503, loopback.STOPPED)
        if not exchange.started:
            connections.write_last(flow, responses.raw(answer, exchange.extra))
            self._answer(flow, answer, exchange.extra)

    def _upstream_error(self, flow: http.HTTPFlow) -> LMStudioError:
        if flow.server_conn.timestamp_tcp_setup is None:
            return LMStudioUnreachable(str(self.upstream))
        if flow.response is not None:
            return LMStudioError(502, "LM Studio closed the connection before its answer was finished")
        detail = flow.error.msg if flow.error else ""
        return LMStudioError(502, f"LM Studio closed the connection before it answered ({detail})")

    def _over(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        outcome = exchange.outcome
        try:
            if flow.response is not None and flow.response.stream:
                # The function holds the exchange, and the list of flows would hold it.
                flow.response.stream = False
            self._record(flow, exchange)
            if interface.is_shown() and exchange.recorder.is_too_large(flow):
                self._spawn(self._cut(flow, exchange.recorder))
        except Exception:
            logger.exception("%s could not be recorded", exchange.path)
        if outcome is None:
            return
        self._loopback.forget(exchange.ticket)
        if flow.client_conn.connected:
            self._idle_since[flow.client_conn.id] = time.monotonic()
        if isinstance(outcome, outcomes.Call | outcomes.Passthrough) and outcome.finished is not None:
            outcome.finished()

    def _record(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        if exchange.recorded:
            exchange.recorder.show(flow)
            return
        outcome = exchange.outcome
        measured = outcome.translation.measured() if isinstance(outcome, outcomes.Call) else None
        exchange.recorder.finish(flow, self._clock.monotonic(), measured)

    def _show(self, exchange: lmstudio_client.ClientCall) -> None:
        """Show a call of our own; whoever made it does not wait for this."""
        if self._serving:
            flow = internal_calls.to_flow(exchange, self.services.settings.max_kept_size)
            sum_up(flow)
            self._spawn(interface.show_flow(flow))

    def _list_cleared(self) -> None:
        """End what waits for a person who cannot see it any more."""
        for exchange in tuple(self._exchanges.values()):
            if exchange.flow.intercepted and exchange.flow.killable and not interface.is_listed(exchange.flow):
                exchange.flow.kill()

    async def _cut(self, flow: http.HTTPFlow, recorder: Recorder) -> None:
        """Shorten the bodies that stay in the list of flows, when they have been sent."""
        while flow.live:  # noqa: ASYNC110 - mitmproxy tells nobody
            await asyncio.sleep(SHOW_SECONDS)
        if flow.id not in self._exchanges and (flow.response or flow.error):
            recorder.cut(flow)
            await interface.show_change(flow)

    def _show_progress(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Show now and then what has come of an answer that streams, if anybody can look at it."""

        async def show() -> None:
            while True:
                # The tools look at all of both bodies whenever something changes.
                size = len(flow.request.raw_content or b"") + len(exchange.recorder.heard.data)
                await asyncio.sleep(SHOW_SECONDS * (1 + size // SHOWN_BYTES))
                if self._exchanges.get(flow.id) is not exchange:
                    return
                if exchange.recorder.so_far(flow):
                    await interface.show_change(flow)

        if interface.is_shown():
            self._spawn(show())

    def client_disconnected(self, client: Any) -> None:
        """Forget a client."""
        self._idle_since.pop(client.id, None)


class Rest:
    """What is under way when the script is loaded anew ends as it began: with the code that knows of it."""

    def __init__(self, bridge: Bridge, exchanges: Mapping[str, Exchange]) -> None:
        self.name = f"rest of bridge {id(bridge)}"
        self._bridge = bridge
        self._exchanges = exchanges

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Choose how the answer goes on."""
        await self._bridge.responseheaders(flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Translate an answer that was not translated while it came."""
        await self._bridge.response(flow)
        self._leave()

    async def error(self, flow: http.HTTPFlow) -> None:
        """Tell a client that LM Studio is gone."""
        await self._bridge.error(flow)
        self._leave()

    def _leave(self) -> None:
        if not self._exchanges and self in ctx.master.addons:
            ctx.master.addons.remove(self)


def _end_if_live(flow: http.HTTPFlow, last: bytes) -> None:
    if flow.live:
        connections.write_last(flow, last)


def _is_ours(flow: http.HTTPFlow) -> bool:
    if not flow.live:
        return False  # read from a file, or a call of our own that is shown
    if flow.is_replay:
        return flow.is_replay == "request" and record.of(flow) is not None
    return isinstance(flow.client_conn.proxy_mode, ReverseMode)


def _is_event_stream(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == EVENT_STREAM


def _wants_a_look(response: http.Response, relay: outcomes.Passthrough) -> bool:
    """Whether an answer of LM Studio's may be changed, may repeat the token, or may be a 200 for no such path."""
    length = response.headers.get("content-length", "")
    short = length.isdecimal() and int(length) <= UNKNOWN_ROUTE_BYTES
    if response.status_code in TOKEN_REFUSED:
        return True
    return response.status_code == 200 and (relay.rewrite is not None or short)


def _incoming(flow: http.HTTPFlow, arrived: int) -> outcomes.Request:
    """Take a request as it is in its flow now, without its body and its secrets."""
    path, _, query = flow.request.path.partition("?")
    fields = {name.lower(): value for name, value in flow.request.headers.items()}
    headers = {name: value for name, value in fields.items() if name not in access.SECRET_HEADERS}
    return outcomes.Request(flow.request.method, path, query, headers, b"", arrived)


def _set_body(message: http.Message, body: bytes) -> None:
    message.raw_content = body
    message.headers.pop("transfer-encoding", None)
    message.headers["Content-Length"] = str(len(body))


def _forget_secrets(flow: http.HTTPFlow) -> None:
    if isinstance(flow.request.headers, SealedHeaders):
        flow.request.headers.forget()
