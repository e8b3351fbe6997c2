"""A server on a loopback port, for what mitmproxy cannot: stream an answer of its own, take a body without holding it.

The bridge points a flow here, with two headers: a secret, which every process makes anew and without which nothing is
answered, and a ticket, which says what the flow is about. The answer then goes through mitmproxy like LM Studio's.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress

from tornado import httpserver, iostream, netutil, web

from ..lmstudio.errors import LMStudioError, scrub
from ..ollama import wire
from ..ollama.errors import OllamaError
from ..outcomes import INTERNAL_ERROR, NDJSON, PLAIN_JSON, BodySink, LocalStream, Response
from ..record.redaction import LOOPBACK_SECRET_HEADER

logger = logging.getLogger(__name__)

SECRET_HEADER = LOOPBACK_SECRET_HEADER
TICKET_HEADER = "X-Loopback-Ticket"
HOST = "127.0.0.1"

# Bodies are never held, so there is no size that is too large.
NO_LIMIT = 1 << 62
# How long what is being served may take to tell that it ends.
LAST_WORDS_SECONDS = 1
STOPPED = "the proxy was stopped or loaded anew; what LM Studio has begun goes on there"

Job = LocalStream | BodySink


class Loopback:
    """Serve jobs to flows that bring the secret."""

    def __init__(self) -> None:
        self.port = 0
        self.secret = secrets.token_urlsafe(32)
        self._server: httpserver.HTTPServer | None = None
        self._jobs: dict[str, tuple[Job, tuple[str, ...]]] = {}
        self._numbers = itertools.count(1)
        self._handlers: set[_Handler] = set()

    def add(self, job: Job, hidden: tuple[str, ...] = ()) -> Mapping[str, str]:
        """Take a job; return the headers of the request that is answered with it. Starts the server if need be.

        `hidden` are the secrets that no error of the job may tell.
        """
        if self._server is None:
            self._start()
        ticket = str(next(self._numbers))
        self._jobs[ticket] = (job, hidden)
        return {SECRET_HEADER: self.secret, TICKET_HEADER: ticket, "Host": f"{HOST}:{self.port}"}

    def forget(self, ticket: str) -> None:
        """Drop a job that nobody came for."""
        self._jobs.pop(ticket, None)

    def take(self, headers: Mapping[str, str]) -> tuple[Job, tuple[str, ...]] | None:
        """Give the job of a request, once; None without the secret or for a ticket that is not known."""
        if not hmac.compare_digest(headers.get(SECRET_HEADER, "").encode(), self.secret.encode()):
            return None
        return self._jobs.pop(headers.get(TICKET_HEADER, ""), None)

    def _start(self) -> None:
        application = web.Application([(r".*", _Handler, {"loopback": self})], log_function=lambda handler: None)
        sockets = netutil.bind_sockets(0, HOST)
        self.port = sockets[0].getsockname()[1]
        self._server = httpserver.HTTPServer(application, max_body_size=NO_LIMIT)
        self._server.add_sockets(sockets)

    def stop(self) -> None:
        """Stop, and end what is being served with an error."""
        self._jobs.clear()
        ending = [task for handler in tuple(self._handlers) if (task := handler.stop()) is not None]
        if self._server is not None:
            self._server.stop()
            _stopping.add(task := asyncio.get_running_loop().create_task(_close(self._server, ending)))
            task.add_done_callback(_stopping.discard)
            self._server = None

    def entered(self, handler: _Handler) -> None:
        """Note who has to be told of the end."""
        self._handlers.add(handler)

    def left(self, handler: _Handler) -> None:
        """Forget who is done."""
        self._handlers.discard(handler)


async def _close(server: httpserver.HTTPServer, ending: Sequence[asyncio.Task[None]]) -> None:
    if ending:
        await asyncio.wait(ending, timeout=LAST_WORDS_SECONDS)
    await server.close_all_connections()


# The server is stopped in the background: these tasks must not be forgotten.
_stopping: set[asyncio.Task[None]] = set()


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
            self.set_status(403)
            self.finish()
            return
        self._job, self._hidden = found
        self._loopback.entered(self)

    async def data_received(self, chunk: bytes) -> None:
        if self._job is not None and not isinstance(self._job, LocalStream):
            await self._job.feed(chunk)

    async def post(self) -> None:
        if isinstance(self._job, LocalStream):
            # A task of its own, so that it can be ended when the client leaves.
            self._task = asyncio.create_task(self._serve(self._job))
            # When the process ends, asyncio cancels this one too, and tornado would print it.
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._task})
        elif self._job is not None:
            self._answer(await self._job.end())

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
            last = await self._fail(job, 503, STOPPED)
        except Exception:
            logger.exception("%s failed", self.request.path)
            last = await self._fail(job, 500, INTERNAL_ERROR)
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
        """Tell an error: with its status as long as nothing was sent, else as one more line."""
        line = {"error": scrub(message, self._hidden)}
        if not self._headers_written:
            self.set_status(status)
        if job.streaming and self._headers_written:
            with suppress(iostream.StreamClosedError):
                await self._write(line)
        elif job.streaming:
            self._answer(Response.json(line, status=status, content_type=PLAIN_JSON))
        return line

    def _answer(self, answer: Response) -> None:
        self.set_status(answer.status)
        if answer.content_type:
            self.set_header("Content-Type", answer.content_type)
        self.set_header("Content-Length", str(len(answer.body)))
        self.finish(answer.body)

    def stop(self) -> asyncio.Task[None] | None:
        """End with an error; return what still has to tell it."""
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
