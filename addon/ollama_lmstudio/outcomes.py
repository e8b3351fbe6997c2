"""What an endpoint takes, a Request, and the outcomes that it may return. Nothing here depends on mitmproxy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from .lmstudio.errors import LMStudioError
from .ollama import chunks, wire

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
NO_CONTENT_TYPE = ""
"""Of an empty body: no Content-Type is sent."""

THINKING = "[thinking]"
"""The sign of an answer that has thoughts."""

INTERNAL_ERROR = "internal error of the proxy, see its log"

Headers = tuple[tuple[str, str], ...]


def header_fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return headers as bytes; HTTP/1 has Latin-1 (RFC 9110, section 5.5)."""
    return [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers]


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request, as it arrived. `path` is the route's, without a query; `started_ns` is monotonic."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    started_ns: int
    peer: str = ""
    """The IP address of who has sent it; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response to the client. Without a content type none is sent, as Ollama does for empty bodies."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()

    @classmethod
    def json(cls, value: object, *, status: int = HTTPStatus.OK, content_type: str = JSON) -> Response:
        """Return a response of a JSON value."""
        return cls(status, wire.dumps(value), content_type)

    @classmethod
    def error(cls, status: int, message: str, *, content_type: str = JSON) -> Response:
        """Return a response of Ollama's error object."""
        return cls.json({"error": message}, status=status, content_type=content_type)


NOT_FOUND = Response(HTTPStatus.NOT_FOUND, b"404 page not found", TEXT)
"""Ollama's, for a path that it does not have."""


@dataclass(frozen=True, slots=True)
class FirstWords:
    """What lists show of a request or an answer: its first words, and signs such as `[2 images] [tools]`."""

    text: str = ""
    signs: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a translated answer when it has ended.

    `first_token` is in ns from the client's request on, 0 if none came. `at_once` is whether the answer came at once,
    so that its `eval_duration` says nothing about the model's speed. `is_load_rough` is whether the model may have been
    loaded on demand, so that a part of the load may be in what follows it.
    """

    metrics: chunks.Metrics = field(default_factory=chunks.Metrics)
    first_token: int = 0
    done_reason: str = ""
    error: str = ""
    at_once: bool = False
    is_load_rough: bool = False
    words: FirstWords = FirstWords()


@dataclass(frozen=True, slots=True)
class Turns:
    """What the user of a conversation has said: a key for each of the texts, together with those before it.

    `is_first` is whether nothing of it was answered before, `asks` whether the user has the last word.
    """

    keys: tuple[int, ...]
    is_first: bool
    asks: bool = True


class BodyTranslation(Protocol):
    """Translate LM Studio's response once all of it has come. Times are ns of the monotonic clock; nothing raises."""

    def paused(self, duration: int) -> None:
        """Leave `duration` ns, for which the user held the call, out of everything that is measured."""

    def loading(self, until: int) -> None:
        """Count the time up to `until` as the load of the model: LM Studio was seen to load it then."""

    def translate(self, status: int, content_type: str, body: bytes, at: int) -> Response:
        """Return the client's response for LM Studio's, which was whole at `at`."""

    def fail(self, error: LMStudioError) -> Response:
        """Return the client's response for a call that got none, or only a part of one."""

    def measured(self) -> Measured:
        """Return what has been measured so far."""


class StreamTranslation(BodyTranslation, Protocol):
    """Translate LM Studio's event stream into Ollama's lines as it comes, or into one object at its end.

    `feed` and `flush` return lines only for a client that wants them as they come. `response` is for all others, and
    for a stream that was rejected.
    """

    @property
    def model(self) -> str:
        """The model that the stream names as its own; empty before it has named one."""

    @property
    def started(self) -> bool:
        """Whether the stream has shown how it begins: with output, with its end, or with an error."""

    @property
    def so_far(self) -> tuple[int, int]:
        """How many parts of the answer have come, which are tokens mostly, and when the first of them came, in ns."""

    @property
    def rejected(self) -> bool:
        """Whether the stream began with an error, so that nothing of an answer has been returned."""

    @property
    def failed(self) -> bool:
        """Whether the answer has ended with an error."""

    @property
    def error(self) -> LMStudioError | None:
        """The error that the answer has ended with."""

    def begin_again(self) -> None:
        """Forget a stream that was rejected: another response to the same call is translated next."""

    def feed(self, data: bytes, at: int) -> list[bytes]:
        """Return the lines that more bytes of the stream complete."""

    def flush(self, at: int) -> list[bytes]:
        """Return the last lines, at the end of the stream."""

    def abort(self, error: LMStudioError) -> list[bytes]:
        """Return the error line of a stream that broke off; nothing if its answer was complete."""

    def response(self) -> Response:
        """Return the answer as one body, or its error with a status."""


@dataclass(slots=True)
class Call:
    """A call to LM Studio that answers the client's request, and how its response is translated.

    `model` is the id that LM Studio is asked for, `asked` what the client called it.
    """

    path: str
    body: bytes
    translation: BodyTranslation
    model: str = ""
    asked: str = ""
    unsupported: Sequence[str] = ()
    """The names of what the client asked for and LM Studio has nothing for."""
    release: Callable[[], None] | None = None
    """To be called once, when the answer has ended or the client has disconnected."""
    reload: Callable[[], Awaitable[None]] | None = None
    """Loads the model, for when LM Studio refuses to do so on demand."""
    is_loaded: Callable[[], Awaitable[bool]] | None = None
    """Returns whether the model is loaded by now; None for a call whose model was loaded before it."""
    turns: Turns | None = None
    """Of the conversation that the request is about; None for one without."""
    words: FirstWords = FirstWords()


@dataclass(slots=True)
class CollectedCall(Call):
    """A call whose answer streams, for a client that wants one object."""

    translation: StreamTranslation


@dataclass(slots=True)
class StreamedCall(Call):
    """A call whose answer streams, for a client that wants lines as they come."""

    translation: StreamTranslation


@dataclass(slots=True)
class Passthrough:
    """A request for one of LM Studio's own APIs, sent with `body` in place of its own.

    `rewrite` changes the body of a 200, once it is complete, and may raise OllamaError. `model` is the id that LM
    Studio is asked for, `asked` what the client called it.
    """

    path: str
    body: bytes
    rewrite: Callable[[bytes], bytes] | None = None
    model: str = field(default="", compare=False)
    asked: str = field(default="", compare=False)
    release: Callable[[], None] | None = field(default=None, compare=False)
    """To be called once, when the answer has ended or the client has disconnected; None if no known model is used."""
    turns: Turns | None = field(default=None, compare=False)
    words: FirstWords = field(default=FirstWords(), compare=False)


@dataclass(slots=True)
class LocalStream:
    """A response that is generated here over time: NDJSON lines, or only the last of them if `streaming` is false.

    `lines` may raise OllamaError or LMStudioError. It is closed when the client disconnects.
    """

    lines: AsyncGenerator[Mapping[str, object], None]
    streaming: bool


class BodySink(Protocol):
    """Receive a request body that is too large to be held in memory, and return the response at its end."""

    async def feed(self, data: bytes) -> None:
        """Receive bytes; the next ones are not read before this returns."""

    async def end(self) -> Response:
        """Return the response, at the end of the body."""

    def abort(self) -> None:
        """Discard what has been received: the client has disconnected."""


Outcome = Response | Call | Passthrough | LocalStream
