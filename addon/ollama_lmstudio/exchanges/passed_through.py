"""A request on one of LM Studio's own APIs: it is sent on, and its response comes back as it is."""

from __future__ import annotations

from http import HTTPStatus

from mitmproxy import http

from .. import routes
from ..lmstudio.errors import (
    LMStudioError,
    error_from_response,
    is_evicted,
    is_unknown_route,
    scrub,
    scrub_bytes,
)
from ..outcomes import Passthrough
from ..translate.api_errors import error_answer
from . import downstream, upstream
from .exchange import Exchange, Handler

# LM Studio says with a 200 that it does not have a path. No such response is larger, and none of an evicted model.
SHORT_BYTES = 4096
# LM Studio's status for a model that was evicted, and now and then.
EVICTION_STATUSES = (HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR)
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
        if response.status_code in TOKEN_REFUSED or self._may_be_eviction(response):
            return True
        return response.status_code == HTTPStatus.OK and (self._passthrough.rewrite is not None or _is_short(response))

    def _may_be_eviction(self, response: http.Response) -> bool:
        """Return whether an error may be one that LM Studio calls the client's, and Ollama does not."""
        repairs = self.bridge.services.settings.repair_passthrough and self.exchange.path.startswith("/v1/")
        return repairs and response.status_code in EVICTION_STATUSES and _is_short(response)

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
        elif self._may_be_eviction(response):
            self._tell_eviction(response, body)
        elif self._passthrough.rewrite is not None and response.status_code == HTTPStatus.OK:
            response.headers.pop("etag", None)
            upstream.set_body(response, self._passthrough.rewrite(body))

    def _tell_eviction(self, response: http.Response, body: bytes) -> None:
        """Respond with a 503, which clients take for what it is: that the same request may be made again."""
        content_type = response.headers.get("content-type", "")
        error = error_from_response(response.status_code, content_type, body, self.bridge.services.secrets)
        if is_evicted(error):
            self.exchange.respond(error_answer(self.exchange.path, error.status, error.message))

    def error(self, error: LMStudioError) -> None:
        if not self.exchange.head_sent:
            message = scrub(error.message, self.bridge.services.secrets)
            self.exchange.respond_in_error(error_answer(self.exchange.path, error.status, message))

    def close(self) -> None:
        if self._passthrough.release is not None:
            self._passthrough.release()


def _is_short(response: http.Response) -> bool:
    length = response.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= SHORT_BYTES
