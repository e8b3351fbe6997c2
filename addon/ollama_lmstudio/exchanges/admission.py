"""The first two handlers: who comes in, and what becomes of a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from mitmproxy import http
from mitmproxy.proxy.mode_specs import ReverseMode

from .. import access, compression, routes, tolerant_json
from ..internals import connections, interception, playback
from ..lmstudio.errors import LMStudioError, scrub
from ..ollama.errors import OllamaError
from ..outcomes import INTERNAL_ERROR, Call, Outcome, Passthrough, Request, Response
from ..record import record, recording, redaction
from ..record.record import Record
from ..translate.api_errors import error_answer
from ..units import size
from . import responses, upstream
from .answered import Answered
from .exchange import Exchange, Handler
from .handlers import HANDLERS, REPLAY_HANDLERS, Handlers
from .local import Local
from .registry import Exchanges

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A refused request with a larger body is not read to its end: mitmproxy would, before it sends the response.
REFUSED_BODY_BYTES = 65536
# What Ollama's own registry would be told, and LM Studio has no use for.
WITH_PASSWORD = ("/api/pull", "/api/push")
_SECRET_HEADERS = frozenset(name.encode() for name in access.SECRET_HEADERS)

TOO_LARGE = "the request's body is larger than {} when it is decompressed (option max_decompressed_size)"
NOT_CONFIGURED = "the proxy in front of LM Studio was given an option that it cannot use: see its log"
NOT_KEPT = "this request of {} is not kept whole (option max_kept_size), so that it cannot be sent again"


def is_ours(flow: http.HTTPFlow) -> bool:
    """Whether a flow is a client's, or a recorded one of a client's that the user replays."""
    if not flow.live:
        return False  # read from a file, or a call of our own that is shown
    if flow.is_replay:
        return flow.is_replay == "request" and record.of(flow) is not None
    return isinstance(flow.client_conn.proxy_mode, ReverseMode)


def admit(flow: http.HTTPFlow, exchanges: Exchanges) -> None:
    """Begin an exchange in the requestheaders hook: look who asks, before the body is read."""
    if not exchanges.bridge.is_configured:
        # The port is being closed.
        _remove_secrets(flow.request.headers)
        refusal = error_answer(flow.request.path, HTTPStatus.SERVICE_UNAVAILABLE, NOT_CONFIGURED)
        flow.response = responses.make(refusal, (), flow.request.method)
        return
    kept = record.of(flow) if flow.is_replay else None
    try:
        if kept is not None:
            kept.forget_answer()
            # It is not the client with that key who asks now.
            kept.key = ""
            kept.at = record.local_time(flow.request.timestamp_start)
            exchange = exchanges.begin(flow, kept)
            exchange.handler = Resent(exchange)
            exchange.recorder.save(flow)
        else:
            _admit(exchanges.begin(flow, Record(at=record.local_time(flow.request.timestamp_start))))
    except Exception:
        # Nobody comes in because the check failed.
        logger.exception("%s %s failed", flow.request.method, flow.request.path)
        _remove_secrets(flow.request.headers)
        flow.response = responses.make(_internal_error(flow.request.path), (), flow.request.method)


def _remove_secrets(headers: http.Headers) -> None:
    headers.fields = tuple(field for field in headers.fields if field[0].lower() not in _SECRET_HEADERS)


def _admit(exchange: Exchange) -> None:
    flow, gate = exchange.flow, exchange.bridge.gate
    headers = flow.request.headers
    given = _fields_of(headers)
    # Another version has the name elsewhere.
    host = given.get("host", "") if flow.request.is_http11 or flow.request.is_http10 else flow.request.host_header or ""
    request = exchange.client_request = _request_of(flow, given, exchange.recorder.started_ns)
    if len(request.headers) < len(given):
        _remove_secrets(headers)
    allowed = routes.allowed_methods(request.path)
    error = partial(error_answer, request.path)
    needs_key = routes.needs_key(request.path)
    refusal = access.check(gate, request.method, host, given, allowed, error, needs_key=needs_key)
    exchange.recorder.set_request(request)
    if (key := gate.named_key(given)) is not None:
        exchange.recorder.set_key(key.name, key.key)
    exchange.recorder.record.save(flow.metadata)
    if refusal is not None:
        _refuse(exchange, refusal, host)
        return
    origin = request.headers.get("origin", "")
    if origin and not access.is_same_origin(origin, host):
        exchange.cors_headers = access.cors_headers(gate, origin)
    if exchange.bridge.is_draining:
        # It was on its way when the process was told to end. A load balancer passes an error on to its client.
        exchange.close_connection = True
    exchange.handler = Admitted(exchange)
    # With the option stream_large_bodies, mitmproxy would send a large body on before the request hook.
    flow.request.stream = False
    if upload := routes.upload(request.method, request.path):
        local = exchange.handler = Local(exchange, upload(request, exchange.bridge.services))
        exchange.recorder.set_outcome(local.job)
        local.send()
        flow.request.stream = True


def _refuse(exchange: Exchange, refusal: Response, host: str) -> None:
    """Answer a request that may not come in, or a preflight."""
    flow = exchange.flow
    if refusal.status == HTTPStatus.FORBIDDEN:
        if not exchange.bridge.gate.allows_host(host):
            logger.warning("refused the host name %r: to let it in, set the option allowed_hosts", host)
        else:
            origin = flow.request.headers.get("origin", "")
            logger.warning("refused the web page of %r: to let it in, set the option allowed_origins", origin)
    answered = exchange.handler = Answered(exchange, refusal)
    answered.respond()
    length = flow.request.headers.get("content-length", "")
    is_large = length.isdecimal() and int(length) > REFUSED_BODY_BYTES
    if ("transfer-encoding" in flow.request.headers or is_large) and connections.write_last(
        flow, responses.raw(refusal, exchange.cors_headers)
    ):
        flow.kill()


def _fields_of(headers: http.Headers) -> dict[str, str]:
    """Return headers by their names in lower case, those of one name as one: mitmproxy's object, looked through once.

    It decodes them in the same way.
    """
    found: dict[str, str] = {}
    for name, value in headers.fields:
        key, text = name.lower().decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _request_of(flow: http.HTTPFlow, given: dict[str, str], started_ns: int, body: bytes = b"") -> Request:
    """Return a flow's request as it is now, without its secrets. `given` are its headers by name."""
    path, _, query = flow.request.path.partition("?")
    path = routes.decoded(path)
    headers = {name: value for name, value in given.items() if name not in access.SECRET_HEADERS}
    return Request(flow.request.method, path, query, headers, body, started_ns, flow.client_conn.peername[0])


def _internal_error(path: str) -> Response:
    return error_answer(path, HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR)


class _Deciding(Handler):
    """Find out what becomes of a request, and hand the exchange over to the handler of that."""

    handlers: Handlers

    async def request(self) -> None:
        outcome = await self.outcome_or_error(self.decide)
        if outcome is None:
            return
        if not isinstance(outcome, recording.RecordedAnswer):
            self.recorder.set_outcome(outcome)
            self._note_conversation(outcome)
        if self.exchange.was_intercepted and not isinstance(outcome, Call):
            # There is no other side of the request to be seen.
            interception.let_pass(self.flow)
        handler = self.exchange.handler = self.handlers[type(outcome)](self.exchange, outcome)
        await handler.request()

    def _note_conversation(self, outcome: Outcome) -> None:
        """Note which conversation the request belongs to; one that is sent again stays in its own."""
        if isinstance(outcome, (Call, Passthrough)) and outcome.turns is not None:
            record = self.recorder.record
            record.conversation = record.conversation or self.bridge.conversations.id_of(outcome.turns)

    async def decide(self) -> Outcome | recording.RecordedAnswer | None:
        """Return what becomes of the request; None if it was killed or answered meanwhile."""
        raise NotImplementedError

    async def outcome_or_error(self, decide: Callable[[], Awaitable[T]]) -> T | Response:
        """Return what `decide` returns, or the response for what it raises."""
        try:
            return await decide()
        except (OllamaError, LMStudioError) as e:
            return Response.error(e.status, scrub(e.message, self.exchange.secrets))
        except Exception:
            logger.exception("%s %s failed", self.recorder.record.method, self.exchange.path)
            return _internal_error(self.exchange.path)

    async def call_endpoint(self, request: Request) -> Outcome:
        """Return what the endpoint of a request makes of it."""
        found = routes.find(request.method, request.path, request.query)
        return found if isinstance(found, Response) else await found(request, self.bridge.services)


class Admitted(_Deciding):
    """A client's request that may come in."""

    handlers = HANDLERS

    async def decide(self) -> Outcome | recording.RecordedAnswer | None:
        request = self.exchange.client_request
        assert request is not None
        if routes.is_passthrough(request.path) and (refusal := await self._decompress()):
            self.recorder.set_request(replace(request, body=self.flow.request.raw_content or b""))
            return refusal
        request = await self._read(request)
        if self.exchange.is_answered:
            return None
        self.exchange.decide_again = partial(self.outcome_or_error, partial(self.call_endpoint, request))
        return recording.find(playback.recorded_flows(), request) or await self.call_endpoint(request)

    async def _decompress(self) -> Response | None:
        """Decompress the body, as Ollama does on its /v1: the model's name is in it."""
        request = self.flow.request
        body, encoding = request.raw_content, request.headers.get("content-encoding")
        limit = self.bridge.services.settings.max_decompressed_size
        if not body or encoding is None:
            return None
        try:
            decompressed = await asyncio.to_thread(compression.decompress, body, encoding, limit)
        except compression.TooLarge:
            return error_answer(self.exchange.path, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE.format(size(limit)))
        if decompressed is not None:
            del request.headers["content-encoding"]
            request.content = decompressed
        return None

    async def _read(self, request: Request) -> Request:
        """Return the request with its body, or what the user, who stopped it, has made of it."""
        flow = self.flow
        if request.path in WITH_PASSWORD:
            upstream.set_body(flow.request, redaction.without_secrets(flow.request.raw_content or b""))
        request = replace(request, body=flow.request.raw_content or b"")
        self.recorder.set_request(request)
        if interception.is_stopped(flow):
            self.recorder.save(flow)
            await interception.wait_for_user(flow)
            self.exchange.was_intercepted = True
            body = flow.request.raw_content or b""
            request = _request_of(flow, _fields_of(flow.request.headers), self.recorder.started_ns, body)
            self.recorder.set_request(request)
        self.exchange.client_request = request
        return request


class Resent(_Deciding):
    """A recorded exchange that the user replays: its call is sent as it is now, which may have been edited."""

    handlers = REPLAY_HANDLERS

    async def decide(self) -> Outcome:
        kept, request = self.recorder.record, self.flow.request
        path = request.path.partition("?")[0].removeprefix(self.bridge.upstream.prefix)
        body = request.raw_content or b""
        if kept.call_size > len(body) and not tolerant_json.is_json(body.decode("utf-8", "replace").lstrip("\ufeff")):
            return Response.error(HTTPStatus.BAD_REQUEST, NOT_KEPT.format(size(kept.call_size)))
        is_translated = kept.kind == "call" and kept.request_size == len(kept.request)
        if kept.kind in ("own", "relay", "call") and not is_translated:
            return Passthrough(path, body, model=kept.upstream_model, asked=kept.model)
        outcome = await self.call_endpoint(
            Request(
                kept.method,
                kept.path,
                kept.query,
                dict(kept.headers),
                kept.request if is_translated else body,
                self.recorder.started_ns,
            )
        )
        if is_translated and isinstance(outcome, Call):
            outcome.path, outcome.body = path, body
        return outcome
