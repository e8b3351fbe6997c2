"""Background tasks are kept, their failures are logged, and they can be cancelled together."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from ollama_lmstudio.tasks import Tasks


def test_a_task_is_kept_until_it_ends() -> None:
    async def scenario() -> list[str]:
        tasks, ended = Tasks(), []

        async def work() -> None:
            await asyncio.sleep(0.01)
            ended.append("work")

        tasks.spawn(work())
        gc.collect()
        await asyncio.sleep(0.05)
        assert not tasks._tasks
        return ended

    assert asyncio.run(scenario()) == ["work"]


def test_what_a_task_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def fail() -> None:
            raise ValueError("no luck")

        Tasks().spawn(fail())
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "a task in the background failed: no luck")
    ]
    assert caplog.records[0].exc_info is not None


def test_all_tasks_are_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> list[bool]:
        tasks = Tasks()
        spawned = [tasks.spawn(asyncio.sleep(60)) for _ in range(2)]
        tasks.cancel()
        await asyncio.wait(spawned)
        return [task.cancelled() for task in spawned]

    assert asyncio.run(scenario()) == [True, True]
    assert not caplog.records
