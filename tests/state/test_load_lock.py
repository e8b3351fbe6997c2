"""The lock of loads: one at a time in a process, and among bridges, and nobody is left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ollama_lmstudio.state import load_lock
from ollama_lmstudio.state.load_lock import LoadLock
from ollama_lmstudio.state.uses import SharedUses

SECONDS = 10


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[LoadLock]:
    """The locks of two bridges."""
    monkeypatch.setattr(load_lock, "LOOK_SECONDS", 0.001)
    made = [LoadLock(), LoadLock()]
    for lock in made:
        lock.shared = SharedUses(tmp_path, "here")
    return made


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), SECONDS))


async def some_turns() -> None:
    await asyncio.sleep(0.05)


def test_one_at_a_time_has_it(locks: list[LoadLock]) -> None:
    holders: list[int] = []

    async def hold(lock: LoadLock) -> None:
        async with lock:
            holders.append(1)
            await asyncio.sleep(0.005)
            assert len(holders) == 1
            holders.pop()

    async def scenario() -> None:
        await asyncio.gather(*(hold(lock) for lock in locks * 4))

    run(scenario)


def test_who_is_cancelled_while_it_waits_is_in_nobodys_way(locks: list[LoadLock]) -> None:
    async def scenario() -> None:
        async with locks[0]:
            waiting = asyncio.ensure_future(locks[1].__aenter__())
            await some_turns()
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
        for lock in locks:
            async with lock:
                pass

    run(scenario)


def test_it_is_not_waited_for_without_end(locks: list[LoadLock], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_lock, "_LIMIT_SECONDS", 0.01)

    async def scenario() -> None:
        async with locks[0]:
            async with locks[1]:
                pass
            assert locks[1].shared is not None
            assert not locks[1].shared.lock(), "it was the other's all the time"

    run(scenario)


def test_another_directory_may_be_chosen_meanwhile(locks: list[LoadLock], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with locks[0]:
            locks[0].shared = SharedUses(tmp_path / "other", "here")
        async with locks[1]:
            pass

    run(scenario)
