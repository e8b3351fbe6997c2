"""Hooks for those addons that have them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy import exceptions, hooks, options
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons import default_addons
from mitmproxy.test import tflow
from mitmproxy.tools.dump import DumpMaster

from ollama_lmstudio.internals.hook_dispatch import HookDispatch

UPDATE = hooks.UpdateHook([tflow.tflow()])
RUNNING = hooks.RunningHook()


class Noting:
    """An addon that notes when it is called."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes


class Synchronous(Noting):
    def update(self, flows: Any) -> None:
        self.notes.append(self.name)


class Asynchronous(Noting):
    async def update(self, flows: Any) -> None:
        await asyncio.sleep(0)
        self.notes.append(self.name)


class Halting(Noting):
    def update(self, flows: Any) -> None:
        raise exceptions.AddonHalt


class Failing(Noting):
    def update(self, flows: Any) -> None:
        raise ValueError("a bug")


# As those that mitmproxy has itself.
for kind in (Synchronous, Asynchronous, Failing):
    kind.__module__ = "mitmproxy.addons.update"


class Built(Noting):
    """One of mitmproxy's own, without the hook."""


Built.__module__ = "mitmproxy.addons.built"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def in_mitmdump() -> Callable[[Callable[[AddonManager, HookDispatch], Any]], None]:
    """Run a function with the addons of a mitmdump, and the dispatch."""

    def run(scenario: Callable[[AddonManager, HookDispatch], Any]) -> None:
        async def within() -> None:
            master = DumpMaster(options.Options(), with_termlog=False, with_dumper=False)
            dispatch = HookDispatch()
            dispatch.install()
            try:
                await scenario(master.addons, dispatch)
            finally:
                dispatch.remove()
                master._legacy_log_events.uninstall()

        asyncio.run(within())

    return run


Scenario = Callable[[AddonManager, HookDispatch], Any]


def test_addons_are_called_in_their_order(in_mitmdump: Callable[[Scenario], None], notes: list[str]) -> None:
    async def scenario(manager: AddonManager, _: HookDispatch) -> None:
        manager.add(Synchronous("a", notes), Built("b", notes), Asynchronous("c", notes))
        await manager.trigger_event(UPDATE)
        assert notes == ["a", "c"]
        manager.add(Synchronous("d", notes))
        await manager.handle_lifecycle(UPDATE)
        assert notes == ["a", "c", "a", "c", "d"]
        manager.remove(manager.get("c"))
        manager.add(Synchronous("e", notes))
        notes.clear()
        await manager.trigger_event(UPDATE)
        manager.trigger(UPDATE)
        assert notes == ["a", "d", "e"] * 2

    in_mitmdump(scenario)


def test_an_addon_that_stops_the_others(in_mitmdump: Callable[[Scenario], None], notes: list[str]) -> None:
    async def scenario(manager: AddonManager, _: HookDispatch) -> None:
        manager.add(Synchronous("a", notes), Halting("b", notes), Synchronous("c", notes))
        await manager.trigger_event(UPDATE)
        manager.trigger(UPDATE)

    in_mitmdump(scenario)
    assert notes == ["a", "a"]


def test_an_addon_that_fails(
    in_mitmdump: Callable[[Scenario], None], notes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(manager: AddonManager, _: HookDispatch) -> None:
        manager.add(Failing("a", notes), Synchronous("b", notes))
        with caplog.at_level(logging.ERROR):
            await manager.trigger_event(UPDATE)

    in_mitmdump(scenario)
    assert notes == ["b"]
    assert "Addon error: a bug" in caplog.text


def test_a_script_may_get_a_hook_later(in_mitmdump: Callable[[Scenario], None], notes: list[str]) -> None:
    """Scripts are modules or objects of their own, and a Script of mitmproxy's has one as its addon."""

    class Late(Noting):
        addons: list[Any]

    class Container(Noting):
        def __init__(self, name: str, notes: list[str]) -> None:
            super().__init__(name, notes)
            self.addons: list[Any] = []

    Container.__module__ = "mitmproxy.addons.script"

    async def scenario(manager: AddonManager, _: HookDispatch) -> None:
        late, container = Late("a", notes), Container("b", notes)
        manager.add(late, container)
        await manager.trigger_event(UPDATE)
        assert not notes
        late.update = lambda flows: notes.append("late")  # type: ignore[attr-defined]
        container.addons.append(Synchronous("c", notes))
        await manager.trigger_event(UPDATE)
        assert notes == ["late", "c"]

    in_mitmdump(scenario)


def test_most_of_mitmproxys_addons_need_not_be_asked(in_mitmdump: Callable[[Scenario], None]) -> None:
    async def scenario(manager: AddonManager, dispatch: HookDispatch) -> None:
        asked = dispatch._with_hook("update").chain
        assert [addon for addon in manager.chain if hasattr(addon, "update")] == [
            addon for addon in asked if hasattr(addon, "update")
        ]
        assert len(asked) < len(default_addons()) / 4

    in_mitmdump(scenario)


def test_it_is_mitmproxys_again(in_mitmdump: Callable[[Scenario], None], notes: list[str]) -> None:
    async def scenario(manager: AddonManager, dispatch: HookDispatch) -> None:
        second = HookDispatch()
        second.install()
        dispatch.remove()
        assert "trigger" in vars(manager), "the first one's end must not remove the second"
        second.remove()
        assert not {"trigger", "trigger_event"} & set(vars(manager))
        manager.add(Synchronous("a", notes))
        await manager.trigger_event(UPDATE)
        assert notes == ["a"]

    in_mitmdump(scenario)
