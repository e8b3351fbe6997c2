"""What an exchange waits for, and how far it is, in mitmweb's list while it runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, HI, SCRIPT, Proxy, StartProxy, content_of, models, ndjson, read_flows
from tests.wire.web import Flow, Web, mitmweb

from ollama_lmstudio.exchanges.own_calls import STOPPED
from ollama_lmstudio.sim import Disconnect, Sim, SimDownload, SimThread, content, sleep

SLOW, PULLED, LONG = "slow/big-70b", "slow/model", "long/model"
LOAD_SECONDS = 4


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    slow = replace(models()[0], key=SLOW, load_seconds=LOAD_SECONDS)
    downloads = [SimDownload(PULLED, seconds=5), SimDownload(LONG, seconds=12)]
    with SimThread(models=[*models(), slow], downloads=downloads) as sim:
        yield sim


@pytest.fixture(scope="module")
def started(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Web]]:
    state = tmp_path_factory.mktemp("state")
    with mitmweb(lmstudio.url, state_dir=state) as found:
        yield found


@pytest.fixture
def web(started: tuple[Proxy, Web], lmstudio: Sim) -> Iterator[Web]:
    _, web = started
    lmstudio.set(jit=True, token_delay=0.0)
    lmstudio.faults.clear()
    for instance in lmstudio.instances:
        lmstudio.unload(instance.id)
    web.http.post("/clear").raise_for_status()
    yield web
    web.option(intercept="")


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def proxy(started: tuple[Proxy, Web], web: Web) -> Proxy:
    return started[0]


def post(proxy: Proxy, path: str, body: dict[str, Any]) -> Any:
    with proxy.client() as client:
        return client.post(path, json=body)


def states(web: Web, answer: Future[Any], path: str) -> list[str]:
    """Give the different comments of the one flow with this path of the client's, until its answer has come."""
    seen: list[str] = []
    while not answer.done():
        for flow in of(web, path):
            if not seen or seen[-1] != flow["comment"]:
                seen.append(flow["comment"])
        time.sleep(0.1)
    return seen


def of(web: Web, path: str) -> list[Flow]:
    """Give the flows of requests to this path."""
    return [flow for flow in web.flows() if flow["request"]["path"] == path]


def test_a_load_on_demand(proxy: Proxy, web: Web, background: ThreadPoolExecutor) -> None:
    body = {"model": SLOW, "messages": HI}
    answer = background.submit(post, proxy, "/api/chat", body)
    seen = states(web, answer, "/v1/chat/completions")
    assert any(re.match(r'loading big-70b, [2-4] s  "hi"  big-70b$', text) for text in seen), seen
    assert content_of(ndjson(answer.result()))
    flow = web.flow(lambda flow: " tokens" in flow["comment"])
    assert "loading" not in flow["comment"]


def test_an_explicit_load(proxy: Proxy, web: Web, lmstudio: Sim, background: ThreadPoolExecutor) -> None:
    lmstudio.set(jit=False)
    body = {"model": SLOW, "messages": HI}
    answer = background.submit(post, proxy, "/api/chat", body)
    web.flow(lambda flow: re.match(r'loading big-70b, [1-4] s  "hi"  ', flow["comment"]))
    assert content_of(ndjson(answer.result()))


def test_an_explicit_load_has_a_line_of_its_own(
    proxy: Proxy, web: Web, lmstudio: Sim, background: ThreadPoolExecutor
) -> None:
    lmstudio.set(jit=False)
    answer = background.submit(post, proxy, "/api/chat", {"model": SLOW, "messages": HI})
    flow = web.flow(lambda flow: re.match(r"\(bridge\) load  loading big-70b, [1-4] s$", flow["comment"]))
    assert (flow["request"]["path"], flow.get("response")) == ("/api/v1/models/load", None)
    assert not answer.done()
    answer.result().raise_for_status()
    flow = web.flow(lambda flow: re.match(r"\(bridge\) load  .*4\.\d s$", flow["comment"]))
    assert flow["response"]["status_code"] == 200
    assert len(of(web, "/api/v1/models/load")) == 1


def test_a_load_that_fails(proxy: Proxy, web: Web, lmstudio: Sim) -> None:
    lmstudio.set(jit=False)
    lmstudio.fault(path="/api/v1/models/load", pre_error=(500, "application/json", '{"error": "out of luck"}'))
    assert post(proxy, "/api/chat", {"model": CHAT, "messages": HI}).status_code == 500
    web.flow(lambda flow: flow["comment"].startswith("(bridge) load  500 out of luck"))


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ("changes", {"load", "/api/generate"}),
        ("all", {"load", "/api/generate", "/api/v1/models"}),
        ("none", {"/api/generate"}),
    ],
)
def test_which_calls_of_the_bridge_are_in_the_list(proxy: Proxy, web: Web, chosen: str, shown: set[str]) -> None:
    web.option(own_calls=chosen)
    try:
        # Without a prompt, the model is loaded.
        post(proxy, "/api/generate", {"model": CHAT}).raise_for_status()
        time.sleep(0.3)
        # Explicitly, where LM Studio has refused to do so on demand: in another test.
        loads = dict.fromkeys(("/api/v1/models/load", "/v1/chat/completions"), "load")
        paths = [flow["request"]["path"] for flow in web.flows()]
        assert {loads.get(path, path) for path in paths} == shown
        assert {flow["marked"] for flow in web.flows() if flow["comment"].startswith("(bridge)")} <= {
            "\u2699\ufe0f",
            "\u2699",
        }
    finally:
        web.option(own_calls="changes")


def test_a_load_that_runs_when_the_process_ends_is_saved(
    tmp_path: Path, lmstudio: Sim, start_proxy: StartProxy, background: ThreadPoolExecutor
) -> None:
    lmstudio.set(jit=False)
    for instance in lmstudio.instances:
        lmstudio.unload(instance.id)
    lmstudio.clear()
    path = tmp_path / "flows"
    proxy = start_proxy(lmstudio.url, "-w", str(path))
    with marked(cut=True):
        background.submit(post, proxy, "/api/chat", {"model": SLOW, "messages": HI})
        proxy.wait_for(lambda: any(request.path == "/api/v1/models/load" for request in lmstudio.requests))
        proxy.stop()
    own = [flow for flow in read_flows(path) if flow.request.path == "/api/v1/models/load"]
    assert [(flow.metadata["ollama_error"], flow.error and flow.error.msg) for flow in own] == [(STOPPED, "no answer")]


def test_a_prompt_that_takes_long(proxy: Proxy, web: Web, lmstudio: Sim, background: ThreadPoolExecutor) -> None:
    post(proxy, "/api/chat", {"model": CHAT, "messages": HI})
    lmstudio.fault(prefill=4, times=1)
    answer = background.submit(post, proxy, "/api/chat", {"model": CHAT, "messages": HI})
    web.flow(lambda flow: re.match("waits for the first token, [23] s  ", flow["comment"]))
    assert content_of(ndjson(answer.result()))


@pytest.mark.parametrize("stream", [True, False])
def test_tokens(proxy: Proxy, web: Web, lmstudio: Sim, background: ThreadPoolExecutor, stream: bool) -> None:
    lmstudio.script([step for _ in range(40) for step in (content("a "), sleep(0.1))], match="many")
    body = {"model": CHAT, "messages": [{"role": "user", "content": "many"}], "stream": stream}
    answer = background.submit(post, proxy, "/api/chat", body)
    seen = states(web, answer, "/v1/chat/completions")
    counts = [
        (int(found[1]), float(found[2])) for text in seen if (found := re.match(r"(\d+) tokens, (\S+) tok/s  ", text))
    ]
    assert len(counts) >= 2, seen
    assert counts == sorted(counts, key=lambda pair: pair[0])
    assert all(5 < speed < 20 for _, speed in counts), seen


def test_what_is_passed_through(proxy: Proxy, web: Web, lmstudio: Sim, background: ThreadPoolExecutor) -> None:
    lmstudio.script([step for _ in range(30) for step in (content("a "), sleep(0.1))], match="many")
    body = {"model": CHAT, "messages": [{"role": "user", "content": "many"}], "stream": True}
    answer = background.submit(post, proxy, "/v1/chat/completions", body)
    web.flow(lambda flow: re.match(r'\d\.\d kB  "', flow["comment"]))
    answer.result().raise_for_status()


@pytest.mark.parametrize("intercept", ["~u /api/chat & ~q", "~u chat/completions & ~q", "~u chat/completions & ~s"])
def test_what_the_user_holds(proxy: Proxy, web: Web, background: ThreadPoolExecutor, intercept: str) -> None:
    web.option(intercept=intercept)
    body = {"model": CHAT, "messages": HI, "stream": False}
    answer = background.submit(post, proxy, "/api/chat", body)
    flow = web.flow(lambda flow: flow["comment"].startswith("waits for you  "))
    assert flow["intercepted"]
    web.resume(flow)
    answer.result().raise_for_status()
    web.flow(lambda flow: " tokens" in flow["comment"] and "waits" not in flow["comment"])


def test_a_request_that_is_held_and_killed(proxy: Proxy, web: Web, background: ThreadPoolExecutor) -> None:
    web.option(intercept="~u /api/chat & ~q")
    with marked(cut=True):
        answer = background.submit(post, proxy, "/api/chat", {"model": CHAT, "messages": HI})
        web.kill(web.flow(lambda flow: flow["comment"].startswith("waits for you  ")))
        assert answer.exception() is not None
    web.flow(lambda flow: "killed" in flow["comment"] and "waits" not in flow["comment"])


@pytest.mark.parametrize("how", ["LM Studio breaks off", "the client leaves", "the user aborts"])
def test_what_breaks_off_has_an_end(proxy: Proxy, web: Web, lmstudio: Sim, how: str) -> None:
    breaks = how == "LM Studio breaks off"
    if breaks:
        lmstudio.fault(disconnect=Disconnect(2), times=1)
    lmstudio.script([content("a "), content("b "), sleep(0.5), content("c "), sleep(5)], match="break")
    body = {"model": CHAT, "messages": [{"role": "user", "content": "break"}]}
    # The error line is the end of a whole body.
    with marked(cut=not breaks), proxy.client() as client, client.stream("POST", "/api/chat", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        if how == "the user aborts":
            web.kill(web.flow(lambda flow: flow["request"]["path"] == "/v1/chat/completions" and flow.get("response")))
        if how != "the client leaves":
            with suppress(httpx.RemoteProtocolError):
                assert [*lines]
    flow = web.flow(lambda flow: (flow.get("response") or {}).get("timestamp_end"))
    assert flow["request"]["path"] == "/v1/chat/completions"
    assert flow["request"]["timestamp_start"] < flow["response"]["timestamp_end"] < time.time()
    assert not re.match(r"\d+ tokens?,", flow["comment"]), "it does not run any more"


def test_a_download(proxy: Proxy, web: Web, background: ThreadPoolExecutor) -> None:
    answer = background.submit(post, proxy, "/api/pull", {"model": PULLED})
    seen = states(web, answer, "/api/pull")
    shares = [int(found[1]) for text in seen if (found := re.match(r"(\d+) %, \S+( [kMG]B)? of 2.3 GB  pull ", text))]
    assert len(set(shares)) >= 3, seen
    assert shares == sorted(shares)
    assert web.flow(lambda flow: flow["comment"].endswith("success"))


QUICK = """
import runpy

addons = runpy.run_path({script!r})["addons"]
from ollama_lmstudio.endpoints import pull

pull.FIRST_POLL_SECONDS = pull.POLL_SECONDS = 0
"""


def test_a_long_download_is_one_line_and_a_short_body(tmp_path: Path, lmstudio: Sim, start_proxy: StartProxy) -> None:
    script = tmp_path / "quick.py"
    script.write_text(QUICK.format(script=str(SCRIPT)))
    lmstudio.clear()
    environment = {"PYTHONPATH": str(SCRIPT.parent)}
    options = {"own_calls": "all"}
    proxy = start_proxy(
        lmstudio.url, *Web.arguments(), tool="mitmweb", script=script, environment=environment, options=options
    )
    web = Web(proxy)
    lines = ndjson(post(proxy, "/api/pull", {"model": LONG}))
    polls = [request for request in lmstudio.requests if "/download/status/" in request.path]
    assert len(polls) > 100
    assert len(lines) > 100
    flow = web.flow(lambda flow: flow["comment"].endswith("success"))
    paths = [flow["request"]["path"] for flow in web.flows()]
    assert paths.count("/api/pull") == 1
    assert not [path for path in paths if "/download/status/" in path]
    kept = [json.loads(line) for line in web.content(flow, "response").splitlines()]
    assert [line["status"][:7] for line in kept] == ["pulling", "pulling", "pulling", "verifyi", "writing", "success"]
    assert [kept[1], kept[2]] == [lines[1], lines[-4]]
    web.http.close()
