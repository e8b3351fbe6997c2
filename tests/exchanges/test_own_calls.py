"""The bridge's own calls in the list of flows: which are shown, and when."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from mitmproxy import http

from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.own_calls import STOPPED
from ollama_lmstudio.internals import interface
from ollama_lmstudio.lmstudio.client import CANCELLED, HEALTH, LOAD_ON_DEMAND, ClientCall
from ollama_lmstudio.record.record import Record

MODELS = "/api/v1/models"
# What is called -> method and path.
CALLS = {
    "list": ("GET", MODELS),
    "load": ("POST", f"{MODELS}/load"),
    "unload": ("POST", f"{MODELS}/unload"),
    "download": ("POST", f"{MODELS}/download"),
    "health": ("GET", MODELS),
    "poll": ("GET", f"{MODELS}/download/status/1"),
    "on demand": ("POST", "/v1/chat/completions"),
}


def call_of(what: str) -> ClientCall:
    """Return a call that begins."""
    method, path = CALLS[what]
    purpose = {"on demand": LOAD_ON_DEMAND, "health": HEALTH}.get(what, "")
    return ClientCall(method, f"http://lmstudio:1234{path}", (), b'{"model": "a/big"}', 1000.0, purpose)


def end(call: ClientCall, status: int | None = 200, error: str | None = None) -> ClientCall:
    call.status, call.error, call.ended = status, error, 1002.5
    return call


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, http.HTTPFlow]]:
    """What mitmproxy's list was told."""
    told: list[tuple[str, http.HTTPFlow]] = []

    async def begin(flow: http.HTTPFlow) -> None:
        told.append(("begin", flow))

    async def ended(flow: http.HTTPFlow) -> None:
        told.append(("end", flow))

    monkeypatch.setattr(interface, "show_begin", begin)
    monkeypatch.setattr(interface, "show_end", ended)
    monkeypatch.setattr(interface, "show_end_now", lambda flow: told.append(("stop", flow)))
    return told


@pytest.fixture
def serving(bridge: Bridge) -> Bridge:
    bridge.is_serving = True
    return bridge


def choose(bridge: Bridge, value: str) -> None:
    services = bridge.services
    services.settings = replace(services.settings, own_calls=value)


FAILED = {"refused": (401, None), "not reached": (None, "not reachable")}
SHOWN = {
    # The option, whether the call fails -> what is shown of it.
    ("changes", False): {"load", "unload", "on demand"},
    ("changes", True): {"load", "unload", "on demand", "list"},
    ("all", False): {"load", "unload", "on demand", "list", "download"},
    ("all", True): {"load", "unload", "on demand", "list", "download"},
    ("none", False): set(),
    ("none", True): set(),
}


@pytest.mark.parametrize(("chosen", "fails"), SHOWN)
@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("failure", FAILED.values(), ids=FAILED)
def test_which_are_shown(
    serving: Bridge,
    shown: list[Any],
    chosen: str,
    fails: bool,
    what: str,
    failure: tuple[int | None, str | None],
) -> None:
    async def scenario() -> None:
        choose(serving, chosen)
        call = call_of(what)
        serving.show_call(call)
        await asyncio.sleep(0)
        serving.show_call(end(call, *failure) if fails else end(call))
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert [word for word, _ in shown] == (["begin", "end"] if what in SHOWN[chosen, fails] else [])


def test_a_load_is_shown_from_its_beginning_on(serving: Bridge, shown: list[Any], master: Any) -> None:
    master.addons["view"] = object()

    async def scenario() -> None:
        call = call_of("load")
        serving.show_call(call)
        await asyncio.sleep(0.01)
        ((word, flow),) = shown
        assert (word, flow.response, Record.load(flow.metadata).state) == ("begin", None, "loading big")
        (watched, _) = serving.watch._running[flow.id]
        watched.show("loading big, 2 s")
        assert Record.load(flow.metadata).state == "loading big, 2 s"
        serving.show_call(end(call))
        await asyncio.sleep(0.01)
        assert shown[1:] == [("end", flow)]
        kept = Record.load(flow.metadata)
        assert (kept.state, kept.status, flow.response.status_code) == ("", 200, 200)
        assert kept.numbers is not None
        assert kept.numbers.total == 2_500_000_000
        assert not serving.watch._running

    asyncio.run(scenario())


def test_a_load_that_the_process_does_not_wait_for_has_an_end(serving: Bridge, shown: list[Any]) -> None:
    async def scenario() -> None:
        call = call_of("load")
        serving.show_call(call)
        await asyncio.sleep(0.01)
        serving.stop()
        # The call is cancelled later than that.
        serving.show_call(end(call, None, CANCELLED))
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert [word for word, _ in shown] == ["begin", "stop"]
    flow = shown[1][1]
    assert (flow.error.msg, Record.load(flow.metadata).error) == ("no answer", STOPPED)


def test_a_look_at_the_list_that_nobody_waits_for_has_not_failed(serving: Bridge, shown: list[Any]) -> None:
    async def scenario() -> None:
        call = call_of("list")
        serving.show_call(call)
        serving.show_call(end(call, None, CANCELLED))
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert shown == []


def test_before_it_serves_nothing_is_shown(bridge: Bridge, shown: list[Any]) -> None:
    async def scenario() -> None:
        bridge.show_call(call_of("load"))
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert shown == []
