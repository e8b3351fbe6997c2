"""Telling the end of the process from a reload, and what is logged at the end."""

from __future__ import annotations

import asyncio
import logging
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
