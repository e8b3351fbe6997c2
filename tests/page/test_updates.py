"""What a page that is open is told, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mitmproxy import ctx, http
from mitmproxy.test import tflow
from tests.inspect.conftest import EVENTS, LINES, flow_of, record, snapshot
from tornado.websocket import WebSocketClosedError

from ollama_lmstudio.page import updates
from ollama_lmstudio.page.rows import row_of
from ollama_lmstudio.page.updates import MAX_FOLLOWED, ROWS_AT_ONCE, Reader, Readers
from ollama_lmstudio.record.arrivals import Arrivals
from ollama_lmstudio.tasks import Tasks

SECONDS = 20


class View(list[http.HTTPFlow]):
    """mitmweb's list."""

    def get_by_id(self, flow_id: str) -> http.HTTPFlow | None:
        return next((flow for flow in self if flow.id == flow_id), None)


class Page:
    """A page that is open, of a list."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.messages: list[dict[str, Any]] = []
        self.shown: list[str] = []
        self.is_closed = False
        self._came = asyncio.Event()
        self.reader = Reader(self.send, self.shown.append)

    async def send(self, text: str) -> None:
        if self.is_closed:
            raise WebSocketClosedError
        text.encode()
        self.messages.append(json.loads(text))
        self._came.set()

    async def until(self, fits: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        async with asyncio.timeout(SECONDS):
            while True:
                for message in self.messages:
                    if fits(message):
                        return message
                self._came.clear()
                await self._came.wait()

    @property
    def rows(self) -> list[str]:
        return [row["id"] for message in self.messages for row in message.get("rows", ())]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0)


Test = Callable[[Page], Awaitable[None]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a test with a page that is open, of a list of so many flows."""
    monkeypatch.setattr(updates, "TELL_SECONDS", 0)

    def run(test: Test, *flows: http.HTTPFlow) -> None:
        async def main() -> None:
            page = Page(View(flows))
            master = type("Master", (), {"addons": {"view": page.view}})
            monkeypatch.setattr(ctx, "master", master, raising=False)
            task = asyncio.create_task(page.reader.run())
            await test(page)
            assert not task.done() or not task.exception()
            task.cancel()

        asyncio.run(main())

    return run


def exchanges(count: int) -> list[http.HTTPFlow]:
    return [flow_of(snapshot(record(prompt=f"question {number}"))) for number in range(count)]


def running(lines: bytes = b"", events: bytes = b"") -> http.HTTPFlow:
    """Return an exchange whose answer has come so far."""
    flow = flow_of(snapshot(record(numbers=None, state="runs", limit=1_000_000)))
    come(flow, lines, events)
    return flow


def come(flow: http.HTTPFlow, lines: bytes, events: bytes) -> None:
    arrivals = Arrivals()
    for at, event in enumerate(events.split(b"\n\n")[:-1], 1):
        arrivals.sizes.append(len(event) + 2)
        arrivals.times.append(at * 1_000_000)
    kept = record(
        numbers=None,
        state="runs",
        limit=1_000_000,
        upstream=events,
        upstream_size=len(events),
        arrivals=arrivals.packed(0),
    )
    kept.save(flow.metadata)
    assert flow.response is not None
    flow.response.raw_content = lines
    flow.response.timestamp_end = None


def test_all_of_the_list_comes_first_with_the_newest_at_its_head(told: Callable[..., None]) -> None:
    flows = exchanges(2 * ROWS_AT_ONCE + 1)

    async def test(page: Page) -> None:
        await page.until(lambda message: any(row["id"] == flows[0].id for row in message.get("rows", ())))
        assert page.messages[0] == {"reset": True, "count": len(flows)}
        assert page.rows == [flow.id for flow in reversed(flows)]
        assert max(len(message.get("rows", ())) for message in page.messages) == ROWS_AT_ONCE

    told(test, *flows)


def test_changes_come_once_however_often_something_has_changed(told: Callable[..., None]) -> None:
    flows = exchanges(2)

    async def test(page: Page) -> None:
        await page.until(lambda message: "rows" in message)
        page.messages.clear()
        for _ in range(50):
            page.reader.changed(flows[1])
        page.reader.removed(flows[0])
        await page.until(lambda message: message.get("removed") == [flows[0].id])
        await page.until(lambda message: "rows" in message)
        assert page.rows == [flows[1].id]

    told(test, *flows)


def test_what_has_changed_and_is_gone_has_no_row(told: Callable[..., None]) -> None:
    flows = exchanges(2)

    async def test(page: Page) -> None:
        await page.until(lambda message: "rows" in message)
        page.messages.clear()
        page.reader.changed(flows[0])
        page.reader.removed(flows[0])
        page.reader.changed(flows[1])
        await page.until(lambda message: "rows" in message)
        assert page.rows == [flows[1].id]

    told(test, *flows)


def test_what_is_there_again_is_not_told_to_be_gone(told: Callable[..., None]) -> None:
    flows = exchanges(2)

    async def test(page: Page) -> None:
        await page.until(lambda message: "rows" in message)
        page.messages.clear()
        page.reader.removed(flows[0])
        page.reader.changed(flows[0])
        page.reader.removed(flows[1])
        await page.until(lambda message: message.get("removed") == [flows[1].id])
        await page.until(lambda message: "rows" in message)
        assert page.rows == [flows[0].id]

    told(test, *flows)


def test_after_a_reset_only_what_there_is(told: Callable[..., None]) -> None:
    flows = exchanges(3)

    async def test(page: Page) -> None:
        await page.until(lambda message: "rows" in message)
        page.messages.clear()
        page.reader.changed(flows[0])
        page.reader.removed(flows[1])
        page.view[:] = [flows[2]]
        page.reader.reset()
        await page.until(lambda message: "rows" in message)
        assert page.messages[0] == {"reset": True, "count": 1}
        assert page.rows == [flows[2].id]
        assert not any("removed" in message for message in page.messages)

    told(test, *flows)


def test_a_flow_of_which_no_row_can_be_made_keeps_no_other_back(
    told: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = [*exchanges(1), tflow.tflow(resp=True), *exchanges(1)]

    def fails(flow: http.HTTPFlow) -> dict[str, Any] | None:
        if flow is flows[0]:
            raise TypeError("odd")
        return row_of(flow)

    monkeypatch.setattr(updates, "row_of", fails)

    async def test(page: Page) -> None:
        await page.until(lambda message: "rows" in message)
        assert page.rows == [flows[2].id]

    told(test, *flows)


def test_lone_surrogates_can_be_sent(told: Callable[..., None]) -> None:
    flow = flow_of(snapshot(record(prompt="\ud800 \udfff", answer="\ud83d")))

    async def test(page: Page) -> None:
        await page.until(lambda message: "rows" in message)
        assert page.rows == [flow.id]

    told(test, flow)


def test_an_answer_that_is_followed(told: Callable[..., None]) -> None:
    lines, events = LINES.split(b"\n"), EVENTS.split(b"\n\n")
    flow = running(b"\n".join(lines[:2]) + b"\n", events[0] + b"\n\n")

    async def test(page: Page) -> None:
        await page.until(lambda message: "rows" in message)
        page.reader.follow([flow.id])
        (answer,) = [(await page.until(lambda message: "answer" in message))["answer"]]
        assert answer["thinking"] == "Let me see."
        assert answer["text"] == "It is "
        assert answer["events"] == [[1.0, "t", "It is "]]
        # mitmproxy is asked to have all that has come.
        assert page.shown[0] == flow.id
        page.messages.clear()
        come(flow, b"\n".join(lines[:3]) + b"\n", b"\n\n".join(events[:2]) + b"\n\n")
        answer = (await page.until(lambda message: "answer" in message))["answer"]
        assert answer == {"id": flow.id, "text": "a dot.", "events": [[2.0, "t", "a dot."]]}
        page.messages.clear()
        page.reader.follow([])
        come(flow, LINES, EVENTS)
        page.reader.changed(flow)
        await page.until(lambda message: "rows" in message)
        assert not any("answer" in message for message in page.messages)

    told(test, flow)


def test_what_has_ended_is_followed_no_longer(told: Callable[..., None]) -> None:
    flow = running(LINES[:20], b"")

    async def test(page: Page) -> None:
        page.reader.follow([flow.id])
        await page.until(lambda message: "rows" in message)
        assert flow.response is not None
        record().save(flow.metadata)
        flow.response.timestamp_end = 1.0
        await until(lambda: not page.reader._followed)
        shown = len(page.shown)
        page.messages.clear()
        page.reader.changed(flow)
        await page.until(lambda message: "rows" in message)
        assert len(page.shown) == shown

    told(test, flow)


def test_no_more_than_some_are_followed(told: Callable[..., None]) -> None:
    flows = [running(LINES) for _ in range(MAX_FOLLOWED + 3)]

    async def test(page: Page) -> None:
        page.reader.follow([flow.id for flow in flows])
        assert len(page.reader._followed) == MAX_FOLLOWED
        page.reader.follow(["no such flow", *(flow.id for flow in exchanges(2))])
        assert not page.reader._followed

    told(test, *flows)


def test_a_page_that_is_closed_is_told_no_more() -> None:
    async def main() -> None:
        tasks, closed = Tasks(), []
        readers = Readers(tasks, lambda flow_id: None)

        async def send(text: str) -> None:
            raise WebSocketClosedError

        first = readers.open(send, lambda: closed.append("first"))
        readers.open(send, lambda: closed.append("second"))
        assert len(tasks) == 2
        readers.close(first)
        readers.close(first)
        readers.close_all()
        assert closed == ["second"]
        readers.reset()
        await until(lambda: not len(tasks))

    asyncio.run(main())
