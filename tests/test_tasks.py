"""Background tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from ollama_lmstudio.tasks import Tasks


async def settle() -> None:
    """Let done callbacks run."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_task_is_kept_until_it_ends() -> None:
    async def scenario() -> None:
        tasks = Tasks()
        ended: list[str] = []

        class Waited:
            """What the task alone refers to, and nothing else: without the keeper both would be collected."""

            future: asyncio.Future[str]

        waited = Waited()
        waited.future = asyncio.get_running_loop().create_future()
        reference = weakref.ref(waited)

        async def wait(for_: Waited) -> None:
            ended.append(await for_.future)

        tasks.spawn(wait(waited))
        del waited
        await settle()
        gc.collect()
        held = reference()
        assert held is not None
        assert len(tasks) == 1
        held.future.set_result("done")
        await settle()
        assert ended == ["done"]
        assert len(tasks) == 0

    asyncio.run(scenario())


def test_the_result_can_be_waited_for() -> None:
    async def answer() -> int:
        return 42

    async def scenario() -> int:
        return await Tasks().spawn(answer())

    assert asyncio.run(scenario()) == 42


def test_a_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async def scenario() -> int:
        tasks = Tasks()
        tasks.spawn(fail())
        await settle()
        return len(tasks)

    assert asyncio.run(scenario()) == 0
    (logged,) = caplog.records
    assert logged.levelno == logging.ERROR
    assert logged.getMessage() == "a task in the background failed: broken"
    assert logged.exc_info is not None
    assert isinstance(logged.exc_info[1], ValueError)


def test_all_are_cancelled_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        tasks = Tasks()
        spawned = [tasks.spawn(asyncio.sleep(60)) for _ in range(2)]
        await settle()
        tasks.cancel()
        assert len(tasks) == 2, "they end in the loop's next turns"
        await settle()
        assert [task.cancelled() for task in spawned] == [True, True]
        assert len(tasks) == 0
        tasks.cancel()
        # What comes later is not cancelled with them.
        late = tasks.spawn(asyncio.sleep(0))
        await settle()
        assert late.done()
        assert not late.cancelled()

    asyncio.run(scenario())
    assert not caplog.records


def test_there_must_be_a_running_loop() -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        Tasks().spawn(coroutine)
    coroutine.close()
