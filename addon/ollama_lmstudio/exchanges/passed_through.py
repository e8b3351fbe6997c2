"""A request on one of LM Studio's own APIs: it is sent on, and its response comes back as it is."""

from __future__ import annotations

from http import HTTPStatus

from mitmproxy import http

from .. import routes
from ..lmstudio.errors import LMStudioError, is_unknown_route, scrub, scrub_bytes
from ..outcomes import Passthrough
from ..translate.api_errors import error_answer
from . import downstream, eviction, upstream
from .exchange import Exchange, Handler

# LM Studio says with a 200 that it does not have a path. No such response is larger.
UNKNOWN_ROUTE_BYTES = 4096
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

    async def responseheaders(self) -> None:
        response, clock = self.flow.response, self.bridge.clock.monotonic
        assert response is not None
        self.recorder.set_upstream_head(response)
        if response.raw_content is not None:
            return
        chunked = "chunked" in response.headers.get("transfer-encoding", "")
        downstream.pass_headers(self.exchange)
        if not self._is_buffered(response):
            add = self.recorder.add_upstream
            downstream.pass_body(self.exchange, lambda data: add(data, clock()), chunked=chunked)

    def _is_buffered(self, response: http.Response) -> bool:
        if response.status_code in TOKEN_REFUSED or eviction.may_be_told(self.exchange, response):
            return True
        length = response.headers.get("content-length", "")
        is_short = length.isdecimal() and int(length) <= UNKNOWN_ROUTE_BYTES
        return response.status_code == HTTPStatus.OK and (self._passthrough.rewrite is not None or is_short)

    def response(self) -> None:
        response = self.flow.response
        assert response is not None
        if self.exchange.head_sent:
            return
        body = response.raw_content or b""
        self.recorder.add_upstream(body, self.bridge.clock.monotonic())
        if response.status_code in TOKEN_REFUSED:
            upstream.set_body(response, scrub_bytes(body, self.bridge.services.secrets))
        if is_unknown_route(body):
            self.exchange.respond(routes.NOT_FOUND)
        elif evicted := eviction.error_of(self.exchange, response, body):
            self.exchange.respond(evicted)
        elif self._passthrough.rewrite is not None and response.status_code == HTTPStatus.OK:
            response.headers.pop("etag", None)
            upstream.set_body(response, self._passthrough.rewrite(body))

    def error(self, error: LMStudioError) -> None:
        if not self.exchange.head_sent:
            message = scrub(error.message, self.bridge.services.secrets)
            self.exchange.respond_in_error(error_answer(self.exchange.path, error.status, message))

    def close(self) -> None:
        if self._passthrough.release is not None:
            self._passthrough.release()
