"""Measure what the addon costs, beside plain mitmproxy and beside no proxy at all.

    python tests/bench/stream.py [--tokens N] [--rounds N] [--streams 1,16] [--compare OTHER/addon/ollama.py]

The variants take turns, in another order each round, so that what else the machine does hits all of them alike:

    direct   the stand-in for LM Studio
    plain    mitmproxy as a reverse proxy that lets the same answer through
    addon    mitmproxy with the addon
    compare  mitmproxy with the addon of another checkout, if one is given

The stand-in and each proxy are processes of their own; this one is the client. It keeps bytes and times while the clock
runs and looks into them afterwards. Exits with 1 if any answer was not whole. Processor time is read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

SCRIPT = Path(__file__).parents[2] / "addon" / "ollama.py"
sys.path.insert(0, str(SCRIPT.parent))

from ollama_lmstudio.sim import Prompt, Sim, SimModel, Step, content, sleep  # noqa: E402

MODEL = "bench"
START_SECONDS = 60
STREAM_SECONDS = 120
LAST_CHUNK = b"0\r\n\r\n"

# A prompt with this word is answered at a pace, with tokens that say when they were made.
PACED = "paced"
STAMP = re.compile(rb"@(\d+)@")

PLAIN_SCRIPT = """\
def responseheaders(flow):
    flow.response.stream = True
"""


# The stand-in


def answer(tokens: int, interval: float) -> Any:
    """Make the stand-in's generator: all tokens at once, or one every `interval` seconds."""
    at_once = [content(*[" token"] * tokens)]

    def paced() -> Iterator[Step]:
        while True:
            yield sleep(interval)
            yield content(f"@{time.monotonic_ns()}@")

    def generate(prompt: Prompt, model: SimModel) -> Iterable[Step]:
        return paced() if prompt.last_user == PACED else at_once

    return generate


async def serve(ready: Connection, parallel: int, tokens: int, interval: float) -> None:
    """Serve the stand-in with a loaded model that takes `parallel` requests at once; send its port when it does."""
    async with Sim([SimModel(MODEL)], generator=answer(tokens, interval)) as sim:
        sim.load(MODEL).parallel = parallel
        ready.send(int(sim.url.rpartition(":")[2]))
        while True:
            await asyncio.sleep(1)
            sim.clear()


def run_server(*arguments: Any) -> None:
    """Be the stand-in's process."""
    asyncio.run(serve(*arguments))


@contextmanager
def stand_in(*arguments: Any) -> Iterator[int]:
    """Run the stand-in in a process of its own; give its port."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=run_server, args=(sending, *arguments), daemon=True)
    process.start()
    try:
        if not receiving.poll(START_SECONDS):
            raise SystemExit("the stand-in did not start")
        yield receiving.recv()
    finally:
        process.terminate()
        process.join()


# What is measured


class Dialect(Protocol):
    """How a variant is asked, and how its answer is read."""

    path: str

    @staticmethod
    def body(prompt: str, tokens: int) -> dict[str, Any]:
        """Give the request for so many tokens."""

    @staticmethod
    def count(body: str) -> int:
        """Count the tokens of an answer. Raises ValueError if it is not whole."""


class LMStudio:
    """LM Studio's chat."""

    path = "/v1/chat/completions"

    @staticmethod
    def body(prompt: str, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        usage = {"stream_options": {"include_usage": True}}
        return {"model": MODEL, "messages": messages, "stream": True, "max_tokens": tokens, **usage}

    @staticmethod
    def count(body: str) -> int:
        *events, done, rest = body.split("\n\n")
        if done != "data: [DONE]" or rest:
            raise ValueError("no end")
        choices = [choice for event in events for choice in json.loads(event.removeprefix("data: "))["choices"]]
        return sum(bool(choice["delta"].get("content")) for choice in choices)


class Ollama:
    """Ollama's chat."""

    path = "/api/chat"

    @staticmethod
    def body(prompt: str, tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": MODEL, "messages": messages, "options": {"num_predict": tokens}}

    @staticmethod
    def count(body: str) -> int:
        lines = [json.loads(line) for line in body.removesuffix("\n").split("\n")]
        if not lines[-1].get("done"):
            raise ValueError("no end")
        count = sum(bool(line["message"]["content"]) for line in lines)
        if lines[-1]["eval_count"] != count:
            raise ValueError(f"{count} tokens came, {lines[-1]['eval_count']} were told")
        return count


@dataclass
class Variant:
    """One way from the client to the stand-in; `pid` is that of its proxy."""

    name: str
    port: int
    dialect: type[Dialect]
    pid: int | None = None

    def request(self, prompt: str, tokens: int) -> bytes:
        """Write the request for an answer of so many tokens."""
        body = json.dumps(self.dialect.body(prompt, tokens)).encode()
        head = f"POST {self.dialect.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port))

    def cpu_seconds(self) -> float:
        """Give the processor time of the proxy so far; NaN where there is no proxy or no /proc."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return math.nan
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def proxy(name: str, dialect: type[Dialect], folder: Path, script: Path, *arguments: str) -> Iterator[Variant]:
    """Run mitmdump with a script on a free port; `{port}` in the arguments stands for it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [str(Path(sys.executable).with_name("mitmdump")), "-s", str(script)]
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *(argument.format(port=port) for argument in arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    variant = Variant(name, port, dialect, process.pid)
    try:
        end = time.monotonic() + START_SECONDS
        while check(run(variant, 1, "hi", 1), 1):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield variant
    finally:
        process.terminate()
        process.wait()


# The client


@dataclass
class Stream:
    """One answer as it arrived: pieces of bytes with their times, in ns."""

    sock: socket.socket
    sent: int = 0
    pieces: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    tail: bytes = b""
    problem: str = ""

    @property
    def first_token(self) -> int:
        """When the first byte of the body came: a proxy may send the head ahead of it."""
        return self.times[bisect_right(list(accumulate(map(len, self.pieces))), self.raw.index(b"\r\n\r\n") + 4)]

    @property
    def raw(self) -> bytes:
        """All bytes."""
        return b"".join(self.pieces)

    @property
    def body(self) -> bytes:
        """The body without the framing of its chunks. Raises ValueError if it is not whole."""
        head, _, rest = self.raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(head.decode("latin-1").partition("\r\n")[0] or "no answer")
        parts: list[bytes] = []
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if not length:
                return b"".join(parts)
            parts.append(rest[:length])
            rest = rest[length + 2 :]

    def latencies(self) -> list[int]:
        """Give how long each token was on its way, in ns, by the time that it tells."""
        ends = list(accumulate(map(len, self.pieces)))
        raw = self.raw
        return [self.times[bisect_right(ends, found.start())] - int(found[1]) for found in STAMP.finditer(raw)]


@dataclass
class Run:
    """Streams that ran together. Times are in ns, `cpu` in seconds."""

    variant: Variant
    streams: list[Stream]
    elapsed: int = 0
    cpu: float = math.nan


def run(variant: Variant, streams: int, prompt: str, tokens: int, socks: Sequence[socket.socket] = ()) -> Run:
    """Ask for answers at the same time, on connections of their own or on the given ones, and read them to the end."""
    request = variant.request(prompt, tokens)
    result = Run(variant, [])
    cpu = variant.cpu_seconds()
    started = time.monotonic_ns()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for number in range(streams):
            begun = time.monotonic_ns()
            try:
                sock = socks[number] if socks else stack.enter_context(variant.connect())
                stream = Stream(sock, sent=begun)
                result.streams.append(stream)
                sock.sendall(request)
            except OSError as e:
                result.streams.append(Stream(socket.socket(), problem=str(e)))
                continue
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ, stream)
        while selector.get_map():
            ready = selector.select(STREAM_SECONDS)
            if not ready:
                break  # what is missing is found when the answers are looked into
            for key, _ in ready:
                read(key.data, selector)
    result.elapsed = time.monotonic_ns() - started
    result.cpu = variant.cpu_seconds() - cpu
    return result


def read(stream: Stream, selector: selectors.BaseSelector) -> None:
    """Take what has arrived; after the end of the answer, the connection is no longer waited for."""
    try:
        data = stream.sock.recv(1 << 20)
    except OSError as e:
        stream.problem, data = str(e), b""
    if data:
        stream.times.append(time.monotonic_ns())
        stream.pieces.append(data)
        stream.tail = (stream.tail + data)[-len(LAST_CHUNK) :]
    if not data or stream.tail == LAST_CHUNK:
        selector.unregister(stream.sock)
        stream.sock.setblocking(True)


def check(result: Run, tokens: int) -> list[str]:
    """Say what is wrong with the answers of a run."""
    problems = []
    for stream in result.streams:
        problem = stream.problem
        try:
            count = 0 if problem else result.variant.dialect.count(stream.body.decode())
            if not problem and count != tokens:
                problem = f"{count} tokens instead of {tokens}"
        except (ValueError, KeyError, IndexError) as e:
            problem = f"not a whole answer: {e!r}"
        if problem:
            problems.append(f"{result.variant.name}: {problem}")
    return problems


# The measurements


class Bench:
    """The measurements of all variants; each prints its table and counts the answers that were not whole."""

    def __init__(self, variants: list[Variant], rounds: int) -> None:
        self.variants = variants
        self.rounds = rounds
        self.problems: Counter[str] = Counter()

    def turns(self) -> Iterator[Variant]:
        """Give each variant once a round, another one first each time."""
        for number in range(self.rounds):
            start = number % len(self.variants)
            yield from self.variants[start:] + self.variants[:start]

    def checked(self, result: Run, tokens: int) -> Run:
        """Look into the answers of a run."""
        self.problems.update(check(result, tokens))
        return result

    def throughput(self, streams: int, tokens: int) -> None:
        """Measure tokens per second, and processor time per token, at full speed."""
        speeds: dict[str, list[float]] = {variant.name: [] for variant in self.variants}
        costs: dict[str, list[float]] = {variant.name: [] for variant in self.variants}
        for variant in self.turns():
            result = self.checked(run(variant, streams, "hi", tokens), tokens)
            speeds[variant.name].append(streams * tokens / result.elapsed * 1e9)
            costs[variant.name].append(result.cpu / (streams * tokens) * 1e6)
        print(f"\nFull speed, {streams} at once, {tokens} tokens each; medians of {self.rounds} rounds")
        self.table(["tokens/s", "us CPU/token"], [medians(speeds), medians(costs)])

    def first_token(self, samples: int) -> None:
        """Measure the time to the first token of short answers, on new connections and on kept ones."""
        new: dict[str, list[float]] = {variant.name: [] for variant in self.variants}
        kept: dict[str, list[float]] = {variant.name: [] for variant in self.variants}
        with ExitStack() as stack:
            connections = {variant.name: stack.enter_context(variant.connect()) for variant in self.variants}
            for _ in range(samples):
                for variant in self.turns():
                    for times, socks in ((new, []), (kept, [connections[variant.name]])):
                        result = self.checked(run(variant, 1, "hi", 1, socks), 1)
                        stream = result.streams[0]
                        if stream.pieces:
                            times[variant.name].append((stream.first_token - stream.sent) / 1e6)
        print(f"\nTime to first token, 1 at a time; medians of {self.rounds * samples}")
        self.table(["ms, new connection", "ms, kept connection"], [medians(new), medians(kept)])

    def latency(self, streams: int, tokens: int, rate: float) -> None:
        """Measure how long tokens are on their way from the stand-in to the client, at a pace."""
        waits: dict[str, list[float]] = {variant.name: [] for variant in self.variants}
        for variant in self.turns():
            result = self.checked(run(variant, streams, PACED, tokens), tokens)
            waits[variant.name] += [wait / 1e6 for stream in result.streams for wait in stream.latencies()]
        half = {name: percentile(times, 50) for name, times in waits.items()}
        most = {name: percentile(times, 99) for name, times in waits.items()}
        print(f"\nTime of a token from the stand-in to the client, {streams} at once, {rate:g} tokens/s each")
        self.table(["ms p50", "ms p99"], [half, most], difference=True)

    def table(self, titles: list[str], columns: list[dict[str, float]], *, difference: bool = False) -> None:
        """Print a column of numbers each, and beside it how it compares with plain mitmproxy."""
        beside = "- plain" if difference else "/ plain"
        print(f"{'':9}" + "".join(f"{title:>20}{beside:>10}" for title in titles))
        for variant in self.variants:
            cells = []
            for column in columns:
                value, plain = column[variant.name], column["plain"]
                compared = f"{value - plain:+.2f}" if difference else f"{value / plain:.2f}"
                cells.append(f"{number(value):>20}{'' if math.isnan(value) else compared:>10}")
            print(f"{variant.name:9}" + "".join(cells))


def medians(columns: dict[str, list[float]]) -> dict[str, float]:
    """Give the median of each variant's numbers."""
    return {name: statistics.median(values) if values else math.nan for name, values in columns.items()}


def percentile(values: list[float], percent: int) -> float:
    """Give the value that so many percent of the values do not exceed."""
    return sorted(values)[len(values) * percent // 100] if values else math.nan


def number(value: float) -> str:
    """Write a number with about four digits."""
    return "" if math.isnan(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with a usage message if it is wrong."""
    parser = argparse.ArgumentParser(description="Measure what the addon costs beside plain mitmproxy.")
    parser.add_argument("--tokens", type=int, default=2000, help="tokens per answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each variant (default: %(default)s)")
    parser.add_argument("--streams", default="1,16", help="answers at once, one or several (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=50.0, help="tokens/s of the paced answers (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=20, help="short answers per turn (default: %(default)s)")
    parser.add_argument("--compare", type=Path, help="addon/ollama.py of another checkout, to measure beside this one")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything; give the exit status."""
    options = parse_arguments(arguments)
    streams = [int(text) for text in options.streams.split(",")]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "plain.py").write_text(PLAIN_SCRIPT)
        port = stack.enter_context(stand_in(max(streams), options.tokens, 1 / options.rate))
        url = f"http://127.0.0.1:{port}"
        reverse = ["--mode", f"reverse:{url}@127.0.0.1:{{port}}", "--set", "connection_strategy=lazy"]
        bridge = ["--set", "listen=127.0.0.1:{port}", "--set", f"lmstudio_url={url}"]
        variants = [Variant("direct", port, LMStudio)]
        variants.append(stack.enter_context(proxy("plain", LMStudio, folder, folder / "plain.py", *reverse)))
        for name, script in (("addon", SCRIPT), ("compare", options.compare)):
            if script is not None:
                settings = [*bridge, "--set", f"state_dir={folder / name}"]
                variants.append(stack.enter_context(proxy(name, Ollama, folder, script.resolve(), *settings)))
        bench = Bench(variants, options.rounds)
        for count in streams:
            bench.throughput(count, options.tokens)
        bench.first_token(options.samples)
        bench.latency(max(streams), min(options.tokens, round(4 * options.rate)), options.rate)
    print(f"\n{bench.problems.total()} answers were not whole")
    for problem, count in bench.problems.most_common():
        print(f"{count:6} x {problem}")
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())
