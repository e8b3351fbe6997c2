"""The bench measures what it says; how fast anything is, is no matter of tests."""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from tests.balancers.programs import PATH
from tests.bench.client import PACED, LMStudio, Ollama, Run, Stream, Variant, run
from tests.bench.measurements import Row, balanced_orders
from tests.bench.processes import processor_seconds, resident_mb
from tests.bench.report import Report

SCRIPT = Path(__file__).with_name("stream.py")
README = Path(__file__).parents[2] / "README.md"
TINY = {"rounds": 1, "samples": 1, "streams": 2, "tokens": 5, "paced-tokens": 8, "requests": 20, "starts": 1}

TITLES = [
    "tokens/s, 1 stream",
    "CPU per token at full speed, 1 stream, us",
    "tokens/s, 2 streams",
    "CPU per token at full speed, 2 streams, us",
    "first token, kept connection, p50 ms",
    "first token, new connection, p50 ms",
    "GET /api/tags, kept connection, p50 ms",
    "GET /api/tags, new connection, p50 ms",
    "GET /api/version, kept connection, p50 ms",
    "GET /api/version, new connection, p50 ms",
    "CPU per token at 2 x 50 tokens/s, us",
    "gap between tokens at 2 x 50 tokens/s, p50 ms",
    "gap between tokens at 2 x 50 tokens/s, p99 ms",
    "from LM Studio to the client at 2 x 50 tokens/s, p50 ms",
    "from LM Studio to the client at 2 x 50 tokens/s, p99 ms",
    "RSS after 4 requests, MB",
    "RSS after 20 requests, MB",
    "upstream requests per warm chat",
    "start to first answer, s",
]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the bench with tiny numbers."""
    sizes = [text for name, size in TINY.items() for text in (f"--{name}", str(size))]
    command = [sys.executable, str(SCRIPT), *sizes, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


# On a busy machine there is no time in which all of so few tokens come steadily, and their price is not told.
STEADY = "CPU per token at 2 x 50 tokens/s, us"


@pytest.mark.skipif(sys.platform != "linux", reason="rows that need /proc are left out")
def test_every_row_is_measured_and_no_answer_is_bad() -> None:
    done = bench()
    assert done.returncode == 0, done.stdout + done.stderr
    head, *lines = [re.split(r" {2,}", line) for line in done.stdout.split("\n\n")[1].splitlines()[1:]]
    assert head == ["", "direct", "plain", "addon", "/ plain"]
    rows = {title: numbers for title, *numbers in lines}
    assert list(rows) == TITLES
    for title, numbers in rows.items():
        assert len(numbers) == 4
        if title == STEADY and "-" in numbers[1:]:
            continue
        assert all(float(number.replace(",", "")) > 0 for number in numbers[1:]), title
    assert rows["upstream requests per warm chat"] == ["1.00"] * 4
    assert re.search(r"^\d+ answers, 0 of them bad$", done.stdout, re.MULTILINE)


@pytest.mark.skipif(shutil.which("haproxy", path=PATH) is None, reason="HAProxy is not installed")
def test_bridges_behind_a_balancer_are_compared_with_one() -> None:
    done = bench("--rows", "paced", "--balancer", "haproxy")
    assert done.returncode == 0, done.stdout + done.stderr
    head, *lines = [re.split(r" {2,}", line) for line in done.stdout.split("\n\n")[1].splitlines()[1:]]
    assert head == ["", "direct", "plain", "addon", "/ plain", "haproxy", "/ addon"]
    told = [numbers for title, *numbers in lines if title != STEADY]
    assert len(told) == 4
    for numbers in told:
        addon, behind, ratio = (float(numbers[n].replace(",", "")) for n in (2, 4, 5))
        assert ratio == pytest.approx(behind / addon, rel=0.2, abs=0.02)


def test_a_row_that_does_not_exist_is_named() -> None:
    done = bench("--rows", "stream,nope")
    assert done.returncode == 2
    assert "no such row: 'nope'" in done.stderr


def test_readme_has_the_rows_of_the_bench() -> None:
    table = README.read_text(encoding="utf-8").partition("<!-- speed -->\n")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| ([^|-][^|]*) \|", table, re.MULTILINE)
    sizes = {"2 x": "16 x", "2 streams": "16 streams", "after 4 ": "after 2,000 ", "after 20 ": "after 10,000 "}
    assert rows == [re.sub("|".join(sizes), lambda size: sizes[size[0]], title) for title in TITLES]


@pytest.mark.parametrize("count", [2, 3, 5, 7, 10])
def test_orders_are_balanced(count: int) -> None:
    rounds = 4 * count
    orders = list(balanced_orders(count, rounds))
    assert [sorted(order) for order in orders] == [list(range(count))] * rounds
    line = [number for order in orders for number in order]
    neighbours = Counter(pairwise(line))
    expected = (len(line) - 1) / (count * (count - 1))
    for first in range(count):
        assert neighbours[first, first] == 0 or count == 2
        for second in set(range(count)) - {first}:
            assert expected / 2 <= neighbours[first, second] <= expected * 2
    assert orders == list(balanced_orders(count, rounds))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (HEAD + b"content-length: 3\r\n\r\nabc", b"abc"),
        (HEAD + b"Content-Length:0\r\n\r\n", b""),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789"),
    ],
)
def test_an_answer_is_read_to_its_end(raw: bytes, body: bytes) -> None:
    with socket.socket() as sock:
        for size in (1, len(raw)):
            stream = Stream(sock)
            for start in range(0, len(raw), size):
                assert not stream.has_ended
                stream.add(raw[start : start + size])
            assert stream.has_ended
            assert stream.body == body
            cut = Stream(sock)
            cut.add(raw[:-1])
            assert not cut.has_ended
            with pytest.raises(ValueError, match="no end"):
                _ = cut.body


DELTAS = ['data: {"choices":[{"delta":{"content":"a"}}]}', 'data: {"choices":[{"delta":{"content":"b"}}]}']
LINES = [
    '{"message":{"content":"a"}}',
    '{"message":{"content":"b"}}',
    '{"message":{"content":""},"done":true,"eval_count":2}',
]
BODIES = {LMStudio: "\n\n".join([*DELTAS, "data: [DONE]", ""]), Ollama: "\n".join([*LINES, ""])}


@pytest.mark.parametrize("dialect", [LMStudio, Ollama])
def test_answers_that_are_not_whole_are_found(dialect: type[LMStudio | Ollama]) -> None:
    body = BODIES[dialect]
    ask = dialect.chat("hi", 2)
    ask.check(body)
    with pytest.raises(ValueError, match="tokens"):
        dialect.chat("hi", 3).check(body)
    with pytest.raises((ValueError, IndexError, KeyError)):
        ask.check(body[: len(body) // 2])


def test_a_refused_connection_is_a_bad_answer() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        result = run(Variant("plain", 0, sock.getsockname()[1], LMStudio), LMStudio.tags(), 2)
    assert len(result.problems()) == 2


def test_a_table_has_a_ratio_beside_each_variant() -> None:
    values = {("direct", None): 5000.0, ("plain", 0): 2.0, ("addon", 0): 3.0, ("plain", 1): 4.0, ("addon", 1): math.nan}
    report = Report(["12.3.1 / 3.13", "11.0.2 / 3.11"], ["plain", "addon"])
    assert report.cells(Row("this", values)) == ["this", "5,000", "2.00", "3.00", "1.50", "4.00", "-", "-"]
    assert report.markdown([Row("this", values)]).splitlines() == [
        "|  | direct | plain, 12.3.1 / 3.13 | addon | / plain | plain, 11.0.2 / 3.11 | addon | / plain |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| this | 5,000 | 2.00 | 3.00 | 1.50 | 4.00 | - | - |",
    ]
    lines = report.text([Row("this", values)]).splitlines()
    assert lines[0].split() == ["12.3.1", "/", "3.13", "11.0.2", "/", "3.11"]
    assert len({len(line) for line in lines}) == 1


MS = 1_000_000


def stamped(sock: socket.socket, times: list[int], delay: int) -> Stream:
    """Return an answer whose tokens came at these times, so much after they were made."""
    stream = Stream(sock)
    for at in times:
        stream.pieces.append(f"@{at - delay}@".encode())
        stream.times.append(at)
    return stream


def test_a_steady_token_is_measured_without_the_requests() -> None:
    with socket.socket() as sock:
        first = stamped(sock, [10 * MS, 20 * MS, 30 * MS, 40 * MS], delay=2 * MS)
        second = stamped(sock, [15 * MS, 25 * MS, 35 * MS, 45 * MS], delay=4 * MS)
        result = Run(Variant("addon", 0, 0, Ollama), Ollama.chat(PACED, 4), [first, second])
        # The first and the last reading are while not all answers are under way.
        result.usage = [(0, 0.0), (16 * MS, 1.0), (36 * MS, 1.0004), (46 * MS, 9.0)]
        assert result.steady_cost() == pytest.approx(100)
        assert result.latencies() == [2.0] * 4 + [4.0] * 4
        assert result.gaps() == [10.0] * 6
        result.usage = [(0, 0.0), (46 * MS, 9.0)]
        assert math.isnan(result.steady_cost())


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_what_a_process_takes_is_told_of_that_process() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert processor_seconds(other.pid) > 0
        assert 1 < resident_mb(other.pid) < 1000
        other.communicate(b"\n")
    begun = processor_seconds(os.getpid())
    assert begun <= time.process_time() <= processor_seconds(os.getpid())
    assert math.isnan(processor_seconds(other.pid))
    assert math.isnan(resident_mb(other.pid))
