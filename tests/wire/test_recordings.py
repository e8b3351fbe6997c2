"""A saved file, opened where there is no LM Studio: it answers clients, and its flows can be replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import CHAT, EMBEDDER, HI, Proxy, StartProxy, free_port, models, read_flows
from tests.wire.web import Web

from ollama_lmstudio.sim import SimThread

ASKED: list[tuple[str, str, Any]] = [
    ("GET", "/api/tags", None),
    ("POST", "/api/show", {"model": CHAT}),
    ("POST", "/api/chat", {"model": "Llama3.2:3b", "messages": HI}),
    ("POST", "/api/chat", {"model": "Llama3.2:3b", "messages": HI, "stream": False}),
    ("POST", "/api/generate", {"model": CHAT, "prompt": "hi"}),
    ("POST", "/api/embed", {"model": EMBEDDER, "input": "hi"}),
    ("POST", "/api/chat", {"model": "nosuch", "messages": HI}),
    ("POST", "/v1/chat/completions", {"model": CHAT, "messages": HI, "stream": True}),
    ("GET", "/v1/models", None),
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[httpx.Response]]:
    """A file of exchanges, and the answers that the client got."""
    path = tmp_path_factory.mktemp("recording") / "flows"
    with (
        SimThread(models=models()) as sim,
        Proxy(sim.url, "-w", str(path), state_dir=path.parent) as proxy,
        proxy.client() as client,
    ):
        answers = [client.request(method, path_, json=body) for method, path_, body in ASKED]
    return path, answers


def same(answer: httpx.Response, recorded: httpx.Response) -> bool:
    headers = ("content-type", "transfer-encoding", "content-length")
    return (answer.status_code, answer.content, [answer.headers.get(name) for name in headers]) == (
        recorded.status_code,
        recorded.content,
        [recorded.headers.get(name) for name in headers],
    )


def test_clients_are_answered_from_it(recorded: tuple[Path, list[httpx.Response]], start_proxy: StartProxy) -> None:
    path, answers = recorded
    proxy = start_proxy(f"http://127.0.0.1:{free_port()}", "--server-replay", str(path), "--server-replay-reuse")
    with proxy.client() as client:
        for _ in range(2):
            for (method, path_, body), answer in zip(ASKED, answers, strict=True):
                assert same(client.request(method, path_, json=body), answer), (method, path_, body)
        # The order of keys does not matter, everything else does.
        body = {"stream": False, "messages": HI, "model": "Llama3.2:3b"}
        assert same(client.post("/api/chat", json=body), answers[3])
        other = client.post("/api/chat", json={"model": CHAT, "messages": [{"role": "user", "content": "new"}]})
        assert (other.status_code, "not reachable" in other.json()["error"]) == (503, True)


def test_each_answer_is_given_once_unless_it_may_be_again(
    recorded: tuple[Path, list[httpx.Response]], start_proxy: StartProxy
) -> None:
    path, answers = recorded
    proxy = start_proxy(f"http://127.0.0.1:{free_port()}", "--server-replay", str(path))
    _, path_, body = ASKED[2]
    with proxy.client() as client:
        assert same(client.post(path_, json=body), answers[2])
        assert client.post(path_, json=body).status_code == 503


def test_a_saved_file_is_replayed_against_another_lmstudio(
    recorded: tuple[Path, list[httpx.Response]], start_proxy: StartProxy, tmp_path: Path
) -> None:
    path, answers = recorded
    with SimThread(models=models()) as sim:
        proxy = start_proxy(sim.url, "--client-replay", str(path), "-w", str(tmp_path / "again"))
        proxy.wait_for(lambda: sum(request.path == "/v1/embeddings" for request in sim.requests) == 1)
        proxy.wait_for(lambda: sum(request.path == "/v1/chat/completions" for request in sim.requests) == 4)
        proxy.wait_for_log("/v1/models .* replay")
        proxy.stop()
    flows = [flow for flow in read_flows(tmp_path / "again") if flow.is_replay == "request"]
    (embedded,) = [flow.response for flow in flows if flow.request.path == "/v1/embeddings"]
    assert embedded is not None
    assert embedded.json()["embeddings"] == answers[5].json()["embeddings"]
    chats = [flow.response for flow in flows if flow.request.path == "/v1/chat/completions"]
    lines = [(response.raw_content or b"").decode().splitlines() for response in chats if response]
    assert [len(told) for told in lines[:2]] == [len(answers[2].text.splitlines()), 1]
    assert [list(json.loads(line)) for line in lines[0]] == [list(json.loads(line)) for line in answers[2].iter_lines()]


def test_a_saved_file_tells_all_where_it_is_opened(
    recorded: tuple[Path, list[httpx.Response]], start_proxy: StartProxy
) -> None:
    path, _ = recorded
    proxy = start_proxy(None, "-n", "-r", str(path), *Web.arguments(), tool="mitmweb", wait=False)
    web = Web(proxy)
    flow = web.flow(lambda flow: flow["comment"].startswith('"hi"  Llama3.2:3b  '))
    for text in ("━━ POST /api/chat", "user: hi", f"model: Llama3.2:3b -> {CHAT}", "You said: hi", "first token: "):
        assert text in web.view(flow, "request")
    assert "data: [DONE]" in web.view(flow, "response", "LM%20Studio")
    assert "reachable" not in proxy.log
    assert "Serving" not in proxy.log
    web.http.close()
