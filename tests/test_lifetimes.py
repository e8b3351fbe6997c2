"""Which requests use a model, and when it is unloaded, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import cast

import pytest

from ollama_lmstudio.lifetimes import EXPLICIT_KEEP_SECONDS, LoadTerms, ModelLifetimes, wants_load
from ollama_lmstudio.lmstudio.cache import CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Instance, Model, Resolution, Source
from ollama_lmstudio.lmstudio.client import Client
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.ollama.durations import FOREVER, UNLOAD, KeepAlive
from ollama_lmstudio.translate.names import Resolver

MODEL = Model(key="one", type="llm", instances=(Instance("one"),))
UNLOADED = Resolution(Model(key="two", type="llm"), "two")
NOW, SOON = KeepAlive(0), KeepAlive(60)
TERMS = LoadTerms(60)


def with_ttl(seconds: float | None) -> Model:
    return replace(UNLOADED.model, instances=(Instance("two", None, seconds),))


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
        self.used: Model | None = None
        self.source: Source = "v1"
        self.refusal: LMStudioError | None = None
        self.most_context = self.most_loadable = 100_000
        self.echoes = True
        self.offers: set[str] = set()
        self.others: tuple[Model, ...] = ()

    async def catalog(self, purpose: str = "") -> Catalog:
        self.asked.append("list")
        await asyncio.sleep(0)
        await self.let_list.wait()
        if self.gone:
            raise LMStudioError(503, "gone")
        return Catalog((self.listed, *self.others), self.source)

    async def offered(self) -> set[str]:
        self.asked.append("offered")
        return self.offers

    async def load(
        self, id_: str, context_length: int | None, settings: Mapping[str, object], *, timeout: float
    ) -> dict[str, object]:
        self.asked.append("load" if context_length is None else f"load with {context_length}")
        await self.let_load.wait()
        if (context_length or 4096) > self.most_loadable:
            raise LMStudioError(500, "insufficient system resources")
        granted = min(context_length or 4096, self.most_context)
        self.listed = replace(self.listed, instances=(Instance(id_, granted, config=settings),))
        return {"load_config": {"context_length": granted}} if self.echoes else {}

    async def use_once(self, id_: str, ttl: Mapping[str, int], *, embeds: bool, timeout: float) -> None:
        self.asked.append(f"use {id_} with {ttl}" if ttl else f"use {id_}")
        self.listed = self.used or self.listed
        if self.refusal:
            raise self.refusal

    async def unload(self, id_: str) -> None:
        self.asked.append(f"unload {id_}")
        await self.let_unload.wait()
        if self.error:
            raise self.error
        left = tuple(instance for instance in self.listed.instances if instance.id != id_)
        self.listed = replace(self.listed, instances=left)


Test = Callable[[ModelLifetimes, LMStudio], Awaitable[None]]


def run(test: Test) -> None:
    async def main() -> None:
        # mitmproxy 12 has its tasks begin at once.
        if eager := getattr(asyncio, "eager_task_factory", None):
            asyncio.get_running_loop().set_task_factory(eager)
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


def use(lifetimes: ModelLifetimes, keep_alive: KeepAlive | None, model: Model = MODEL) -> None:
    lifetimes.acquire(model, keep_alive)
    lifetimes.release(model)


def test_a_model_is_unloaded_once_when_it_was_used_last() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        use(lifetimes, NOW)
        use(lifetimes, None)
        await settle()
        assert lmstudio.asked == ["list", "unload one"]
        use(lifetimes, None)
        await settle()
        assert lmstudio.asked == ["list", "unload one"]

    run(test)


def test_a_request_that_comes_before_the_unload_keeps_the_model_and_then_it_is_unloaded() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_list.clear()
        use(lifetimes, NOW)
        await settle()
        lifetimes.acquire(MODEL, None)
        await lifetimes.settled(MODEL)
        lmstudio.let_list.set()
        await settle()
        assert lmstudio.asked == ["list"]
        lifetimes.release(MODEL)
        await settle()
        assert lmstudio.asked == ["list", "list", "unload one"]

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
        waiting = asyncio.create_task(lifetimes.settled(MODEL))
        await settle()
        assert not waiting.done()
        lmstudio.let_unload.set()
        await waiting
        lifetimes.release(MODEL)
        await settle()
        assert lmstudio.asked == ["list", "unload one"]

    run(test)


def test_an_unload_of_another_model_is_not_waited_for() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_unload.clear()
        use(lifetimes, NOW)
        await settle()
        await lifetimes.settled(Model(key="two", type="llm"))

    run(test)


def test_who_waits_is_let_go_when_the_unload_is_stopped() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_unload.clear()
        use(lifetimes, NOW)
        await settle()
        waiting = asyncio.create_task(lifetimes.settled(MODEL))
        await settle()
        lifetimes.stop()
        await waiting

    run(test)


def test_an_unload_on_request_waits_for_those_who_use_the_model() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lifetimes.acquire(MODEL, SOON)
        await lifetimes.unload_when_idle(MODEL)
        assert lmstudio.asked == []
        lifetimes.release(MODEL)
        await settle()
        assert lmstudio.asked == ["list", "unload one"]

    run(test)


def test_an_unload_on_request_does_not_wait_for_the_time_that_a_model_is_to_stay() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        use(lifetimes, SOON)
        await lifetimes.unload_when_idle(MODEL)
        assert lmstudio.asked == ["list", "unload one"]
        await lifetimes.unload_when_idle(MODEL)
        assert lmstudio.asked == ["list", "unload one", "list"]

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
        waiting = asyncio.create_task(lifetimes.ensure_loaded(Resolution(other, "other"), TERMS))
        leaving = asyncio.create_task(lifetimes.ensure_loaded(Resolution(other, "other"), TERMS))
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
        assert lmstudio.asked == ["list", "unload one"]

    run(test)


def test_a_model_is_not_unloaded_while_a_request_gets_ready() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lifetimes.acquire(MODEL, NOW)
        with lifetimes.using(MODEL):
            lifetimes.release(MODEL)
            await settle()
            assert lmstudio.asked == []
        await settle()
        assert lmstudio.asked == ["list", "unload one"]

    run(test)


@pytest.mark.parametrize(
    ("context_length", "on_demand", "asked"),
    [(None, True, []), (4096, True, ["list", "load with 4096"]), (None, False, ["list", "load"])],
)
def test_a_model_is_loaded_before_a_request_where_loading_on_demand_would_not_do(
    context_length: int | None, on_demand: bool, asked: list[str]
) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        if not on_demand:
            lifetimes.not_on_demand()
        assert await lifetimes.on_demand(MODEL) is on_demand
        await lifetimes.prepare(UNLOADED, LoadTerms(60, context_length))
        assert lmstudio.asked == asked
        lmstudio.asked.clear()
        await lifetimes.prepare(Resolution(MODEL, "one"), LoadTerms(60, context_length))
        assert lmstudio.asked == []

    run(test)


def test_whether_lm_studio_loads_on_demand_again_is_asked_of_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        monkeypatch.setattr("ollama_lmstudio.lifetimes.NOT_ON_DEMAND_SECONDS", 0)
        lmstudio.let_load.set()
        lifetimes.not_on_demand()
        await lifetimes.prepare(Resolution(MODEL, "one"), TERMS)
        assert lmstudio.asked == [], "nothing is asked for a model that is loaded"
        await lifetimes.prepare(UNLOADED, TERMS)
        assert lmstudio.asked == ["offered", "list", "load"]
        lmstudio.offers.add("two")
        await lifetimes.prepare(UNLOADED, TERMS)
        await lifetimes.prepare(UNLOADED, TERMS)
        assert lmstudio.asked == ["offered", "list", "load", "offered"]

    run(test)


def test_where_the_list_does_not_tell_what_is_loaded_nothing_is_loaded_twice() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.source = "openai"
        await lifetimes.unload(MODEL)
        assert lmstudio.asked == ["list", "unload one"]
        lmstudio.asked.clear()
        lifetimes.not_on_demand()
        await lifetimes.prepare(UNLOADED, TERMS)
        assert lmstudio.asked == []

    run(test)


def test_where_the_list_does_not_tell_what_is_loaded_an_unload_is_not_claimed() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.source = "openai"
        lmstudio.error = LMStudioError(
            404, "Model with instance identifier 'one' is not loaded.", type="model_not_found"
        )
        with pytest.raises(LMStudioError, match=r"one may still be loaded: .* is not loaded"):
            await lifetimes.unload(MODEL)
        lmstudio.source = "v1"
        await lifetimes.unload(MODEL)

    run(test)


def test_where_the_list_does_not_tell_what_is_loaded_a_time_is_left_to_lm_studio() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.source = "openai"
        await lifetimes.unload(MODEL)
        for keep_alive, asked in ((SOON, []), (UNLOAD, ["list", "unload one"])):
            lmstudio.asked.clear()
            lifetimes.acquire(MODEL, keep_alive)
            use = lifetimes._uses[MODEL.key]
            lifetimes.release(MODEL)
            assert use.timer is not None
            use.cancel_timer()
            lifetimes._timer_ended(MODEL, use)
            await settle()
            assert lmstudio.asked == asked
            assert MODEL.key not in lifetimes._uses

    run(test)


@pytest.mark.parametrize(
    ("listed", "keep_alive", "asked"),
    [
        (UNLOADED.model, None, ["list", "use two with {'ttl': 7}", "list"]),
        (with_ttl(None), FOREVER, ["list"]),
        (with_ttl(3000), None, ["list"]),
        (with_ttl(3000), SOON, ["list"]),
        (with_ttl(3000), FOREVER, ["list", "use two with {'ttl': 7}", "list"]),
        (with_ttl(200), None, ["list", "use two with {'ttl': 7}", "list"]),
    ],
)
def test_a_request_without_a_prompt_loads_as_lm_studio_does_on_demand(
    listed: Model, keep_alive: KeepAlive | None, asked: list[str]
) -> None:
    """What is loaded and would be gone too soon begins its time anew."""

    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.listed, lmstudio.used = listed, with_ttl(3600)
        await lifetimes.load(UNLOADED, keep_alive, {"ttl": 7}, TERMS)
        assert lmstudio.asked == asked
        remaining = lifetimes.remaining_seconds("two")
        assert remaining == (pytest.approx(60, abs=1) if keep_alive == SOON else None)

    run(test)


@pytest.mark.parametrize("refused", [True, False])
def test_without_loading_on_demand_a_request_without_a_prompt_loads_explicitly(refused: bool) -> None:
    """LM Studio says so, or another model has answered."""

    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.listed = UNLOADED.model
        lmstudio.refusal = LMStudioError(400, "No models loaded. Please load") if refused else None
        await lifetimes.load(UNLOADED, None, {}, TERMS)
        assert lmstudio.asked == ["list", "use two", "list", "list", "load"]
        assert not await lifetimes.on_demand(MODEL)
        # LM Studio keeps it for ever, so that our timer ends its time.
        assert lifetimes.remaining_seconds("two") == pytest.approx(EXPLICIT_KEEP_SECONDS, abs=1)
        await lifetimes.load(UNLOADED, FOREVER, {}, TERMS)
        assert lifetimes.remaining_seconds("two") is None
        use(lifetimes, None, UNLOADED.model)
        assert lifetimes.remaining_seconds("two") is None, "Ollama goes on with the last keep_alive"
        use(lifetimes, SOON, UNLOADED.model)
        assert lifetimes.remaining_seconds("two") == pytest.approx(60, abs=1)

    run(test)


@pytest.mark.parametrize("in_use", [True, False])
def test_a_model_that_was_loaded_explicitly_makes_room_unless_it_is_in_use(in_use: bool) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.listed = UNLOADED.model
        await lifetimes.prepare(UNLOADED, LoadTerms(60, 4096))
        lmstudio.most_loadable = 0
        lmstudio.asked.clear()
        if in_use:
            lifetimes.acquire(UNLOADED.model, None)
        with pytest.raises(LMStudioError, match="insufficient"):
            await lifetimes.prepare(Resolution(Model("three"), "three"), LoadTerms(60, 8192))
        asked = [asked for asked in lmstudio.asked if asked != "list"]
        tries = ["load with 8192"] if in_use else ["load with 8192", "unload two", "load with 8192"]
        assert asked == tries
        assert lifetimes.remaining_seconds("two") == (EXPLICIT_KEEP_SECONDS if in_use else None)

    run(test)


def test_a_model_that_has_vanished_says_nothing_of_loading_on_demand() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.refusal = LMStudioError(400, "Invalid model identifier", code="model_not_found")
        lmstudio.most_loadable = 0
        with pytest.raises(LMStudioError, match="insufficient"):
            await lifetimes.load(UNLOADED, None, {}, LoadTerms(60, None))
        assert await lifetimes.on_demand(MODEL)

    run(test)


def test_an_error_of_the_prompt_is_none_of_the_load() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.listed, lmstudio.used = UNLOADED.model, with_ttl(3600)
        lmstudio.refusal = LMStudioError(400, "Jinja Exception: no")
        await lifetimes.load(UNLOADED, None, {}, TERMS)
        lmstudio.listed = lmstudio.used = UNLOADED.model
        with pytest.raises(LMStudioError, match="Jinja"):
            await lifetimes.load(UNLOADED, None, {}, TERMS)

    run(test)


def test_a_load_that_takes_longer_than_its_terms_goes_on_and_the_next_request_joins_it() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lifetimes.not_on_demand()
        with pytest.raises(LMStudioError, match=r"load_timeout_seconds.*goes on loading") as told:
            await lifetimes.prepare(UNLOADED, LoadTerms(0.01))
        assert told.value.status == 503
        # Also one that would load on demand: that would be a second instance.
        lifetimes._not_on_demand_until = None
        waiting = asyncio.create_task(lifetimes.prepare(UNLOADED, TERMS))
        relay = asyncio.create_task(lifetimes.settled(UNLOADED.model))
        await settle()
        assert not waiting.done()
        assert not relay.done()
        lmstudio.let_load.set()
        await asyncio.gather(waiting, relay)
        assert lmstudio.asked == ["list", "load"]
        # Nobody has used it yet: it is not kept for ever all the same.
        assert lifetimes.remaining_seconds("two") == pytest.approx(EXPLICIT_KEEP_SECONDS, abs=1)

    run(test)


def test_the_time_that_a_model_is_kept() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        assert lifetimes.remaining_seconds("one") is None
        lifetimes.acquire(MODEL, SOON)
        assert lifetimes.remaining_seconds("one") == 60
        lifetimes.release(MODEL)
        assert lifetimes.remaining_seconds("one") == pytest.approx(60, abs=0.1)

    run(test)


def test_a_model_that_is_being_unloaded_is_loaded_again_once_it_is_gone() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.let_unload.clear()
        use(lifetimes, NOW)
        await settle()
        waiting = asyncio.create_task(lifetimes.prepare(Resolution(MODEL, "one"), LoadTerms(60, 4096)))
        await settle()
        assert not waiting.done()
        lmstudio.listed = Model(key="one", type="llm")
        lmstudio.let_unload.set()
        await waiting
        assert lmstudio.asked == ["list", "unload one", "list", "load with 4096"]

    run(test)


def test_concurrent_requests_share_one_load() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        waiting = [asyncio.create_task(lifetimes.ensure_loaded(UNLOADED, TERMS)) for _ in range(3)]
        await settle()
        lmstudio.let_load.set()
        await asyncio.gather(*waiting)
        assert lmstudio.asked == ["list", "load"]

    run(test)


def test_which_calls_are_cold_is_known_without_asking() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        assert lifetimes.is_cold(UNLOADED.model)
        assert not lifetimes.is_cold(MODEL)
        lifetimes.note_loaded(UNLOADED.model)
        assert not lifetimes.is_cold(UNLOADED.model)
        # Until the next list, which knows better.
        assert not await lifetimes.is_loaded(UNLOADED.model)
        assert lifetimes.is_cold(UNLOADED.model)
        lmstudio.listed = with_ttl(None)
        assert not await lifetimes.is_loaded(UNLOADED.model), "many who ask have one look"
        assert lmstudio.asked == ["list"]
        await lifetimes.unload(UNLOADED.model)
        lmstudio.source = "openai"
        await lifetimes.unload(UNLOADED.model)
        assert not lifetimes.is_cold(UNLOADED.model), "that list does not tell"

    run(test)


# num_ctx=grow

SMALL = Resolution(
    Model(key="two", instances=(Instance("two", 4096, config={"flash_attention": False, "x": 1}),)), "two"
)


def grow(context_length: int | None) -> LoadTerms:
    return LoadTerms(60, context_length, context_length is not None)


@pytest.mark.parametrize("tells_ttl", [True, False])
def test_a_model_with_too_little_context_is_loaded_anew_once_for_all_when_no_answer_uses_it(tells_ttl: bool) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.listed = SMALL.model
        lmstudio.others = (Model("other", instances=(Instance("other", None, 60 if tells_ttl else None),)),)
        await lifetimes.prepare(SMALL, grow(4096))
        lifetimes.acquire(SMALL.model, None)
        waiting = [
            asyncio.create_task(lifetimes.prepare(SMALL, terms)) for terms in (grow(6000), grow(8192), TERMS, grow(10))
        ]
        relay = asyncio.create_task(settled_in_use(lifetimes, SMALL.model))
        await settle()
        assert lmstudio.asked == []
        lifetimes.release(SMALL.model)
        await settle()
        assert lmstudio.asked == ["list", "unload two", "load with 8192"]
        # One that wants even more comes too late for this load.
        more = asyncio.create_task(lifetimes.prepare(SMALL, grow(9000)))
        await settle()
        assert not any(task.done() for task in (*waiting, relay, more))
        lmstudio.let_load.set()
        await asyncio.gather(*waiting, relay, more)
        assert [asked for asked in lmstudio.asked if asked != "list"] == [
            "unload two",
            "load with 8192",
            "unload two",
            "load with 9000",
        ]
        (instance,) = lmstudio.listed.instances
        assert (instance.context_length, instance.config) == (9000, {"flash_attention": False})
        # The user had loaded it, for ever, as far as LM Studio tells.
        left = lifetimes.remaining_seconds("two")
        assert left == (None if tells_ttl else pytest.approx(EXPLICIT_KEEP_SECONDS, abs=1))
        lmstudio.asked.clear()
        await lifetimes.prepare(Resolution(lmstudio.listed, "two"), grow(8192))
        assert lmstudio.asked == []

    run(test)


async def settled_in_use(lifetimes: ModelLifetimes, model: Model) -> None:
    with lifetimes.using(model):
        await lifetimes.settled(model)


@pytest.mark.parametrize("echoes", [True, False])
def test_what_the_memory_guard_has_refused_is_not_asked_for_again(echoes: bool) -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.listed, lmstudio.most_context, lmstudio.echoes = SMALL.model, 5000, echoes
        await lifetimes.prepare(SMALL, grow(8192))
        assert lmstudio.listed.instances[0].context_length == 5000
        lmstudio.asked.clear()
        await lifetimes.prepare(Resolution(lmstudio.listed, "two"), grow(8192))
        assert lmstudio.asked == []
        lmstudio.most_context = 9000
        await lifetimes.prepare(Resolution(lmstudio.listed, "two"), grow(8500))
        assert lmstudio.listed.instances[0].context_length == 8500

    run(test)


def test_a_model_that_cannot_be_loaded_with_more_context_is_loaded_as_it_was() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.listed, lmstudio.most_loadable = SMALL.model, 5000
        for _ in range(2):
            await lifetimes.prepare(Resolution(lmstudio.listed, "two"), grow(8192))
            asked = [asked for asked in lmstudio.asked if asked != "list"]
            assert asked == ["unload two", "load with 8192", "load with 4096"]
            assert lmstudio.listed.instances[0].context_length == 4096

    run(test)


def test_a_model_that_cannot_be_unloaded_is_used_as_it_is() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.listed, lmstudio.error = SMALL.model, LMStudioError(500, "no")
        await lifetimes.prepare(SMALL, grow(8192))
        assert [asked for asked in lmstudio.asked if asked != "list"] == ["unload two"]

    run(test)


def test_who_leaves_wants_no_more_context() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.listed = SMALL.model
        lifetimes.acquire(SMALL.model, None)
        waiting = asyncio.create_task(lifetimes.prepare(SMALL, grow(8192)))
        await settle()
        waiting.cancel()
        await settle()
        lifetimes.release(SMALL.model)
        await settle()
        assert lmstudio.asked == []
        # And nobody waits for it any more.
        await lifetimes.prepare(SMALL, TERMS)

    run(test)


def test_a_load_that_takes_too_long_with_more_context() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.listed = SMALL.model
        with pytest.raises(LMStudioError, match="load_timeout_seconds"):
            await lifetimes.prepare(SMALL, LoadTerms(0.01, 8192, grow=True))
        waiting = asyncio.create_task(lifetimes.prepare(SMALL, grow(8192)))
        await settle()
        lmstudio.let_load.set()
        await waiting
        assert [asked for asked in lmstudio.asked if asked != "list"] == ["unload two", "load with 8192"]

    run(test)


def test_a_load_that_is_joined_may_be_one_with_too_little_context() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.listed = UNLOADED.model
        waiting = [asyncio.create_task(lifetimes.prepare(UNLOADED, terms)) for terms in (grow(4096), grow(8192), TERMS)]
        await settle()
        lmstudio.let_load.set()
        await asyncio.gather(*waiting)
        assert [asked for asked in lmstudio.asked if asked != "list"] == [
            "load with 4096",
            "unload two",
            "load with 8192",
        ]

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


def test_an_unload_by_the_timer_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """LM Studio keeps what was loaded explicitly until it is told to unload it."""
    monkeypatch.setattr("ollama_lmstudio.lifetimes.UNLOAD_AGAIN_SECONDS", 0.01)

    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.listed = UNLOADED.model
        await lifetimes.prepare(UNLOADED, LoadTerms(60, 4096))
        lmstudio.asked.clear()
        lmstudio.error = LMStudioError(500, "not now")
        use(lifetimes, NOW, UNLOADED.model)
        await settle()
        assert lmstudio.asked.count("unload two") >= 1
        lmstudio.error = None
        await asyncio.sleep(0.05)
        assert not lmstudio.listed.instances
        lmstudio.asked.clear()
        await asyncio.sleep(0.05)
        assert lmstudio.asked == []

    run(test)


def test_room_that_cannot_be_made_leaves_the_error_of_the_load() -> None:
    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.listed = UNLOADED.model
        await lifetimes.prepare(UNLOADED, LoadTerms(60, 4096))
        lmstudio.most_loadable = 0
        lmstudio.error = LMStudioError(500, "not now")
        with pytest.raises(LMStudioError, match="insufficient"):
            await lifetimes.prepare(Resolution(Model("three"), "three"), LoadTerms(60, 8192))
        assert lifetimes.remaining_seconds("two") == pytest.approx(EXPLICIT_KEEP_SECONDS, abs=1), "it keeps its timer"

    run(test)


def test_a_request_that_is_decided_anew_does_not_wait_for_itself() -> None:
    """Its first use has been released, so that a load with more context that waits for it can begin."""

    async def test(lifetimes: ModelLifetimes, lmstudio: LMStudio) -> None:
        lmstudio.let_load.set()
        lmstudio.listed = SMALL.model
        lifetimes.acquire(SMALL.model, None)
        waiting = asyncio.create_task(lifetimes.prepare(SMALL, grow(8192)))
        await settle()
        lifetimes.release(SMALL.model)
        await lifetimes.prepare(SMALL, grow(8192))
        await waiting

    run(test)
