"""What SIGTERM begins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.exchanges.conftest import MakeExchange

from ollama_lmstudio.exchanges.draining import Drain
from ollama_lmstudio.exchanges.registry import Exchanges
from ollama_lmstudio.internals import ending


def test_sigterm_drains_and_then_ends(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    exchanges: Exchanges,
    exchange_of: MakeExchange,
    master: SimpleNamespace,
) -> None:
    heeded: list[Callable[[], None]] = []
    called: list[Any] = []

    async def drain(seconds: float, is_busy: Callable[[], Any]) -> None:
        called.append((seconds, bool(is_busy())))

    monkeypatch.setattr(ending, "on_terminate", heeded.append)
    monkeypatch.setattr(ending, "end_at_next_signal", lambda: called.append("next"))
    monkeypatch.setattr(ending, "drain", drain)
    monkeypatch.setattr(ending, "end", lambda: called.append("end"))
    exchange_of()
    # Loaded anew since some began.
    master.addons = SimpleNamespace(chain=[SimpleNamespace(drain_exchanges=lambda: 2)])

    async def scenario() -> None:
        Drain(exchanges).install()
        heeded[0]()
        await asyncio.sleep(0.01)

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert called == ["next", (5, True), "end"]
    assert "3 that are under way may take 5 s" in caplog.text


def test_a_script_that_is_loaded_while_the_process_drains_begins_nothing(
    monkeypatch: pytest.MonkeyPatch, exchanges: Exchanges, master: SimpleNamespace
) -> None:
    heeded: list[Callable[[], None]] = []
    monkeypatch.setattr(ending, "on_terminate", heeded.append)
    Drain(exchanges).install()
    assert (len(heeded), exchanges.bridge.is_draining) == (1, False)

    async def scenario() -> None:
        ending.end_at_next_signal()

    monkeypatch.setattr(ending, "SIGNALS", ())
    asyncio.run(scenario())
    Drain(exchanges).install()
    assert (len(heeded), exchanges.bridge.is_draining) == (1, True)
