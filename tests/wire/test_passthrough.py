"""LM Studio's own APIs through a real mitmdump: byte for byte, but for the model's name."""

from __future__ import annotations

import bz2
import gzip
import json
import re
import time
from functools import cache
from typing import Any

import httpx
import pytest
from mitmproxy.net import encoding as encoding_of_mitmproxy
from tests.wire.conftest import (
    CHAT,
    DOWNLOADABLE,
    EMBEDDER,
    HI,
    THINKING,
    VISION,
    Proxy,
    StartProxy,
    models,
    post_bytes,
)

from ollama_lmstudio.sim import Sim, SimThread

CHATS = "/v1/chat/completions"
MESSAGES = "/v1/messages"
REST = "/api/v0/chat/completions"
# What LM Studio makes up anew for each answer.
MADE_UP = re.compile(
    rb'"(?:\w+_)?id": ?"[^"]*"|"system_fingerprint": ?"[^"]*"|"(?:created|c\w+ed_at)": ?\d+'
    rb'|"time_to[^,]*|"tokens_per[^,]*'
)
# What differs from one transport to the next, or is said to one of them.
TRANSPORT = {"date", "connection", "keep-alive", "transfer-encoding", "etag", "content-length", "x-accel-buffering"}


def both(
    client: httpx.Client, sim: Sim, method: str, path: str, **arguments: Any
) -> tuple[httpx.Response, httpx.Response]:
    """Ask LM Studio through the proxy and directly."""
    with httpx.Client(base_url=sim.url, trust_env=False, timeout=20) as direct:
        return client.request(method, path, **arguments), direct.request(method, path, **arguments)


def assert_same(through: httpx.Response, direct: httpx.Response) -> None:
    """Check that nothing differs but what must."""
    assert through.status_code == direct.status_code
    assert MADE_UP.sub(b"*", through.content) == MADE_UP.sub(b"*", direct.content)
    assert {k: v for k, v in through.headers.items() if k not in TRANSPORT} == {
        k: v for k, v in direct.headers.items() if k not in TRANSPORT
    }


@pytest.mark.parametrize("path", ["/api/v0/models", f"/api/v0/models/{CHAT}", "/api/v1/models"])
def test_lists(client: httpx.Client, sim: Sim, path: str) -> None:
    through, direct = both(client, sim, "GET", path)
    assert_same(through, direct)
    assert through.content == direct.content
    assert through.headers["content-length"] == direct.headers["content-length"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHATS, {"messages": HI}),
        (CHATS, {"messages": HI, "stream": True}),
        (CHATS, {"messages": HI, "stream": True, "stream_options": {"include_usage": True}}),
        (CHATS, {"messages": [{"role": "user", "content": "é\u2028\U0001f600"}], "stream": True}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/completions", {"prompt": "hi", "stream": True}),
        ("/v1/embeddings", {"input": "hi", "model": EMBEDDER}),
        ("/v1/responses", {"input": "hi", "stream": True}),
        ("/v1/messages", {"messages": HI, "max_tokens": 10, "stream": True}),
        ("/api/v0/chat/completions", {"messages": HI, "stream": True}),
        ("/api/v1/chat", {"input": "hi", "stream": True}),
        (CHATS, {"messages": "wrong"}),
        (CHATS, {"messages": HI, "tools": [{"type": "function", "function": {"name": "x", "parameters": []}}]}),
    ],
)
def test_answers(client: httpx.Client, sim: Sim, path: str, body: dict[str, Any]) -> None:
    sim.load(CHAT)
    through, direct = both(client, sim, "POST", path, json={"model": CHAT} | body)
    assert_same(through, direct)
    assert sim.requests[0].body == sim.requests[1].body
    if body.get("stream"):
        assert through.headers["content-type"] == "text/event-stream"
        assert "content-length" not in through.headers


def test_a_stream_flows(client: httpx.Client, sim: Sim) -> None:
    sim.fault(token_delay=0.1)
    with client.stream("POST", CHATS, json={"model": CHAT, "messages": HI, "stream": True}) as response:
        times = [time.monotonic() for _ in response.iter_raw()]
    assert times[-1] - times[0] > 0.2


def test_nginx_is_told_not_to_hold_streams_back(client: httpx.Client, sim: Sim) -> None:
    def told(path: str, **body: Any) -> str | None:
        response = client.post(path, json={"model": CHAT, **body})
        assert response.status_code == 200
        found: str | None = response.headers.get("x-accel-buffering")
        return found

    for stream in (True, False):
        wanted = "no" if stream else None
        assert told("/api/chat", messages=HI, stream=stream) == wanted
        assert told("/api/generate", prompt="hi", stream=stream) == wanted
        assert told("/api/pull", stream=stream) == wanted
        assert told(CHATS, messages=HI, stream=stream) == wanted
        assert told("/v1/responses", input="hi", stream=stream) == wanted
        assert told(MESSAGES, messages=HI, max_tokens=9, stream=stream) == wanted
        assert told("/api/v1/chat", input="hi", stream=stream) == wanted


def test_headers_that_the_request_names_in_connection_are_for_this_hop_only(proxy: Proxy, sim: Sim) -> None:
    headers = "Connection: close, X-Hop, x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Own: 3\r\n"
    for path, body in ((CHATS, {"messages": HI}), ("/v1/nothing", {}), ("/api/v0/models", {})):
        sim.clear()
        proxy.raw(post_bytes(path, {"model": CHAT, **body}, headers=headers))
        (request,) = sim.requests
        assert [request.header(name) for name in ("x-hop", "x-other", "x-own")] == [None, None, "3"]
        assert request.header("connection") in (None, "keep-alive")


def test_an_upload_in_chunks(client: httpx.Client, sim: Sim) -> None:
    body = json.dumps({"model": CHAT, "messages": HI}).encode()
    response = client.post(CHATS, content=iter([body[:9], body[9:]]))
    assert response.json()["choices"][0]["message"]["content"] == "You said: hi"
    assert sim.requests[0].body == body


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_compressed_body_names_its_model_too(client: httpx.Client, sim: Sim, encoding: str) -> None:
    body = json.dumps({"model": "Llama3.2:3b", "messages": HI}).encode()
    compressed = encoding_of_mitmproxy.encode(body, encoding)
    assert isinstance(compressed, bytes)
    response = client.post(CHATS, content=compressed, headers={"Content-Encoding": encoding})
    assert response.json()["choices"][0]["message"]["content"] == "You said: hi"
    assert sim.requests[-1].json["model"] == CHAT
    assert sim.requests[-1].header("content-encoding") is None
    broken = client.post(CHATS, content=b"not compressed", headers={"Content-Encoding": encoding})
    assert broken.status_code == 400


@cache
def too_large(encoding: str) -> bytes:
    """Return a body that is small enough only while it is compressed: to compress it takes seconds."""
    compressed = encoding_of_mitmproxy.encode(bytes(64_000_001), encoding)
    assert isinstance(compressed, bytes)
    return compressed


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "deflate", "br"])
@pytest.mark.parametrize(
    ("path", "kind"), [(CHATS, "invalid_request_error"), (MESSAGES, "request_too_large"), (REST, "invalid_request")]
)
def test_a_small_body_that_becomes_a_large_one(
    client: httpx.Client, sim: Sim, encoding: str, path: str, kind: str
) -> None:
    headers = {"Content-Encoding": encoding, "Origin": "http://localhost:3000"}
    response = client.post(path, content=too_large(encoding), headers=headers)
    assert response.status_code == 413
    assert response.json()["error"]["type"] == kind
    said = "the request's body is larger than 64.0 MB when it is decompressed (option max_decompressed_size)"
    assert response.json()["error"]["message"] == said
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert sim.requests == []


def test_how_large_it_may_become_is_an_option(sim: Sim, start_proxy: StartProxy) -> None:
    body = gzip.compress(json.dumps({"model": CHAT, "messages": HI}).encode())
    proxy = start_proxy(sim.url, options={"max_decompressed_size": "50"})
    with proxy.client(headers={"Content-Encoding": "gzip"}) as client:
        refused = client.post(CHATS, content=body)
        assert refused.status_code == 413
        assert "larger than 50 bytes" in refused.text


def test_what_cannot_be_decompressed_piece_by_piece_goes_on_as_it_is(client: httpx.Client, sim: Sim) -> None:
    compressed = bz2.compress(json.dumps({"model": "Llama3.2:3b", "messages": HI}).encode())
    assert client.post(CHATS, content=compressed, headers={"Content-Encoding": "bz2"}).status_code == 400
    assert sim.requests[-1].body == compressed
    assert sim.requests[-1].header("content-encoding") == "bz2"


# The model's name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (CHAT, CHAT),
        (f"{CHAT}:latest", CHAT),
        (CHAT.upper(), CHAT),
        ("llama3.2:3b", CHAT),
        ("qwen3:8b", THINKING),
        ("qwen3-8b", THINKING),
        ("gpt-oss:20b", "openai/gpt-oss-20b"),
        ("registry.ollama.ai/library/qwen3:8b", THINKING),
    ],
)
@pytest.mark.parametrize("path", [CHATS, "/api/v0/chat/completions"])
def test_the_model_is_found(client: httpx.Client, sim: Sim, path: str, name: str, key: str) -> None:
    # The bytes around it stay, whatever they look like.
    before, after = b'{ "a":[1.0, 1e5,"model"],\n"model" : ', b' ,"messages":[{"role":"user","content":"\\u00e9"}]}  '
    response = client.post(path, content=before + json.dumps(name).encode() + after)
    assert response.status_code == 200
    assert response.json()["model"] == key
    assert sim.requests[0].body == before + json.dumps(key).encode() + after


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHATS, b'{"messages": []}'),
        (CHATS, b'{"model": "nosuch", broken'),
        (CHATS, b"not JSON \xff"),
        (CHATS, b"[1, 2]"),
        (CHATS, b'{"model": 5}'),
        (CHATS, b'{"model": null, "messages": [{"role": "user", "content": "hi"}]}'),
        (CHATS, b'{"x": {"model": "nosuch"}}'),
        ("/v1/anything", b'{"models": 1}'),
        (CHATS, b"[" * 100_000),
    ],
)
def test_a_body_without_a_model_is_not_touched(client: httpx.Client, sim: Sim, path: str, body: bytes) -> None:
    sim.load(CHAT)
    sim.fault(pre_error=(200, "text/plain", "seen"))
    client.post(path, content=body)
    assert [request.body for request in sim.requests] == [body]


@pytest.mark.parametrize("name", ["nosuch", "a b", "gpt-oss:120b-cloud", "plai"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_unknown_model(client: httpx.Client, sim: Sim, name: str, stream: bool) -> None:
    # LM Studio would let the one that is loaded answer.
    sim.load(CHAT)
    answers = {
        path: client.post(path, json={"model": name, "messages": HI, "stream": stream})
        for path in (CHATS, "/v1/messages", "/api/v1/chat")
    }
    assert not any(request.method == "POST" for request in sim.requests)
    status = answers[CHATS].status_code
    assert status == {"nosuch": 404, "plai": 404, "a b": 400}.get(name, 403)
    assert {answer.status_code for answer in answers.values()} == {status}
    own = answers["/api/v1/chat"].json()["error"]
    assert list(own) == ["message", "type", "param", "code"]
    assert own["type"] == "invalid_request"
    assert own["param"] == "model"
    if status == 403:
        # Ollama has its own form for this on every API.
        told = '{"error":"ollama cloud is disabled: remote model is unavailable"}'
        assert {answers[CHATS].text, answers["/v1/messages"].text} == {told}
        return
    error = answers[CHATS].json()["error"]
    assert error == {"message": own["message"], "type": error["type"], "param": None, "code": None}
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    anthropic = answers["/v1/messages"].json()
    assert list(anthropic) == ["type", "error", "request_id"]
    assert anthropic["type"] == "error"
    assert error["type"] == anthropic["error"]["type"] == kind
    if status == 404:
        assert error["message"] == f"model '{name}' not found"


def test_a_download_of_a_model_that_is_not_there(client: httpx.Client, sim: Sim) -> None:
    response = client.post("/api/v1/models/download", json={"model": DOWNLOADABLE})
    assert response.status_code == 200
    assert response.json()["status"] in ("downloading", "already_downloaded")
    assert sim.requests[-1].json == {"model": DOWNLOADABLE}


def test_load_and_unload(client: httpx.Client, sim: Sim) -> None:
    answer = client.post("/api/v1/models/load", json={"model": "qwen3:8b", "context_length": 4096}).json()
    assert answer["instance_id"] == THINKING
    assert sim.instances[0].context_length == 4096
    assert client.post("/api/v1/models/unload", json={"instance_id": THINKING}).json() == {"instance_id": THINKING}
    assert not sim.instances


# Heads


def test_hop_by_hop_headers_stay_here(client: httpx.Client, sim: Sim) -> None:
    headers = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQAAP__",
        "TE": "trailers",
        "Proxy-Authorization": "Basic abc",
        "Proxy-Connection": "keep-alive",
        "Keep-Alive": "timeout=99",
        "If-None-Match": "*",
        "X-Mine": "kept",
        "User-Agent": "mine/1",
    }
    assert client.get("/v1/models", headers=headers).status_code == 200
    (request,) = sim.requests
    got = {name.lower(): value for name, value in request.headers}
    assert (got["x-mine"], got["user-agent"]) == ("kept", "mine/1")
    assert got["host"] == sim.url.removeprefix("http://")
    assert not {name.lower() for name in headers} - {"x-mine", "user-agent"} & set(got)


def test_status_and_headers_are_kept(client: httpx.Client, sim: Sim) -> None:
    sim.fault(path="/v1/anything", pre_error=(418, "text/x-tea", b"\x00\xff"))
    response = client.get("/v1/anything?a=b%20c&d")
    assert (response.status_code, response.content) == (418, b"\x00\xff")
    assert response.headers["content-type"] == "text/x-tea"
    assert response.headers["x-powered-by"] == "Express"
    assert (sim.requests[0].path, sim.requests[0].query) == ("/v1/anything", "a=b%20c&d")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_methods_are_kept(client: httpx.Client, sim: Sim, method: str) -> None:
    client.request(method, "/api/v1/models")
    assert sim.requests[0].method == method


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("POST", "/v1/v1/models")])
def test_a_path_that_nobody_has_is_none_here(client: httpx.Client, sim: Sim, method: str, path: str) -> None:
    response = client.request(method, path)
    assert sim.requests[0].method == method
    assert (response.status_code, response.headers["content-type"]) == (404, "text/plain")
    assert response.text == "404 page not found"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/audio/speech", {"model": "phonon", "input": "hi"}),
        ("/v1/audio/transcriptions", None),
        ("/v1/audio/translations", None),
        ("/v1/decisions", {"model": CHAT, "input": "hi"}),
        ("/api/v1/nothing", {"model": CHAT}),
        ("/api/v0/nothing", None),
    ],
)
def test_a_path_that_this_lm_studio_does_not_have(client: httpx.Client, sim: Sim, path: str, body: Any) -> None:
    response = client.post(path, json=body)
    assert sim.requests[-1].path == path
    message = f"This LM Studio does not have POST {path}; a newer version may."
    error = response.json()["error"]
    assert response.status_code == 404
    if path.startswith("/v1/"):
        assert error == {"message": message, "type": "not_found_error", "param": None, "code": None}
    else:
        assert error == {"message": message, "type": "invalid_request", "param": None, "code": "not_implemented"}


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/audio/speech", "/v1/rerank"])
def test_a_path_that_lm_studio_has_by_now(client: httpx.Client, sim: Sim, path: str) -> None:
    sim.fault(path=path, pre_error=(200, "application/json", '{"answers":{}}'))
    body = {"model": f"{CHAT}:latest", "x": 1.0}
    response = client.post(path, json=body)
    assert (response.status_code, response.text) == (200, '{"answers":{}}')
    name = body["model"] if path.startswith("/v1/audio/") else CHAT
    assert sim.requests[-1].body == json.dumps(body | {"model": name}, separators=(",", ":")).encode()


def test_an_older_lm_studio(start_proxy: StartProxy) -> None:
    with SimThread(models(), version="0.3.20") as sim, start_proxy(sim.url).client() as client:
        answers = {
            path: client.post(path, json={"model": CHAT, **rest})
            for path, rest in (
                ("/v1/responses", {"input": "hi"}),
                ("/v1/messages", {"messages": HI, "max_tokens": 9}),
                ("/api/v1/chat", {"input": "hi"}),
            )
        }
    for path, answer in answers.items():
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"This LM Studio does not have POST {path}; a newer version may."
    assert answers["/v1/messages"].json()["type"] == "error"


@pytest.mark.parametrize("name", [CHAT, f"{CHAT}:latest", "Llama3.2:3b"])
def test_one_model_is_described_under_the_name_it_was_asked_by(client: httpx.Client, name: str) -> None:
    entry = client.get(f"/v1/models/{name}").json()
    assert entry == {"id": name, "object": "model", "created": entry["created"], "owned_by": "library"}
    assert client.get(f"/v1/models/{VISION}").json()["owned_by"] == "google"


def test_a_model_that_is_not_there_is_not_described(client: httpx.Client) -> None:
    response = client.get("/v1/models/nosuch")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "model 'nosuch:latest' not found"


def test_a_head(client: httpx.Client) -> None:
    response = client.head("/api/v1/models")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    "fault", [{"pings": True, "comments": True}, {"newline": "\r\n", "bom": True}, {"split": 5}, {"no_done": True}]
)
def test_a_stream_passes_as_it_is(client: httpx.Client, sim: Sim, fault: dict[str, Any]) -> None:
    sim.load(CHAT)
    sim.fault(**fault)
    body = {"model": CHAT, "messages": HI, "stream": True}
    assert_same(*both(client, sim, "POST", CHATS, json=body))


def test_a_prefix_of_the_path(sim: Sim, proxy: Proxy) -> None:
    with proxy.client() as client:
        assert client.get("/v1/").text == "404 page not found"
        assert client.get("/v1").status_code == 404
