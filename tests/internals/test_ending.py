"""Telling the end of the process from a reload, and what is logged at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from tests.internals.helpers import master_with

from ollama_lmstudio.internals import ending


def have_master(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> None:
    monkeypatch.setattr(ctx, "master", SimpleNamespace(**attributes), raising=False)


def test_a_reload_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> tuple[bool, bool]:
        should_exit = asyncio.Event()
        have_master(monkeypatch, should_exit=should_exit)
        before = ending.is_ending()
        should_exit.set()
        return before, ending.is_ending()

    assert asyncio.run(scenario()) == (False, True)


@pytest.mark.parametrize(("name", "is_end"), [("Task-1", True), ("script watcher for addon/ollama.py", False)])
def test_a_cancelled_main_task_is_an_end(monkeypatch: pytest.MonkeyPatch, name: str, is_end: bool) -> None:
    """So SystemExit ends mitmproxy, which then calls `done`; the task that watches a script cancels itself."""

    async def main() -> bool:
        have_master(monkeypatch)
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            return ending.is_ending()
        return False

    async def scenario() -> bool:
        task = asyncio.create_task(main(), name=name)
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(scenario()) == is_end


def test_addons_of_earlier_versions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    old = SimpleNamespace(stop_exchanges=lambda: called.append("old"))
    have_master(monkeypatch, addons=SimpleNamespace(chain=[SimpleNamespace(), old]))
    for method in ending.others("stop_exchanges"):
        method()
    assert called == ["old"]
    have_master(monkeypatch, addons=SimpleNamespace())
    assert list(ending.others("stop_exchanges")) == []


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Leave signals as they were."""
    before = {number: signal.getsignal(number) for number in ending.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="no other process can send a signal")
@pytest.mark.usefixtures("own_signals")
def test_sigterm_drains_until_the_next_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    have_master(monkeypatch, shutdown=lambda: called.append("end"))

    async def scenario() -> None:
        ending.on_terminate(lambda: called.append("drain"))
        for number in (signal.SIGTERM, *ending.SIGNALS):
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.01)
            ending.end_at_next_signal()
        ending.heed_second_signal()

    asyncio.run(scenario())
    assert called == ["drain", "end", "end"]
    assert [signal.getsignal(number) for number in ending.SIGNALS] == [signal.SIG_DFL, signal.SIG_DFL]


@pytest.mark.usefixtures("own_signals")
def test_where_signals_cannot_be_handled_nothing_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with the event loop of Windows."""

    def cannot(*_: object) -> None:
        raise NotImplementedError

    have_master(monkeypatch)

    async def scenario() -> None:
        for name in ("add_signal_handler", "remove_signal_handler"):
            monkeypatch.setattr(asyncio.get_running_loop(), name, cannot)
        ending.on_terminate(lambda: None)
        ending.end_at_next_signal()
        ending.heed_second_signal()

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0, 9])
def test_a_drain_ends_when_all_is_idle_or_its_time_is_over(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    updated: dict[str, Any] = {}
    master_with(monkeypatch)
    monkeypatch.setattr(ctx, "options", SimpleNamespace(update=updated.update), raising=False)
    asked: list[bool] = []

    def is_busy() -> bool:
        asked.append(True)
        return seconds == 0 or len(asked) < 3

    asyncio.run(asyncio.wait_for(ending.drain(seconds, is_busy), 2))
    assert updated == {"server": False}
    assert len(asked) == (1 if seconds == 0 else 3)


def test_what_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "END_SECONDS", 0.05)
    updated: dict[str, Any] = {}
    master_with(monkeypatch, proxyserver=SimpleNamespace(connections={"1": SimpleNamespace(transports={})}))
    monkeypatch.setattr(ctx, "options", SimpleNamespace(update=updated.update), raising=False)
    asyncio.run(asyncio.wait_for(ending.close(lambda: True), 2))
    assert updated == {"server": False}
    logging.getLogger("asyncio").removeFilter(ending.is_no_cancellation)


@pytest.mark.parametrize(("error", "is_kept"), [(None, True), (ValueError(), True), (asyncio.CancelledError(), False)])
def test_that_tasks_are_cancelled_is_not_said(error: BaseException | None, is_kept: bool) -> None:
    info = (type(error), error, None) if error is not None else None
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "Exception in callback", None, info)
    assert ending.is_no_cancellation(record) is is_kept
