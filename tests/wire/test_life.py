"""Loading, keeping and unloading models, through a real mitmdump."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.strict.reader import marked
from tests.wire.conftest import Proxy

from ollama_lmstudio.sim import Disconnect, Sim, SimModel, SimThread, content, embedder, wait

LOAD = "/api/v1/models/load"
UNLOAD = "/api/v1/models/unload"
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def make_proxy(tmp_path: Path) -> Callable[..., Proxy]:
    """Give the function that makes a process of its own; `with` starts and stops it."""

    def make(lmstudio_url: str | None, *arguments: str, **settings: Any) -> Proxy:
        return Proxy(lmstudio_url, *arguments, state_dir=tmp_path, **settings)

    return make


@pytest.fixture
def own_sim() -> Iterator[Sim]:
    models = [
        SimModel(key="one", load_seconds=0.3),
        SimModel(key="two", load_seconds=0.3),
        embedder("text-embedding-e"),
    ]
    with SimThread(models=models, abort_concurrent_loads=True) as sim:
        yield sim
        assert not sim.failures


@pytest.fixture
def own_client(own_sim: Sim, make_proxy: Callable[..., Proxy]) -> Iterator[httpx.Client]:
    with make_proxy(own_sim.url) as proxy, proxy.client() as client:
        client.get("/api/tags").raise_for_status()
        own_sim.clear()
        yield client


def chat(client: httpx.Client, model: str = "one", **more: Any) -> httpx.Response:
    return client.post("/api/chat", json={"model": model, "messages": HI, **more})


def paths(sim: Sim) -> list[str]:
    return [request.path for request in sim.requests if request.path != "/api/v1/models"]


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_without_loading_on_demand_the_client_sees_nothing_of_the_detour(
    own_client: httpx.Client, own_sim: Sim, stream: bool
) -> None:
    own_sim.set(jit=False)
    response = chat(own_client, stream=stream)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/x-ndjson" if stream else "application/json")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "You said: hi"
    assert response.text.count('"done":true') == 1
    assert paths(own_sim) == [CHAT, LOAD, CHAT]
    # From then on, a model is loaded before it is asked.
    own_sim.clear()
    assert chat(own_client, "two", stream=stream).status_code == 200
    assert paths(own_sim) == [LOAD, CHAT]
    own_sim.clear()
    assert own_client.post("/api/embed", json={"model": "text-embedding-e", "input": "x"}).status_code == 200
    assert paths(own_sim) == [LOAD, "/v1/embeddings"]


def test_many_who_wait_for_a_load_cause_one_and_two_models_do_not_abort_each_other(
    own_client: httpx.Client, own_sim: Sim
) -> None:
    own_sim.set(jit=False)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda i: chat(own_client, ("one", "two")[i % 2]), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert paths(own_sim).count(LOAD) == 2
    assert sorted(instance.id for instance in own_sim.instances) == ["one", "two"]


@pytest.mark.parametrize(("outcome", "said"), [("guardrail", "insufficient system resources"), ("crash", "one")])
def test_a_refused_load_is_told_in_lm_studios_words(make_proxy: Callable[..., Proxy], outcome: Any, said: str) -> None:
    models = [SimModel(key="one", load_outcome=outcome)]
    with SimThread(models=models, jit=False) as sim, make_proxy(sim.url) as proxy, proxy.client() as client:
        response = chat(client)
    assert response.status_code >= 400
    assert said in response.json()["error"]


def test_a_load_that_takes_too_long_goes_on_and_the_next_request_joins_it(make_proxy: Callable[..., Proxy]) -> None:
    with (
        SimThread(models=[SimModel(key="one", load_seconds=2.5)], jit=False) as sim,
        make_proxy(sim.url, options={"load_timeout_seconds": "1"}) as proxy,
        proxy.client() as client,
    ):
        for _ in range(2):
            response = chat(client)
            assert response.status_code == 503
            assert "load_timeout_seconds" in response.json()["error"]
            assert "goes on loading" in response.json()["error"]
        assert chat(client).status_code == 200
        assert paths(sim) == [CHAT, LOAD, CHAT]
        assert [instance.id for instance in sim.instances] == ["one"]


@pytest.mark.parametrize("keep_alive", [-1, "-1s", "720h"])
def test_a_long_keep_alive_loads_on_demand_and_for_as_long_as_lm_studio_can(
    make_proxy: Callable[..., Proxy], keep_alive: Any
) -> None:
    """However long the load takes, and so that LM Studio may evict the model as Ollama would."""
    models = [SimModel(key="one", load_seconds=1.5), SimModel(key="two")]
    with (
        SimThread(models=models) as sim,
        make_proxy(sim.url, options={"load_timeout_seconds": "1"}) as proxy,
        proxy.client() as client,
    ):
        assert chat(client, keep_alive=keep_alive).status_code == 200
        assert [request.json["ttl"] for request in sim.requests if request.path == CHAT] == [2_147_483]
        assert paths(sim) == [CHAT]
        (instance,) = sim.instances
        assert instance.jit
        assert instance.ttl == 2_147_483
        assert chat(client, "two").status_code == 200
        assert [instance.id for instance in sim.instances] == ["two"]


def test_a_load_without_a_prompt_pins_no_model(own_client: httpx.Client, own_sim: Sim) -> None:
    """`ollama run` begins with one: LM Studio's time to live and its eviction rule the models of four sessions."""
    for path, model in (("/api/generate", "one"), ("/api/chat", "two"), ("/api/generate", "one")):
        assert own_client.post(path, json={"model": model}).json()["done_reason"] == "load"
        assert [(instance.id, instance.jit, instance.ttl) for instance in own_sim.instances] == [(model, True, 3600)]
    assert own_client.post("/api/generate", json={"model": "two", "keep_alive": "5m"}).json()["done_reason"] == "load"
    assert [instance.ttl for instance in own_sim.instances] == [300]
    assert own_client.post("/api/embed", json={"model": "text-embedding-e", "input": []}).status_code == 200
    assert [(instance.id, instance.jit) for instance in own_sim.instances] == [("text-embedding-e", True)]
    assert LOAD not in paths(own_sim)
    # A model that is loaded is left alone.
    own_sim.clear()
    assert own_client.post("/api/embed", json={"model": "text-embedding-e", "input": []}).status_code == 200
    assert paths(own_sim) == []


def left(client: httpx.Client) -> list[float]:
    """Return the seconds for which the loaded models stay, by `/api/ps`."""
    now = datetime.now(UTC)
    models = client.get("/api/ps").json()["models"]
    return [(datetime.fromisoformat(model["expires_at"]) - now).total_seconds() for model in models]


@pytest.mark.parametrize(
    ("keep_alive", "seconds"), [(None, 3600), ("5s", 5), ("10m", 600), (-1, pytest.approx(9.2e9, rel=0.1))]
)
def test_without_loading_on_demand_a_load_has_a_timer_of_ours_that_is_shown(
    own_client: httpx.Client, own_sim: Sim, keep_alive: Any, seconds: Any
) -> None:
    own_sim.set(jit=False)
    more = {} if keep_alive is None else {"keep_alive": keep_alive}
    for _ in range(2):
        assert own_client.post("/api/generate", json={"model": "one", **more}).json()["done_reason"] == "load"
        assert [(instance.id, instance.jit) for instance in own_sim.instances] == [("one", False)]
        assert left(own_client) == [pytest.approx(seconds, abs=2)]
    assert paths(own_sim) == [CHAT, LOAD]


def test_the_time_that_a_model_stays_is_the_sooner_of_lm_studios_and_ours(client: httpx.Client, sim: Sim) -> None:
    sim.load("plain")
    assert left(client) == [pytest.approx(9.2e9, rel=0.1)]
    chat(client, "plain", keep_alive="5s")
    assert left(client) == [pytest.approx(5, abs=2)]
    chat(client, "plain", keep_alive=-1)
    assert left(client) == [pytest.approx(9.2e9, rel=0.1)]
    sim.unload("plain")
    chat(client, "plain", keep_alive="10m")
    assert left(client) == [pytest.approx(600, abs=2)]


def test_a_model_that_was_loaded_explicitly_is_unloaded_by_our_timer(own_client: httpx.Client, own_sim: Sim) -> None:
    own_sim.set(jit=False)
    chat(own_client, keep_alive=1)
    assert [instance.id for instance in own_sim.instances] == ["one"]
    wait_for(lambda: not own_sim.instances)
    assert paths(own_sim) == [CHAT, LOAD, CHAT, UNLOAD]


def test_idle_models_make_room_for_one_that_is_loaded_explicitly(make_proxy: Callable[..., Proxy]) -> None:
    """LM Studio evicts none of them, and refuses the load."""
    models = [SimModel(key=key, size_bytes=10) for key in ("one", "two", "three", "users")]
    models.append(SimModel(key="large", size_bytes=15))
    with (
        SimThread(models=models) as sim,
        make_proxy(sim.url, options={"context_length": "4096"}) as proxy,
        proxy.client() as client,
    ):
        sim.set(memory=40)
        sim.load("users")
        for model in ("one", "two", "three"):
            assert chat(client, model, keep_alive=-1).status_code == 200
        assert [instance.id for instance in sim.instances] == ["users", "one", "two", "three"]
        assert chat(client, "large").status_code == 200
        # The oldest, as many as it takes, and none that the user has loaded.
        assert [instance.id for instance in sim.instances] == ["users", "three", "large"]
        sim.set(memory=20)
        sim.load("two")
        response = chat(client, "one")
        assert response.status_code == 500
        assert "insufficient system resources" in response.json()["error"]
        assert [instance.id for instance in sim.instances] == ["users", "two"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"status":"ok"}'])
def test_any_200_to_a_load_or_an_unload_is_one(own_client: httpx.Client, own_sim: Sim, body: bytes) -> None:
    own_sim.set(jit=False)
    own_sim.load("one")
    own_sim.fault(path=LOAD, pre_error=(200, "application/json", body))
    own_sim.fault(path=UNLOAD, pre_error=(200, "application/json", body))
    assert own_client.post("/api/generate", json={"model": "two"}).json()["done_reason"] == "load"
    assert own_client.post("/api/generate", json={"model": "one", "keep_alive": 0}).json()["done_reason"] == "unload"


def test_an_unload_is_not_claimed_where_the_list_does_not_tell_what_is_loaded(
    make_proxy: Callable[..., Proxy],
) -> None:
    with (
        SimThread(models=[SimModel(key="one", loaded=True)], version="0.3.5") as sim,
        make_proxy(sim.url) as proxy,
        proxy.client() as client,
    ):
        response = client.post("/api/generate", json={"model": "one", "keep_alive": 0})
        assert response.status_code == 502
        assert "does not have POST /api/v1/models/unload" in response.json()["error"]
        # A load works there, too.
        assert client.post("/api/generate", json={"model": "one"}).json()["done_reason"] == "load"


def test_a_finite_keep_alive_is_the_time_to_live_of_a_load_on_demand(client: httpx.Client, sim: Sim) -> None:
    assert chat(client, "plain", keep_alive="10m").status_code == 200
    assert sim.requests[-1].json["ttl"] == 600
    assert paths(sim) == [CHAT]


def test_a_model_that_lm_studio_would_keep_longer_is_unloaded_by_our_timer(client: httpx.Client, sim: Sim) -> None:
    sim.load("plain")
    chat(client, "plain", keep_alive=0.5)
    ended = time.monotonic()
    chat(client, "plain")  # a use begins the time anew
    assert [instance.id for instance in sim.instances] == ["plain"]
    wait_for(lambda: not sim.instances)
    assert time.monotonic() - ended > 1
    assert paths(sim) == [CHAT, CHAT, UNLOAD]


@pytest.mark.parametrize("stream", [True, False])
def test_a_keep_alive_of_0_unloads_when_the_answer_has_ended(client: httpx.Client, sim: Sim, stream: bool) -> None:
    sim.script([content("a", "b", "c", "d")])
    sim.set(token_delay=0.1)
    response = chat(client, "plain", keep_alive=0, stream=stream)
    assert response.text.count('"done":true') == 1
    wait_for(lambda: not sim.instances)
    assert paths(sim) == [CHAT, UNLOAD]


def test_a_keep_alive_of_0_waits_for_others_who_use_the_model(client: httpx.Client, sim: Sim) -> None:
    with slow(client, sim, "/api/chat"):
        assert chat(client, "plain", keep_alive=0).status_code == 200
    wait_for(lambda: not sim.instances)
    assert paths(sim) == [CHAT, CHAT, UNLOAD]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": HI, "keep_alive": 0}),
        ("/api/generate", {"prompt": "hi", "keep_alive": 0}),
        (CHAT, {"messages": HI, "stream": True}),
    ],
)
def test_a_keep_alive_of_0_does_not_cut_off_the_next_request(
    client: httpx.Client, sim: Sim, path: str, body: dict[str, Any]
) -> None:
    sim.set(token_delay=0.01)
    for _ in range(20):
        for asked in (chat(client, "plain", keep_alive=0), client.post(path, json={"model": "plain"} | body)):
            assert asked.status_code == 200
            assert "unloaded" not in asked.text
    # A relay that came after the unload has loaded it anew, for as long as LM Studio keeps it.
    chat(client, "plain", keep_alive=0)
    wait_for(lambda: not sim.instances)


def test_a_request_waits_for_an_unload_that_has_begun_and_may_leave_meanwhile(client: httpx.Client, sim: Sim) -> None:
    sim.load("plain")
    slow = sim.fault(path=UNLOAD, hang="accept", times=1)
    assert chat(client, "plain", keep_alive=0).status_code == 200
    wait_for(lambda: slow.times == 0)
    began = time.monotonic()
    for path in ("/api/chat", CHAT):
        with pytest.raises(httpx.ReadTimeout):
            client.post(path, json={"model": "plain", "messages": HI}, timeout=0.3)
    # LM Studio never answers, and that is waited for no longer than for any other answer to a call of ours.
    assert chat(client, "plain").status_code == 200
    assert time.monotonic() - began > 5
    assert paths(sim) == [CHAT, UNLOAD, CHAT]
    # Those who left use it no longer.
    assert chat(client, "plain", keep_alive=0).status_code == 200
    wait_for(lambda: not sim.instances)


def test_an_embedding_after_one_with_a_keep_alive_of_0(client: httpx.Client, sim: Sim) -> None:
    for _ in range(20):
        asked = client.post("/api/embed", json={"model": "text-embedding-unscaled", "input": "x", "keep_alive": 0})
        assert asked.status_code == 200
    wait_for(lambda: not sim.instances)


def test_a_keep_alive_of_0_unloads_when_the_client_leaves(client: httpx.Client, sim: Sim) -> None:
    sim.set(token_delay=0.2)
    body = {"model": "plain", "messages": HI, "keep_alive": 0}
    with marked(cut=True), client.stream("POST", "/api/chat", json=body) as response:
        next(response.iter_lines())
    wait_for(lambda: not sim.instances)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_load_and_unload_without_a_prompt(client: httpx.Client, sim: Sim, path: str) -> None:
    response = client.post(path, json={"model": "plain"})
    assert response.json()["done_reason"] == "load"
    assert [instance.id for instance in sim.instances] == ["plain"]
    response = client.post(path, json={"model": "plain", "keep_alive": "0s"})
    assert response.json()["done_reason"] == "unload"
    assert not sim.instances


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("used_by", ["/api/chat", CHAT])
def test_an_unload_without_a_prompt_waits_for_those_who_use_the_model(
    client: httpx.Client, sim: Sim, path: str, used_by: str
) -> None:
    with slow(client, sim, used_by) as others:
        response = client.post(path, json={"model": "plain", "keep_alive": 0})
        assert response.json()["done_reason"] == "unload"
        assert not others.done()
    wait_for(lambda: not sim.instances)
    assert paths(sim) == [CHAT, UNLOAD]


# Requests in LM Studio's own terms use a model too.


@contextmanager
def slow(client: httpx.Client, sim: Sim, path: str) -> Iterator[Future[httpx.Response]]:
    """Let a stream go on meanwhile; it must come to its end."""
    enough = threading.Event()
    script = sim.script([content("a"), wait(enough), content("b")], times=1)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, path, json={"model": "plain", "messages": HI, "stream": True})
        try:
            wait_for(lambda: script.times == 0)
            yield answer
        finally:
            enough.set()
        text = answer.result().text
    assert text.rstrip().endswith("data: [DONE]") or text.count('"done":true') == 1
    assert "unloaded" not in text


def test_a_keep_alive_of_0_waits_for_a_relay(client: httpx.Client, sim: Sim) -> None:
    with slow(client, sim, CHAT) as others:
        assert chat(client, "plain", keep_alive=0).status_code == 200
        assert not others.done()
    wait_for(lambda: not sim.instances)
    assert paths(sim) == [CHAT, CHAT, UNLOAD]


def leave(client: httpx.Client, sim: Sim, body: dict[str, Any]) -> None:
    sim.fault(token_delay=0.2, times=1)
    with marked(cut=True), client.stream("POST", CHAT, json=body | {"stream": True}) as response:
        next(response.iter_lines())
    wait_for(lambda: sim.active <= 1)


def break_off(client: httpx.Client, sim: Sim, body: dict[str, Any]) -> None:
    sim.fault(disconnect=Disconnect(), times=1)
    with marked(cut=True), suppress(httpx.RemoteProtocolError):
        client.post(CHAT, json=body | {"stream": True})


def say_nothing(client: httpx.Client, sim: Sim, body: dict[str, Any]) -> None:
    sim.fault(disconnect=Disconnect(how="before_headers"), times=1)
    assert client.post(CHAT, json=body).status_code == 502


def refuse(client: httpx.Client, sim: Sim, body: dict[str, Any]) -> None:
    sim.fault(pre_error=(400, "application/json", '{"error":"no"}'), times=1)
    assert client.post(CHAT, json=body).status_code == 400


def answer_whole(client: httpx.Client, sim: Sim, body: dict[str, Any]) -> None:
    assert client.post(CHAT, json=body).status_code == 200


def have_no_such_path(client: httpx.Client, sim: Sim, body: dict[str, Any]) -> None:
    assert client.post("/v1/nothing", json=body).status_code == 404


@pytest.mark.parametrize("end", [leave, break_off, say_nothing, refuse, answer_whole, have_no_such_path])
def test_however_a_relay_ends_it_is_one_use_that_has_ended(
    client: httpx.Client, sim: Sim, end: Callable[[httpx.Client, Sim, dict[str, Any]], None]
) -> None:
    with slow(client, sim, CHAT) as others:
        end(client, sim, {"model": "plain", "messages": HI})
        assert chat(client, "plain", keep_alive=0).status_code == 200
        assert not others.done()
    wait_for(lambda: not sim.instances)


def test_a_relay_begins_the_time_that_a_model_is_kept_anew_and_does_not_change_it(
    client: httpx.Client, sim: Sim
) -> None:
    sim.load("plain")
    chat(client, "plain", keep_alive=1)
    time.sleep(1)  # of 2 s
    with slow(client, sim, CHAT):
        ended = time.monotonic()
    assert [instance.id for instance in sim.instances] == ["plain"]
    wait_for(lambda: not sim.instances)
    assert time.monotonic() - ended > 1.5
    assert paths(sim) == [CHAT, CHAT, UNLOAD]


def loads(sim: Sim) -> list[int | None]:
    return [request.json.get("context_length") for request in sim.requests if request.path == LOAD]


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ({}, {}, []),
        ({"num_ctx": "load"}, {}, [8192]),
        ({"num_ctx": "load", "context_length": "2048"}, {}, [8192]),
        ({"context_length": "2048"}, {}, [2048]),
        ({}, {"OLLAMA_CONTEXT_LENGTH": "2048"}, [2048]),
        ({"context_length": "999999"}, {}, [131072]),
    ],
)
def test_what_context_a_model_is_loaded_with(
    make_proxy: Callable[..., Proxy], options: dict[str, str], environment: dict[str, str], expected: list[int]
) -> None:
    with SimThread(models=[SimModel(key="one")]) as sim:
        with make_proxy(sim.url, options=options, environment=environment) as proxy, proxy.client() as client:
            for length in (8192.0, 16384, 4096):
                assert chat(client, options={"num_ctx": length}).status_code == 200
            shown = client.get("/api/ps").json()["models"][0]["context_length"]
        assert loads(sim) == expected
        assert [(instance.context_length, instance.jit) for instance in sim.instances] == [(shown, not expected)]


def test_a_request_on_v1_loads_as_one_of_ollamas_own_api(make_proxy: Callable[..., Proxy]) -> None:
    with (
        SimThread(models=[SimModel(key=key) for key in ("one", "two")]) as sim,
        make_proxy(sim.url, options={"num_ctx": "load", "context_length": "2048"}) as proxy,
        proxy.client() as client,
    ):
        alias = {"model": "mine", "from": "two", "parameters": {"num_ctx": 4096}}
        assert client.post("/api/create", json=alias).status_code == 200
        for model in ("one", "mine", "one"):
            answer = client.post(CHAT, json={"model": model, "messages": HI})
            assert answer.json()["choices"][0]["message"]["content"] == "You said: hi"
        assert [(instance.id, instance.context_length) for instance in sim.instances] == [("one", 2048), ("two", 4096)]
        # Its own loads are LM Studio's own affair.
        assert client.post("/api/generate", json={"model": "one", "keep_alive": 0}).status_code == 200
        assert client.post(LOAD, json={"model": "one", "context_length": 1024}).json()["status"] == "loaded"
        assert [(instance.id, instance.context_length) for instance in sim.instances] == [("two", 4096), ("one", 1024)]


def test_without_loading_on_demand_a_model_is_loaded_for_v1_too(own_client: httpx.Client, own_sim: Sim) -> None:
    own_sim.set(jit=False)
    assert chat(own_client).status_code == 200
    own_sim.clear()
    assert own_client.post(CHAT, json={"model": "two", "messages": HI}).status_code == 200
    assert paths(own_sim) == [LOAD, CHAT]
    # In the shape of that API.
    own_sim.fault(path=LOAD, pre_error=(500, "application/json", b'{"error":{"message":"no"}}'))
    own_sim.unload("two")
    own_client.get("/api/tags").raise_for_status()
    refused = own_client.post(CHAT, json={"model": "two", "messages": HI})
    assert (refused.status_code, refused.json()["error"]["message"]) == (500, "no")


def test_a_model_grows_with_what_requests_ask_for(make_proxy: Callable[..., Proxy]) -> None:
    models = [SimModel(key="one", default_context_length=4096)]
    with (
        SimThread(models=models) as sim,
        make_proxy(sim.url, options={"num_ctx": "grow"}) as proxy,
        proxy.client() as client,
    ):
        sim.script([content(*"abcdefgh")])
        sim.set(token_delay=0.1)
        with ThreadPoolExecutor(5) as pool:
            slow = pool.submit(chat, client)
            wait_for(lambda: sim.active)
            asked = [pool.submit(chat, client, options={"num_ctx": length}) for length in (6000, 8192, 4096)]
            asked.append(pool.submit(client.post, CHAT, json={"model": "one", "messages": HI}))
            for answer in (slow, *asked):
                assert answer.result().status_code == 200
                assert "unloaded" not in answer.result().text
        assert loads(sim) == [8192]
        assert [path for path in paths(sim) if path != CHAT] == [UNLOAD, LOAD]
        assert [instance.context_length for instance in sim.instances] == [8192]
        # Never smaller, and what has enough is left alone.
        sim.clear()
        for length in (8192, 10):
            assert chat(client, options={"num_ctx": length}).status_code == 200
        assert [request.path for request in sim.requests if request.path != "/api/v1/models"] == [CHAT, CHAT]
        assert client.post("/api/generate", json={"model": "one", "options": {"num_ctx": 9000}}).status_code == 200
        assert loads(sim) == [9000]
        proxy.wait_for_log("one is loaded with a context of 9000 tokens")


def test_what_was_really_loaded_is_read_and_said(make_proxy: Callable[..., Proxy]) -> None:
    with (
        SimThread(models=[SimModel(key="one", granted_context_length=4864)]) as sim,
        make_proxy(sim.url, options={"num_ctx": "grow"}) as proxy,
        proxy.client() as client,
    ):
        for _ in range(2):
            assert chat(client, options={"num_ctx": 16384}).status_code == 200
        proxy.wait_for_log("LM Studio has loaded one with a context of 4864 tokens, not of the 16384 that were asked")
        assert paths(sim) == [LOAD, CHAT, CHAT]


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_is_refused_or_cut_for_lack_of_context_names_the_option_that_helps(
    make_proxy: Callable[..., Proxy], stream: bool
) -> None:
    models = [SimModel(key=key, default_context_length=30) for key in ("one", "two")]
    with SimThread(models=models, auto_evict=False) as sim, make_proxy(sim.url) as proxy, proxy.client() as client:
        response = client.post(
            "/api/generate", json={"model": "one", "prompt": "word " * 40, "stream": stream, "options": {"num_ctx": 99}}
        )
        assert response.status_code == 400
        assert "num_ctx=grow" in response.json()["error"]
        # The answer repeats the prompt, and does not fit any more.
        response = client.post("/api/generate", json={"model": "one", "prompt": "word " * 20, "stream": stream})
        assert '"done_reason":"length"' in response.text
        proxy.wait_for_log("an answer of one was cut at the end of its context of 30 tokens.*num_ctx=grow")
        assert "two" not in proxy.log
        # A silent cut in the middle of the conversation.
        sim.set(overflow="cut")
        messages = [{"role": "user", "content": "something " * 50}, {"role": "user", "content": "hi"}]
        response = client.post("/api/chat", json={"model": "two", "messages": messages, "stream": stream})
        assert response.status_code == 200
        proxy.wait_for_log("LM Studio has cut a prompt of 51 words at least to 22 tokens for two.*num_ctx=grow")
        assert client.post("/api/generate", json={"model": "one", "prompt": "word " * 20}).status_code == 200
        assert proxy.log.count("was cut at the end") == 1


# A load is told as a load.

SECOND = 10**9
LIST = "/api/v1/models"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": HI, "stream": True}),
        ("/api/chat", {"messages": HI, "stream": False}),
        ("/api/generate", {"prompt": "hi"}),
        ("/api/embed", {"model": "text-embedding-e", "input": "hi"}),
    ],
)
def test_the_load_for_which_a_call_waits_is_told_as_a_load(
    make_proxy: Callable[..., Proxy], path: str, body: dict[str, Any]
) -> None:
    models = [SimModel(key="one", load_seconds=2.4), embedder("text-embedding-e", load_seconds=2.4)]
    with SimThread(models=models) as sim, make_proxy(sim.url) as proxy, proxy.client() as client:
        client.get("/api/tags").raise_for_status()
        sim.clear()
        answer = json.loads(client.post(path, json={"model": "one"} | body).text.splitlines()[-1])
        assert answer["load_duration"] >= 2 * SECOND
        assert answer.get("prompt_eval_duration", 0) < 2 * SECOND
        assert answer["load_duration"] + answer.get("prompt_eval_duration", 0) <= answer["total_duration"]
        looks = [request.path for request in sim.requests].count(LIST)
        assert 2 <= looks <= answer["total_duration"] / SECOND + 1, "one a second"
        # A warm call asks nothing, however long it takes.
        sim.clear()
        sim.fault(prefill=1.5)
        answer = json.loads(client.post(path, json={"model": "one"} | body).text.splitlines()[-1])
        assert answer["load_duration"] < 1.5 * SECOND
        assert [request.path for request in sim.requests if request.path == LIST] == []


def test_a_model_that_has_answered_is_known_to_be_loaded(make_proxy: Callable[..., Proxy]) -> None:
    with SimThread(models=[SimModel(key="one")]) as sim, make_proxy(sim.url) as proxy, proxy.client() as client:
        client.get("/api/tags").raise_for_status()
        sim.clear()
        chat(client)
        sim.fault(prefill=1.5)
        chat(client)
        assert [request.path for request in sim.requests] == [CHAT, CHAT]
        # LM Studio is asked when the list that said so is old.
        client.get("/api/tags").raise_for_status()
        chat(client)
        assert [request.path for request in sim.requests] == [CHAT, CHAT, LIST, CHAT]


def test_a_client_that_leaves_during_a_load_is_the_last_to_ask_for_it(make_proxy: Callable[..., Proxy]) -> None:
    with SimThread(models=[SimModel(key="one", load_seconds=30)]) as sim, make_proxy(sim.url) as proxy:
        with proxy.client() as client:
            client.get("/api/tags").raise_for_status()
            with pytest.raises(httpx.ReadTimeout):
                client.post("/api/chat", json={"model": "one", "messages": HI}, timeout=1.5)
        wait_for(lambda: not sim.active)
        sim.clear()
        time.sleep(1.5)
        assert sim.requests == []


def test_what_stays_loaded_is_said_at_the_end(make_proxy: Callable[..., Proxy]) -> None:
    with SimThread(models=[SimModel(key="one")]) as sim:
        with make_proxy(sim.url) as proxy, proxy.client() as client:
            chat(client, keep_alive="1h")
        assert "stays loaded" in proxy.log


def test_a_client_that_leaves_while_a_model_is_loaded_leaves_no_request_behind(
    make_proxy: Callable[..., Proxy],
) -> None:
    with SimThread(models=[SimModel(key="one", load_seconds=1)], jit=False) as sim, make_proxy(sim.url) as proxy:
        with proxy.client() as client:
            assert client.get("/api/tags").status_code == 200
            with pytest.raises(httpx.ReadTimeout):
                client.post("/api/chat", json={"model": "one", "messages": HI}, timeout=0.3)
        wait_for(lambda: sim.instances)
        time.sleep(0.3)
        assert paths(sim) == [CHAT, LOAD]
        assert sim.active == 0
