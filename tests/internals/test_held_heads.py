"""Holding the head of a response while events come."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.options import Options
from mitmproxy.proxy import context as proxy_context
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode, HttpStream
from mitmproxy.test import tflow
from tests.internals.helpers import connect, live_context

from ollama_lmstudio.internals import connections, held_heads
from ollama_lmstudio.internals.held_heads import HeldBody


def test_layers_queue_the_events_that_come_while_they_are_paused() -> None:
    made = layers.TCPLayer(live_context())
    assert type(made._paused_event_queue) is deque
    assert made._paused is None
    assert "self._paused_event_queue.append(" in inspect.getsource(layer.Layer.handle_event)


def test_an_http_layer_has_streams() -> None:
    assert HttpLayer(live_context(), HTTPMode.transparent).streams == {}
    assert "flow" in HttpStream.__annotations__


def test_the_events_of_an_answer_have_the_names_we_look_for() -> None:
    for name in ("ResponseData", "ResponseEndOfMessage", "ResponseProtocolError", "RequestProtocolError"):
        assert inspect.isclass(getattr(http_layers, name))


FEED = http_layers.ResponseData(1, b"data")
END = http_layers.ResponseEndOfMessage(1)


class Held:
    """A flow that is paused in a hook, the way mitmproxy keeps it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flow = tflow.tflow()
        context = proxy_context.Context(self.flow.client_conn, Options())
        self.layer = HttpLayer(context, HTTPMode.transparent)
        self.stream = HttpStream(context.fork(), 1)
        self.stream.flow = self.flow
        self.stream._paused = layer.Paused(command=None, generator=None)  # type: ignore[arg-type]
        self.layer.streams[1] = self.stream
        connect(monkeypatch, self.flow.client_conn, SimpleNamespace(layer=self.layer))
        self.times = iter(range(10, 1000))

    def clock(self) -> int:
        return next(self.times)

    def hold(self, enough: Callable[[HeldBody], bool], *events: Any, timeout: float | None = 5) -> HeldBody | None:
        """Hold, while the events come one by one."""

        async def scenario() -> HeldBody | None:
            holding = asyncio.create_task(held_heads.hold(self.flow, self.clock, enough, timeout))
            for event in events:
                await asyncio.sleep(0)
                self.stream._paused_event_queue.append(event)
            return await holding

        return asyncio.run(scenario())


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


def test_an_answer_is_held_until_enough_has_come(held: Held) -> None:
    arrived = held.hold(lambda arrived: len(arrived.body) >= 8, FEED, FEED)
    assert arrived is not None
    assert arrived.data == [(10, b"data"), (11, b"data")]
    assert not arrived.over


def test_what_came_before_counts(held: Held) -> None:
    held.stream._paused_event_queue.extend([FEED, END])
    arrived = held.hold(lambda arrived: False)
    assert arrived is not None
    assert (arrived.body, arrived.ended_at) == (b"data", 11)


def test_a_client_that_goes_later_is_noticed(held: Held) -> None:
    held.stream._paused_event_queue.append(FEED)
    arrived = held.hold(lambda arrived: bool(arrived.data))
    assert arrived == HeldBody([(10, b"data")])
    held.stream._paused_event_queue.append(protocol_error(http_layers.RequestProtocolError))
    assert arrived.client_gone


def test_the_events_stay_in_the_queue(held: Held) -> None:
    held.stream._paused_event_queue.append(FEED)
    held.hold(lambda arrived: False, FEED, END)
    assert list(held.stream._paused_event_queue) == [FEED, FEED, END]


def protocol_error(made_by: type) -> Any:
    # Its codes are other types from version to version.
    return object.__new__(made_by)


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (protocol_error(http_layers.ResponseProtocolError), "server_gone"),
        (protocol_error(http_layers.RequestProtocolError), "client_gone"),
        (END, "ended_at"),
    ],
    ids=["server", "client", "end"],
)
def test_nothing_is_waited_for_when_it_is_over(event: Any, name: str, held: Held) -> None:
    arrived = held.hold(lambda arrived: False, FEED, event)
    assert arrived is not None
    assert arrived.over
    assert getattr(arrived, name)
    assert arrived.body == b"data"


def test_other_events_are_no_answer(held: Held) -> None:
    arrived = held.hold(lambda arrived: True, object())
    assert arrived == HeldBody()


def test_an_answer_is_not_held_longer_than_allowed(held: Held) -> None:
    arrived = held.hold(lambda arrived: False, FEED, timeout=0.05)
    assert arrived is not None
    assert arrived.body == b"data"
    assert not arrived.over


@pytest.mark.parametrize("spoil", ["other flow", "not paused", "no queue", "no streams", "no layers", "no layer"])
def test_an_answer_that_cannot_be_held(spoil: str, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    match spoil:
        case "other flow":
            held.stream.flow = tflow.tflow()
        case "not paused":
            held.stream._paused = None
        case "no streams":
            del held.layer.streams
        case "no layers":
            monkeypatch.setattr(connections, "http_layers", None)
        case "no layer":
            connect(monkeypatch, held.flow.client_conn, SimpleNamespace())
        case "no queue":
            del held.stream._paused_event_queue
    assert asyncio.run(held_heads.hold(held.flow, held.clock, lambda arrived: False, 5)) is None
