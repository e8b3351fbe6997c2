"""A server on a loopback port, for what mitmproxy cannot do: stream a response that has no upstream, and receive a
request body without keeping it.

The addon points a flow at this server, with two headers: a secret, which is new in every process and without which
every request is refused, and a ticket, which names the job. The response then passes through mitmproxy as LM Studio's
does.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus

from tornado import httpserver, iostream, netutil, web

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import wire
from ..ollama.errors import OllamaError
from ..outcomes import INTERNAL_ERROR, NDJSON, PLAIN_JSON, BodySink, LocalStream, Response
from ..record.redaction import LOOPBACK_SECRET_HEADER
from ..tasks import Tasks

logger = logging.getLogger(__name__)

SECRET_HEADER = LOOPBACK_SECRET_HEADER
TICKET_HEADER = "X-Loopback-Ticket"
HOST = "127.0.0.1"

# 256 bits, as the documentation of `secrets` advises.
SECRET_BYTES = 32
# Bodies are not kept in memory, so no size is too large; tornado's default is 100 MB. No file has this many bytes.
MAX_BODY_BYTES = 1 << 62
# On stop, the streams that are being served get this long to write their error line before connections are closed.
STOP_SECONDS = 1
STOPPED = "the proxy was stopped or loaded anew; what LM Studio has begun goes on there"

Job = LocalStream | BodySink


class Loopback:
    """Serve each job to the flow that brings the secret and the job's ticket."""

    def __init__(self) -> None:
        self.port = 0
        self.secret = secrets.token_urlsafe(SECRET_BYTES)
        self._server: httpserver.HTTPServer | None = None
        self._jobs: dict[str, tuple[Job, tuple[str, ...]]] = {}
        self._numbers = itertools.count(1)
        self._handlers: set[_Handler] = set()
        # Not cancelled by `stop`: what runs here is the stopping itself.
        self._tasks = Tasks()

    def add(self, job: Job, hidden: tuple[str, ...] = ()) -> Mapping[str, str]:
        """Add a job, starting the server if necessary; return the headers for the request that the job answers.

        `hidden` are the secrets to be removed from the job's error messages.
        """
        if self._server is None:
            self._start()
        ticket = str(next(self._numbers))
        self._jobs[ticket] = (job, hidden)
        return {SECRET_HEADER: self.secret, TICKET_HEADER: ticket, "Host": f"{HOST}:{self.port}"}

    def forget(self, ticket: str) -> None:
        """Drop a job that no request has asked for."""
        self._jobs.pop(ticket, None)

    def take(self, headers: Mapping[str, str]) -> tuple[Job, tuple[str, ...]] | None:
        """Return and remove the job of a request; None if the secret is missing or the ticket unknown."""
        if not hmac.compare_digest(headers.get(SECRET_HEADER, "").encode(), self.secret.encode()):
            return None
        return self._jobs.pop(headers.get(TICKET_HEADER, ""), None)

    def _start(self) -> None:
        application = web.Application([(r".*", _Handler, {"loopback": self})], log_function=lambda handler: None)
        sockets = netutil.bind_sockets(0, HOST)
        self.port = sockets[0].getsockname()[1]
        self._server = httpserver.HTTPServer(application, max_body_size=MAX_BODY_BYTES)
        self._server.add_sockets(sockets)

    def stop(self) -> None:
        """Stop the server; what is being served ends with an error."""
        self._jobs.clear()
        ending = [task for handler in tuple(self._handlers) if (task := handler.stop()) is not None]
        if self._server is not None:
            self._server.stop()
            self._tasks.spawn(_close(self._server, ending))
            self._server = None

    def entered(self, handler: _Handler) -> None:
        """Add a handler, which `stop` then ends."""
        self._handlers.add(handler)

    def left(self, handler: _Handler) -> None:
        """Remove a handler that has finished."""
        self._handlers.discard(handler)


async def _close(server: httpserver.HTTPServer, ending: Sequence[asyncio.Task[None]]) -> None:
    if ending:
        await asyncio.wait(ending, timeout=STOP_SECONDS)
    await server.close_all_connections()


@web.stream_request_body
class _Handler(web.RequestHandler):
    SUPPORTED_METHODS = ("POST",)  # type: ignore[assignment, unused-ignore]

    def initialize(self, loopback: Loopback) -> None:
        self._loopback = loopback
        self._job: Job | None = None
        self._hidden: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.clear_header("Content-Type")

    def compute_etag(self) -> None:
        return None

    def prepare(self) -> None:
        found = self._loopback.take(self.request.headers)
        if found is None:
            self.set_status(HTTPStatus.FORBIDDEN)
            self.finish()
            return
        self._job, self._hidden = found
        self._loopback.entered(self)

    async def data_received(self, chunk: bytes) -> None:
        if self._job is not None and not isinstance(self._job, LocalStream):
            await self._job.feed(chunk)

    async def post(self) -> None:
        if isinstance(self._job, LocalStream):
            # A task of its own, which can be cancelled when the client disconnects.
            self._task = asyncio.create_task(self._serve(self._job))
            # When the process ends, asyncio cancels this coroutine too, and tornado would log that as an error.
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._task})
        elif self._job is not None:
            self._respond(await self._job.end())

    async def _serve(self, job: LocalStream) -> None:
        last: Mapping[str, object] = {}
        try:
            async with aclosing(job.lines) as lines:
                async for last in lines:
                    if job.streaming:
                        await self._write(last)
        except (OllamaError, LMStudioError) as e:
            last = await self._fail(job, e.status, e.message)
        except iostream.StreamClosedError:
            return
        except asyncio.CancelledError:
            if not self._stopped:
                return
            last = await self._fail(job, HTTPStatus.SERVICE_UNAVAILABLE, STOPPED)
        except Exception:
            logger.exception("%s failed", self.request.path)
            last = await self._fail(job, HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR)
        if not job.streaming:
            self.set_header("Content-Type", PLAIN_JSON)
            self.finish(wire.dumps(dict(last)))
        elif not self._finished:
            self.finish()

    async def _write(self, line: Mapping[str, object]) -> None:
        self.set_header("Content-Type", NDJSON)
        self.write(wire.line(dict(line)))
        await self.flush()

    async def _fail(self, job: LocalStream, status: int, message: str) -> Mapping[str, object]:
        """Send an error: with its status if nothing has been sent yet, else as the last line of the stream."""
        line = {"error": scrub(message, self._hidden)}
        if not self._headers_written:
            self.set_status(status)
        if job.streaming and self._headers_written:
            with suppress(iostream.StreamClosedError):
                await self._write(line)
        elif job.streaming:
            self._respond(Response.json(line, status=status, content_type=PLAIN_JSON))
        return line

    def _respond(self, response: Response) -> None:
        self.set_status(response.status)
        if response.content_type:
            self.set_header("Content-Type", response.content_type)
        self.set_header("Content-Length", str(len(response.body)))
        self.finish(response.body)

    def stop(self) -> asyncio.Task[None] | None:
        """End the job with an error; return the task that is still writing it, if any."""
        self._stopped = True
        self._end()
        return self._task

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._end()
        self.on_finish()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._job is not None and not isinstance(self._job, LocalStream):
            self._job.abort()

    def on_finish(self) -> None:
        self._loopback.left(self)
