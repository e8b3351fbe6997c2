"""Accepting on Windows' event loop: asyncio's own code for it, with a proactor whose `accept` fails."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from asyncio import proactor_events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from ollama_lmstudio.internals import accepting
from ollama_lmstudio.internals.accepting import Accepting

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop has a real proactor there")


def resets(count: int = 1) -> list[OSError]:
    return [OSError(64, "The specified network name is no longer available") for _ in range(count)]


class Proactor:
    """Accept one connection after the other: each is an error, raised at once or later, or a connection."""

    def __init__(self, *come: OSError | str, at_once: bool = False) -> None:
        self.come = list(come)
        self.at_once = at_once
        self.pending: asyncio.Future[Any] | None = None

    def accept(self, listener: socket.socket) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self.come:
            self.pending = future
            return future
        come = self.come.pop(0)
        if isinstance(come, str):
            future.set_result((come, "its address"))
        elif self.at_once:
            raise come
        else:
            future.set_exception(come)

        async def accept_coro() -> None:
            await future

        # As asyncio does: nobody looks at what becomes of it.
        asyncio.ensure_future(accept_coro())  # noqa: RUF006
        return future


@contextmanager
def serving(proactor: Proactor, *, install: bool = True) -> Iterator[tuple[Any, socket.socket, list[str]]]:
    """Let asyncio's Proactor loop serve with this proactor; give what it has connected."""
    running: Any = asyncio.get_running_loop()
    running._proactor = proactor
    connected: list[str] = []
    loop: Any = SimpleNamespace(
        _proactor=proactor,
        _accept_futures={},
        _debug=False,
        is_closed=lambda: False,
        call_soon=running.call_soon,
        call_exception_handler=lambda context: None,
        _make_socket_transport=lambda conn, *_, **__: connected.append(conn),
    )
    accepts = Accepting()
    if install:
        accepts.install()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start: Callable[..., None] = vars(proactor_events.BaseProactorEventLoop)["_start_serving"]
        start(loop, lambda: None, listener)
        try:
            yield loop, listener, connected
        finally:
            accepts.remove()
            for future in loop._accept_futures.values():
                future.cancel()
            del running._proactor


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("install", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_client_that_resets_does_not_end_the_service(install: bool, at_once: bool) -> None:
    async def scenario() -> None:
        told: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        # As mitmproxy does.
        loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
        proactor = Proactor("first", *resets(50), "second", *resets(), "third", at_once=at_once)
        with serving(proactor, install=install) as (_, listener, connected):
            await turns(1000)
            gc.collect()
            is_open = listener.fileno() != -1
            assert (is_open, connected) == (install, ["first", "second", "third"] if install else ["first"])
        # Without it, asyncio tells of the coroutine that nobody waits for, with a traceback.
        assert bool(told) is (not install and not at_once)

    asyncio.run(scenario())


def test_failures_without_end_do_not_keep_the_loop_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "AGAIN_SECONDS", 3600)

    async def scenario() -> None:
        proactor = Proactor(*resets(300))
        with serving(proactor):
            await turns(2000)
            assert len(proactor.come) == 300 - accepting.FAILURES_AT_ONCE

    asyncio.run(scenario())


def test_a_socket_that_is_closed_on_purpose_is_not_accepted_at() -> None:
    async def scenario() -> None:
        proactor = Proactor()
        with serving(proactor) as (loop, listener, _):
            await turns(5)
            assert proactor.pending
            (future,) = loop._accept_futures.values()
            # What the loop does to stop.
            future.cancel()
            await turns(5)
            assert proactor.pending.cancelled()
            assert listener.fileno() == -1
        proactor = Proactor()
        with serving(proactor) as (_, listener, _):
            await turns(5)
            assert proactor.pending
            listener.close()
            proactor.pending.set_exception(*resets())
            proactor.pending = None
            await turns(5)
            assert proactor.pending is None

    asyncio.run(scenario())


def test_other_reports_of_the_loop_are_passed_on() -> None:
    async def scenario() -> None:
        loop: Any = asyncio.get_running_loop()
        told: list[dict[str, Any]] = []

        def note(_: Any, context: dict[str, Any]) -> None:
            told.append(context)

        loop.set_exception_handler(note)
        with serving(Proactor()):
            loop.call_exception_handler({"message": "another"})
        assert told == [{"message": "another"}]
        assert loop.get_exception_handler() is note

    asyncio.run(scenario())


def test_other_event_loops_are_left_alone() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        before = dict(vars(loop))
        accepts = Accepting()
        accepts.install()
        assert vars(loop) == before
        accepts.remove()

    asyncio.run(scenario())
