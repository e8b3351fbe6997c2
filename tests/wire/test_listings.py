"""What is answered without a model, and who may come in: through a real mitmdump."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import (
    CHAT,
    CODER,
    EMBEDDER,
    GPT_OSS,
    HI,
    NO_TOOLS,
    THINKING,
    VISION,
    Proxy,
    RawAnswer,
    models,
    ndjson,
    post_bytes,
)

from ollama_lmstudio.sim import Sim, SimThread

KEY = "client-key-4711"
TOKEN = "lmstudio-token-0815"


def ask(proxy: Proxy, method: str, path: str, *headers: str, host: str = "127.0.0.1:11434") -> RawAnswer:
    """Send a bare request; the headers are lines."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "Connection: close", "", ""]
    return proxy.raw("\r\n".join(lines).encode())


# What is there


def test_root(client: httpx.Client, sim: Sim) -> None:
    response = client.get("/")
    assert (response.status_code, response.text) == (200, "Ollama is running")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert "server" not in response.headers
    assert not sim.requests


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
def test_head(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(got.content))
    assert head.headers["content-type"] == got.headers["content-type"]


def test_version(client: httpx.Client, sim: Sim) -> None:
    response = client.get("/api/version")
    assert re.fullmatch(r'\{"version":"\d+\.\d+\.\d+"\}', response.text)
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert not sim.requests


def test_tags(client: httpx.Client, sim: Sim) -> None:
    response = client.get("/api/tags")
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    entries = {entry["name"]: entry for entry in response.json()["models"]}
    assert {f"{model.key}:latest" for model in models()} == set(entries)
    for entry in entries.values():
        assert list(entry) == ["name", "model", "modified_at", "size", "digest", "details", "capabilities"]
        assert entry["model"] == entry["name"]
        assert re.fullmatch(r"[0-9a-f]{64}", entry["digest"])
        assert datetime.fromisoformat(entry["modified_at"]) < datetime.now(UTC)
    assert len({entry["digest"] for entry in entries.values()}) == len(entries)
    assert {name: set(entry["capabilities"]) for name, entry in entries.items()} | {
        f"{CHAT}:latest": {"completion", "tools"},
        f"{VISION}:latest": {"completion", "tools", "vision"},
        f"{THINKING}:latest": {"completion", "tools", "thinking"},
        f"{GPT_OSS}:latest": {"completion", "tools", "thinking"},
        f"{NO_TOOLS}:latest": {"completion"},
        f"{CODER}:latest": {"completion", "tools", "insert"},
        f"{EMBEDDER}:latest": {"embedding"},
    } == {name: set(entry["capabilities"]) for name, entry in entries.items()}
    assert entries[f"{CHAT}:latest"]["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "unknown",
        "quantization_level": "Q4_K_M",
        "context_length": 131072,
    }
    assert not sim.instances


def test_ps(client: httpx.Client, sim: Sim) -> None:
    assert client.get("/api/ps").text == '{"models":[]}'
    sim.load(CHAT, jit=True, ttl=300)
    sim.load(GPT_OSS, context_length=4096)
    response = client.get("/api/ps")
    forever, short = response.json()["models"]
    assert list(short) == [
        "name",
        "model",
        "size",
        "digest",
        "details",
        "expires_at",
        "size_vram",
        "context_length",
    ]
    assert (forever["name"], short["name"]) == (f"{GPT_OSS}:latest", f"{CHAT}:latest")
    assert (forever["context_length"], short["context_length"]) == (4096, 131072)
    assert "context_length" not in short["details"]
    assert short["size_vram"] == short["size"] > 0
    left = datetime.fromisoformat(short["expires_at"]) - datetime.now(UTC)
    assert 295 <= left.total_seconds() <= 301
    assert int(forever["expires_at"][:4]) > 2300
    digests = {entry["name"]: entry["digest"] for entry in client.get("/api/tags").json()["models"]}
    assert digests[short["name"]] == short["digest"]


@pytest.mark.parametrize("key", ["model", "name"])
def test_show(client: httpx.Client, sim: Sim, key: str) -> None:
    response = client.post("/api/show", json={key: "qwen3:8b"})
    answer = response.json()
    assert response.status_code == 200
    assert set(answer["capabilities"]) == {"completion", "tools", "thinking"}
    architecture = answer["model_info"]["general.architecture"]
    assert answer["model_info"][f"{architecture}.context_length"] == 131072
    assert answer["details"]["quantization_level"] == "Q4_K_M"
    assert not sim.instances
    assert all(request.method == "GET" for request in sim.requests)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "nosuch"}, 404, "model 'nosuch:latest' not found"),
        ({"model": "ns/NoSuch:7b"}, 404, "model 'ns/NoSuch:7b' not found"),
        ({}, 400, "model is required"),
        ({"model": "a b"}, 400, "invalid model name"),
    ],
)
def test_show_of_what_is_not_there(client: httpx.Client, body: Any, status: int, error: str) -> None:
    response = client.post("/api/show", json=body)
    assert (response.status_code, response.json()) == (status, {"error": error})


def test_health(proxy: Proxy, client: httpx.Client, sim: Sim) -> None:
    sim.load(CHAT)
    proxy.wait_for(lambda: client.get("/health").json().get("loaded_instances") == 1)
    answer = client.get("/health").json()
    assert (answer["status"], answer["models"]) == ("ok", len(models()))
    sim.fault(path="/api/v1/models", html_502=True)
    proxy.wait_for(lambda: client.get("/health").status_code == 503)
    sim.clear()
    response = client.get("/health")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert "<" not in response.text
    assert client.head("/health").status_code == 503
    assert client.get("/health/live").status_code == 200
    sim.faults.clear()
    proxy.wait_for(lambda: client.get("/health").status_code == 200)
    assert len(sim.requests) == 1


def test_health_may_be_polled(proxy: Proxy, client: httpx.Client, sim: Sim) -> None:
    proxy.wait_for(lambda: client.get("/health").status_code == 200)
    sim.clear()
    before = len(proxy.log)
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda _: client.get("/health").status_code, range(100))) == {200}
    assert len(sim.requests) <= 1
    # The line of a later request shows that those before have none.
    client.get("/api/version")
    proxy.wait_for(lambda: "/api/version" in proxy.log[before:])
    assert "health" not in proxy.log[before:]


# What is not there


@pytest.mark.parametrize(
    "path", ["/api/whatever", "/API/TAGS", "/v2/models", "/index.html", "/api", "/metric", "/api/v2/models"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_never_reaches_lmstudio(client: httpx.Client, sim: Sim, method: str, path: str) -> None:
    response = client.request(method, path, content=b"{}")
    assert (response.status_code, response.text) == (404, "404 page not found")
    assert response.headers["content-type"] == "text/plain"
    assert not sim.requests


def test_there_are_no_metrics_unless_they_are_wanted(client: httpx.Client, sim: Sim) -> None:
    response = client.get("/metrics")
    assert (response.status_code, response.text) == (404, "404 page not found")
    assert not sim.requests


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/", "HEAD, GET"),
        ("DELETE", "/api/tags", "HEAD, GET"),
        ("HEAD", "/api/ps", "GET"),
        ("GET", "/api/chat", "POST"),
        ("PUT", "/api/generate", "POST"),
        ("HEAD", "/api/status", "GET"),
    ],
)
def test_a_wrong_method(client: httpx.Client, sim: Sim, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    assert response.headers["content-type"] == "text/plain"
    assert response.text == ("" if method == "HEAD" else "405 method not allowed")
    assert not sim.requests


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("GET", "//api/tags", 307, "/api/tags"),
        ("GET", "/api//tags?x=1", 307, "/api/tags?x=1"),
        ("POST", "//api/chat", 307, "/api/chat"),
        ("POST", "/v1//chat/completions", 307, "/v1/chat/completions"),
        ("POST", "/api/chat/", 307, "/api/chat"),
        ("POST", "/v1/chat/completions/", 307, "/v1/chat/completions"),
    ],
)
def test_a_slash_too_many(client: httpx.Client, method: str, path: str, status: int, location: str) -> None:
    response = client.request(method, f"{client.base_url}".rstrip("/") + path)
    assert (response.status_code, response.headers["location"]) == (status, location)
    if method == "GET":
        phrase = "Moved Permanently" if status == 301 else "Temporary Redirect"
        assert response.text == f'<a href="{location}">{phrase}</a>.\n\n'
    else:
        assert response.content == b""


def test_a_redirected_chat(proxy: Proxy, sim: Sim) -> None:
    with proxy.client(follow_redirects=True) as client:
        ndjson(client.post("/api/chat/", json={"model": CHAT, "messages": HI}))
        ndjson(client.post(f"{proxy.url}//api/chat", json={"model": CHAT, "messages": HI}))
        body = {"model": CHAT, "messages": HI}
        assert client.post("/v1//chat/completions", json=body).json()["object"] == "chat.completion"


def test_percent_encoded_paths(proxy: Proxy, sim: Sim) -> None:
    assert ask(proxy, "GET", "/api/%74ags").json["models"]
    assert ask(proxy, "PUT", "/api/%74ags").header("allow") == "HEAD, GET"
    body = {"model": CHAT, "messages": HI}
    assert len(proxy.raw(post_bytes("/%61pi/chat", body)).lines) > 1
    assert proxy.raw(post_bytes("/v1/%63hat/completions", body)).json["object"] == "chat.completion"
    assert {request.path for request in sim.requests if request.method == "POST"} == {"/v1/chat/completions"}
    assert ask(proxy, "GET", "/v1/models/google%2Fgemma-3-4b").json["id"] == VISION
    for path in ("/%2e%2e/api/tags", "/api/%54AGS", "/v1/"):
        assert ask(proxy, "GET", path).status == 404


# Who may come in


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "app://obsidian.md", "tauri://localhost"],
)
def test_an_origin_that_is_allowed(proxy: Proxy, origin: str) -> None:
    answer = ask(proxy, "GET", "/api/version", f"Origin: {origin}")
    assert answer.status == 200
    assert (answer.header("access-control-allow-origin"), answer.header("vary")) == (origin, "Origin")
    answer = ask(proxy, "GET", "/api/nothing", f"Origin: {origin}")
    assert (answer.status, answer.header("access-control-allow-origin")) == (404, origin)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "chrome-extension://abc", "http://localhost.evil.example"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_an_origin_that_is_not(proxy: Proxy, sim: Sim, method: str, origin: str) -> None:
    for path in ("/api/chat", "/v1/models"):
        answer = ask(proxy, method, path, f"Origin: {origin}")
        assert (answer.status, answer.body) == (403, b"")
        assert answer.header("access-control-allow-origin") is None
    assert not sim.requests
    proxy.wait_for_log(rf"{re.escape(origin)}'.*allowed_origins", 5)


def test_an_origin_gets_its_headers_with_a_stream_and_with_what_lmstudio_sends(client: httpx.Client, sim: Sim) -> None:
    sim.set(cors=True)
    client.headers["Origin"] = "http://localhost:3000"
    for response in (
        client.post("/api/chat", json={"model": CHAT, "messages": HI}),
        client.post("/api/chat", json={"model": CHAT, "messages": HI, "stream": False}),
        client.get("/v1/models"),
        client.get("/api/tags"),
    ):
        assert response.status_code == 200
        assert response.headers.get_list("access-control-allow-origin") == ["http://localhost:3000"]
    assert all(request.header("origin") is None for request in sim.requests)


def test_the_same_origin_is_none(proxy: Proxy) -> None:
    answer = ask(proxy, "GET", "/api/version", "Origin: http://box:11434", host="box:11434")
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, None)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/nothing"])
def test_a_preflight(proxy: Proxy, sim: Sim, path: str) -> None:
    answer = ask(proxy, "OPTIONS", path, "Origin: http://localhost:3000", "Access-Control-Request-Method: POST")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.header("content-length") is None
    assert answer.header("access-control-allow-origin") == "http://localhost:3000"
    assert answer.header("access-control-allow-methods") == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert "Content-Type" in (answer.header("access-control-allow-headers") or "")
    assert answer.header("access-control-max-age") == "43200"
    assert answer.head.count(b"Vary: ") == 3
    assert not sim.requests


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("localhost:11434", "/api/chat", 204),
        ("127.0.0.1:11434", "/api/chat", 405),
        ("127.0.0.1:11434", "/nothing", 404),
    ],
)
def test_options_without_an_origin(proxy: Proxy, host: str, path: str, status: int) -> None:
    assert ask(proxy, "OPTIONS", path, host=host).status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:11434", 200),
        ("192.168.1.5:11434", 200),
        ("[::1]:11434", 200),
        ("ollama:11434", 200),
        ("host.docker.internal:11434", 200),
        ("box.local", 200),
        ("ollama.lan:11434", 200),
        ("ollama.home.arpa", 200),
        ("ollama.apps.home", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:11434", 403),
        ("localhost.evil.example", 403),
        ("nas.fritz.box", 403),
        ("box.tailnet-1234.ts.net", 403),
        ("8.8.8.8", 403),
    ],
)
def test_hosts(proxy: Proxy, sim: Sim, host: str, status: int) -> None:
    for path in ("/api/version", "/v1/models"):
        answer = ask(proxy, "GET", path, host=host)
        assert answer.status == status
        assert answer.body
    if status == 403:
        assert not sim.requests
        proxy.wait_for_log(rf"{re.escape(host)}.*allowed_hosts", 5)


def test_a_refused_host_is_told_why_in_the_shape_of_the_api_that_was_asked(proxy: Proxy, sim: Sim) -> None:
    def refused(path: str, *headers: str) -> Any:
        answer = ask(proxy, "GET", path, *headers, host="llm.example")
        assert (answer.status, (answer.header("content-type") or "")[:16]) == (403, "application/json")
        return answer.json["error"]

    sentence = refused("/api/tags")
    assert "'llm.example'" in sentence
    assert "option allowed_hosts" in sentence
    assert refused("/") == sentence
    assert refused("/v1/models") == {"message": sentence, "type": "api_error", "param": None, "code": None}
    assert refused("/v1/messages") == {"type": "permission_error", "message": sentence}
    assert refused("/api/v0/models")["message"] == sentence
    page = ask(proxy, "GET", "/api/tags", "Origin: http://localhost:3000", host="llm.example")
    assert (page.status, page.header("access-control-allow-origin")) == (403, "http://localhost:3000")
    assert ask(proxy, "GET", "/api/tags", "Origin: http://llm.example:1", host="llm.example").body == b""
    assert not sim.requests


def test_a_large_request_that_is_turned_away_is_not_read(proxy: Proxy, sim: Sim) -> None:
    head = "POST /api/chat HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 10000000\r\n\r\n{"
    answer = proxy.raw(head.encode())
    assert answer.status == 403
    assert not sim.requests


# Secrets


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Sim, Path]]:
    """A server that wants a key, before an LM Studio that wants a token; and the file it saves its flows to."""
    directory = tmp_path_factory.mktemp("guarded")
    flows = directory / "flows.mitm"
    options = {
        "api_key": KEY,
        "lmstudio_token": TOKEN,
        "allowed_hosts": "llm.example",
        "allowed_origins": "http://my.app",
    }
    with (
        SimThread(models=models(), auth={TOKEN}) as sim,
        Proxy(sim.url, "-w", str(flows), "--flow-detail", "4", options=options, state_dir=directory) as proxy,
    ):
        proxy.wait_for_log(r"\(\d+ models\)")
        yield proxy, sim, flows


IN_ITS_FORM = {
    "/v1/models": {"error": {"message": "unauthorized", "type": "api_error", "param": None, "code": None}},
    "/v1/chat/completions": {"error": {"message": "unauthorized", "type": "api_error", "param": None, "code": None}},
    "/v1/messages": {"type": "error", "error": {"type": "authentication_error", "message": "unauthorized"}},
    "/v1/systemone": {"error": "unauthorized"},
    "/api/v1/chat": {
        "error": {"message": "unauthorized", "type": "invalid_request", "param": None, "code": "invalid_api_key"}
    },
}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"X-Api-Key": f"{KEY}x"},
        {"X-Api-Key": ""},
        {"Authorization": "Bearer"},
    ],
)
def test_without_the_key(guarded: tuple[Proxy, Sim, Path], headers: dict[str, str]) -> None:
    proxy, sim, _ = guarded
    sim.clear()
    with proxy.client(headers=headers) as client:
        for path in ("/", "/api/version", "/api/tags", "/health", "/nothing", "/health/live/"):
            response = client.get(path)
            assert (response.status_code, response.text) == (401, '{"error":"unauthorized"}')
        live = client.get("/health/live")
        assert (live.status_code, live.content, live.headers.get("content-type")) == (200, b"", None)
        assert client.get("/health/live", headers={"Host": "evil.example"}).status_code == 403
        for path, form in IN_ITS_FORM.items():
            response = client.post(path, json={"model": CHAT, "messages": HI})
            told = response.json()
            told.pop("request_id", None)
            assert (response.status_code, told) == (401, form)
        assert client.post("/api/chat", json={"model": CHAT, "messages": HI}).status_code == 401
        large = client.post("/api/chat", content=b" " * 1_000_000)
        assert (large.status_code, large.text) == (401, '{"error":"unauthorized"}')
    assert not sim.requests


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
def test_with_the_key(guarded: tuple[Proxy, Sim, Path], header: str) -> None:
    proxy, sim, _ = guarded
    sim.clear()
    value = f"Bearer {KEY}" if header == "Authorization" else KEY
    with proxy.client(headers={header: value}) as client:
        answers = [
            client.get("/api/tags"),
            client.get("/v1/models"),
            client.post("/v1/chat/completions", json={"model": CHAT, "messages": HI}),
            client.post("/api/chat", json={"model": CHAT, "messages": HI}),
            client.post("/api/embed", json={"model": EMBEDDER, "input": "hi"}),
        ]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert {request.header("authorization") for request in sim.requests} == {f"Bearer {TOKEN}"}
    assert KEY not in str([request.headers for request in sim.requests])
    assert not any(TOKEN in f"{answer.headers}{answer.text}" for answer in answers)


def test_a_preflight_needs_no_key(guarded: tuple[Proxy, Sim, Path]) -> None:
    answer = ask(guarded[0], "OPTIONS", "/api/chat", "Origin: http://my.app", "Access-Control-Request-Method: POST")
    assert (answer.status, answer.header("access-control-allow-origin")) == (204, "http://my.app")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/foo", "/api/v1/models/load"])
def test_what_is_no_preflight_needs_the_key(guarded: tuple[Proxy, Sim, Path], path: str) -> None:
    proxy, sim, _ = guarded
    sim.clear()
    assert ask(proxy, "OPTIONS", path).status == 401
    assert not sim.requests


def test_a_host_that_is_allowed_by_the_option(guarded: tuple[Proxy, Sim, Path]) -> None:
    assert ask(guarded[0], "GET", "/api/version", f"X-Api-Key: {KEY}", host="llm.example").status == 200
    assert ask(guarded[0], "GET", "/api/version", f"X-Api-Key: {KEY}", host="other.example").status == 403


def test_a_token_that_lmstudio_repeats_is_not_told(guarded: tuple[Proxy, Sim, Path]) -> None:
    proxy, sim, _ = guarded
    body = json.dumps({"error": f"bad {TOKEN}"})
    sim.fault(path="/v1/chat/completions", times=1, pre_error=(400, "application/json", body))
    with proxy.client(headers={"X-Api-Key": KEY}) as client:
        response = client.post("/api/chat", json={"model": CHAT, "messages": HI})
    assert (response.status_code, response.json()) == (400, {"error": "bad ***"})


def test_no_secret_is_saved_or_logged(guarded: tuple[Proxy, Sim, Path]) -> None:
    proxy, _, flows = guarded
    with proxy.client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        ndjson(client.post("/api/chat", json={"model": CHAT, "messages": HI}))
        client.get("/v1/models").raise_for_status()
    proxy.wait_for(lambda: flows.exists() and b"/v1/models" in flows.read_bytes(), 5)
    for text in (flows.read_bytes(), proxy.log.encode()):
        assert KEY.encode() not in text
        assert TOKEN.encode() not in text


def test_there_is_no_cloud(client: httpx.Client) -> None:
    assert client.get("/api/status").json() == {"cloud": {"disabled": True, "source": "env"}}
    assert client.get("/api/experimental/model-recommendations").json() == {"recommendations": []}
    answer = client.post("/api/experimental/web_fetch", json={"url": "http://localhost"})
    assert (answer.status_code, answer.json()) == (403, {"error": "ollama cloud is disabled: web fetch is unavailable"})
    assert client.request("DELETE", "/api/user/keys/abc").json() == {"error": "there was an error signing out"}
