"""The exchanges that are under way, by their flows."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from tests.exchanges.conftest import MakeExchange, answer, flow_of

from ollama_lmstudio.exchanges import registry
from ollama_lmstudio.exchanges.exchange import Handler
from ollama_lmstudio.exchanges.registry import Exchanges
from ollama_lmstudio.internals import interface
from ollama_lmstudio.lmstudio.errors import LMStudioError


def test_a_flow_that_is_none_of_ours_is_left_alone(exchanges: Exchanges) -> None:
    flow = flow_of()

    async def all_hooks() -> None:
        await exchanges.request(flow)
        await exchanges.responseheaders(flow)
        await exchanges.response(flow)
        exchanges.error(flow)

    asyncio.run(all_hooks())
    assert (flow.response, flow.metadata) == (None, {})


def test_the_hooks_reach_the_handler(exchanges: Exchanges, exchange_of: MakeExchange) -> None:
    called: list[str] = []

    class Noting(Handler):
        async def request(self) -> None:
            called.append("request")

        async def responseheaders(self) -> None:
            called.append("responseheaders")

        async def response(self) -> None:
            called.append("response")

    made = exchange_of()
    made.handler = Noting(made)
    assert exchanges.busy_clients == {made.flow.client_conn.id}

    async def all_hooks() -> None:
        await exchanges.request(made.flow)
        answer(made)
        await exchanges.request(made.flow)
        await exchanges.responseheaders(made.flow)
        await exchanges.response(made.flow)

    asyncio.run(all_hooks())
    assert called == ["request", "responseheaders", "response"]
    assert not exchanges.busy_clients


def test_the_time_for_which_the_user_holds_a_flow_is_measured(exchange_of: MakeExchange) -> None:
    made = exchange_of()
    began = made.recorder.started_ns

    async def hold() -> None:
        made.flow.intercept()
        waiting = asyncio.create_task(made.flow.wait_for_resume())
        await asyncio.sleep(0)
        made.flow.resume()
        await waiting

    asyncio.run(hold())
    assert made.recorder.started_ns > began


def test_a_cleared_list_ends_what_waits(exchanges: Exchanges, exchange_of: MakeExchange, master: Any) -> None:
    listed, unlisted, running = (exchange_of() for _ in range(3))
    master.addons["view"] = SimpleNamespace(get_by_id=lambda id_: {listed.flow.id: 1}.get(id_))
    listed.flow.intercept()
    unlisted.flow.intercept()

    async def clear() -> None:
        exchanges.kill_unlisted()

    asyncio.run(clear())
    assert [bool(each.flow.error) for each in (listed, unlisted, running)] == [False, True, False]


@pytest.mark.parametrize("again", [False, True])
def test_large_bodies_are_cut_when_they_have_been_sent(
    exchanges: Exchanges, exchange_of: MakeExchange, master: Any, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    shown: list[http.HTTPFlow] = []

    async def show(flow: http.HTTPFlow) -> None:
        shown.append(flow)

    monkeypatch.setattr(interface, "show_change", show)
    monkeypatch.setattr(registry, "SENT_SECONDS", 0.01)
    master.addons["view"] = object()
    limit = exchanges.bridge.services.settings.max_kept_size

    async def scenario() -> http.HTTPFlow:
        made = exchange_of(flow_of(body=b"x" * (limit + 5)))
        answer(made, body=b"{}")
        await exchanges.response(made.flow)
        await asyncio.sleep(0.05)
        assert len(made.flow.request.raw_content or b"") == limit + 5, "it is still being sent"
        if again:
            exchange_of(made.flow)
        made.flow.live = False
        await asyncio.sleep(0.05)
        return made.flow

    flow = asyncio.run(scenario())
    assert len(flow.request.raw_content or b"") == (limit + 5 if again else limit)
    assert shown == ([] if again else [flow])


def test_one_that_cannot_be_ended_keeps_no_other_from_it(
    exchanges: Exchanges, exchange_of: MakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    class Ending(Handler):
        def stop(self, error: LMStudioError) -> None:
            ended.append(self.flow.id)
            raise ValueError

    made = [exchange_of(), exchange_of()]
    for exchange in made:
        exchange.handler = Ending(exchange)
        exchange.flow.client_conn.state = ConnectionState.OPEN
    exchanges.stop()
    assert ended == [exchange.flow.id for exchange in made]
    assert caplog.text.count("could not be ended") == 2
