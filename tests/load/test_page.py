"""The conversation page over many exchanges, of which some stream: it follows, and the browser has time left."""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader, FlowWriter
from tests.browser.conftest import BROWSERS
from tests.clients.environments import Process, PythonClient, running
from tests.load.conftest import Scale
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, Proxy
from tests.wire.web import Web, mitmweb

from ollama_lmstudio.sim import Sim, content, sleep

pytestmark = [pytest.mark.load, pytest.mark.browser]

STREAMS, TOKENS_PER_SECOND = 16, 50
# How long the browser is watched in each of the places where something moves.
WATCHED_SECONDS = 3
# Of its main thread's time.
MOST_BUSY = 0.5

# A line of an answer that is on its way tells its speed first; one that has ended tells its tokens at the end.
RUNNING = (
    "[...document.querySelectorAll('[role=option]')].filter(line => /\\n[0-9]+ tokens,/.test(line.innerText)).length"
)

LISTED = "Number(document.querySelector('nav').innerText.match(/[0-9,]+/)[0].replace(',', ''))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Process]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the path")
    with running(PythonClient("conversation_page.py", ("playwright==1.65.2",), (executable,)), "") as process:
        yield process


def recorded(proxy: Proxy, web: Web) -> list[http.HTTPFlow]:
    """Return the flows of some exchanges."""
    with proxy.client() as client:
        for number in range(10):
            messages = [{"role": "user", "content": f"question {number}"}]
            client.post("/api/chat", json={"model": CHAT, "messages": messages}).raise_for_status()
    saved = io.BytesIO(web.http.get("/flows/dump").raise_for_status().content)
    return [flow for flow in FlowReader(saved).stream() if isinstance(flow, http.HTTPFlow)]


def write_many(flows: list[http.HTTPFlow], count: int, file: Path) -> None:
    """Write so many exchanges, one a second until now, as if they were different ones."""
    with file.open("wb") as out:
        writer = FlowWriter(out)
        for number in range(count):
            flow = flows[number % len(flows)].copy()
            flow.id = str(uuid.uuid4())
            flow.request.timestamp_start = (flow.request.timestamp_start or 0) - (count - number)
            flow.metadata["ollama_conversation"] = f"{number // 3}"
            writer.add(flow)


def test_many_exchanges_and_streams(browser: Process, sim: Sim, scale: Scale, tmp_path: Path) -> None:
    count = scale(1000, 10_000)
    sim.load(CHAT).parallel = STREAMS
    with mitmweb(sim.url, state_dir=tmp_path / "state") as found:
        write_many(recorded(*found), count, tmp_path / "flows")
    paced = [step for n in range(60 * TOKENS_PER_SECOND) for step in (sleep(1 / TOKENS_PER_SECOND), content(f"*{n}* "))]
    for _ in range(STREAMS):
        sim.script(paced, match="count")
    options = {"max_flows": "20000"}
    with (
        mitmweb(sim.url, "-r", str(tmp_path / "flows"), state_dir=tmp_path / "state", options=options) as (proxy, web),
        ThreadPoolExecutor(STREAMS) as pool,
        proxy.client(timeout=120) as client,
        marked(cut=True),
    ):

        def ask(number: int) -> None:
            body = {"model": CHAT, "messages": [{"role": "user", "content": f"count {number}"}]}
            with client.stream("POST", "/api/chat", json=body) as answer:
                for _ in answer.iter_lines():
                    if is_seen:
                        return

        is_seen: list[bool] = []
        streams = [pool.submit(ask, number) for number in range(STREAMS)]
        try:
            browser("visit", web.conversations)
            browser("wait_for", f"n => {LISTED} >= n", count + STREAMS)
            browser("wait_for", f"{RUNNING} > 3")
            shares = {"list": browser("busy", WATCHED_SECONDS)}
            browser("choose", "count 7")
            shares["thread"] = browser("busy", WATCHED_SECONDS)
            before = browser("main")
            # It goes on: what is seen a moment later is more.
            browser("wait_for", "text => document.querySelector('main').innerText.length > text.length", before)
            browser("tab", "Timeline")
            shares["timeline"] = browser("busy", WATCHED_SECONDS)
        finally:
            is_seen.append(True)
            for stream in streams:
                stream.result()
        print({place: f"{share:.1%}" for place, share in shares.items()})
        assert max(shares.values()) < MOST_BUSY
        assert browser("errors") == []
