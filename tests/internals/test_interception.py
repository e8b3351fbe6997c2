"""Flows that a user intercepts, reverts or kills."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace

import pytest
from mitmproxy import hooks, http
from mitmproxy.addons import intercept
from mitmproxy.test import tflow
from tests.internals.helpers import master_with

from ollama_lmstudio.internals import interception


@pytest.mark.parametrize("stops", [True, False])
def test_an_intercept_filter_is_asked(stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    master_with(monkeypatch, intercept=SimpleNamespace(should_intercept=lambda flow: stops))
    assert interception.is_stopped(tflow.tflow()) is stops
    master_with(monkeypatch)
    assert not interception.is_stopped(tflow.tflow())


def test_mitmproxys_own_addon_can_be_asked() -> None:
    assert list(inspect.signature(intercept.Intercept.should_intercept).parameters) == ["self", "f"]


def test_a_paused_request_waits_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    master = master_with(monkeypatch)
    flow = tflow.tflow()

    async def pause() -> None:
        waiting = asyncio.create_task(interception.wait_for_user(flow))
        await asyncio.sleep(0.01)
        assert flow.intercepted
        assert not waiting.done()
        flow.resume()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(pause())
    (call,) = master.addons.trigger_event.await_args_list
    assert isinstance(call.args[0], hooks.UpdateHook)


def test_a_flow_is_not_reverted_while_it_streams() -> None:
    flow = tflow.tflow(resp=True)
    assert flow.response is not None
    interception.keep_what_streams(flow)
    flow.live = True
    flow.backup()
    flow.comment = "edited"
    flow.response.stream = True
    flow.revert()
    assert (flow.comment, flow.response.stream) == ("edited", True)
    flow.response.stream = False
    flow.revert()
    assert flow.comment == ""


def test_a_paused_flow_that_is_killed_ends() -> None:
    killed: list[http.HTTPFlow] = []
    flow = tflow.tflow()
    flow.live = True
    interception.end_when_killed(flow, killed.append)

    async def kill() -> None:
        flow.intercept()
        waiting = asyncio.create_task(flow.wait_for_resume())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        flow.kill()
        await asyncio.wait_for(waiting, 5)
        flow.intercept()
        await asyncio.wait_for(flow.wait_for_resume(), 5)

    asyncio.run(kill())
    assert killed == [flow]
    assert not flow.intercepted
    assert not flow.killable


def test_every_pause_of_a_flow_is_told() -> None:
    told: list[tuple[int, bytes]] = []
    flow, times = tflow.tflow(), iter([100, 103, 200, 207])

    async def pauses() -> None:
        assert flow.intercepted
        told.append((0, b""))

    interception.watch_pauses(flow, lambda: next(times), pauses, lambda ns, before: told.append((ns, before.request)))

    async def pause() -> None:
        await flow.wait_for_resume()
        assert told == []
        for _ in range(2):
            flow.intercept()
            asyncio.get_running_loop().call_later(0.01, edit_and_resume)
            await asyncio.wait_for(flow.wait_for_resume(), 5)

    def edit_and_resume() -> None:
        flow.request.content = b"edited"
        flow.resume()

    asyncio.run(pause())
    assert told == [(0, b""), (3, b"content"), (0, b""), (7, b"edited")]


def test_what_was_there_before_an_edit() -> None:
    flow = tflow.tflow(resp=True)
    assert interception.before_edit(flow) is None
    flow.backup()
    flow.request.content = b"edited"
    flow.request.path = "/edited"
    assert interception.before_edit(flow) == ("/path", b"content", b"message")
    assert interception.bodies(flow) == ("/edited", b"edited", b"message")
    flow.revert()
    assert interception.before_edit(flow) is None
