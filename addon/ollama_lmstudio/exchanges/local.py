"""A request that the loopback service answers: lines that are made over time, or a body that is not held in memory."""

from __future__ import annotations

from http import HTTPStatus

from ..lmstudio.errors import LMStudioError
from ..outcomes import LocalStream, Response
from ..progress import State
from . import downstream, loopback, upstream
from .exchange import Exchange, Handler


class Local(Handler):
    """Send the request to the loopback service, and pass its response through."""

    uses_connection = True

    def __init__(self, exchange: Exchange, job: loopback.Job) -> None:
        super().__init__(exchange)
        self.job = job
        self._ticket = ""
        if isinstance(job, LocalStream):
            self.recorder.expect_progress()

    async def request(self) -> None:
        # A request whose body is streamed is sent as soon as its head has come.
        if not self._ticket:
            self.send()

    def send(self) -> None:
        """Make the flow's request one to the loopback service."""
        service, request = self.bridge.loopback, self.flow.request
        headers = dict(service.add(self.job, self.exchange.secrets))
        self._ticket = headers[loopback.TICKET_HEADER]
        request.scheme, request.host, request.port = "http", loopback.HOST, service.port
        request.http_version = "HTTP/1.1"
        upstream.seal(self.exchange, {loopback.SECRET_HEADER: headers.pop(loopback.SECRET_HEADER)})
        for name, value in headers.items():
            request.headers[name] = value
        self.recorder.save(self.flow)

    def state(self, now: int) -> State | None:
        # What the job waits for, it tells itself.
        return None

    async def responseheaders(self) -> None:
        response = self.flow.response
        assert response is not None
        if response.raw_content is not None:
            return
        chunked = "chunked" in response.headers.get("transfer-encoding", "")
        downstream.pass_headers(self.exchange)
        is_stream = isinstance(self.job, LocalStream) and self.job.streaming
        downstream.pass_body(self.exchange, self.recorder.client_body.add, chunked=chunked, lines=is_stream)

    def error(self, error: LMStudioError) -> None:
        if not self.exchange.head_sent:
            self.exchange.respond_in_error(Response.error(HTTPStatus.SERVICE_UNAVAILABLE, loopback.STOPPED))

    def stop(self, error: LMStudioError) -> None:
        # A response that has begun is ended by the loopback service, which is stopped as well.
        self.error(error)

    def close(self) -> None:
        self.bridge.loopback.forget(self._ticket)
