"""Bridges that share a state directory: none unloads what another one uses, and timers outlive the bridge."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from tests.test_lifetimes import MODEL, NOW, SOON, TERMS, UNLOADED, LMStudio, settle, use

from ollama_lmstudio import lifetimes as lifetimes_module
from ollama_lmstudio.lifetimes import EXPLICIT_KEEP_SECONDS, LoadTerms, ModelLifetimes
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Resolution
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.ollama.durations import FOREVER, KeepAlive
from ollama_lmstudio.state.uses import SharedUses
from ollama_lmstudio.translate.names import Resolver

SHORT = 0.05
Make = Callable[[], ModelLifetimes]
Test = Callable[[Make, LMStudio], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Test], None]:
    """Return a function that runs a test with bridges in front of one LM Studio, whose waits are short."""
    monkeypatch.setattr(lifetimes_module, "LOOK_SECONDS", SHORT)
    monkeypatch.setattr(lifetimes_module, "UNLOAD_DELAY_SECONDS", 0)
    # It waits for whole seconds.
    exact = SimpleNamespace(ceil=lambda seconds: seconds, inf=math.inf, isinf=math.isinf)
    monkeypatch.setattr(lifetimes_module, "math", exact)

    def run_test(test: Test) -> None:
        async def main() -> None:
            lmstudio, made = LMStudio(), []

            def make() -> ModelLifetimes:
                client = cast(Client, lmstudio)
                made.append(ModelLifetimes(client, CatalogCache(client, 300, Resolver), SharedUses(tmp_path, "here")))
                return made[-1]

            async with asyncio.timeout(10):
                await test(make, lmstudio)
            for lifetimes in made:
                lifetimes.stop()

        asyncio.run(main())

    return run_test


def unloads(lmstudio: LMStudio) -> int:
    return lmstudio.asked.count("unload one")


async def pause() -> None:
    """Wait for longer than any timer that is due."""
    await asyncio.sleep(4 * SHORT)
    await settle()


async def load_explicitly(bridge: ModelLifetimes, lmstudio: LMStudio) -> None:
    """Let a bridge load a model, which LM Studio then keeps for ever."""
    lmstudio.listed = UNLOADED.model
    lmstudio.let_load.set()
    await bridge.ensure_loaded(UNLOADED, TERMS)


def test_a_model_is_not_unloaded_while_another_bridge_uses_it(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        two.acquire(MODEL, None)
        await settle()
        use(one, NOW)
        await pause()
        assert unloads(lmstudio) == 0
        two.release(MODEL)
        await pause()
        assert unloads(lmstudio) == 1

    run(test)


def test_a_use_that_begins_while_the_list_is_read_is_heeded(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        lmstudio.let_list.clear()
        use(one, NOW)
        await settle()
        assert lmstudio.asked == ["list"]
        two.acquire(MODEL, None)
        await settle()
        lmstudio.let_list.set()
        await pause()
        assert unloads(lmstudio) == 0
        two.release(MODEL)
        await pause()
        assert unloads(lmstudio) == 1

    run(test)


def test_who_was_asked_last_decides(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        use(one, KeepAlive(2 * SHORT))
        await settle()
        use(two, SOON)
        await pause()
        assert unloads(lmstudio) == 0
        # The other way round, the one that would keep it longer finds it gone.
        use(one, NOW)
        await pause()
        assert unloads(lmstudio) == 1

    run(test)


def test_for_ever_is_for_ever(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        use(one, KeepAlive(SHORT))
        await settle()
        use(two, FOREVER)
        await pause()
        assert unloads(lmstudio) == 0
        assert one.remaining_seconds("one") is None

    run(test)


def test_a_use_without_keep_alive_begins_its_time_anew(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        use(one, KeepAlive(1))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        use(two, None)
        while not unloads(lmstudio):  # noqa: ASYNC110 - the stand-in has no event for it
            await asyncio.sleep(0.01)
        assert time.monotonic() - begun > 0.95

    run(test)


def test_a_bridge_that_ends_leaves_its_timers(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        use(one, KeepAlive(3 * SHORT))
        await settle()
        assert two.remaining_seconds("one") == pytest.approx(3 * SHORT, abs=3 * SHORT)
        two.take_over()
        one.stop()
        assert unloads(lmstudio) == 0
        two.take_over()
        await pause()
        assert unloads(lmstudio) == 1

    run(test)


def test_what_was_loaded_explicitly_does_not_stay_for_ever(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one = make()
        await load_explicitly(one, lmstudio)
        await settle()
        one.stop()
        # The next start, or another bridge.
        two = make()
        two.take_over()
        assert two.remaining_seconds("two") == pytest.approx(EXPLICIT_KEEP_SECONDS, abs=5)
        # It may make room, as with the one that has loaded it.
        assert await two._evict_one()
        assert lmstudio.asked[-1] == "unload two"

    run(test)


def test_what_was_in_use_when_its_bridge_was_killed_is_kept_from_then_on(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        one.acquire(MODEL, SOON)
        await settle()
        assert one._shared is not None
        one._shared.close()
        two.take_over()
        assert two.remaining_seconds("one") == pytest.approx(60, abs=5)
        # A request here takes it from there.
        use(two, NOW)
        await pause()
        assert unloads(lmstudio) == 1

    run(test)


def test_what_has_been_unloaded_is_nobodys_to_unload(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        use(one, NOW)
        await pause()
        one.stop()
        two.take_over()
        await pause()
        assert unloads(lmstudio) == 1
        assert two.remaining_seconds("one") is None

    run(test)


def test_no_room_is_made_of_what_another_bridge_uses(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        await load_explicitly(one, lmstudio)
        two.acquire(UNLOADED.model, None)
        await settle()
        assert not await one._evict_one()
        two.release(UNLOADED.model)
        await settle()
        assert await one._evict_one()

    run(test)


def test_a_model_gets_more_context_when_no_bridge_uses_it(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        await load_explicitly(one, lmstudio)
        two.acquire(UNLOADED.model, None)
        await settle()
        loaded = Resolution(lmstudio.listed, "two")
        grown = asyncio.create_task(one.prepare(loaded, LoadTerms(60, 8192, grow=True)))
        await pause()
        assert not grown.done()
        assert "unload two" not in lmstudio.asked
        two.release(UNLOADED.model)
        await grown
        assert [asked for asked in lmstudio.asked if asked != "list"] == ["load", "unload two", "load with 8192"]

    run(test)


def test_bridges_that_all_wait_for_more_context_do_not_wait_for_each_other(run: Callable[[Test], None]) -> None:
    async def test(make: Make, lmstudio: LMStudio) -> None:
        one, two = make(), make()
        await load_explicitly(one, lmstudio)
        loaded = Resolution(lmstudio.listed, "two")
        one.acquire(loaded.model, None)
        await settle()
        terms = LoadTerms(60, 8192, grow=True)
        grown = [asyncio.create_task(lifetimes.prepare(loaded, terms)) for lifetimes in (one, two)]
        await pause()
        assert not any(task.done() for task in grown)
        one.release(loaded.model)
        await asyncio.gather(*grown)
        assert lmstudio.listed.instances[0].context_length == 8192

    run(test)
