"""LM Studio answers for a model that it does not have with the one that is loaded: such an answer is never told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import HI, Proxy, StartProxy, ndjson, post_bytes, read_flows

from ollama_lmstudio.sim import Sim, SimModel, SimThread, content, embedder

GONE = "q3"
LOADED = "plain"
EMBEDDER = "text-embedding-gone"
OTHER_EMBEDDER = "text-embedding-loaded"
CHAT = "/v1/chat/completions"

# Every way to ask a model, by the path that LM Studio is called with.
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/api/chat", {"messages": HI}),
    "chat, one object": ("/api/chat", {"messages": HI, "stream": False}),
    "generate": ("/api/generate", {"prompt": "hi"}),
    "generate, one object": ("/api/generate", {"prompt": "hi", "stream": False}),
    "raw": ("/api/generate", {"prompt": "hi", "raw": True}),
    "chat completions": (CHAT, {"messages": HI}),
    "chat completions, stream": (CHAT, {"messages": HI, "stream": True}),
    "completions": ("/v1/completions", {"prompt": "hi"}),
    "completions, stream": ("/v1/completions", {"prompt": "hi", "stream": True}),
    "responses": ("/v1/responses", {"input": "hi"}),
    "responses, stream": ("/v1/responses", {"input": "hi", "stream": True}),
    "messages": ("/v1/messages", {"messages": HI, "max_tokens": 9}),
    "messages, stream": ("/v1/messages", {"messages": HI, "max_tokens": 9, "stream": True}),
    "v0": ("/api/v0/chat/completions", {"messages": HI}),
    "v0, stream": ("/api/v0/chat/completions", {"messages": HI, "stream": True}),
}
EMBEDDINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "embed": ("/api/embed", {"input": "hi"}),
    "embeddings": ("/api/embeddings", {"prompt": "hi"}),
    "v1 embeddings": ("/v1/embeddings", {"input": "hi"}),
    "v0 embeddings": ("/api/v0/embeddings", {"input": "hi"}),
}


@pytest.fixture(scope="module")
def lmstudio() -> Iterator[Sim]:
    with SimThread(models=[SimModel(key=LOADED, loaded=True), embedder(OTHER_EMBEDDER)]) as sim:
        sim.load(OTHER_EMBEDDER)
        yield sim
        assert not sim.failures


@pytest.fixture(scope="module")
def bridge(lmstudio: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(lmstudio.url, state_dir=tmp_path_factory.mktemp("state")) as proxy:
        yield proxy


def remember(sim: Sim, client: httpx.Client, *models: SimModel) -> None:
    """Let the bridge read a list that has these models, and delete them."""
    for model in models:
        sim.download(model)
    # What is loaded is always looked up.
    client.get("/api/ps").raise_for_status()
    for model in models:
        sim.delete(model.key)
    sim.clear()


@pytest.fixture
def client(bridge: Proxy) -> Iterator[httpx.Client]:
    with bridge.client() as client:
        yield client


def asked(sim: Sim) -> list[str]:
    """The models that LM Studio was asked for, in the order of the requests."""
    return [json.loads(request.body)["model"] for request in sim.requests if request.method == "POST"]


@pytest.mark.parametrize(("path", "body"), (QUESTIONS | EMBEDDINGS).values(), ids=QUESTIONS | EMBEDDINGS)
def test_a_model_that_has_vanished_is_not_found(
    lmstudio: Sim, client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    gone = embedder(EMBEDDER) if "embed" in path else SimModel(key=GONE)
    remember(lmstudio, client, gone)
    answer = client.post(path, json={"model": gone.key, **body})
    assert asked(lmstudio) == [gone.key], "the list was fresh enough to ask for it"
    assert answer.status_code == 404, answer.text
    assert gone.key in answer.text
    assert "not found" in answer.text
    error = answer.json()["error"]
    assert isinstance(error, str) == (path in ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings"))
    assert LOADED not in answer.text.replace("text-embedding-loaded", "plain")
    # From now on the list is right, and LM Studio is not asked.
    lmstudio.clear()
    assert client.post(path, json={"model": gone.key, **body}).status_code == 404
    assert asked(lmstudio) == []


@pytest.mark.parametrize(("path", "body"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_name_that_means_another_model_by_now_gets_that_ones_answer(
    lmstudio: Sim, client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    remember(lmstudio, client, SimModel(key="qwen3-4b"))
    lmstudio.download(SimModel(key="qwen3-8b"))
    lmstudio.script([content("right")], lambda body: body["model"] == "qwen3-8b")
    try:
        answer = client.post(path, json={"model": "qwen3", **body})
        assert asked(lmstudio) == ["qwen3-4b", "qwen3-8b"]
        assert answer.status_code == 200
        assert "right" in answer.text
    finally:
        lmstudio.delete("qwen3-8b")
        lmstudio.scripts.clear()


def test_an_instance_that_was_loaded_since_is_the_model_that_was_asked_for(
    lmstudio: Sim, bridge: Proxy, client: httpx.Client
) -> None:
    lmstudio.download(SimModel(key="named"))
    lmstudio.unload(LOADED)
    client.get("/api/ps").raise_for_status()
    lmstudio.load("named", instance_id="my-own-name")
    try:
        lmstudio.clear()
        for number in range(3):
            lines = ndjson(client.post("/api/chat", json={"model": "named", "messages": HI}))
            assert lines[-1]["done"]
            lists = [request.path for request in lmstudio.requests if request.method == "GET"]
            assert len(lists) == 1, f"the list is read anew for the first answer only, not for number {number}"
    finally:
        lmstudio.delete("named")
        lmstudio.load(LOADED)


def test_the_wrong_answer_is_in_the_flow_but_nowhere_else(
    lmstudio: Sim, start_proxy: StartProxy, tmp_path: Any
) -> None:
    flows = tmp_path / "flows"
    proxy = start_proxy(lmstudio.url, "-w", str(flows))
    with proxy.client() as client:
        remember(lmstudio, client, SimModel(key=GONE))
        assert client.post("/api/chat", json={"model": GONE, "messages": HI}).status_code == 404
    proxy.wait_for_log(f"LM Studio answered with {LOADED} in place of {GONE}")
    proxy.stop()
    (flow,) = [flow for flow in read_flows(flows) if flow.request.path == CHAT]
    assert flow.response is not None
    assert flow.response.status_code == 404
    assert json.loads(flow.response.content or b"") == {"error": f"model '{GONE}' not found"}


# The bridge's own number is 20 s, for which no test has to wait.
HELD_FOR_A_SECOND = """\
from ollama_lmstudio.internals import held_heads

held_heads.HOLD_SECONDS = 1
"""


def test_a_model_that_vanishes_while_nothing_comes_is_found_out_before_the_head_goes(
    lmstudio: Sim, start_proxy: StartProxy, tmp_path: Path
) -> None:
    # LM Studio's head comes at once, but the first token only after the time for which a head is held.
    hasty = tmp_path / "hasty.py"
    hasty.write_text(HELD_FOR_A_SECOND)
    with start_proxy(lmstudio.url, "-s", str(hasty)).client() as client:
        for path in ("/api/chat", CHAT):
            remember(lmstudio, client, SimModel(key=GONE))
            lmstudio.fault(path=CHAT, prefill=60, headers_first=True, times=1)
            with client.stream("POST", path, json={"model": GONE, "messages": HI, "stream": True}) as answer:
                answer.read()
                assert answer.status_code == 404


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/v0/chat/completions"])
def test_json_that_lm_studio_may_read_and_the_bridge_cannot(
    lmstudio: Sim, client: httpx.Client, path: str, encoding: str
) -> None:
    """The name in it would not have been looked up, and the loaded model would answer for it."""
    lmstudio.clear()
    body = json.dumps({"model": "nope", "messages": HI, "max_tokens": 9}).encode(encoding)
    answer = client.post(path, content=body, headers={"Content-Type": f"application/json; charset={encoding}"})
    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["error"]["message"]
    assert asked(lmstudio) == []


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/api/v0/chat/completions"])
def test_a_name_under_a_key_in_another_case(lmstudio: Sim, client: httpx.Client, path: str) -> None:
    lmstudio.clear()
    assert client.post(path, json={"Model": "nope", "messages": HI, "prompt": "hi"}).status_code == 404
    assert asked(lmstudio) == []
    answer = client.post(path, json={"MODEL": LOADED.upper(), "messages": HI, "prompt": "hi"})
    assert (answer.status_code, answer.json()["model"], asked(lmstudio)) == (200, LOADED, [LOADED])


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/v0/chat/completions"])
def test_json_that_is_nested_too_deeply_for_the_bridge(lmstudio: Sim, client: httpx.Client, path: str) -> None:
    lmstudio.clear()
    for beyond in (b"[" * 9999 + b"]" * 9999, b"1" * 5000):
        answer = client.post(path, content=b'{"model":"nope","messages":[],"x":%s}' % beyond)
        assert (answer.status_code, "nested too deeply" in answer.text) == (400, True)
    assert asked(lmstudio) == []


def test_a_path_that_is_decoded_does_not_split_the_request(lmstudio: Sim, bridge: Proxy) -> None:
    lmstudio.clear()
    path = "/v1/models/a/b%20HTTP/1.1%0D%0AHost:%20x%0D%0A%0D%0ADELETE%20/api/v1/x%3Fy"
    with bridge.client() as client:
        for method in ("POST", "PUT", "DELETE"):
            assert client.request(method, httpx.URL(bridge.url).copy_with(raw_path=path.encode())).status_code == 404
    assert [request.path for request in lmstudio.requests if "HTTP/1.1" not in request.path] == []


def test_the_right_answer_to_a_stream_has_one_length(lmstudio: Sim, bridge: Proxy, client: httpx.Client) -> None:
    """LM Studio's first answer came in chunks, and the one that is told is whole."""
    remember(lmstudio, client, SimModel(key="qwen3-4b"))
    lmstudio.download(SimModel(key="qwen3-8b"))
    try:
        request = post_bytes(CHAT, {"model": "qwen3", "messages": HI, "stream": True})
        answer = bridge.raw(request)
        assert (answer.status, answer.header("transfer-encoding")) == (200, None)
        assert len(answer.body) == int(answer.header("content-length") or -1)
        assert b"[DONE]" in answer.body
    finally:
        lmstudio.delete("qwen3-8b")
