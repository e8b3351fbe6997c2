"""What is shown of exchanges while they run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy import http
from tests.exchanges.conftest import FakeTranslation, Holding, MakeExchange, Ticks, flow_of, kept, written

from ollama_lmstudio import progress
from ollama_lmstudio.exchanges import watch
from ollama_lmstudio.exchanges.buffered import Buffered
from ollama_lmstudio.exchanges.collected import Collected
from ollama_lmstudio.exchanges.exchange import Exchange, Handler
from ollama_lmstudio.exchanges.local import Local
from ollama_lmstudio.exchanges.passed_through import PassedThrough
from ollama_lmstudio.exchanges.registry import Exchanges
from ollama_lmstudio.exchanges.streamed import Streamed
from ollama_lmstudio.internals import interface
from ollama_lmstudio.outcomes import Call, CollectedCall, Passthrough, StreamedCall
from ollama_lmstudio.progress import State
from ollama_lmstudio.record.record import UNFINISHED, Record

SECOND = watch.NS_PER_SECOND


class Seconds(Ticks):
    """A clock that stands still, unless it is set."""

    def monotonic(self) -> int:
        return self.now * SECOND


@pytest.fixture
def clock(exchanges: Exchanges) -> Seconds:
    clock = exchanges.bridge.clock = Seconds()
    return clock


class Waiting(Handler):
    """A handler whose state a test sets."""

    now: State | None = None

    def state(self, now: int) -> State | None:
        return self.now


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, master: Any) -> list[str]:
    """The states that a list of flows has shown, which is looked at every hundredth of a second."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.01)
    states: list[str] = []

    async def show(flow: http.HTTPFlow) -> None:
        states.append(Record.load(flow.metadata).state)

    monkeypatch.setattr(interface, "show_change", show)
    master.addons["view"] = object()
    return states


def test_a_line_is_refreshed_where_its_state_has_changed(
    exchanges: Exchanges, exchange_of: MakeExchange, shown: list[str], clock: Seconds
) -> None:
    async def scenario() -> None:
        made = exchange_of()
        made.handler = waits = Waiting(made)
        await exchanges.request(made.flow)
        for number in range(1, 5):
            waits.now = State("loading", f"loading, {number // 2} s")
            clock.now += 1
            await asyncio.sleep(0.015)
        exchanges.error(made.flow)
        assert kept(made).state == ""
        await asyncio.sleep(0.03)
        assert exchanges.bridge.watch._task is None, "nothing runs any more"

    asyncio.run(scenario())
    assert shown == ["loading, 0 s", "loading, 1 s", "loading, 2 s"]


def test_a_state_that_cannot_be_told_keeps_no_other_from_being_shown(
    exchanges: Exchanges, exchange_of: MakeExchange, shown: list[str], clock: Seconds
) -> None:
    class Broken(Waiting):
        def state(self, now: int) -> State | None:
            raise ValueError

    async def scenario() -> None:
        broken, made = exchange_of(), exchange_of()
        broken.handler, made.handler = Broken(broken), Waiting(made)
        made.handler.now = State("loading", "loading, 1 s")
        for exchange in (broken, made):
            await exchanges.request(exchange.flow)
        await asyncio.sleep(0.03)
        for exchange in (broken, made):
            exchanges.error(exchange.flow)

    asyncio.run(scenario())
    assert shown == ["loading, 1 s"]


def test_a_large_body_is_shown_less_often_than_its_line(
    exchanges: Exchanges, exchange_of: MakeExchange, shown: list[str], clock: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[int] = []
    monkeypatch.setattr(Exchange, "show_body", lambda self: bodies.append(clock.now))

    async def scenario() -> None:
        made = exchange_of(flow_of(body=b"x" * 3 * watch.RENDERED_BYTES))
        made.handler = waits = Waiting(made)
        await exchanges.request(made.flow)
        for number in range(8):
            clock.now = number
            waits.now = State("loading", f"{number}")
            await asyncio.sleep(0.015)
        exchanges.error(made.flow)

    asyncio.run(scenario())
    assert len(shown) >= 5
    assert 2 <= len(set(bodies)) <= 3
    assert all(later - earlier >= 3 for earlier, later in itertools.pairwise(bodies))


def test_an_answer_is_shown_while_it_comes(
    exchanges: Exchanges,
    exchange_of: MakeExchange,
    hold: Callable[..., Holding],
    master: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[bytes | None] = []

    async def show(flow: Any) -> None:
        shown.append(flow.response.raw_content)

    monkeypatch.setattr(interface, "show_change", show)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.01)
    master.addons["view"] = object()

    async def scenario() -> None:
        hold(b"a")
        made = exchange_of()
        made.handler = Streamed(made, StreamedCall("/v1/chat/completions", b"{}", FakeTranslation()))
        made.flow.response = http.Response.make(200, b"", http.Headers(content_type="text/event-stream"))
        made.flow.response.raw_content = None
        exchanges.bridge.watch.add(made)
        await made.responseheaders()
        for chunk in (b"a", b"b", b""):
            written(made, chunk)
            await asyncio.sleep(0.03)
        await exchanges.response(made.flow)
        await asyncio.sleep(0.03)

    asyncio.run(scenario())
    bodies = [b"<a>\n", b"<a>\n<b>\n", b"<a>\n<b>\nend\n"]
    assert shown == [body + UNFINISHED for body in bodies]


# Second -> the state that begins then. What is told is told at this second, in these words.
LOADING, FIRST, FLOWS = State("load", "load {}"), State("first", "first {}"), State("answers", "{}", flows=True)
WAITS = {
    "long already": ({0: State("first", "first {}", seconds=2), 1: None}, ["first 0"]),
    "short": ({0: LOADING, 1: None}, []),
    "long": ({0: LOADING, 40: None}, ["load 1", "load 31"]),
    "another": ({0: LOADING, 10: FIRST, 20: None}, ["load 1", "first 10"]),
    "a stream": ({0: FLOWS, 50: None}, []),
    "a stream that was waited for": ({0: FIRST, 5: FLOWS, 40: None}, ["first 1"]),
}


@pytest.mark.parametrize(("states", "told"), WAITS.values(), ids=WAITS)
def test_what_waits_long_is_told_where_there_is_no_list(
    exchanges: Exchanges, exchange_of: MakeExchange, states: dict[int, State | None], told: list[str]
) -> None:
    said: list[str] = []
    exchanges.bridge.waits = lambda flow, record: said.append(record.state)
    clock = exchanges.bridge.clock = Seconds()

    async def scenario() -> None:
        made = exchange_of()
        made.handler = waits = Waiting(made)
        state, seen = None, watch.Seen()
        for second in range(max(states) + 1):
            state = states.get(second, state)
            waits.now = state and state._replace(text=state.text.format(second))
            clock.now = 1000 + second
            await exchanges.bridge.watch.look_at(made, seen)

    asyncio.run(scenario())
    assert said == told


def test_what_ended_while_it_is_replayed_is_not_looked_at(exchanges: Exchanges, exchange_of: MakeExchange) -> None:
    async def scenario() -> None:
        before = exchange_of()
        exchanges.bridge.watch.add(before)
        again = exchange_of(before.flow)
        exchanges.bridge.watch.add(again)
        exchanges.bridge.watch.remove(before)
        assert exchanges.bridge.watch._running[again.flow.id][0] is again

    asyncio.run(scenario())


def test_what_the_user_holds_says_so_at_once(
    exchanges: Exchanges, exchange_of: MakeExchange, shown: list[str], clock: Seconds
) -> None:
    async def scenario() -> None:
        made = exchange_of()
        made.flow.intercept()
        waiting = asyncio.create_task(made.flow.wait_for_resume())
        await asyncio.sleep(0.001)
        assert shown == ["waits for you"]
        assert made.state(0) == progress.WAITS_FOR_USER
        made.flow.resume()
        await waiting
        assert kept(made).state == ""

    asyncio.run(scenario())


def test_a_killed_flow_waits_for_nobody(exchange_of: MakeExchange) -> None:
    made = exchange_of()
    made.show("waits for you")
    made.flow.kill()
    assert kept(made).state == ""


def test_the_work_for_a_request_tells_what_it_waits_for(exchanges: Exchanges, exchange_of: MakeExchange) -> None:
    class Loading(Waiting):
        async def request(self) -> None:
            with progress.waiting_for(progress.loading("qwen/qwen3-70b")):
                # As a load does that several wait for.
                await asyncio.create_task(self.look())

        async def look(self) -> None:
            with progress.waiting_for("waits for something else"):
                states.append(self.exchange.state(0))
            states.append(self.exchange.state(0))

    states: list[State | None] = []

    async def scenario() -> None:
        made = exchange_of()
        made.handler = Loading(made)
        await exchanges.request(made.flow)
        states.append(made.state(0))

    asyncio.run(scenario())
    texts = [state and state.text for state in states]
    assert texts == ["waits for something else", "loading qwen3-70b", None]


def call(translation: FakeTranslation) -> CollectedCall:
    return CollectedCall("/v1/chat/completions", b"{}", translation, asked="qwen3:8b")


@pytest.mark.parametrize(
    ("so_far", "seconds", "state"),
    [
        ((0, 0), 1, None),
        ((0, 0), 12, "waits for the first token, 12 s"),
        ((1, 1 * SECOND), 3, "1 token"),
        ((31, 1 * SECOND), 2.26, "31 tokens, 24.6 tok/s"),
        ((1500, 1 * SECOND), 2, "1,500 tokens, 1,500 tok/s"),
    ],
)
def test_an_answer_that_is_collected_or_streams(
    exchange_of: MakeExchange, so_far: tuple[int, int], seconds: float, state: str | None
) -> None:
    made, translation = exchange_of(), FakeTranslation()
    made.recorder.started_ns = 0
    made.handler = Collected(made, call(translation))
    translation.so_far = so_far
    found = made.state(round(seconds * SECOND))
    assert (found and found.text, found.flows if found else False) == (state, bool(so_far[0]))


def test_a_load_on_demand(exchange_of: MakeExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    made, translation = exchange_of(), FakeTranslation()
    monkeypatch.setattr("ollama_lmstudio.exchanges.buffered.LOOK_SECONDS", 0.01)
    looks = iter([False, False, True])
    states: list[str] = []

    async def is_loaded() -> bool:
        if found := made.state(made.handler._since + 23 * SECOND):  # type: ignore[attr-defined]
            states.append(found.text)
        return next(looks)

    async def scenario() -> None:
        waiting = call(translation)
        waiting.is_loaded = is_loaded
        made.handler = Collected(made, waiting)
        await made.request()
        await asyncio.sleep(0.1)
        if found := made.state(made.handler._since + 5 * SECOND):
            states.append(found.text)

    asyncio.run(scenario())
    assert states == [
        "waits for the first token, 23 s",
        "loading qwen3:8b, 23 s",
        "loading qwen3:8b, 23 s",
        "waits for the first token, 5 s",
    ]


def test_other_ways(exchange_of: MakeExchange) -> None:
    made = exchange_of()
    made.recorder.started_ns = 0
    now = 70 * SECOND
    translation = FakeTranslation()
    handlers = {
        "waits for LM Studio, 1 min 10 s": Handler(made),
        "waits for the answer, 1 min 10 s": Buffered(made, Call("/v1/embeddings", b"{}", translation)),
        None: Local(made, None),  # type: ignore[arg-type]
        "2.0 kB": PassedThrough(made, Passthrough("/v1/chat/completions", b"{}")),
    }
    for text, made.handler in handlers.items():
        if isinstance(made.handler, PassedThrough):
            made.recorder.upstream_body.add(b"x" * 2000)
        found = made.state(now)
        assert (found and found.text) == text
    made.flow.request.timestamp_end = None
    made.handler = Handler(made)
    assert made.state(now) is None
