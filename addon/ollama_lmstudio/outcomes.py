"""What an endpoint is given, a Request, and the outcomes that it may return. No mitmproxy here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .lmstudio.errors import LMStudioError
from .ollama import chunks, wire

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"

INTERNAL_ERROR = "internal error of the proxy, see its log"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request, as it came. `path` has no query; `arrived` is in ns of the monotonic clock."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    arrived: int


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer to the client. Without a content type none is sent, as Ollama does for empty bodies."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()

    @classmethod
    def json(cls, value: object, *, status: int = 200, content_type: str = JSON) -> Response:
        """Answer with a JSON value."""
        return cls(status, wire.dumps(value), content_type)

    @classmethod
    def error(cls, status: int, message: str, *, content_type: str = JSON) -> Response:
        """Answer with Ollama's error object."""
        return cls.json({"error": message}, status=status, content_type=content_type)


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a translated answer when it has ended.

    `first_token` is in ns from the client's request on, 0 if none came.
    """

    metrics: chunks.Metrics = field(default_factory=chunks.Metrics)
    first_token: int = 0
    done_reason: str = ""
    error: str = ""


class Translation(Protocol):
    """Turn LM Studio's answer into the client's. Times are ns of the monotonic clock; nothing here ever raises.

    A translation is used in one of two ways. A streaming client gets what `feed` and `flush` return as it comes. For
    any other, all of LM Studio's answer is fed first, and `answer` then tells status and body.
    """

    @property
    def streaming(self) -> bool:
        """Whether the client wants lines as they come."""

    @property
    def failed(self) -> bool:
        """Whether the answer ended with an error."""

    def paused(self, duration: int) -> None:
        """Take that the call was held for `duration` ns before it was sent."""

    def failure(self, data: bytes) -> tuple[bool, LMStudioError | None]:
        """Look at the first bytes of a stream: whether they tell how it begins, and the error if they do."""

    def feed(self, data: bytes, at: int) -> list[bytes]:
        """Take bytes of LM Studio's stream; give whole lines."""

    def flush(self, at: int) -> list[bytes]:
        """Take the end of LM Studio's stream; give the last lines."""

    def whole(self, status: int, content_type: str, body: bytes, at: int) -> None:
        """Take an answer of LM Studio's that is not a stream."""

    def abort(self, error: LMStudioError) -> list[bytes]:
        """Take that LM Studio is gone; give the error line, unless the answer was whole."""

    def answer(self) -> Response:
        """Give the answer as one body."""

    def measured(self) -> Measured:
        """Give what was measured so far."""


@dataclass(slots=True)
class Call:
    """A call to LM Studio that answers the client's request, and how its answer is translated.

    `model` is the id that LM Studio is asked for, `asked` what the client called it.
    """

    path: str
    body: bytes
    translation: Translation
    model: str = ""
    asked: str = ""
    dropped: Sequence[str] = ()
    """What the client asked for and LM Studio has nothing for."""
    finished: Callable[[], None] | None = None
    """What is to be called when the answer has ended, also when the client left."""
    reload: Callable[[], Awaitable[None]] | None = None
    """How to load the model, should LM Studio refuse to do so on demand."""


@dataclass(slots=True)
class Passthrough:
    """A request that goes to LM Studio as it is, but for its body's model name.

    With `rewrite` the body of its answer, if that is a 200, is changed when it is whole. `model` is the id that LM
    Studio is asked for, `asked` what the client called it.
    """

    path: str
    body: bytes
    rewrite: Callable[[bytes], bytes] | None = None
    model: str = field(default="", compare=False)
    asked: str = field(default="", compare=False)
    finished: Callable[[], None] | None = field(default=None, compare=False)
    """What is to be called when the answer has ended, also when the client left; None if no known model is used."""


@dataclass(slots=True)
class LocalStream:
    """An answer that is made here over time: NDJSON lines, or for `streaming` false only the last one of them.

    `lines` may end with an OllamaError or an LMStudioError. It is closed when the client leaves.
    """

    lines: AsyncGenerator[Mapping[str, object], None]
    streaming: bool


class BodySink(Protocol):
    """Take a body that is too large to be held in memory, and answer when it has ended."""

    async def feed(self, data: bytes) -> None:
        """Take bytes; the next ones are not read before this returns."""

    async def end(self) -> Response:
        """Take the end of the body; give the answer."""

    def abort(self) -> None:
        """Take that there will be no end: the client left."""


Outcome = Response | Call | Passthrough | LocalStream
