"""Which requests use a model, and when it is unloaded, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from ollama_lmstudio.lifetimes import ModelLifetimes, wants_load
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Instance, Model, Resolution
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.ollama.durations import FOREVER, KeepAlive
from ollama_lmstudio.translate.names import Resolver

MODEL = Model(key="one", type="llm", instances=(Instance("one"),))
NOW, SOON = KeepAlive(0), KeepAlive(60)


class LMStudio:
    """LM Studio's client. What it is asked for waits until the test lets it go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_list, self.let_load, self.let_unload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.let_list.set()
        self.let_unload.set()
        self.error: LMStudioError | None = None
        self.gone = False
        self.listed = MODEL

    async def catalog(self) -> Catalog:
        self.asked.append("list")
        await self.let_list.wait()
        if self.gone:
            raise LMStudioError(503, "gone")
        return Catalog((self.listed,))

    async def load(self, id_: str, context_length: int | None, *, timeout: float) -> None:
        self.asked.append("load" if context_length is None else f"load with {context_length}")
        await self.let_load.wait()

    async def unload(self, id_: str) -> None:
        self.asked.append("unload")
        await self.let_unload.wait()
        if self.error:
            raise self.error


Test = Callable[[ModelLifetimes, LMStudio], Awaitable[None]]


def run(test: Test) -> None:
    async def main() -> None:
        lmstudio = LMStudio()
        client = cast(Client, lmstudio)
        lifetimes = ModelLifetimes(client, CatalogCache(client, 300, Resolver))
        async with asyncio.timeout(5):
            await test(lifetimes, lmstudio)
        lifetimes.stop()

    asyncio.run(main())


async def settle() -> None:
    """Run everything that can run without waiting."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    for _ in range(20):
        await asyncio.sleep(0)


def use(lifetimes: ModelLifetimes, keep_alive: KeepAlive | None) -> None:
    lifetimes.acquire(MODEL, keep_alive)
    lifetimes.release(MODEL)


def test_a_model_is_unloaded_once_when_it_was_used_last() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        use(lifetimes, NOW)
        use(lifetimes, None)
        await settle()
        assert lmstudio.asked == ["list", "unload"]
        use(lifetimes, None)
        await settle()
        assert lmstudio.asked == ["list", "unload"]

    run(test)


def test_a_request_that_comes_before_the_unload_keeps_the_model_and_then_it_is_unloaded() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_list.clear()
        use(lifetimes, NOW)
        await settle()
        lifetimes.acquire(MODEL, None)
        assert not await lifetimes.wait_for_unload(MODEL)
        lmstudio.let_list.set()
        await settle()
        assert lmstudio.asked == ["list"]
        lifetimes.release(MODEL)
        await settle()
        assert lmstudio.asked == ["list", "list", "unload"]

    run(test)


@pytest.mark.parametrize("keep_alive", [SOON, FOREVER])
def test_a_use_that_ends_before_the_unload_decides_anew(keep_alive: KeepAlive) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_list.clear()
        use(lifetimes, NOW)
        await settle()
        use(lifetimes, keep_alive)
        lmstudio.let_list.set()
        await settle()
        assert lmstudio.asked == ["list"]

    run(test)


@pytest.mark.parametrize("error", [None, LMStudioError(500, "no")])
def test_a_request_that_comes_during_the_unload_waits_for_it_whatever_comes_of_it(error: LMStudioError | None) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.error = error
        lmstudio.let_unload.clear()
        use(lifetimes, NOW)
        await settle()
        lifetimes.acquire(MODEL, SOON)
        waiting = asyncio.create_task(lifetimes.wait_for_unload(MODEL))
        await settle()
        assert not waiting.done()
        lmstudio.let_unload.set()
        assert await waiting
        lifetimes.release(MODEL)
        await settle()
        assert lmstudio.asked == ["list", "unload"]

    run(test)


def test_an_unload_of_another_model_is_not_waited_for() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_unload.clear()
        use(lifetimes, NOW)
        await settle()
        assert not await lifetimes.wait_for_unload(Model(key="two", type="llm"))

    run(test)


def test_who_waits_is_let_go_when_the_unload_is_stopped() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_unload.clear()
        use(lifetimes, NOW)
        await settle()
        waiting = asyncio.create_task(lifetimes.wait_for_unload(MODEL))
        await settle()
        lifetimes.stop()
        assert await waiting

    run(test)


def test_an_unload_on_request_waits_for_those_who_use_the_model() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lifetimes.acquire(MODEL, SOON)
        await lifetimes.unload_when_idle(MODEL)
        assert lmstudio.asked == []
        lifetimes.release(MODEL)
        await settle()
        assert lmstudio.asked == ["list", "unload"]

    run(test)


def test_an_unload_on_request_does_not_wait_for_the_time_that_a_model_is_to_stay() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        use(lifetimes, SOON)
        await lifetimes.unload_when_idle(MODEL)
        assert lmstudio.asked == ["list", "unload"]
        await lifetimes.unload_when_idle(MODEL)
        assert lmstudio.asked == ["list", "unload"] * 2

    run(test)


def test_a_failed_unload_on_request_is_told() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.error = LMStudioError(500, "no")
        with pytest.raises(LMStudioError):
            await lifetimes.unload_when_idle(MODEL)
        assert not lifetimes.active_requests(MODEL.key)

    run(test)


def test_an_unload_that_could_not_begin_is_forgotten() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.gone = True
        use(lifetimes, NOW)
        await settle()
        lmstudio.gone = False
        use(lifetimes, None)
        await settle()
        assert lmstudio.asked == ["list"]

    run(test)


def test_who_waits_for_a_load_is_told_when_everything_stops() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        other = Model(key="other", type="llm")
        waiting = asyncio.create_task(lifetimes.ensure_loaded(Resolution(other, "other"), 60))
        leaving = asyncio.create_task(lifetimes.ensure_loaded(Resolution(other, "other"), 60))
        await settle()
        leaving.cancel()
        await settle()
        assert leaving.cancelled()
        assert not waiting.done()
        lifetimes.stop()
        with pytest.raises(LMStudioError, match="ask again"):
            await waiting
        assert lmstudio.asked == ["list", "load"]

    run(test)


def test_a_user_unloads_a_model_in_use() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lifetimes.acquire(MODEL, SOON)
        await lifetimes.unload(MODEL)
        assert lmstudio.asked == ["list", "unload"]

    run(test)


def test_a_model_is_not_unloaded_while_a_request_gets_ready() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lifetimes.acquire(MODEL, NOW)
        with lifetimes.using(MODEL):
            lifetimes.release(MODEL)
            await settle()
            assert lmstudio.asked == []
        await settle()
        assert lmstudio.asked == ["list", "unload"]

    run(test)


UNLOADED = Resolution(Model(key="two", type="llm"), "two")


@pytest.mark.parametrize(
    ("keep_alive", "context_length", "on_demand", "asked"),
    [
        (None, None, True, []),
        (NOW, None, True, []),
        (SOON, None, True, []),
        (FOREVER, None, True, ["list", "load"]),
        (None, 4096, True, ["list", "load with 4096"]),
        (None, None, False, ["list", "load"]),
    ],
)
def test_a_model_is_loaded_before_a_request_where_loading_on_demand_would_not_do(
    keep_alive: KeepAlive | None, context_length: int | None, on_demand: bool, asked: list[str]
) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        if not on_demand:
            lifetimes.not_on_demand()
        assert lifetimes.on_demand is on_demand
        await lifetimes.prepare(UNLOADED, keep_alive, timeout=60, context_length=context_length)
        assert lmstudio.asked == asked
        lmstudio.asked.clear()
        await lifetimes.prepare(Resolution(MODEL, "one"), keep_alive, timeout=60, context_length=context_length)
        assert lmstudio.asked == []

    run(test)


def test_a_model_that_is_being_unloaded_is_loaded_again_once_it_is_gone() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.let_unload.clear()
        use(lifetimes, NOW)
        await settle()
        waiting = asyncio.create_task(lifetimes.prepare(Resolution(MODEL, "one"), FOREVER, timeout=60))
        await settle()
        assert not waiting.done()
        lmstudio.listed = Model(key="one", type="llm")
        lmstudio.let_unload.set()
        await waiting
        assert lmstudio.asked == ["list", "unload", "list", "load"]

    run(test)


def test_concurrent_requests_share_one_load() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        waiting = [asyncio.create_task(lifetimes.ensure_loaded(UNLOADED, 60)) for _ in range(3)]
        await settle()
        lmstudio.let_load.set()
        await asyncio.gather(*waiting)
        assert lmstudio.asked == ["list", "load"]

    run(test)


@pytest.mark.parametrize(
    ("error", "loads"),
    [
        (
            LMStudioError(
                400, "No models loaded. Please load a model in the developer page or use the lms load command."
            ),
            True,
        ),
        (LMStudioError(404, "gone", code="model_not_found"), True),
        (LMStudioError(500, "no"), False),
    ],
)
def test_which_errors_say_that_lm_studio_does_not_load_on_demand(error: LMStudioError, loads: bool) -> None:
    assert wants_load(error) is loads
