"""One line for each exchange in the terminal, in place of the own output of mitmdump and mitmweb.

    16:49:26 /api/chat  llama-3.2-3b  200  "Why is the sky blue?" -> "Because of..."  24.6 tok/s, first token 602 ms

It is made and written when the exchange has ended, and nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from mitmproxy import ctx, flow, http

from ..internals import dumper, interface
from ..record import record as records
from ..record.internal_calls import CHANGES, DOWNLOAD
from ..record.record import PREFIX, Record
from ..translate.first_words import CALLS
from ..unicode import one_line, well_formed
from . import snapshot as snapshots
from . import summary
from .snapshot import Snapshot

OPTIONS = ("flow_detail", "termlog_verbosity", "doctor")
"""The options that decide what is printed."""
# How much is logged, as mitmproxy calls it: at these levels, an exchange is told only if it failed.
FAILURES_ONLY = ("error", "warn", "alert")
ALL_OF_MITMPROXY = "debug"

# A file or a pipe has no width; a line in it ends here.
LINE_COLUMNS = 220
# The widths that the columns of the path and of the model begin with, and those that they may grow to.
PATH_COLUMNS, MAX_PATH_COLUMNS = len("/api/generate"), 20
MODEL_COLUMNS, MAX_MODEL_COLUMNS = 16, 32
# The column of the key's name is there once a client has sent a key that has one.
MAX_KEY_COLUMNS = 16
# Which part of a terminal's width the model may have.
MODEL_SHARE = 5
# Numbers are left out, the last first, where less than this would be left for what was said.
SAID_COLUMNS = 52
# Of what was said, so much of the prompt is shown at least where it is longer than its place.
PROMPT_COLUMNS = 24
GAP = "  "

# The paths that are polled: only what is not as before has a line.
_POLLED = frozenset({"/health", "/health/live", "/metrics"})
# The internal calls that have a line.
_TOLD = CHANGES | {DOWNLOAD}

TIME = {"dim": True}
KEY = {"fg": "magenta"}
PATH = {"fg": "cyan"}
MODEL = {"bold": True}
SUCCESS = {"fg": "green"}
FAILURE = {"fg": "red"}
STATE = {"fg": "yellow"}
ANSWER = {"fg": "green"}
NUMBERS = {"dim": True}

Piece = tuple[str, dumper.Style]
"""A part of a line, and its style."""


class Terminal:
    """Print exchanges, where mitmproxy leaves the terminal to us and the user has not asked for its own output."""

    def __init__(self) -> None:
        self._silence = dumper.Silence(is_ours)
        self._is_on = False
        self._output = dumper.Output(sys.stdout)
        self._has_colours = False
        self._failing_polls: set[str] = set()
        self._key_columns, self._path_columns, self._model_columns = 0, PATH_COLUMNS, MODEL_COLUMNS

    def configure(self) -> None:
        """Do as the options say. With `flow_detail`, which `-v` and `-q` set too, the user wants mitmproxy's output."""
        has_terminal = dumper.is_there() or interface.is_web()
        self._is_on = has_terminal and not dumper.is_set("flow_detail") and not ctx.options.doctor
        if self._is_on:
            self._output = dumper.Output(sys.stdout)
            self._has_colours = dumper.has_colours(sys.stdout, os.environ)
            dumper.keep_log(self._output)
        if self._is_on and ctx.options.termlog_verbosity != ALL_OF_MITMPROXY:
            self._silence.install()
        else:
            self._silence.remove()

    def done(self) -> None:
        """Let mitmproxy print its flows again."""
        self._is_on = False
        self._silence.remove()
        dumper.release_log()

    def ended(self, shown: http.HTTPFlow) -> None:
        """Print the line of an exchange that has ended, once the client has got what waits to be sent."""
        if self._is_on:
            asyncio.get_running_loop().call_soon(self._print_ended, shown)

    def waits(self, flow: http.HTTPFlow, record: Record) -> None:
        """Print what an exchange waits for, as its record says."""
        if not self._is_on or not record.state or ctx.options.termlog_verbosity in FAILURES_ONLY:
            return
        # While LM Studio hangs, each poll waits for it.
        if record.path in _POLLED:
            return
        snapshot = snapshots.for_summary(flow, record)
        name = summary.model_name(snapshot)
        # The line has a place for the model.
        state = record.state.replace(name, "the model") if name else record.state
        columns = self._columns()
        subject = self._subject(snapshot, name, columns)
        self._write([(f"{_clock(time.time())} ", TIME), *subject, (one_line(state), STATE)], columns)

    def _print_ended(self, shown: http.HTTPFlow) -> None:
        record = records.of(shown)
        if record is None or not self._is_on or not dumper.is_wanted(shown):
            return
        snapshot = snapshots.for_summary(shown, record)
        failed = summary.is_error(snapshot)
        # A list of models that could not be had is told by who needs it.
        if snapshot.is_internal and snapshot.record.purpose not in _TOLD:
            return
        if record.path in _POLLED and not self._is_news(record.path, failed):
            return
        if not failed and ctx.options.termlog_verbosity in FAILURES_ONLY:
            return
        columns = self._columns()
        self._write(self._line(snapshot, _ended_at(shown), failed, columns), columns)

    def _is_news(self, path: str, failed: bool) -> bool:
        """Return whether a poll says another thing than the one before; the first one is expected to succeed."""
        if failed == (path in self._failing_polls):
            return False
        self._failing_polls ^= {path}
        return True

    def _columns(self) -> int:
        # A line that fills the last column moves the cursor to the next one in some terminals.
        return shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else LINE_COLUMNS

    # What a line holds

    def _line(self, snapshot: Snapshot, at: float, failed: bool, columns: int) -> list[Piece]:
        status = str(snapshot.status) if snapshot.status else "-"
        pieces = [
            (f"{_clock(at)} ", TIME),
            *self._subject(snapshot, summary.model_name(snapshot), columns),
            (f"{status:3}", FAILURE if failed else SUCCESS),
        ]
        left = columns - sum(_width(text) for text, _ in pieces)
        trouble = one_line(summary.failure_text(snapshot).removeprefix(f"{snapshot.status} "))
        left -= _width(trouble) + len(GAP)
        said, signs = _said(snapshot, LINE_COLUMNS)
        wanted = sum(_width(text) for text, _ in said) + len(signs) + 2 * len(GAP)
        numbers = _that_fit(_facts(snapshot), left - min(wanted, SAID_COLUMNS))
        if wanted > left - len(numbers):
            said, signs = _said(snapshot, left - len(numbers) - 2 * len(GAP))
        for group in ([(trouble, FAILURE if failed else STATE)], said, [(signs, NUMBERS)], [(numbers, NUMBERS)]):
            if any(text for text, _ in group):
                pieces += [(GAP, {}), *group]
        return pieces

    def _subject(self, snapshot: Snapshot, name: str, width: int) -> Sequence[Piece]:
        """Return the columns of the key's name, the path and the model.

        A column that was too narrow stays as wide as it became.
        """
        key = _cut(one_line(snapshot.record.key), MAX_KEY_COLUMNS)
        path = summary.OWN if snapshot.is_internal else one_line(snapshot.client_path, MAX_PATH_COLUMNS)
        name = _cut(one_line(name), min(max(width // MODEL_SHARE, MODEL_COLUMNS), MAX_MODEL_COLUMNS))
        self._key_columns = max(self._key_columns, _width(key))
        self._path_columns = max(self._path_columns, _width(path))
        self._model_columns = max(self._model_columns, _width(name))
        columns = (
            (_padded(key, self._key_columns), KEY),
            (_padded(path, self._path_columns), PATH),
            (_padded(name, self._model_columns), MODEL),
        )
        return [piece for column in columns if column[0] for piece in (column, (GAP, {}))]

    # How it is written

    def _write(self, pieces: list[Piece], columns: int) -> None:
        shown = pieces
        if sum(_width(text) for text, _ in pieces) > columns:
            shown, left = [], columns
            for text, style in pieces:
                shown.append((_cut(text, left), style))
                left -= _width(text)
                if left < 0:
                    break
        if self._has_colours:
            shown = [(dumper.styled(text, style), style) for text, style in shown]
        text = well_formed("".join(text for text, _ in shown))
        self._output.write(f"{text.rstrip()}\n")


def is_ours(shown: flow.Flow) -> bool:
    """Return whether a flow passed through the bridge."""
    return isinstance(shown, http.HTTPFlow) and f"{PREFIX}path" in shown.metadata


def _ended_at(shown: http.HTTPFlow) -> float:
    if shown.response is not None and shown.response.timestamp_end:
        return shown.response.timestamp_end
    return shown.error.timestamp if shown.error else time.time()


def _clock(timestamp: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(timestamp))


def _facts(snapshot: Snapshot) -> list[str]:
    facts = [fact for fact in summary.facts(snapshot) if fact]
    if snapshot.is_internal:
        return [snapshot.record.purpose, *facts]
    # The model has a column.
    name = summary.model_name(snapshot)
    return [fact for fact in facts if fact != name]


def _that_fit(facts: Sequence[str], columns: int) -> str:
    """Return the first of the facts, as many as fit; one at least."""
    shown = list(facts)
    while len(shown) > 1 and len(", ".join(shown)) > columns:
        shown.pop()
    return one_line(", ".join(shown))


def _said(snapshot: Snapshot, columns: int) -> tuple[list[Piece], str]:
    """Return the first words of both sides in so many columns, `"Why?"`, ` -> `, `"Because"`; and the signs."""
    record = snapshot.record
    signs = one_line(record.signs)
    room = columns - len(signs)
    prompt, answer = summary.quoted(record.prompt, len(record.prompt)), one_line(record.answer)
    if not answer:
        return [(_cut_quoted(prompt, room), {})], signs
    answer = answer.removeprefix(CALLS) if answer.startswith(CALLS) else summary.quoted(answer, len(answer))
    arrow = f" {CALLS}" if prompt else CALLS
    prompt_room = max(room - _width(answer) - len(arrow), min(PROMPT_COLUMNS, room))
    prompt = _cut_quoted(prompt, prompt_room)
    answer = _cut_quoted(answer, room - _width(prompt) - len(arrow))
    return ([(prompt, {}), (arrow, {}), (answer, ANSWER)] if answer else [(prompt, {})]), signs


def _cut_quoted(text: str, columns: int) -> str:
    """Return a text in quotes in so many columns; nothing where too little of it would be left."""
    if _width(text) <= columns:
        return text
    quote = '"' if text.endswith('"') else ""
    shown = _cut(text.removesuffix(quote), columns - len(quote))
    return shown + quote if len(shown) > len('"...') else ""


def _width(text: str) -> int:
    """Return how many columns a terminal has a text in: two for each character of most East Asian scripts."""
    return len(text) if text.isascii() else _width_of_characters(text)


@lru_cache(maxsize=16)
def _width_of_characters(text: str) -> int:
    """Return the same. The pieces of one line are looked at several times."""
    return sum(map(_width_of, text))


def _width_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - _width(text))


def _cut(text: str, columns: int) -> str:
    """Return the beginning of a text that is wider than `columns`."""
    if _width(text) <= columns:
        return text
    left, end = columns - len("..."), 0
    for character in text:
        left -= _width_of(character)
        if left < 0:
            break
        end += 1
    return (text[:end].rstrip() + "...")[: max(columns, 0)]
