"""The line of an exchange in the terminal."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.addons import dumper as dumpers
from mitmproxy.options import Options
from mitmproxy.test import tflow
from mitmproxy.utils import vt_codes
from tests.inspect.conftest import answered, dumps, flow_of, record, snapshot
from tests.inspect.test_render import TAG, V1_MODEL, internal_call
from tests.inspect.test_summary import CASES, GONE
from tests.internals.helpers import master_with

from ollama_lmstudio.inspect import terminal
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.inspect.terminal import Terminal
from ollama_lmstudio.internals import dumper, interface
from ollama_lmstudio.record.record import Record

AT = time.mktime((2026, 11, 28, 16, 49, 26, 0, 0, -1))
SAID = record(prompt="Why is the sky blue?", answer="Because of Rayleigh scattering.", model="llama-3.2-3b-instruct")
LONG = replace(SAID, prompt="word " * 15 + "wo...", answer="slow " * 15 + "sl...", signs="[tools]")
SPEED = "43.5 tok/s, first token 310 ms, 512 + 87 tokens"


class Output(io.StringIO):
    """What is printed, to a terminal or to a pipe."""

    def __init__(self, columns: int = 0) -> None:
        super().__init__()
        self._columns = columns

    def isatty(self) -> bool:
        return bool(self._columns)


Start = Callable[..., tuple[Terminal, Output]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start to print, as in mitmdump with these options: to a pipe, or to a terminal with so many columns."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminals = []

    def started(columns: int = 0, *, is_mitmdump: bool = True, **options: Any) -> tuple[Terminal, Output]:
        output = Output(columns)
        monkeypatch.setattr(sys, "stdout", output)
        # Windows would be asked about its console.
        monkeypatch.setattr(vt_codes, "ensure_supported", lambda file: file.isatty())
        monkeypatch.setenv("COLUMNS", str(columns))
        known, own = Options(), dumpers.Dumper(io.StringIO())
        monkeypatch.setattr(ctx, "options", known, raising=False)
        master_with(monkeypatch, **{"dumper": own} if is_mitmdump else {})
        known.add_option("doctor", bool, False, "")
        known.add_option("termlog_verbosity", str, "info", "")
        own.load(known)
        known.update(**options)
        own.configure(options)
        made = Terminal()
        terminals.append(made)
        made.configure()
        return made, output

    yield started
    for made in terminals:
        made.done()


def printed(made: tuple[Terminal, Output], *cases: Snapshot) -> list[str]:
    """Give the lines of exchanges that have ended."""

    async def end() -> None:
        for case in cases:
            flow = flow_of(case)
            flow.request.timestamp_start = AT - 9.2
            flow.is_replay = "request" if case.replayed else None
            if flow.response is not None:
                flow.response.timestamp_end = AT
            elif case.connection_error:
                flow.error = tflow.terr(case.connection_error)
                flow.error.timestamp = AT
            made[0].ended(flow)
        await asyncio.sleep(0)

    asyncio.run(end())
    return made[1].getvalue().splitlines()


LINES: dict[str, tuple[Snapshot, str]] = {
    "a chat": (
        snapshot(SAID),
        "/api/chat      llama-3.2-3b-instruct  200  "
        f'"Why is the sky blue?" -> "Because of Rayleigh scattering."  {SPEED}',
    ),
    "tools": (
        snapshot(replace(SAID, answer="-> get_weather()", signs="[1 image] [tools]")),
        "/api/chat      llama-3.2-3b-instruct  200  "
        f'"Why is the sky blue?" -> get_weather()  [1 image] [tools]  {SPEED}',
    ),
    "an unknown model": (
        answered("/api/chat", {"error": "model 'no-such' not found"}, method="POST", status=404, model="no-such"),
        "/api/chat      no-such           404  model 'no-such' not found",
    ),
    "a broken stream": (
        snapshot(replace(SAID, error=GONE)),
        f"/api/chat      llama-3.2-3b-instruct  200  {GONE}, after 87 tokens  "
        '"Why is the sky blue?" -> "Because of Rayleigh scat..."  43.5 tok/s, first token 310 ms',
    ),
    "no answer": (
        snapshot(replace(SAID, answer="", numbers=None), status=0, response=None, connection_error="Client left."),
        '/api/chat      llama-3.2-3b-instruct  -    Client left.  "Why is the sky blue?"',
    ),
    "tags": (answered("/api/tags", {"models": [TAG] * 7}), "/api/tags                        200  7 models"),
    "embed": (
        snapshot(
            record({"input": ["a", "b"]}, path="/api/embed", model="nomic", prompt="a", numbers=None),
            response=dumps({"embeddings": [[0.5] * 768] * 2}),
        ),
        '/api/embed     nomic             200  "a"  2 texts, 768 dimensions',
    ),
    "a long path": (
        answered("/v1/" + "x" * 100, {}, status=200),
        "/v1/xxxxxxxxxxxxx...                    200",
    ),
    "controls": (
        snapshot(
            replace(SAID, prompt="\x1b]0;a\x07b\x9b31m\u202ec", answer="\ud800\r\nx", model="m\x1b[2J", numbers=None)
        ),
        '/api/chat      m [2J             200  "]0;a b 31m c" -> "\ufffd x"',
    ),
    "a load by the bridge": (
        internal_call(
            record=Record(kind="own", method="POST", path="/api/v1/models/load", purpose="load"),
            method="POST",
            path="/api/v1/models/load",
            body=dumps({"model": "qwen3"}),
            response=b"{}",
        ),
        "(bridge)       qwen3             200  load, 9.2 s",
    ),
    "a call by the bridge that failed": (
        internal_call(
            record=Record(kind="own", purpose="load"),
            status=0,
            response=None,
            connection_error="LM Studio is not reachable",
        ),
        "(bridge)                         -    LM Studio is not reachable  load",
    ),
}


@pytest.mark.parametrize(("case", "line"), LINES.values(), ids=LINES)
def test_lines(start: Start, case: Snapshot, line: str) -> None:
    assert printed(start(), case) == [f"16:49:26 {line}"]


def test_the_name_of_a_key_has_a_column_once_one_was_used(start: Start) -> None:
    shown = [snapshot(replace(SAID, key=key)) for key in ("", "alice", "", "a-very-long-name-of-a-team")]
    columns = [line[len("16:49:26 ") :].partition("/api/chat")[0] for line in printed(start(), *shown)]
    assert columns == ["", "alice  ", "       ", "a-very-long-n...  "]


def test_what_changes_nothing_is_not_told_of_the_bridges_own_calls(start: Start) -> None:
    assert printed(start(), internal_call(response=dumps({"models": [V1_MODEL]}))) == []


def test_of_polls_only_news_is_told(start: Start) -> None:
    well = answered("/health", {"status": "ok"})
    bad = answered("/health", {"status": "unavailable", "error": "LM Studio is not reachable"}, status=503)
    live = answered("/health/live", b"")
    made = start()
    for path in ("/health", "/health/live"):
        # LM Studio hangs.
        made[0].waits(flow_of(well), Record(path=path, state="waits for LM Studio, 2 s"))
    lines = printed(made, *[well, live] * 2, *[bad, live] * 3, *[well] * 2)
    assert [line.split()[1:3] for line in lines] == [["/health", "503"], ["/health", "200"]]


def test_a_load_on_demand_is_told_like_any_other(start: Start) -> None:
    kept = Record(kind="own", purpose="load on demand", model="qwen3")
    (line,) = printed(start(), internal_call(record=kept, method="POST", path="/v1/chat/completions", response=b"{}"))
    assert "load on demand" in line


def test_columns_stay_as_wide_as_they_became(start: Start) -> None:
    wide = replace(SAID, path="/v1/chat/completions", kind="relay", model="x" * 40)
    lines = printed(start(), snapshot(SAID), snapshot(wide), snapshot(SAID))
    assert [line.index("200  ") for line in lines] == [47, 65, 65]
    assert f" {'x' * 29}...  200" in lines[1]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize(
    "kept", [SAID, LONG, replace(LONG, prompt="天" * 80, answer="空" * 80), replace(SAID, error="x" * 500)]
)
def test_no_line_is_wider_than_the_terminal(start: Start, columns: int, kept: Record) -> None:
    (line,) = printed(start(columns), snapshot(kept))
    text = re.sub(r"\x1b\[[0-9;]*m", "", line)
    assert terminal._width(text) < columns
    assert text.startswith("16:49:26 /api/chat ")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (80, '/api/chat      llama-3.2-3b-...  200  "word w..."  [tools]  43.5 tok/s'),
        (
            130,
            "/api/chat      llama-3.2-3b-instruct  200  "
            '"word word word word..." -> "slow slow slow slow slo..."  [tools]  43.5 tok/s',
        ),
    ],
)
def test_a_narrow_line_leaves_out_numbers_first(start: Start, columns: int, line: str) -> None:
    (shown,) = printed(start(columns), snapshot(LONG))
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown)[len("16:49:26 ") :] == line


def test_a_pipe_gets_the_whole_of_it(start: Start) -> None:
    (line,) = printed(start(), snapshot(LONG))
    assert line.endswith(f'..."  [tools]  {SPEED}')
    assert len(line) <= terminal.LINE_COLUMNS


def test_colours(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = answered("/api/chat", {"error": "no"}, status=404)
    ok, bad = printed(start(120), snapshot(SAID), failed)
    assert "\x1b[32m200\x1b[0m" in ok
    assert "\x1b[31m404\x1b[0m" in bad
    assert "\x1b[31mno\x1b[0m" in bad
    assert "\x1b" not in printed(start(), snapshot(SAID))[0]
    for name, value in {"NO_COLOR": "1", "TERM": "dumb"}.items():
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            assert "\x1b" not in printed(start(120), snapshot(SAID))[0]


@pytest.mark.parametrize("level", ["error", "warn"])
def test_levels_that_tell_failures_only(start: Start, level: str) -> None:
    made = start(termlog_verbosity=level)
    (line,) = printed(made, snapshot(SAID), answered("/api/chat", {"error": "no"}, status=404))
    assert "404  no" in line
    made[0].waits(flow_of(snapshot(SAID)), replace(SAID, state="loading"))
    assert len(made[1].getvalue().splitlines()) == 1


@pytest.mark.parametrize("options", [{"flow_detail": 0}, {"flow_detail": 1}, {"flow_detail": 3}, {"doctor": True}])
def test_who_wants_mitmproxys_output_gets_it(start: Start, options: dict[str, Any]) -> None:
    made = start(**options)
    assert printed(made, snapshot(SAID)) == []
    made[0].waits(flow_of(snapshot(SAID)), replace(SAID, state="loading"))
    assert made[1].getvalue() == ""


def test_what_waits(start: Start) -> None:
    made = start()
    kept = replace(SAID, model="qwen/qwen3-70b", state="loading qwen3-70b, 23 s")
    made[0].waits(flow_of(snapshot(kept, status=0, response=None)), kept)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d /api/chat      qwen3-70b         loading the model, 23 s\n", made[1].getvalue()
    )
    made[0].waits(flow_of(snapshot(SAID)), SAID)
    assert made[1].getvalue().count("\n") == 1


def test_only_what_the_filter_fits(start: Start) -> None:
    assert printed(start(dumper_filter="~meta /api/tags"), snapshot(SAID)) == []
    assert len(printed(start(dumper_filter="~meta /api/chat"), snapshot(SAID))) == 1


def test_flows_of_others_are_mitmproxys_to_print(start: Start) -> None:
    made = start()
    asyncio.run(_end(made[0], tflow.tflow(resp=True)))
    assert made[1].getvalue() == ""


async def _end(made: Terminal, flow: Any) -> None:
    made.ended(flow)
    await asyncio.sleep(0)


def test_nobody_reads_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="ascii") as pipe:  # noqa: PTH123 - of a descriptor
        output = dumper.Output(pipe)
        for _ in range(2):
            output.write("text\n")
    output.write("closed\n")


def test_a_terminal_that_has_no_such_character() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    dumper.Output(file).write("caf\xe9\n")
    file.seek(0)
    assert file.read() == "caf?\n"


def test_the_log_is_printed_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    output = dumper.Output(Output())
    ours, theirs = SimpleNamespace(file=output.file), SimpleNamespace(file=io.StringIO())
    for handler, expected in ((ours, output), (theirs, theirs.file)):
        master_with(monkeypatch, termlog=SimpleNamespace(logger=handler))
        dumper.keep_log(output)
        assert handler.file is expected
        dumper.release_log()
        assert handler.file is (output.file if handler is ours else theirs.file)
    master_with(monkeypatch)
    dumper.keep_log(output)
    dumper.release_log()


@pytest.mark.parametrize("case", [case for case, _, _ in CASES.values()], ids=CASES)
def test_every_exchange_has_a_line(start: Start, case: Snapshot) -> None:
    """The bridge's own lists of models have none: who needs them tells that they could not be had. Nor has a poll."""
    lines = printed(start(80), case)
    assert len(lines) == (0 if case.is_internal or case.path == "/health" else 1)


def test_mitmproxys_own_lines(start: Start) -> None:
    made, _ = start()
    ours, theirs = flow_of(snapshot(SAID)), tflow.tflow(resp=True)
    own = dumper._dumper()
    assert (own.match(ours), own.match(theirs)) == (False, True)
    log = logging.getLogger(dumper.Silence.LOGGER)

    def passes(text: str, level: int = logging.INFO) -> bool:
        return bool(log.filter(log.makeRecord(log.name, level, "", 0, text, (), None)))

    assert not passes("client connect")
    assert passes("client connect", logging.WARNING)
    assert passes("something else")
    made.done()
    assert (own.match(ours), passes("client connect")) == (True, True)


def test_debug_shows_both(start: Start) -> None:
    made = start(termlog_verbosity="debug")
    assert dumper._dumper().match(flow_of(snapshot(SAID)))
    assert len(printed(made, snapshot(SAID))) == 1


@pytest.mark.parametrize("is_web", [True, False])
def test_in_the_console_there_is_nothing(start: Start, monkeypatch: pytest.MonkeyPatch, is_web: bool) -> None:
    monkeypatch.setattr(interface, "is_web", lambda: is_web)
    assert len(printed(start(is_mitmdump=False), snapshot(SAID))) == is_web
