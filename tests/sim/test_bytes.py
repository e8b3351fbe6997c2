"""The bytes on the wire: headers, bodies, connections."""

from __future__ import annotations

import json
import time

import pytest

from ollama_lmstudio.sim import Sim, SimThread, embedder
from ollama_lmstudio.sim.models import SimModel

from .conftest import CHAT, Connect, user

JSON_HEADERS = ["X-Powered-By", "Content-Type", "Content-Length", "ETag", "Date", "Connection", "Keep-Alive"]


def test_headers_of_json(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("POST", "/chat/completions?x=1", {})
    assert reply.status == 200
    assert reply.header_names == JSON_HEADERS
    assert reply.header("Content-Type") == "application/json; charset=utf-8"
    assert reply.header("X-Powered-By") == "Express"
    assert reply.header("ETag") == 'W/"43-qTdCaLfEMe8wb/ShYO0yTUTunEg"'
    assert (reply.header("Connection"), reply.header("Keep-Alive")) == ("keep-alive", "timeout=5")
    assert reply.body == b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}'


def test_headers_of_a_stream(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True), headers="Accept-Encoding: gzip\r\n")
    status, headers = wire.head()
    assert status == 200
    assert [name for name, _ in headers] == [
        "X-Powered-By",
        "Content-Type",
        "Cache-Control",
        "Connection",
        "Date",
        "Transfer-Encoding",
    ]
    assert dict(headers)["Content-Type"] == "text/event-stream"
    assert wire.chunks()[-1] == b"data: [DONE]\n\n"
    assert wire.call("GET", "/v1/models").status == 200, "the connection is used again"


def test_lists_are_pretty_without_final_newline(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("GET", "/v1/models")
    assert reply.body.decode() == (
        '{\n  "data": [\n    {\n      "id": "plain",\n      "object": "model",\n'
        '      "owned_by": "organization_owner"\n    },\n    {\n      "id": "openai/gpt-oss-20b",\n'
        '      "object": "model",\n      "owned_by": "organization_owner"\n    },\n    {\n'
        '      "id": "text-embedding-nomic-embed-text-v1.5",\n      "object": "model",\n'
        '      "owned_by": "organization_owner"\n    }\n  ],\n  "object": "list"\n}'
    )


def test_the_greeting_is_compact(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("GET", "/lmstudio-greeting")
    assert reply.body == b'{"lmstudio":true}'
    assert reply.header("Content-Length") == "17"


def test_errors_about_models_are_indented_by_four_for_chats(connect: Connect) -> None:
    with SimThread([SimModel("a"), embedder("e")], jit=False) as sim:
        wire = connect(sim)
        reply = wire.call("POST", CHAT, {**user(), "model": "a"})
        assert reply.status == 400
        assert reply.body.decode() == (
            '{\n    "error": {\n        "message": "No models loaded. Please load a model in the developer page or '
            "use the 'lms load' command.\",\n"
            '        "type": "invalid_request_error",\n        "param": "model",\n        "code": null\n    }\n}'
        )
        reply = wire.call("POST", "/v1/embeddings", {"model": "e", "input": "x"})
        assert reply.body.startswith(b'{\n  "error": {\n    "message": "No models')


def test_errors_about_requests_are_compact(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("POST", CHAT, {"model": "plain"})
    assert (reply.status, reply.body) == (400, b'{"error":"\'messages\' field is required"}')
    assert reply.header_names == JSON_HEADERS


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/api/tags"),
        ("GET", "/api/version"),
        ("POST", "/api/chat"),
        ("GET", "/v1/v1/models"),
        ("POST", "/api/v0/models/load"),
        ("DELETE", "/v1/models/x"),
        ("POST", "/v1/models"),
        ("OPTIONS", "/v1/completions"),
        ("GET", "/V1/Modelss"),
        ("POST", "/v1/tokenize"),
    ],
)
def test_unknown_routes_are_a_200_with_an_error(sim: Sim, connect: Connect, method: str, path: str) -> None:
    reply = connect(sim).call(method, path)
    assert reply.status == 200
    assert reply.body.decode() == f'{{"error":"Unexpected endpoint or method. ({method} {path})"}}'


def test_a_head_request_has_no_body(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    reply = wire.call("HEAD", "/x")
    assert reply.header("Content-Length") == str(len('{"error":"Unexpected endpoint or method. (HEAD /x)"}'))
    assert wire.call("GET", "/lmstudio-greeting").json == {"lmstudio": True}


def test_paths_are_those_of_express(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    for path in ("/V1/Models", "/v1/models/", "/v1/models?x=y"):
        assert "data" in wire.call("GET", path).json


def test_options_runs_into_the_handler_of_chats(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("OPTIONS", CHAT)
    assert (reply.status, reply.body) == (400, b'{"error":"\'messages\' field is required"}')


def test_cors(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    assert wire.call("GET", "/v1/models").header("Access-Control-Allow-Origin") is None
    sim.set(cors=True)
    for reply in (wire.call("GET", "/v1/models"), wire.call("POST", CHAT), wire.call("POST", CHAT, user(stream=True))):
        assert reply.header("Access-Control-Allow-Origin") == "*"
        assert reply.header("Access-Control-Allow-Headers") == "*"
    preflight = wire.call("OPTIONS", CHAT)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.header("Access-Control-Allow-Origin") == "*"


def test_not_modified(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    tag = wire.call("GET", "/v1/models").header("ETag")
    wire.send("GET", "/v1/models", headers=f"If-None-Match: {tag}\r\n")
    reply = wire.reply(body=False)
    assert (reply.status, reply.header("ETag"), reply.header("Content-Type")) == (304, tag, None)
    assert wire.call("GET", "/v1/models", headers='If-None-Match: W/"other"\r\n').status == 200
    assert wire.call("POST", "/x", headers=f"If-None-Match: {tag}\r\n").status == 200


def test_idle_connections_are_closed(connect: Connect) -> None:
    with SimThread(keep_alive=0.5) as sim:
        wire = connect(sim)
        assert wire.call("GET", "/v1/models").header("Keep-Alive") == "timeout=0.5"
        time.sleep(0.1)
        started = time.monotonic()
        assert wire.call("GET", "/v1/models").status == 200
        assert wire.rest() == b""
        assert time.monotonic() - started > 0.45, "each request starts the time anew"
        assert sim.open_connections == 0


def test_a_new_connection_may_be_silent_for_longer(connect: Connect) -> None:
    with SimThread(keep_alive=0.05) as sim:
        wire = connect(sim)
        time.sleep(0.2)
        assert wire.call("GET", "/v1/models").status == 200


def test_a_slow_answer_is_not_idle(connect: Connect) -> None:
    with SimThread([SimModel("plain", load_seconds=0.3)], keep_alive=0.1) as sim:
        wire = connect(sim)
        assert wire.call("GET", "/v1/models").status == 200
        assert wire.call("POST", CHAT, user()).status == 200


@pytest.mark.parametrize("headers", ["Connection: close\r\n", "Connection: Close, TE\r\n"])
def test_connections_are_closed_on_request(sim: Sim, connect: Connect, headers: str) -> None:
    wire = connect(sim)
    reply = wire.call("GET", "/v1/models", headers=headers)
    assert (reply.header("Connection"), reply.header("Keep-Alive")) == ("close", None)
    assert wire.rest() == b""


def test_http_1_0_gets_no_chunks(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True), version="1.0")
    status, headers = wire.head()
    assert status == 200
    assert "Transfer-Encoding" not in dict(headers)
    assert wire.rest().endswith(b"data: [DONE]\n\n")


def test_pipelined_requests_are_answered_in_order(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    for path in ("/a", "/lmstudio-greeting", "/b"):
        wire.send("GET", path)
    assert [wire.reply().json for _ in range(3)] == [
        {"error": "Unexpected endpoint or method. (GET /a)"},
        {"lmstudio": True},
        {"error": "Unexpected endpoint or method. (GET /b)"},
    ]


def test_a_body_may_come_in_pieces_and_in_chunks(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    body = json.dumps(user("Grüße")).encode()
    wire.sock.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for start in range(0, len(body), 7):
        piece = body[start : start + 7]
        wire.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    wire.sock.sendall(b"0\r\n\r\n")
    assert wire.reply().json["choices"][0]["message"]["content"] == "You said: Grüße"
    assert sim.requests[-1].body == body


def test_the_client_is_told_to_continue(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    body = json.dumps(user()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    wire.sock.sendall(head.encode())
    assert wire.head() == (100, [])
    wire.sock.sendall(body)
    assert wire.reply().status == 200


def test_what_is_no_http_is_refused(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    wire.sock.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert wire.rest() == b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


def test_an_upgrade_is_ignored_by_newer_versions(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    assert wire.call("POST", CHAT, user(), headers=upgrade).status == 200
    assert wire.call("GET", "/v1/models").status == 200


def test_an_upgrade_hangs_older_versions(connect: Connect) -> None:
    with SimThread([SimModel("plain")], version="0.4.14") as sim:
        wire = connect(sim, timeout=0.3)
        wire.send("POST", CHAT, user(), headers="Connection: Upgrade\r\nUpgrade: h2c\r\n")
        with pytest.raises(TimeoutError):
            wire.head()
        wire.close()
        assert connect(sim).call("POST", CHAT, user()).status == 200


def test_requests_are_recorded(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    before = time.monotonic()
    wire.call("POST", CHAT + "?a=b", user(num_ctx=5, options={}, top_k=3), headers="X-Mine: One\r\n")
    wire.call("POST", CHAT, b"{")
    first, second = sim.requests
    assert (first.method, first.path, first.query, first.status) == ("POST", CHAT, "a=b", 200)
    assert ("X-Mine", "One") in first.headers
    assert first.header("x-mine") == "One"
    assert first.header("absent") is None
    assert first.json["num_ctx"] == 5
    assert first.ignored == ("num_ctx", "options")
    assert before <= first.started <= time.monotonic()
    assert first.closed is None
    assert (second.json, second.body, second.status) == (None, b"{", 400)
    assert (sim.connections, sim.open_connections, sim.active) == (1, 1, 0)
    sim.clear()
    assert sim.requests == []
