"""What a person does with the traffic, through mitmweb: stop, edit, let go on, replay."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader
from tests.inspect.conftest import parts as sections
from tests.inspect.conftest import rule
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, EMBEDDER, HI, Proxy, StartProxy, clear, content_of, models, ndjson
from tests.wire.web import Flow, Web, mitmweb

from ollama_lmstudio.record import record
from ollama_lmstudio.sim import Sim, SimThread, close, content, wait

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"
OPTIONS = {"lmstudio_token": TOKEN, "own_calls": "all"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sim, Proxy, Web]]:
    with (
        SimThread(models=models(), auth={TOKEN}) as sim,
        mitmweb(sim.url, options=OPTIONS, state_dir=tmp_path_factory.mktemp("state")) as (proxy, web),
    ):
        yield sim, proxy, web


@pytest.fixture
def lmstudio(shared: tuple[Sim, Proxy, Web]) -> Iterator[Sim]:
    """LM Studio as it was started."""
    sim = shared[0]
    yield sim
    clear(sim, {TOKEN})


@pytest.fixture
def started(shared: tuple[Sim, Proxy, Web], lmstudio: Sim) -> Iterator[tuple[Proxy, Web]]:
    """mitmweb with an empty list, where nothing is stopped."""
    _, proxy, web = shared
    web.http.post("/clear").raise_for_status()
    yield proxy, web
    web.option(intercept="")


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def ask(proxy: Proxy, path: str = "/api/chat", **body: Any) -> httpx.Response:
    return post(proxy, path, {"model": CHAT, "messages": HI} | body)


def post(proxy: Proxy, path: str, body: dict[str, Any]) -> httpx.Response:
    with proxy.client() as client:
        return client.post(path, json=body)


def ask_and_stop(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor, intercept: str, path: str = "/api/chat", **body: Any
) -> tuple[Future[httpx.Response], Flow]:
    """Ask, and wait until a filter has stopped it; give the answer to come and the flow."""
    proxy, web = started
    web.option(intercept=intercept)
    answer = background.submit(ask, proxy, path, **body)
    return answer, web.paused()


def said(response: httpx.Response, stream: bool) -> str:
    return content_of(ndjson(response)) if stream else str(response.json()["message"]["content"])


def call_of(sim: Sim) -> Any:
    return [request.json for request in sim.requests if request.path == "/v1/chat/completions"][-1]


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_is_edited_in_the_clients_terms(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, stream: bool
) -> None:
    proxy, web = started
    web.option(intercept="~u /api/chat & ~q")
    answer = background.submit(ask, proxy, stream=stream)
    paused = web.paused()
    assert paused["request"]["path"] == "/api/chat"
    asked = json.loads(web.content(paused))
    assert asked == {"model": CHAT, "messages": HI, "stream": stream}
    asked["messages"][0]["content"] = "edited"
    asked["options"] = {"temperature": 0.25}
    web.edit(paused, request={"content": json.dumps(asked)})
    web.resume(paused)
    assert said(answer.result(), stream) == "You said: edited"
    assert call_of(lmstudio)["temperature"] == 0.25


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_is_edited_in_lmstudios_terms(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, stream: bool
) -> None:
    proxy, web = started
    web.option(intercept="~u chat/completions & ~q")
    answer = background.submit(ask, proxy, stream=stream)
    paused = web.paused()
    assert paused["request"]["path"] == "/v1/chat/completions"
    assert TOKEN not in json.dumps(paused), "a paused flow is shown, and shows no secret"
    call = json.loads(web.content(paused))
    call["messages"][0]["content"] = "edited"
    web.edit(paused, request={"content": json.dumps(call)})
    web.resume(paused)
    assert said(answer.result(), stream) == "You said: edited"
    assert call_of(lmstudio)["messages"][0]["content"] == "edited"


EDITS = {"the client's request": "~u /api/chat & ~q", "what is sent to LM Studio": "~u chat/completions & ~q"}
WAS, IS = '-       "content": "hi"', '+       "content": "edited"'


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("what", "intercept"), EDITS.items(), ids=EDITS)
def test_an_edit_is_shown_as_a_difference(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor, what: str, intercept: str, stream: bool
) -> None:
    web = started[1]
    answer, paused = ask_and_stop(started, background, intercept, stream=stream)
    assert "Edited by" not in web.view(paused, "request")
    body = json.loads(web.content(paused))
    body["messages"][0]["content"] = "edited"
    web.edit(paused, request={"content": json.dumps(body)})
    for shown in (web.view(paused, "request"), edited_view(web, paused, answer)):
        section = sections(shown)[f"Edited by the user: {what}"]
        assert [line for line in section.split("\n") if line[:1] in "+-"] == [WAS, IS]
        assert shown.count("Edited by") == 1
    # A file that was saved tells the same, without mitmproxy's backup.
    flow = saved_flow(web, paused["id"])
    kept = record.of(flow)
    assert kept is not None
    before = kept.edited_from if what == "the client's request" else kept.call_edited_from
    assert json.loads(before)["messages"] == HI
    assert kept.edited_from == b"" or kept.call_edited_from == b""


def edited_view(web: Web, paused: Flow, answer: Future[httpx.Response]) -> str:
    """Let a flow go on; give the view of its request when it has ended."""
    web.resume(paused)
    answer.result().raise_for_status()
    web.flow(lambda flow: flow["id"] == paused["id"] and flow["response"] and flow["response"]["timestamp_end"])
    return web.view(paused, "request")


def test_an_edited_answer_is_shown_as_a_difference(started: tuple[Proxy, Web], background: ThreadPoolExecutor) -> None:
    web = started[1]
    answer, paused = ask_and_stop(started, background, "~meta /api/chat & ~s", stream=False)
    body = json.loads(web.content(paused, "response"))
    body["message"]["content"] = "edited"
    web.edit(paused, response={"content": json.dumps(body)})
    web.resume(paused)
    assert answer.result().json()["message"]["content"] == "edited"
    started[0].wait_for(lambda: "Edited by the user: the answer" in web.view(paused, "response"))
    lines = sections(web.view(paused, "response"))["Edited by the user: the answer"].split("\n")
    assert [line for line in lines if line[:1] in "+-"] == [
        '-     "content": "You said: hi"',
        '+     "content": "edited"',
    ]


def test_an_edit_for_a_replay_is_shown_as_a_difference(started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    proxy, web = started
    ask(proxy)
    flow = web.flow(lambda flow: " tokens" in flow["comment"])
    call = json.loads(web.content(flow))
    call["messages"][0]["content"] = "edited"
    web.edit(flow, request={"content": json.dumps(call)})
    web.replay(flow)
    web.flow(lambda flow: flow["comment"].endswith(", replay"))
    section = sections(web.view(flow, "request"))["Edited by the user: what is sent to LM Studio"]
    assert WAS in section
    assert IS in section


def saved_flow(web: Web, identity: str) -> http.HTTPFlow:
    saved = web.http.get("/flows/dump").raise_for_status().content
    flow = next(flow for flow in FlowReader(io.BytesIO(saved)).stream() if flow.id == identity)
    assert isinstance(flow, http.HTTPFlow)
    return flow


def test_a_request_is_found_by_the_clients_path_after_the_rewrite_too(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor
) -> None:
    proxy, web = started
    web.option(intercept="~meta /api/chat & ~u completions & ~q")
    answer = background.submit(ask, proxy)
    paused = web.paused()
    assert paused["request"]["path"] == "/v1/chat/completions"
    web.resume(paused)
    ndjson(answer.result())


def test_an_edit_of_path_and_method_counts_too(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor
) -> None:
    proxy, web = started
    web.option(intercept="~u /api/v0/completions & ~q")
    with marked(foreign=True):
        answer = background.submit(ask, proxy, "/api/v0/completions")
        paused = web.paused()
        web.edit(paused, request={"path": "/api/version", "method": "GET", "content": ""})
        web.resume(paused)
        assert list(answer.result().json()) == ["version"]
    assert not any(request.method == "POST" for request in lmstudio.requests)


def test_an_edit_to_nonsense_is_the_clients_error(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor
) -> None:
    proxy, web = started
    web.option(intercept="~u /api/chat & ~q")
    answer = background.submit(ask, proxy)
    paused = web.paused()
    web.edit(paused, request={"content": "{"})
    web.resume(paused)
    assert (answer.result().status_code, answer.result().json()) == (400, {"error": "unexpected EOF"})


PAUSE = 0.8
AN_EMBEDDING = {"model": EMBEDDER, "input": "a"}


def numbers_after_a_pause(
    started: tuple[Proxy, Web],
    request: Callable[[Proxy], httpx.Response],
    background: ThreadPoolExecutor,
    intercept: str,
) -> tuple[httpx.Response, record.Numbers, float]:
    """Give the answer to a request that was held for PAUSE, the numbers in its flow, and what they may be at most: all
    the time but the pause, in ns.
    """
    proxy, web = started
    request(proxy)  # loads the model
    web.option(intercept=intercept)
    began = time.monotonic()
    answer = background.submit(request, proxy)
    paused = web.paused()
    time.sleep(PAUSE)
    web.resume(paused)
    response = answer.result().raise_for_status()
    limit = (time.monotonic() - began - PAUSE) * 1e9
    kept = record.of(saved_flow(web, paused["id"]))
    assert kept is not None
    assert kept.numbers is not None
    return response, kept.numbers, limit


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("intercept", ["~u /api/chat & ~q", "~u chat/completions & ~q"])
def test_a_pause_is_not_measured(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor, intercept: str, stream: bool
) -> None:
    response, numbers, limit = numbers_after_a_pause(
        started, lambda proxy: ask(proxy, stream=stream), background, intercept
    )
    final = ndjson(response)[-1] if stream else response.json()
    assert 0 < final["load_duration"] + final["prompt_eval_duration"] <= final["total_duration"] < limit
    assert final["total_duration"] == numbers.total
    assert 0 < numbers.first_token < limit


@pytest.mark.parametrize("intercept", ["~u /api/embed & ~q", "~u v1/embeddings & ~q"])
def test_a_pause_is_not_measured_for_embeddings(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor, intercept: str
) -> None:
    response, numbers, limit = numbers_after_a_pause(
        started, lambda proxy: post(proxy, "/api/embed", AN_EMBEDDING), background, intercept
    )
    answer = response.json()
    assert 0 < answer["load_duration"] <= answer["total_duration"] == numbers.total < limit


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/show"])
def test_a_pause_is_not_measured_where_nothing_is_translated(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor, path: str
) -> None:
    asked = {"model": CHAT, "messages": HI, "stream": True}
    _, numbers, limit = numbers_after_a_pause(
        started, lambda proxy: post(proxy, path, asked), background, f"~u {path} & ~q"
    )
    assert 0 <= numbers.first_token <= numbers.total < limit
    assert numbers.total


@pytest.mark.parametrize(
    ("path", "stops"),
    [
        ("/api/chat", ["/api/chat", "/v1/chat/completions", "/v1/chat/completions"]),
        ("/v1/chat/completions", ["/v1/chat/completions"] * 2),
        ("/api/show", ["/api/show"] * 2),
        ("/api/unknown", ["/api/unknown"] * 2),
    ],
)
def test_what_has_one_side_only_stops_once_each_way(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor, path: str, stops: list[str]
) -> None:
    proxy, web = started
    web.option(intercept="~m POST")
    answer = background.submit(post, proxy, path, {"model": CHAT, "messages": HI})
    stopped = []
    for _ in stops:
        paused = web.paused()
        stopped.append((paused["request"]["path"], "response" in paused and bool(paused["response"])))
        web.resume(paused)
    assert answer.result().status_code in (200, 404)
    assert stopped == [*((path, False) for path in stops[:-1]), (stops[-1], True)]


@pytest.mark.parametrize("intercept", ["~u /api/chat", "~u chat/completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_paused_request_can_be_killed(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, intercept: str, stream: bool
) -> None:
    web = started[1]
    answer, paused = ask_and_stop(started, background, intercept, stream=stream)
    web.kill(paused)
    # The connection ends at once: a client that goes on waiting would get another error.
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result()
    assert not any(request.path == "/v1/chat/completions" for request in lmstudio.requests)
    killed = web.flow(lambda flow: flow["comment"].startswith("✗ Connection killed"))
    web.flow(lambda flow: re.fullmatch(rf'✗ Connection killed, after \S+ m?s  "hi"  {CHAT}', flow["comment"]))
    assert killed["marked"] == "❌"
    assert not killed["intercepted"]


def test_a_paused_request_can_be_removed_from_the_list(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor
) -> None:
    answer, paused = ask_and_stop(started, background, "~u /api/chat")
    started[1].remove(paused)
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result()


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_goes_on_can_be_killed(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, stream: bool
) -> None:
    proxy, web = started
    lmstudio.script([content("slow"), wait(threading.Event())])

    def ask_in_vain() -> None:
        with marked(cut=stream), pytest.raises(httpx.RemoteProtocolError):
            ask(proxy, stream=stream)

    answer = background.submit(ask_in_vain)
    flow = web.flow(lambda flow: flow["request"]["path"] == "/v1/chat/completions" and flow.get("response"))
    time.sleep(0.5)
    web.kill(flow)
    answer.result(20)
    proxy.wait_for(lambda: not lmstudio.active)


@pytest.mark.parametrize("intercept", ["~u /api/chat", "~u chat/completions"])
def test_a_list_that_is_cleared_ends_what_waits(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, intercept: str
) -> None:
    answer, _ = ask_and_stop(started, background, intercept)
    started[1].http.post("/clear").raise_for_status()
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result(5)


def test_a_reverted_edit_keeps_the_token(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor
) -> None:
    web = started[1]
    answer, paused = ask_and_stop(started, background, "~u chat/completions & ~q")
    call = json.loads(web.content(paused))
    web.edit(paused, request={"content": json.dumps(call | {"messages": []})})
    web.http.post(f"/flows/{paused['id']}/revert").raise_for_status()
    web.resume(paused)
    assert content_of(ndjson(answer.result())) == "You said: hi"
    assert lmstudio.requests[-1].header("authorization") == f"Bearer {TOKEN}"


@pytest.mark.parametrize("path", ["/api/show", "/api/version", "/nothing"])
def test_an_answer_of_the_bridges_own_waits_once(
    started: tuple[Proxy, Web], background: ThreadPoolExecutor, path: str
) -> None:
    proxy, web = started
    web.option(intercept="~s")
    answer = background.submit(post, proxy, path, {"model": CHAT})
    web.resume(web.paused())
    assert answer.result().status_code in (200, 404, 405)


def test_a_paused_answer_can_be_killed(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor
) -> None:
    web = started[1]
    answer, paused = ask_and_stop(started, background, "~meta /api/chat & ~s", stream=False)
    web.kill(paused)
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result()
    killed = web.flow(lambda flow: "Connection killed" in flow["comment"])
    assert killed["marked"] == "✂"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("intercept", ["~q", "~s"])
def test_who_kills_a_paused_exchange_ends_its_use_of_the_model(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, path: str, intercept: str
) -> None:
    proxy, web = started
    answer, paused = ask_and_stop(started, background, f"{intercept} & ~u chat/completions", path, stream=False)
    web.kill(paused)
    with pytest.raises(httpx.RemoteProtocolError):
        answer.result()
    web.option(intercept="")
    ask(proxy, keep_alive=0)
    proxy.wait_for(lambda: not lmstudio.instances)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_an_answer_is_shown_while_it_comes(
    started: tuple[Proxy, Web], lmstudio: Sim, background: ThreadPoolExecutor, path: str
) -> None:
    proxy, web = started
    looked = threading.Event()
    lmstudio.script([content("slow"), wait(looked), content(" but sure")])
    answer = background.submit(post, proxy, path, {"model": CHAT, "messages": HI, "stream": True})
    # The page asks for a body again when this has changed.
    coming = web.flow(
        lambda flow: (
            (flow["request"]["path"], flow.get("response") and bool(flow["response"].get("contentHash")))
            == ("/v1/chat/completions", True)
        )
    )
    assert not answer.done()
    shown = web.view(coming, "response", "Ollama")
    assert f"{rule('Answer so far: 200 OK')}\nassistant: slow" in shown
    assert "but sure" not in shown
    raw = web.view(coming, "response", "LM Studio")
    assert '"content":"slow"' in raw
    assert "but sure" not in raw
    looked.set()
    body = answer.result().text
    done = web.flow(lambda flow: flow["id"] == coming["id"] and flow["response"]["timestamp_end"])
    assert web.content(done, "response") == body
    assert f"{rule('Answer: 200 OK')}\nassistant: slow but sure" in web.view(done, "response", "Ollama")


def is_done(path: str) -> Any:
    return lambda flow: flow["request"]["path"] == path and flow.get("response") and flow["response"]["timestamp_end"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_replay_repeats_the_call_and_translates_the_answer_again(
    started: tuple[Proxy, Web], lmstudio: Sim, stream: bool
) -> None:
    proxy, web = started
    first = ask(proxy, stream=stream)
    flow = web.flow(is_done("/v1/chat/completions"))
    call = json.loads(web.content(flow))
    call["messages"][0]["content"] = "replayed"
    web.edit(flow, request={"content": json.dumps(call)})
    lmstudio.clear()
    web.replay(flow)
    again = web.flow(lambda flow: flow["is_replay"] == "request" and is_done("/v1/chat/completions")(flow))
    assert call_of(lmstudio)["messages"][0]["content"] == "replayed"
    assert lmstudio.requests[-1].header("authorization") == f"Bearer {TOKEN}"
    text = web.content(again, "response")
    assert "replayed" in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [list(line) for line in lines][-1] == [list(json.loads(line)) for line in first.text.splitlines()][-1]
    assert len(lines) == len(first.text.splitlines())
    headers = dict(again["response"]["headers"])
    assert headers["Content-Type"] == first.headers["content-type"]
    assert TOKEN not in json.dumps(web.flows())


def test_a_replay_does_not_show_what_came_before(started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    proxy, web = started
    ask(proxy)
    flow = web.flow(is_done("/v1/chat/completions"))
    assert " tokens" in flow["comment"]
    looked = threading.Event()
    lmstudio.script([content("slow"), wait(looked), close()])
    web.replay(flow)
    again = web.flow(lambda flow: flow["is_replay"] and (flow.get("response") or {}).get("contentLength"))
    assert again["comment"].endswith(f'"hi"  {CHAT}  replay')
    assert f"{rule('Answer so far: 200 OK')}\nassistant: slow" in web.view(again, "response", "Ollama")
    looked.set()
    broken = web.flow(lambda flow: flow["is_replay"] and "closed the connection" in flow["comment"])
    assert broken["comment"].startswith(
        "✗ LM Studio closed the connection before its answer was finished, after 1 token  "
    )
    assert broken["marked"] == "❌"
    assert json.loads(web.content(broken, "response").splitlines()[-1])["error"].startswith("LM Studio closed")


def test_a_replay_of_an_error(started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    proxy, web = started
    ask(proxy)
    flow = web.flow(is_done("/v1/chat/completions"))
    lmstudio.fault(pre_error=(400, "application/json", '{"error":"no more"}'))
    web.replay(flow)
    again = web.flow(lambda flow: flow["is_replay"] and is_done("/v1/chat/completions")(flow))
    assert (again["response"]["status_code"], web.content(again, "response")) == (400, '{"error":"no more"}')


@pytest.mark.parametrize(
    ("path", "body", "becomes"),
    [
        ("/api/embed", {"model": EMBEDDER, "input": "a"}, "/v1/embeddings"),
        ("/api/show", {"model": CHAT}, "/api/show"),
        ("/v1/chat/completions", {"model": "Llama3.2:3b", "messages": HI}, "/v1/chat/completions"),
        ("/api/pull", {"model": "nobody/has-this"}, "/api/pull"),
    ],
)
def test_a_replay_of_anything_else(started: tuple[Proxy, Web], path: str, body: dict[str, Any], becomes: str) -> None:
    proxy, web = started
    first = post(proxy, path, body)
    flow = web.flow(is_done(becomes))
    web.replay(flow)
    again = web.flow(lambda flow: flow["is_replay"] == "request" and is_done(becomes)(flow))
    assert again["response"]["status_code"] == first.status_code
    answer = web.content(again, "response")
    if path == "/v1/chat/completions":
        assert json.loads(answer)["choices"] == first.json()["choices"]
    elif path == "/api/embed":
        assert json.loads(answer)["embeddings"] == first.json()["embeddings"]
    else:
        assert answer == first.text


def test_what_stays_in_the_list_is_cut_when_it_has_been_sent(lmstudio: Sim, start_proxy: StartProxy) -> None:
    options = {"lmstudio_token": TOKEN, "max_kept_size": "1000"}
    proxy = start_proxy(lmstudio.url, *Web.arguments(), tool="mitmweb", options=options)
    web = Web(proxy)
    text = "word " * 2000
    answer = ask(proxy, messages=[{"role": "user", "content": text}], stream=False)
    assert answer.json()["message"]["content"] == f"You said: {text}"
    vectors = post(proxy, "/api/embed", {"model": EMBEDDER, "input": ["a", "b"]}).json()["embeddings"]
    assert [len(vector) for vector in vectors] == [768, 768]

    def is_cut(path: str, part: str) -> Any:
        return lambda flow: flow["request"]["path"] == path and (flow.get(part) or {}).get("contentLength") == 1000

    for path, parts in (("/v1/chat/completions", ("request", "response")), ("/v1/embeddings", ("response",))):
        for part in parts:
            flow = web.flow(is_cut(path, part))
            assert len(web.content(flow, part)) == 1000
            assert "kept: 1.0 kB of 1" in web.view(flow, part, "Ollama")
    flow = web.flow(is_cut("/v1/chat/completions", "request"))
    assert "kept: 1.0 kB of 10.1 kB" in web.view(flow, "request", "LM Studio")
    lmstudio.clear()
    web.replay(flow)
    again = web.flow(lambda flow: flow["is_replay"] and flow.get("response"))
    assert again["response"]["status_code"] == 400
    assert "not kept whole (option max_kept_size)" in web.content(again, "response")
    assert not lmstudio.requests
    web.edit(again, request={"content": json.dumps({"model": CHAT, "messages": HI})})
    web.replay(again)
    web.flow(lambda flow: flow["is_replay"] and (flow.get("response") or {}).get("status_code") == 200)
    web.http.close()


def test_our_own_calls_can_be_replayed(started: tuple[Proxy, Web], lmstudio: Sim) -> None:
    proxy, web = started
    with proxy.client() as client:
        client.get("/api/ps").raise_for_status()
    flow = web.flow(is_done("/api/v1/models"))
    web.replay(flow)
    again = web.flow(lambda flow: flow["is_replay"] == "request" and is_done("/api/v1/models")(flow))
    assert again["response"]["status_code"] == 200
    assert "models" in json.loads(web.content(again, "response"))
