"""What a saved file tells: both sides of every exchange, our own calls, and no secret."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mitmproxy import http
from tests.strict.reader import marked
from tests.wire.conftest import CHAT, EMBEDDER, HI, THINKING, Proxy, StartProxy, models, ndjson, post_bytes, read_flows

from ollama_lmstudio.record import record
from ollama_lmstudio.record.record import Record
from ollama_lmstudio.sim import Disconnect, MidError, Sim, SimThread, content, end

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"
KEY = "clients-own-key"

Saved = Callable[[], list[tuple[http.HTTPFlow, Record]]]


@pytest.fixture
def lmstudio() -> Iterator[Sim]:
    with SimThread(models=models()) as sim:
        yield sim


@pytest.fixture
def recording(tmp_path: Path, lmstudio: Sim, start_proxy: StartProxy) -> tuple[Proxy, Saved]:
    """A proxy that saves to a file, and what is in there once it has stopped."""
    path = tmp_path / "flows"
    proxy = start_proxy(lmstudio.url, "-w", str(path), "-v", options={"own_calls": "all"})

    def saved() -> list[tuple[http.HTTPFlow, Record]]:
        proxy.stop()
        return [(flow, kept) for flow in read_flows(path) if (kept := record.of(flow))]

    return proxy, saved


def one(saved: Saved, path: str) -> tuple[http.HTTPFlow, Record]:
    """Give the only flow of a client's path."""
    ((flow, kept),) = [(flow, kept) for flow, kept in saved() if kept.path == path]
    assert flow.response is not None
    return flow, kept


def test_a_streamed_chat(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    body = {"model": "Llama3.2:3b", "messages": HI, "options": {"temperature": 0.5, "mirostat": 1}}
    # Of an answer that comes at once the record tells no speed.
    lmstudio.fault(times=1, token_delay=0.01)
    with proxy.client() as client:
        lines = client.post("/api/chat?x=1", json=body, headers={"X-Own": "1"})
    flow, kept = one(saved, "/api/chat")
    assert (kept.kind, kept.method, kept.query, kept.model) == ("call", "POST", "x=1", "Llama3.2:3b")
    assert json.loads(kept.request) == body
    assert ("x-own", "1") in kept.headers
    assert (kept.upstream_model, kept.dropped) == (CHAT, ("mirostat",))
    call = lmstudio.requests[-1]
    assert flow.request.path == "/v1/chat/completions?x=1"
    assert flow.request.raw_content == call.body
    assert kept.status == 200
    assert dict(kept.upstream_headers)["Content-Type"] == "text/event-stream"
    assert kept.upstream.startswith(b'data: {"id":"chatcmpl-')
    assert kept.upstream.endswith(b"data: [DONE]\n\n")
    assert kept.upstream_size == len(kept.upstream)
    assert flow.response is not None
    assert flow.response.text == lines.text
    assert kept.response_size == len(lines.content)
    last = json.loads(lines.text.splitlines()[-1])
    numbers = kept.numbers
    assert numbers is not None
    assert (numbers.total, numbers.generation, numbers.load) == (
        last["total_duration"],
        last["eval_duration"],
        last["load_duration"],
    )
    assert (numbers.prompt_tokens, numbers.answer_tokens) == (last["prompt_eval_count"], last["eval_count"])
    assert numbers.done_reason == "stop"
    assert 0 < numbers.first_token <= numbers.total


def test_one_object(recording: tuple[Proxy, Saved]) -> None:
    proxy, saved = recording
    with proxy.client() as client:
        answer = client.post("/api/chat", json={"model": CHAT, "messages": HI, "stream": False})
    flow, kept = one(saved, "/api/chat")
    assert flow.response is not None
    assert flow.response.text == answer.text
    assert kept.upstream.endswith(b"data: [DONE]\n\n")
    assert kept.numbers is not None
    assert kept.numbers.answer_tokens == answer.json()["eval_count"]


def test_embeddings(recording: tuple[Proxy, Saved]) -> None:
    proxy, saved = recording
    with proxy.client() as client:
        client.post("/api/embed", json={"model": EMBEDDER, "input": ["a", "b c"]}).raise_for_status()
    _, kept = one(saved, "/api/embed")
    assert (kept.kind, kept.status) == ("call", 200)
    assert len(json.loads(kept.upstream)["data"]) == 2
    assert kept.numbers is not None
    assert kept.numbers.prompt_tokens == 3
    assert kept.numbers.total > 0


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_passed_on(recording: tuple[Proxy, Saved], stream: bool) -> None:
    proxy, saved = recording
    body = {"model": "Llama3.2:3b", "messages": HI, "stream": stream, "stream_options": {"include_usage": True}}
    with proxy.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    flow, kept = one(saved, "/v1/chat/completions")
    assert (kept.kind, kept.model, kept.upstream_model) == ("relay", "Llama3.2:3b", CHAT)
    assert json.loads(kept.request)["model"] == "Llama3.2:3b"
    assert json.loads(flow.request.raw_content or b"")["model"] == CHAT
    assert flow.response is not None
    assert flow.response.raw_content == answer.content
    assert kept.numbers is not None
    assert (kept.numbers.prompt_tokens, kept.numbers.answer_tokens) == (5, 4)
    assert kept.numbers.done_reason == "stop"
    assert (kept.numbers.first_token > 0) == stream


def test_answers_of_our_own_and_calls_of_our_own(recording: tuple[Proxy, Saved]) -> None:
    proxy, saved = recording
    with proxy.client() as client:
        client.get("/api/version")
        client.post("/api/show", json={"model": CHAT})
        client.post("/api/generate", json={"model": CHAT})
        client.post("/api/generate", json={"model": CHAT, "keep_alive": 0})
        client.post("/api/pull", json={"model": "nobody/has-this"})
    flows = saved()
    by_path = {kept.path: (flow, kept) for flow, kept in flows}
    flow, kept = by_path["/api/show"]
    assert (kept.kind, kept.model, flow.request.path) == ("answer", CHAT, "/api/show")
    assert json.loads(kept.request) == {"model": CHAT}
    assert by_path["/api/version"][1].kind == "answer"
    own = {kept.purpose: (flow, kept) for flow, kept in flows if kept.kind == "own"}
    assert set(own) == {"model list", "load on demand", "unload", "download"}
    flow, kept = own["load on demand"]
    assert (flow.request.path, json.loads(flow.request.raw_content or b"")["model"]) == ("/v1/chat/completions", CHAT)
    assert flow.response is not None
    assert flow.response.json()["model"] == CHAT
    assert flow.response.headers["content-length"] == str(len(flow.response.raw_content or b""))
    assert kept.numbers is not None
    assert kept.numbers.total > 0


def test_errors(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    lmstudio.script([content("He", "llo")], match="fail")
    lmstudio.fault(match="fail", disconnect=Disconnect(1))
    with proxy.client() as client:
        ndjson_ = client.post("/api/chat", json={"model": CHAT, "messages": [{"role": "user", "content": "fail"}]})
        refused = client.post("/api/chat", json={"model": "nosuch", "messages": HI})
    flows = {kept.model: (flow, kept) for flow, kept in saved() if kept.path == "/api/chat"}
    flow, kept = flows[CHAT]
    assert flow.response is not None
    assert flow.response.text == ndjson_.text
    assert "closed the connection" in kept.error
    assert "closed the connection" in flow.response.text
    flow, kept = flows["nosuch"]
    assert (kept.kind, flow.response and flow.response.text) == ("answer", refused.text)


def test_an_answer_that_mitmproxy_cannot_give(tmp_path: Path, start_proxy: StartProxy) -> None:
    with SimThread(models=models()) as lmstudio:
        proxy = start_proxy(lmstudio.url, "-w", str(tmp_path / "flows"))
        proxy.wait_for_log(r"\(\d+ models\)")
    with proxy.client() as client:
        answer = client.post("/api/chat", json={"model": CHAT, "messages": HI})
    assert answer.status_code == 503
    proxy.stop()
    (flow,) = [flow for flow in read_flows(tmp_path / "flows") if flow.metadata["ollama_path"] == "/api/chat"]
    assert flow.error is not None
    assert flow.response is not None
    assert (flow.response.status_code, flow.response.text) == (503, answer.text)
    assert flow.metadata["ollama_error"] == answer.json()["error"]


def test_a_client_that_leaves(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    lmstudio.fault(token_delay=0.2)
    body = {"model": CHAT, "messages": [{"role": "user", "content": "one two three four five"}]}
    with marked(cut=True), proxy.client() as client, client.stream("POST", "/api/chat", json=body) as response:
        next(response.iter_lines())
    proxy.wait_for(lambda: not lmstudio.active)
    time.sleep(0.2)
    flow, kept = one(saved, "/api/chat")
    assert kept.error == "Client disconnected."
    assert flow.response is not None
    assert (flow.response.raw_content or b"").startswith(b'{"model":')
    assert kept.upstream.startswith(b"data: {")


def test_large_bodies_are_cut_for_showing_alone(tmp_path: Path, lmstudio: Sim, start_proxy: StartProxy) -> None:
    path = tmp_path / "flows"
    proxy = start_proxy(lmstudio.url, "-w", str(path), options={"max_kept_size": "1000"})
    text = "word " * 2000
    lmstudio.script([content(*["word "] * 2000)])
    with proxy.client() as client:
        lines = ndjson(client.post("/api/chat", json={"model": CHAT, "messages": [{"role": "user", "content": text}]}))
        passed = client.post(
            "/v1/chat/completions",
            json={"model": CHAT, "messages": [{"role": "user", "content": text}], "stream": True},
        )
    assert "".join(line["message"]["content"] for line in lines) == text
    assert passed.text.count('"content":"word "') == 2000
    proxy.stop()
    for flow in read_flows(path):
        kept = record.of(flow)
        assert kept is not None
        if kept.kind in ("own", "answer"):
            continue
        assert len(kept.request) == 1000
        assert len(kept.upstream) == (1000 if kept.kind == "call" else 0)
        assert kept.request_size > 10000
        assert flow.response is not None
        assert len(flow.response.raw_content or b"") == 1000
        assert kept.response_size > 100_000
        assert kept.numbers is not None
        assert kept.numbers.done_reason == "stop"
        assert kept.numbers.answer_tokens == (2000 if kept.kind == "call" else 0)


def test_what_is_no_text_is_saved_too(recording: tuple[Proxy, Saved]) -> None:
    proxy, saved = recording
    odd = b'{"model":"\\ud800"}'
    with marked(foreign=True):
        proxy.raw(post_bytes("/api/chat", {"model": CHAT, "messages": HI}, headers="User-Agent: M\xfcller\r\n"))
        proxy.raw(b"GET /api/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        proxy.raw(b"GET /api/tags?a=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n")
        proxy.raw(b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(odd), odd))
    assert {"/api/chat", "/api/\ufffd", "/api/tags", "/api/show"} <= {kept.path for _, kept in saved()}
    assert "rror" not in proxy.log.replace("Error: 4", "")


def test_an_error_that_a_stream_begins_with_is_kept(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    lmstudio.fault(mid_error=MidError(after=0, message="boom"))
    with proxy.client() as client:
        answer = client.post("/api/chat", json={"model": CHAT, "messages": HI})
    flow, kept = one(saved, "/api/chat")
    assert flow.response is not None
    assert (flow.response.status_code, flow.response.text) == (500, answer.text)
    assert kept.response_size == len(answer.content)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_secrets_are_in_no_file_and_no_log(tmp_path: Path, lmstudio: Sim, start_proxy: StartProxy, path: str) -> None:
    lmstudio.set(auth={TOKEN})
    saved = tmp_path / "flows"
    arguments = ("-w", str(saved), "-vv", "--flow-detail", "4")
    proxy = start_proxy(lmstudio.url, *arguments, options={"lmstudio_token": TOKEN, "api_key": KEY})
    headers = {"Authorization": f"Bearer {KEY}", "x-api-key": KEY, "Proxy-Authorization": f"Basic {KEY}"}
    headers |= {"api-key": KEY, "Cookie": f"session={KEY}"}
    with proxy.client(headers=headers) as client:
        client.post(path, json={"model": CHAT, "messages": HI, "stream": True}).raise_for_status()
        digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        assert client.post(f"/api/blobs/{digest}", content=b"hello").status_code == 201
        ndjson(client.post("/api/pull", json={"model": CHAT, "password": KEY}))
        client.post("/api/push", json={"model": CHAT, "password": KEY}).raise_for_status()
    assert KEY not in str([request.headers for request in lmstudio.requests])
    assert {request.header("authorization") for request in lmstudio.requests} == {f"Bearer {TOKEN}"}
    proxy.stop()
    for text in (saved.read_bytes().decode("latin-1"), proxy.log):
        assert TOKEN not in text
        assert KEY not in text
    assert "Bearer ***" in saved.read_bytes().decode("latin-1")


def test_the_answer_to_a_cut_off_prompt_says_so(recording: tuple[Proxy, Saved], lmstudio: Sim) -> None:
    proxy, saved = recording
    lmstudio.script([content("a"), end("length")])
    with proxy.client() as client:
        client.post("/api/generate", json={"model": THINKING, "prompt": "long"}).raise_for_status()
    _, kept = one(saved, "/api/generate")
    assert kept.numbers is not None
    assert kept.numbers.done_reason == "length"


def test_flows_are_found_by_the_clients_words(tmp_path: Path, lmstudio: Sim, start_proxy: StartProxy) -> None:
    path = tmp_path / "flows"
    proxy = start_proxy(
        lmstudio.url, "-w", str(path), "--set", "save_stream_filter=~meta /api/chat & ~meta Llama3.2:3b"
    )
    with proxy.client() as client:
        client.post("/api/chat", json={"model": "Llama3.2:3b", "messages": HI})
        client.post("/api/chat", json={"model": THINKING, "messages": HI})
    proxy.stop()
    assert [flow.request.path for flow in read_flows(path)] == ["/v1/chat/completions"]
    # What is not saved is printed all the same.
    assert re.search(rf'/api/chat +{THINKING.partition("/")[2]} +200  "hi"', proxy.log)


def test_mitmdump_shows_both_sides_in_the_terminal(lmstudio: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(lmstudio.url, "--flow-detail", "3")
    with proxy.client() as client:
        ndjson(client.post("/api/chat", json={"model": "Llama3.2:3b", "messages": HI}))
    proxy.wait_for_log("done reason: stop\n(?s:.*)done reason: stop")
    for text in ("━━ POST /api/chat", f"model: Llama3.2:3b -> {CHAT}", "You said: hi", "first token: "):
        assert text in proxy.log
