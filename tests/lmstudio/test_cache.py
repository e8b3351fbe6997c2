"""One read of the model list for all who ask, and never an old answer for a new question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from ollama_lmstudio.lmstudio.cache import MISS_SECONDS, CatalogCache
from ollama_lmstudio.lmstudio.catalog import Catalog, Instance, Model, Resolution
from ollama_lmstudio.lmstudio.errors import LMStudioError

TTL = 300.0


def catalog(*keys: str) -> Catalog:
    return Catalog(tuple(map(Model, keys)))


class Keys:
    """Know a model by its key and by nothing else."""

    def __init__(self, catalog: Catalog) -> None:
        self.models = {model.key: Resolution(model, model.key) for model in catalog.models}

    def resolve(self, name: str) -> Resolution | None:
        return self.models.get(name)

    def as_written(self, name: str) -> Resolution | None:
        return self.models.get(name)


class Source:
    """A source with one outcome after another, the last one again and again; each waits until `gate` is open."""

    def __init__(self, *outcomes: Catalog | LMStudioError) -> None:
        self.outcomes: Sequence[Catalog | LMStudioError] = outcomes
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def catalog(self, purpose: str = "") -> Catalog:
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.calls += 1
        await self.gate.wait()
        if isinstance(outcome, LMStudioError):
            raise outcome
        return outcome


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Scenario = Callable[[Clock], Awaitable[None]]


def run(scenario: Scenario) -> None:
    asyncio.run(asyncio.wait_for(_await(scenario), 10))


async def _await(scenario: Scenario) -> None:
    await scenario(Clock())


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_list_is_kept_for_its_ttl() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"), catalog("b"))
        cache = CatalogCache(source, TTL, Keys, clock)
        assert await cache.get() == catalog("a")
        clock.now += TTL - 1
        assert await cache.get() == catalog("a")
        clock.now += 1
        assert await cache.get() == catalog("b")
        assert source.calls == 2

    run(scenario)


def test_max_age_asks_for_a_younger_list() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"), catalog("b"))
        cache = CatalogCache(source, TTL, Keys, clock)
        await cache.get()
        clock.now += 5
        assert await cache.get(max_age=10) == catalog("a")
        assert await cache.get(max_age=5) == catalog("b")
        assert await cache.get(max_age=0) == catalog("b")
        assert source.calls == 3

    run(scenario)


def test_all_who_ask_at_once_share_one_read() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        source.gate.clear()
        asking = [asyncio.create_task(ask) for ask in (cache.get(), cache.refresh(), cache.get(max_age=0))]
        await turns()
        source.gate.set()
        assert await asyncio.gather(*asking) == [catalog("a")] * 3
        assert source.calls == 1

    run(scenario)


def test_one_who_gives_up_does_not_stop_the_others() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        source.gate.clear()
        first, second = asyncio.create_task(cache.get()), asyncio.create_task(cache.get())
        await turns()
        first.cancel()
        await turns()
        assert first.cancelled()
        source.gate.set()
        assert await second == catalog("a")
        assert source.calls == 1

    run(scenario)


def test_a_failure_reaches_all_and_is_not_remembered() -> None:
    async def scenario(clock: Clock) -> None:
        failure = LMStudioError(503, "down")
        source = Source(failure, catalog("a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        results = await asyncio.gather(cache.get(), cache.get(), return_exceptions=True)
        assert list(results) == [failure, failure]
        assert source.calls == 1
        assert cache.last is None
        assert await cache.get() == catalog("a")

    run(scenario)


def test_a_failure_that_nobody_waits_for_is_no_complaint_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    # Since Python 3.14 it complains of what was shielded, whoever has taken the exception.
    monkeypatch.delattr(asyncio, "shield")

    async def scenario(clock: Clock) -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        source = Source(LMStudioError(503, "down"))
        source.gate.clear()
        cache = CatalogCache(source, TTL, Keys, clock)
        alone = asyncio.create_task(cache.get())
        await turns()
        alone.cancel()
        await turns()
        source.gate.set()
        await turns()
        assert complaints == []

    run(scenario)


def test_after_a_failure_the_last_list_is_still_there() -> None:
    async def scenario(clock: Clock) -> None:
        cache = CatalogCache(Source(catalog("a"), LMStudioError(503, "down")), TTL, Keys, clock)
        await cache.get()
        clock.now += TTL
        with pytest.raises(LMStudioError, match="down"):
            await cache.get()
        assert cache.last == catalog("a")

    run(scenario)


def test_invalidate_makes_the_next_one_read() -> None:
    async def scenario(clock: Clock) -> None:
        cache = CatalogCache(Source(catalog("a"), catalog("b")), TTL, Keys, clock)
        await cache.get()
        cache.invalidate()
        assert cache.last == catalog("a")
        assert await cache.get() == catalog("b")

    run(scenario)


def test_a_read_that_began_before_invalidate_is_not_kept() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("old"), catalog("new"))
        cache = CatalogCache(source, TTL, Keys, clock)
        source.gate.clear()
        before = asyncio.create_task(cache.get())
        await turns()
        cache.invalidate()
        after = asyncio.create_task(cache.get())
        await turns()
        source.gate.set()
        assert (await before, await after) == (catalog("old"), catalog("new"))
        assert cache.last == catalog("new")
        assert source.calls == 2

    run(scenario)


def test_a_name_is_resolved_in_the_list_at_hand() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        for _ in range(3):
            found = await cache.resolve("a")
            assert found is not None
            assert found.id == "a"
            clock.now += 10
        assert source.calls == 1

    run(scenario)


def test_a_miss_looks_once_more() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"), catalog("a", "b"))
        cache = CatalogCache(source, TTL, Keys, clock)
        await cache.get()
        clock.now += MISS_SECONDS
        found = await cache.resolve("b")
        assert found is not None
        assert source.calls == 2

    run(scenario)


def test_a_miss_in_a_list_just_read_is_final() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        for _ in range(10):
            assert await cache.resolve("b") is None
            clock.now += MISS_SECONDS / 20
        assert source.calls == 1
        clock.now += MISS_SECONDS
        assert await cache.resolve("b") is None
        assert source.calls == 2

    run(scenario)


def test_misses_at_the_same_time_share_one_read() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        await cache.get()
        clock.now += MISS_SECONDS
        assert await asyncio.gather(*(cache.resolve(f"b{number}") for number in range(20))) == [None] * 20
        assert source.calls == 2

    run(scenario)


def test_a_miss_while_lm_studio_is_down_is_an_error_and_a_hit_is_not() -> None:
    async def scenario(clock: Clock) -> None:
        cache = CatalogCache(Source(catalog("a"), LMStudioError(503, "down")), TTL, Keys, clock)
        await cache.get()
        clock.now += MISS_SECONDS
        with pytest.raises(LMStudioError, match="down"):
            await cache.resolve("b")

    run(scenario)


def test_a_name_is_resolved_in_a_list_that_was_invalidated_meanwhile() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        source.gate.clear()
        asking = asyncio.create_task(cache.resolve("a"))
        await turns()
        cache.invalidate()
        source.gate.set()
        assert await asking is not None
        assert cache.last is None

    run(scenario)


def test_an_exact_id_is_looked_for_in_a_fresh_list_too() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("a-7b"), catalog("a-7b", "a"))
        cache = CatalogCache(source, TTL, Keys, clock)
        assert await cache.exact("a") is None
        assert source.calls == 1
        clock.now += MISS_SECONDS
        found = await cache.exact("a")
        assert found is not None
        assert (found.id, source.calls) == ("a", 2)
        assert await cache.exact("a") == found
        assert source.calls == 2

    run(scenario)


def model(key: str, *instances: str) -> Model:
    return Model(key, instances=tuple(Instance(id_) for id_ in instances))


ONE_AND_TWO = Catalog((model("one", "one", "named"), model("two", "two")))


@pytest.mark.parametrize(
    ("now", "answered", "right", "reads"),
    [
        (ONE_AND_TWO, "one", True, 1),
        (ONE_AND_TWO, "named", True, 1),
        (ONE_AND_TWO, "ONE", True, 1),
        (ONE_AND_TWO, "one:7", True, 1),
        (ONE_AND_TWO, "two", False, 2),
        (Catalog((model("two", "two"),)), "two", False, 2),
        (Catalog((model("two", "two"),)), "unknown", False, 2),
        (Catalog((model("one", "new"), model("two"))), "new", True, 2),
        (Catalog((model("one"), model("two", "new"))), "new", False, 2),
        (Catalog((model("one"),)), "somebody's spelling of one", True, 2),
    ],
)
def test_an_answer_is_believed_if_the_list_says_that_it_is_the_models(
    now: Catalog, answered: str, right: bool, reads: int
) -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(ONE_AND_TWO, now)
        cache = CatalogCache(source, TTL, Keys, clock)
        await cache.get()
        assert await cache.confirm("one", answered) is right
        assert source.calls == reads
        if right:
            assert await cache.confirm("one", answered)
            assert source.calls == reads, "what the list allows is not asked again"

    run(scenario)


def test_what_was_believed_is_looked_up_again_in_another_list() -> None:
    async def scenario(clock: Clock) -> None:
        source = Source(catalog("one"), catalog("one"), catalog("one"), Catalog((model("two", "odd"),)))
        cache = CatalogCache(source, TTL, Keys, clock)
        await cache.get()
        assert await cache.confirm("one", "odd")
        await cache.refresh()
        clock.now += TTL
        assert not await cache.confirm("one", "odd")

    run(scenario)


def test_a_read_that_fails_at_once_is_not_the_answer_to_later_ones() -> None:
    """With eager tasks, it has ended before its task is known."""

    class Closed(Source):
        async def catalog(self, purpose: str = "") -> Catalog:
            self.calls += 1
            if self.calls == 1:
                raise LMStudioError(503, "closed")
            return ONE_AND_TWO

    async def scenario() -> None:
        if hasattr(asyncio, "eager_task_factory"):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        cache = CatalogCache(Closed(), TTL, Keys)
        with pytest.raises(LMStudioError):
            await cache.get()
        assert await cache.get() is ONE_AND_TWO

    asyncio.run(scenario())
