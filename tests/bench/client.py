"""The client: it asks a variant, keeps bytes and times while the clock runs, and looks into them afterwards."""

from __future__ import annotations

import gc
import json
import math
import re
import selectors
import socket
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Protocol

from tests.bench.processes import processor_seconds

MODEL = "bench"
# A prompt with this word is answered at a pace, with tokens that say when they were made.
PACED = "paced"
STAMP = re.compile(rb"@(\d+)@")

ANSWER_SECONDS = 120
USAGE_SECONDS = 0.05
CRLF = b"\r\n"
END_OF_HEAD = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


# What is asked


@dataclass(frozen=True)
class Ask:
    """A request, and what is checked of its answer's body; `check` raises ValueError, KeyError or IndexError."""

    request: bytes
    check: Callable[[str], None]


def get(path: str, check: Callable[[str], None]) -> Ask:
    """Return a GET."""
    return Ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), check)


def post(path: str, value: dict[str, Any], check: Callable[[str], None]) -> Ask:
    """Return a POST of a JSON body."""
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return Ask(head.encode() + body, check)


class Dialect(Protocol):
    """How a variant is asked, and how its answers are read."""

    @staticmethod
    def chat(prompt: str, tokens: int) -> Ask:
        """Return the request for an answer of so many tokens."""
        ...

    @staticmethod
    def tags() -> Ask:
        """Return the request for the list of models."""
        ...

    @staticmethod
    def version() -> Ask:
        """Return the cheapest request that there is."""
        ...


class LMStudio:
    """LM Studio's API. It has no request for its version: the list of models stands for that."""

    @staticmethod
    def chat(prompt: str, tokens: int) -> Ask:
        messages = [{"role": "user", "content": prompt}]
        usage = {"stream_options": {"include_usage": True}}
        body = {"model": MODEL, "messages": messages, "stream": True, "max_tokens": tokens, **usage}

        def check(text: str) -> None:
            *events, done, rest = text.split("\n\n")
            if done != "data: [DONE]" or rest:
                raise ValueError("no end")
            choices = [choice for event in events for choice in json.loads(event.removeprefix("data: "))["choices"]]
            same("tokens", sum(bool(choice["delta"].get("content")) for choice in choices), tokens)

        return post("/v1/chat/completions", body, check)

    @staticmethod
    def tags() -> Ask:
        return get(
            "/api/v1/models", lambda text: same("models", [m["key"] for m in json.loads(text)["models"]], [MODEL])
        )

    @staticmethod
    def version() -> Ask:
        return LMStudio.tags()


class Ollama:
    """Ollama's API."""

    @staticmethod
    def chat(prompt: str, tokens: int) -> Ask:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "options": {"num_predict": tokens},
        }

        def check(text: str) -> None:
            lines = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
            if not lines[-1].get("done"):
                raise ValueError("no end")
            same("tokens", sum(bool(line["message"]["content"]) for line in lines), tokens)
            same("eval_count", lines[-1]["eval_count"], tokens)

        return post("/api/chat", body, check)

    @staticmethod
    def tags() -> Ask:
        names = [f"{MODEL}:latest"]
        return get("/api/tags", lambda text: same("models", [m["name"] for m in json.loads(text)["models"]], names))

    @staticmethod
    def version() -> Ask:
        return get("/api/version", lambda text: same("keys", list(json.loads(text)), ["version"]))


def same(what: str, found: object, expected: object) -> None:
    """Raise ValueError if something is not as it should be."""
    if found != expected:
        raise ValueError(f"{what}: {found!r} instead of {expected!r}")


# Who is asked


@dataclass(frozen=True)
class Variant:
    """One way from the client to the stand-in.

    `line` is the number of the environment that its proxy runs in, None where there is no proxy; `pid` is that of the
    proxy, and `start_seconds` how long it took from there to its first answer. `behind` are the ids of the processes
    that it shares the work with.
    """

    name: str
    line: int | None
    port: int
    dialect: type[Dialect]
    pid: int | None = None
    start_seconds: float = math.nan
    behind: tuple[int, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        """The ids of all its processes."""
        return self.behind if self.pid is None else (self.pid, *self.behind)

    @property
    def key(self) -> tuple[str, int | None]:
        """What results are kept under."""
        return self.name, self.line

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port))

    def processor_seconds(self) -> float:
        """Return the processor time of the proxy so far; NaN where there is no proxy, or nothing that tells."""
        return math.nan if self.pid is None else sum(map(processor_seconds, self.pids))


# What comes back


@dataclass
class Stream:
    """One answer as it arrived: pieces of bytes with their times, in ns."""

    sock: socket.socket
    sent: int = 0
    pieces: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    tail: bytes = b""
    problem: str = ""
    size: int = 0
    # Of the head and the body; None while it is not known, and for an answer in chunks.
    expected: int | None = None
    has_head: bool = False

    def add(self, data: bytes) -> None:
        """Keep what has arrived."""
        self.times.append(time.monotonic_ns())
        self.pieces.append(data)
        self.size += len(data)
        end = data[-len(LAST_CHUNK) :]
        self.tail = (self.tail + end)[-len(LAST_CHUNK) :]
        if not self.has_head:
            head, mark, _ = self.raw.partition(END_OF_HEAD)
            self.has_head = bool(mark)
            if mark and (found := CONTENT_LENGTH.search(head + mark)):
                self.expected = len(head) + len(mark) + int(found[1])

    @property
    def has_ended(self) -> bool:
        """Whether the answer is there to its end."""
        return self.tail == LAST_CHUNK if self.expected is None else self.size >= self.expected

    @property
    def raw(self) -> bytes:
        """All bytes."""
        return b"".join(self.pieces)

    @property
    def body(self) -> bytes:
        """The body without its framing. Raises ValueError if it is not whole."""
        raw = self.raw
        if not raw.startswith(b"HTTP/1.1 200 "):
            raise ValueError(raw.decode("latin-1").partition("\r\n")[0] or "no answer")
        if not self.has_ended:
            raise ValueError("no end")
        at = raw.index(END_OF_HEAD) + len(END_OF_HEAD)
        if self.expected is not None:
            return raw[at:]
        # By position: to cut off each chunk from what is left takes seconds for an answer in many chunks, and whoever
        # is measured after that one would be measured on a machine that has rested.
        parts: list[bytes] = []
        while True:
            begin = raw.index(CRLF, at) + len(CRLF)
            length = int(raw[at:begin], 16)
            if not length:
                return b"".join(parts)
            parts.append(raw[begin : begin + length])
            at = begin + length + len(CRLF)

    @property
    def first_token(self) -> int:
        """How long it took until the first byte of the body came, in ns: a proxy may send the head ahead of it."""
        ends = list(accumulate(map(len, self.pieces)))
        return self.times[bisect_right(ends, self.raw.index(END_OF_HEAD) + len(END_OF_HEAD))] - self.sent

    @property
    def whole(self) -> int:
        """How long it took until the answer was whole, in ns."""
        return self.times[-1] - self.sent

    def stamped(self) -> list[tuple[int, int]]:
        """Return when each token arrived, and when it says that it was made, in ns."""
        ends = list(accumulate(map(len, self.pieces)))
        return [(self.times[bisect_right(ends, found.start())], int(found[1])) for found in STAMP.finditer(self.raw)]


@dataclass
class Run:
    """Answers that came together.

    `elapsed` is in ns, `usage` are times (ns) with the proxy's processor seconds, `bad` is what was wrong with answers.
    """

    variant: Variant
    ask: Ask
    streams: list[Stream] = field(default_factory=list)
    elapsed: int = 0
    usage: list[tuple[int, float]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    @property
    def processor_seconds(self) -> float:
        """The processor time that the proxy took, from the first request to the end of the last answer."""
        return self.usage[-1][1] - self.usage[0][1]

    def note_usage(self) -> None:
        """Read the proxy's processor time."""
        self.usage.append((time.monotonic_ns(), self.variant.processor_seconds()))

    def problems(self) -> list[str]:
        """Say what is wrong with the answers."""
        found = []
        for stream in self.streams:
            problem = stream.problem
            if not problem:
                try:
                    self.ask.check(stream.body.decode())
                except (ValueError, KeyError, IndexError, TypeError) as e:
                    problem = f"not a whole answer: {e!r}"
            if problem:
                found.append(f"{self.variant.name}: {problem}")
        return found

    def latencies(self) -> list[float]:
        """Return how long each token was on its way from the stand-in, in ms."""
        return [(arrived - made) / 1e6 for stream in self.streams for arrived, made in stream.stamped()]

    def gaps(self) -> list[float]:
        """Return the time from each token to the next of the same answer, in ms."""
        return [(b - a) / 1e6 for stream in self.streams for (a, _), (b, _) in pairwise(stream.stamped())]

    def steady_cost(self) -> float:
        """Return the processor time a token takes in us, while all answers are under way; NaN if that is too short.

        The requests and the ends of the answers are left out: a chat is long, and this is the price of each token more.
        """
        arrivals = [[arrived for arrived, _ in stream.stamped()] for stream in self.streams]
        if not all(arrivals):
            return math.nan
        begin, end = max(times[0] for times in arrivals), min(times[-1] for times in arrivals)
        within = [(at, seconds) for at, seconds in self.usage if begin <= at <= end]
        if not within:
            return math.nan
        (first, before), (last, after) = within[0], within[-1]
        tokens = sum(first < at <= last for times in arrivals for at in times)
        return (after - before) / tokens * 1e6 if tokens else math.nan


def run(variant: Variant, ask: Ask, count: int = 1, socks: Sequence[socket.socket] = ()) -> Run:
    """Ask for answers at the same time, on connections of their own or on the given ones, and read them to the end."""
    result = Run(variant, ask)
    with ExitStack() as stack:
        stack.enter_context(without_collector())
        selector = stack.enter_context(selectors.DefaultSelector())
        result.note_usage()
        started = time.monotonic_ns()
        for number in range(count):
            stream = Stream(socks[number] if socks else socket.socket(), sent=time.monotonic_ns())
            result.streams.append(stream)
            try:
                if not socks:
                    stack.callback(stream.sock.close)
                    stream.sock.connect(("127.0.0.1", variant.port))
                stream.sock.sendall(ask.request)
                stream.sock.setblocking(False)
                selector.register(stream.sock, selectors.EVENT_READ, stream)
            except OSError as e:
                stream.problem = str(e)
        read_all(selector, result)
        result.elapsed = time.monotonic_ns() - started
        result.note_usage()
    return result


def read_all(selector: selectors.BaseSelector, result: Run) -> None:
    """Read until all answers have ended; what is missing after a while is found when they are looked into."""
    next_usage = time.monotonic() + USAGE_SECONDS
    while selector.get_map():
        ready = selector.select(ANSWER_SECONDS)
        if not ready:
            return
        for key, _ in ready:
            read(key.data, selector)
        if time.monotonic() >= next_usage:
            result.note_usage()
            next_usage = time.monotonic() + USAGE_SECONDS


def read(stream: Stream, selector: selectors.BaseSelector) -> None:
    """Take what has arrived; after the end of the answer, the connection is no longer waited for."""
    try:
        data = stream.sock.recv(1 << 20)
    except OSError as e:
        stream.problem, data = str(e), b""
    if data:
        stream.add(data)
    if not data or stream.has_ended:
        selector.unregister(stream.sock)
        stream.sock.setblocking(True)


@contextmanager
def without_collector() -> Iterator[None]:
    """Keep the client's garbage collector from running while the clock does."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
