"""What a client gets when something goes wrong, through a real mitmdump and over real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tests.strict.reader import marked
from tests.wire.conftest import (
    CHAT,
    EMBEDDER,
    HI,
    Proxy,
    StartProxy,
    content_of,
    free_port,
    models,
    ndjson,
    post_bytes,
    sim_thread_at,
)

from ollama_lmstudio.sim import (
    Disconnect,
    Fault,
    MidError,
    Recorded,
    Sim,
    SimThread,
    close,
    content,
    end,
    raw,
    reset,
    sleep,
    wait,
)

BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": CHAT, "messages": HI},
    "/api/generate": {"model": CHAT, "prompt": "hi"},
    "/api/embed": {"model": EMBEDDER, "input": "hi"},
    "/api/embeddings": {"model": EMBEDDER, "prompt": "hi"},
    "/v1/chat/completions": {"model": CHAT, "messages": HI, "stream": True},
    "/v1/messages": {"model": CHAT, "messages": HI, "max_tokens": 9},
    "/api/v1/chat": {"model": CHAT, "input": "hi"},
}
CHAT_BODY = BODIES["/api/chat"]
STREAMS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "one object"])


def message_of(response: httpx.Response) -> str:
    """Give the text of an error in any of the three APIs' shapes, which is JSON and not a page."""
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["content-length"] == str(len(response.content))
    value = response.json()
    error = value["error"]
    if response.request.url.path.startswith(("/v1/", "/api/v1/")):
        error = error["message"]
    else:
        assert list(value) == ["error"]
    assert isinstance(error, str)
    assert error
    assert "<html" not in error
    return error


def assert_failed(response: httpx.Response, status: int, *parts: str) -> None:
    """Check that an answer is an error with a status, whose text has these parts."""
    assert response.status_code == status, response.text
    message = message_of(response)
    assert all(part in message for part in parts), message


def chat(client: httpx.Client, *, stream: bool = True, **body: Any) -> httpx.Response:
    """Ask for a chat."""
    return client.post("/api/chat", json=CHAT_BODY | {"stream": stream} | body)


def asked(sim: Sim) -> list[Recorded]:
    """Give what reached LM Studio, but for questions for its model list: a load that lasts is asked after."""
    return [request for request in sim.requests if request.method == "POST"]


# LM Studio is not there


def test_lmstudio_is_down_from_the_start(start_proxy: StartProxy) -> None:
    port = free_port()
    proxy = start_proxy(f"http://127.0.0.1:{port}")
    proxy.wait_for_log("LM Studio is not reachable at .*lms server start")
    assert proxy.log.count("not reachable") == 1
    assert "Traceback" not in proxy.log
    with proxy.client() as client:
        assert client.get("/").text == "Ollama is running"
        assert client.get("/api/version").status_code == 200
        assert client.get("/nothing").status_code == 404
        for path in ("/api/tags", "/api/ps", "/health", "/v1/models", "/api/v1/models"):
            assert_failed_down(client.get(path))
        for path, body in BODIES.items():
            assert_failed_down(client.post(path, json=body))
        assert_failed_down(chat(client, stream=False))
        assert_failed_down(client.post("/api/show", json={"model": CHAT}))
        assert client.post("/api/chat", content=b"{").status_code == 400
        assert proxy.process.poll() is None
        # It heals without a restart.
        with sim_thread_at(port):
            assert content_of(ndjson(chat(client))) == "You said: hi"


def assert_failed_down(response: httpx.Response) -> None:
    """Check that an answer says that LM Studio is not there; /health has more to tell."""
    if response.request.url.path == "/health":
        assert response.status_code == 503
        assert "not reachable" in response.json()["error"]
    else:
        assert_failed(response, 503, "LM Studio is not reachable", "lms server start")


def test_lmstudio_goes_after_its_models_were_listed(start_proxy: StartProxy) -> None:
    with SimThread(models()) as sim:
        port = int(sim.url.rpartition(":")[2])
        proxy = start_proxy(sim.url)
        with proxy.client() as client:
            ndjson(chat(client))
    with proxy.client() as client:
        for path, body in BODIES.items():
            status = 500 if path == "/api/embeddings" else 503
            response = client.post(path, json=body)
            if path == "/api/embeddings":
                assert response.status_code in (500, 503)
            else:
                assert_failed(response, status, "LM Studio is not reachable")
        assert_failed(chat(client, stream=False), 503, "LM Studio is not reachable")
        assert_failed(client.get("/api/ps"), 503, "LM Studio is not reachable")
        with sim_thread_at(port):
            assert content_of(ndjson(chat(client))) == "You said: hi"
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [True, False])
def test_it_closes_before_it_answers(client: httpx.Client, sim: Sim, path: str, stream: bool) -> None:
    sim.fault(disconnect=Disconnect(how="before_headers"))
    status = 500 if path == "/api/embeddings" else 502
    assert_failed(client.post(path, json=BODIES[path] | {"stream": stream}), status, "LM Studio closed the connection")


@STREAMS
@pytest.mark.parametrize("how", ["fin", "rst", "mid_line", "end"])
def test_it_closes_before_the_first_token(client: httpx.Client, sim: Sim, how: Any, stream: bool) -> None:
    sim.fault(disconnect=Disconnect(after=0, how=how))
    assert_failed(chat(client, stream=stream), 502, "LM Studio")


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("how", ["fin", "rst", "mid_line", "end"])
def test_it_closes_in_the_middle(proxy: Proxy, sim: Sim, path: str, how: Any) -> None:
    sim.fault(disconnect=Disconnect(after=2, how=how), token_delay=0.01)
    answer = proxy.raw(post_bytes(path, BODIES[path]))
    assert answer.status == 200
    *lines, last = answer.lines
    assert [line.get("response", line.get("message", {}).get("content")) for line in lines] == ["You", " said"]
    assert not any(line["done"] for line in lines)
    assert list(last) == ["error"]
    assert last["error"].startswith("LM Studio")


@pytest.mark.parametrize("how", ["fin", "rst", "mid_line", "end"])
def test_it_closes_in_the_middle_of_one_object(client: httpx.Client, sim: Sim, how: Any) -> None:
    sim.fault(disconnect=Disconnect(after=2, how=how))
    assert_failed(chat(client, stream=False), 502, "LM Studio")


@STREAMS
def test_an_answer_that_is_whole_but_for_the_last_chunk(client: httpx.Client, sim: Sim, stream: bool) -> None:
    sim.fault(disconnect=Disconnect(how="no_last_chunk"))
    lines = ndjson(chat(client)) if stream else [chat(client, stream=False).json()]
    assert content_of(lines) == "You said: hi"
    assert lines[-1]["done"] is True


@STREAMS
@pytest.mark.parametrize("fault", [{"no_done": True}, {"done_without_finish": True}])
def test_an_end_that_lacks_a_part(client: httpx.Client, sim: Sim, fault: dict[str, Any], stream: bool) -> None:
    sim.fault(**fault)
    lines = ndjson(chat(client)) if stream else [chat(client, stream=False).json()]
    assert content_of(lines) == "You said: hi"
    assert (lines[-1]["done"], lines[-1]["done_reason"]) == (True, "stop")


# LM Studio says no

OVERFLOW = (
    'Engine protocol predict request returned 400: {"error":{"code":400,"message":"request (9 tokens) exceeds the '
    'available context size (8 tokens), try increasing it","type":"exceed_context_size_error"}}'
)
OVERFLOW_TOLD = (
    "request (9 tokens) exceeds the available context size (8 tokens), try increasing it (The option num_ctx=grow of "
    "this bridge loads the model with the num_ctx of a request, and context_length with more for every request)"
)


@STREAMS
@pytest.mark.parametrize("old_style", [True, False])
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    ("message", "status", "told"),
    [("The model has crashed", 500, "The model has crashed"), (OVERFLOW, 400, OVERFLOW_TOLD)],
)
def test_an_error_as_the_first_event(
    client: httpx.Client, sim: Sim, message: str, status: int, told: str, done: bool, old_style: bool, stream: bool
) -> None:
    sim.fault(mid_error=MidError(after=0, message=message, done=done, old_style=old_style))
    response = chat(client, stream=stream)
    assert_failed(response, status)
    assert message_of(response) == told
    assert response.headers["content-type"] == ("application/json" if stream else "application/json; charset=utf-8")


@STREAMS
@pytest.mark.parametrize("status", [429, 499, 529])
def test_an_error_whose_status_need_not_have_a_name(client: httpx.Client, sim: Sim, status: int, stream: bool) -> None:
    told = threading.Event()
    sim.script([raw(b'event: error\ndata: {"error":{"message":"boom","code":%d}}\n\n' % status), wait(told)])
    # The error is told before the stream ends.
    try:
        response = chat(client, stream=stream)
    finally:
        told.set()
    assert_failed(response, status, "boom")


@STREAMS
@pytest.mark.parametrize(
    "arguments",
    ['{"x": NaN}', '{"x": -Infinity}', '{"a":' * 20_000, '{"x": 1}' * 2],
    ids=["NaN", "-Inf", "deep", "two"],
)
def test_arguments_of_a_tool_that_cannot_be_told(
    client: httpx.Client, sim: Sim, proxy: Proxy, arguments: str, stream: bool
) -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    event = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
    sim.script([raw(b"data: %s\n\n" % json.dumps(event).encode()), end("tool_calls")])
    response = chat(client, stream=stream)
    if response.status_code == 200:
        assert stream, "the head is out when a long call is not read at once"
        told = ndjson(response)[-1]["error"]
    else:
        assert response.status_code == 500
        told = message_of(response)
    assert told.startswith(f"the model called f with arguments that are not JSON: {arguments[:300]}")
    assert len(told) < 1000
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize("done", [True, False])
def test_an_error_after_the_first_token(proxy: Proxy, sim: Sim, done: bool) -> None:
    sim.fault(mid_error=MidError(after=2, message=OVERFLOW, done=done), token_delay=0.01)
    *lines, last = proxy.raw(post_bytes("/api/chat", CHAT_BODY)).lines
    assert content_of(lines) == "You said"
    assert last == {"error": OVERFLOW_TOLD}


def test_an_error_after_the_first_token_of_one_object(client: httpx.Client, sim: Sim) -> None:
    sim.fault(mid_error=MidError(after=2, message="The model has crashed"))
    assert_failed(chat(client, stream=False), 500, "The model has crashed")


@pytest.mark.parametrize("how", [close(), reset()], ids=["fin", "rst"])
def test_it_closes_when_a_tool_call_has_begun(proxy: Proxy, sim: Sim, how: Any) -> None:
    function = {"name": "f", "arguments": '{"a'}
    event = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "1", "function": function}]}}]}
    sim.script([raw(b"data: %s\n\n" % json.dumps(event).encode()), sleep(0.2), how])
    answer = proxy.raw(post_bytes("/api/chat", CHAT_BODY))
    assert answer.status == 200
    # `lines` reads the chunks up to the last one.
    assert answer.lines == [{"error": "LM Studio closed the connection before its answer was finished"}]


def test_an_error_that_comes_in_one_read_with_the_first_token(client: httpx.Client, sim: Sim) -> None:
    event = b'event: error\ndata: {"error":{"message":"late"},"message":"late"}\n\n'
    token = b'data: {"choices":[{"index":0,"delta":{"content":"You"},"finish_reason":null}]}\n\n'
    sim.script([raw(token + event)])
    assert [line.get("error") for line in ndjson(chat(client))] == [None, "late"]


def test_a_model_that_is_unloaded_meanwhile(client: httpx.Client, sim: Sim) -> None:
    sim.script([content("a"), sleep(5)])
    with client.stream("POST", "/api/chat", json=CHAT_BODY) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["message"]["content"] == "a"
        sim.unload(CHAT)
        assert json.loads(next(lines)) == {"error": "Model unloaded."}
        assert next(lines, None) is None


ENVELOPES = [
    pytest.param(400, '{"error":"plain words"}', 400, "plain words", id="string"),
    pytest.param(
        400, '{"error":{"message":"of openai","type":"x","param":null,"code":null}}', 400, "of openai", id="object"
    ),
    pytest.param(404, '{"error":{"type":"model_not_found","message":"of its own"}}', 404, "of its own", id="native"),
    pytest.param(
        400,
        json.dumps(
            {"error": json.dumps([{"code": "invalid_type", "path": [5, "function"], "message": "Required"}], indent=2)}
        ),
        400,
        "tools[5].function: Required",
        id="issues",
    ),
    pytest.param(400, json.dumps({"error": OVERFLOW}), 400, OVERFLOW_TOLD, id="wrapped"),
    pytest.param(500, '{"error":"engine gone"}', 500, "engine gone", id="500"),
    pytest.param(200, '{"error":"not what was asked for"}', 502, "not what was asked for", id="200"),
    pytest.param(500, "", 500, "an empty body", id="empty 500"),
    pytest.param(200, "", 502, "an empty body", id="empty 200"),
    pytest.param(200, "[]", 502, "LM Studio answered", id="list"),
    pytest.param(200, '{"broken', 502, "broken JSON", id="broken"),
    pytest.param(200, '{"choices":[]}', 502, "no choices", id="no choices"),
    pytest.param(302, "", 502, "LM Studio answered 302", id="redirect"),
    pytest.param(401, '{"error":{"message":"no token"}}', 502, "lmstudio_token", id="401"),
    pytest.param(503, "<h1>Nope</h1>", 503, "LM Studio answered 503", id="page"),
]


@STREAMS
@pytest.mark.parametrize(("status", "body", "told_status", "told"), ENVELOPES)
def test_envelopes(
    client: httpx.Client, sim: Sim, status: int, body: str, told_status: int, told: str, stream: bool
) -> None:
    sim.fault(pre_error=(status, "application/json", body))
    assert_failed(chat(client, stream=stream), told_status, told)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed"])
def test_the_page_of_another_proxy(client: httpx.Client, sim: Sim, path: str) -> None:
    sim.fault(html_502=True)
    response = client.post(path, json=BODIES[path])
    assert_failed(response, 502, "LM Studio answered 502 with text/html")
    assert "<" not in response.text


@STREAMS
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed"])
def test_an_endpoint_that_lmstudio_lacks(client: httpx.Client, sim: Sim, path: str, stream: bool) -> None:
    sim.fault(ok_error=True)
    response = client.post(path, json=BODIES[path] | {"stream": stream})
    assert_failed(response, 502, "This LM Studio does not have POST /v1/", "Unexpected endpoint or method")


def test_one_object_though_a_stream_was_asked_for(client: httpx.Client, sim: Sim) -> None:
    answer = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    sim.fault(pre_error=(200, "application/json", json.dumps(answer)))
    lines = ndjson(chat(client))
    assert content_of(lines) == "hi"
    assert (lines[-1]["done"], lines[-1]["eval_count"]) == (True, 1)
    whole = chat(client, stream=False).json()
    assert (whole["message"]["content"], whole["prompt_eval_count"]) == ("hi", 3)


# Streams that are hard to read


@STREAMS
@pytest.mark.parametrize(
    "fault",
    [
        {"split": 1},
        {"split": 3, "newline": "\r\n"},
        {"newline": "\r", "split": 2},
        {"bom": True, "split": 1},
        {"comments": True, "pings": True, "blank_lines": True, "unknown_events": True},
        {"retry_and_id": True, "no_space": True},
        {"multi_line_data": True},
        {"headers_first": True, "cold_load": 0.1},
    ],
    ids=lambda fault: " ".join(fault),
)
def test_the_same_stream_in_other_bytes(client: httpx.Client, sim: Sim, fault: dict[str, Any], stream: bool) -> None:
    sim.fault(**fault)
    messages = [{"role": "user", "content": "é \U0001f600"}]
    response = chat(client, stream=stream, messages=messages)
    lines = ndjson(response) if stream else [response.json()]
    assert content_of(lines) == "You said: é \U0001f600"
    assert lines[-1]["eval_count"] == 5


@pytest.fixture(scope="module")
def small(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server with a small buffer that repairs broken events."""
    options = {"max_buffer_size": "1024", "enable_chunk_recovery": "true"}
    with Proxy(shared_sim.url, options=options, state_dir=tmp_path_factory.mktemp("small")) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        yield proxy


def test_an_event_that_is_too_large(small: Proxy, sim: Sim) -> None:
    sim.script([content("a", "x" * 2000, "b")])
    sim.fault(token_delay=0.01)
    *lines, last = small.raw(post_bytes("/api/chat", CHAT_BODY)).lines
    assert content_of(lines) == "a"
    assert "max_buffer_size" in last["error"]
    with small.client() as client:
        assert_failed(chat(client, stream=False), 502, "max_buffer_size")


def test_an_event_that_never_ends(small: Proxy, sim: Sim) -> None:
    sim.script([content("a"), raw(b"data: " + b"x" * 2000), wait(threading.Event())])
    *lines, last = small.raw(post_bytes("/api/chat", CHAT_BODY)).lines
    assert content_of(lines) == "a"
    assert "max_buffer_size" in last["error"]
    (record,) = [record for record in sim.requests if record.method == "POST"]
    # LM Studio is not left to go on.
    small.wait_for(lambda: record.closed)


def test_events_of_allowed_size_may_come_in_one_read(small: Proxy, sim: Sim) -> None:
    sim.set(coalesce=100)
    sim.script([content(*("x" * 200 for _ in range(100)))])
    with small.client() as client:
        assert content_of(ndjson(chat(client))) == "x" * 20000


BROKEN = b'data: {"choices":[{"index":0,"delta":{"content":"b",},"finish_reason":null}]\n\n'


def test_a_broken_event(proxy: Proxy, small: Proxy, sim: Sim) -> None:
    sim.script([content("a"), raw(BROKEN), content("c")])
    *lines, last = proxy.raw(post_bytes("/api/chat", CHAT_BODY)).lines
    assert content_of(lines) == "a"
    assert "not JSON" in last["error"]
    with proxy.client() as client:
        assert_failed(chat(client, stream=False), 502, "not JSON")
    with small.client() as client:
        assert content_of(ndjson(chat(client))) == "abc"
        assert chat(client, stream=False).json()["message"]["content"] == "abc"


# Requests that are wrong


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"])
@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "missing request body"),
        (b"{", "unexpected EOF"),
        (b'{"model": "a', "unexpected EOF"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"\x1f\x8b\x08", "invalid character '\\x1f' looking for beginning of value"),
        (b"[]", "json: cannot unmarshal array into Go value of type api."),
        (b'{"model": 5}', "json: cannot unmarshal number into Go struct field "),
    ],
)
def test_a_body_that_is_wrong(client: httpx.Client, sim: Sim, path: str, body: bytes, error: str) -> None:
    response = client.post(path, content=body)
    assert response.status_code == 400
    assert message_of(response).startswith(error)
    assert not sim.requests


@pytest.mark.parametrize("path", ["/api/chat", "/api/embed", "/v1/chat/completions"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_body_that_is_nested_too_deeply(client: httpx.Client, path: str, opening: bytes) -> None:
    for body in (b'{"model":"x","options":' + opening * 200_000, opening * 20_000 + b"1"):
        assert client.post(path, content=body).status_code == 400


def test_a_large_body(client: httpx.Client, sim: Sim) -> None:
    text = "long" * 500_000
    assert content_of(ndjson(chat(client, messages=[{"role": "user", "content": text}, *HI]))) == "You said: hi"
    assert sim.requests[0].json["messages"][0]["content"] == text


@pytest.mark.parametrize(
    "request_line", ["NONSENSE", "GET /api/tags HTTP/1.1\r\nno colon", "GET /api/tags HTTP/1.1\r\nContent-Length: x"]
)
def test_what_is_not_http_gets_no_page(proxy: Proxy, request_line: str) -> None:
    answer = proxy.raw(f"{request_line}\r\nHost: localhost\r\n\r\n".encode())
    assert 400 <= answer.status < 600
    assert list(answer.json) == ["error"]


# Clients that leave


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        {"token_delay": 0.2},
        {"cold_load": 30.0},
        {"prefill": 30.0, "headers_first": True},
        {"hang": "headers"},
        {"hang": "accept"},
    ],
    ids=lambda fault: " ".join(fault),
)
def test_a_client_that_leaves_ends_the_call(proxy: Proxy, sim: Sim, fault: dict[str, Any], stream: bool) -> None:
    sim.script([content(*"many tokens, which take a while, at this pace")])
    sim.fault(**fault)
    with marked(cut=True), proxy.connect() as sock:
        sock.sendall(post_bytes("/api/chat", CHAT_BODY | {"stream": stream}))
        proxy.wait_for(lambda: asked(sim))
        if "token_delay" in fault and stream:
            assert sock.recv(100)
        else:
            time.sleep(0.2)
        (record,) = asked(sim)
        assert record.closed is None
    proxy.wait_for(lambda: record.closed, 15)
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize("fault", [{"hang": "headers"}, {"hang": "accept"}], ids=["after the head", "before it"])
def test_a_client_that_loses_patience(proxy: Proxy, sim: Sim, fault: dict[str, Any]) -> None:
    sim.fault(**fault, times=1)
    with proxy.client(timeout=0.3) as client:
        with pytest.raises(httpx.ReadTimeout):
            chat(client)
        client.timeout = httpx.Timeout(10)
        assert content_of(ndjson(chat(client))) == "You said: hi"


def test_a_client_that_leaves_still_unloads(proxy: Proxy, sim: Sim) -> None:
    sim.fault(token_delay=0.2)
    with marked(cut=True), proxy.connect() as sock:
        sock.sendall(post_bytes("/api/chat", CHAT_BODY | {"keep_alive": 0}))
        assert sock.recv(100)
    proxy.wait_for(lambda: not sim.instances, 5)


# Connections


def test_http_1_0_gets_lines_and_a_closed_connection(proxy: Proxy, sim: Sim) -> None:
    answer = proxy.raw(post_bytes("/api/chat", CHAT_BODY, version="1.0"))
    assert answer.closed
    assert answer.header("transfer-encoding") is None
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert content_of(lines) == "You said: hi"
    assert lines[-1]["done"] is True
    sim.fault(disconnect=Disconnect(after=1))
    answer = proxy.raw(post_bytes("/api/chat", CHAT_BODY, version="1.0"))
    assert list(json.loads(answer.body.splitlines()[-1])) == ["error"]
    sim.faults.clear()
    answer = proxy.raw(post_bytes("/v1/chat/completions", CHAT_BODY | {"stream": True}, version="1.0"))
    assert answer.closed
    assert answer.body.startswith(b"data: {")
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", CHAT_BODY),
        ("/api/chat", CHAT_BODY | {"stream": False}),
        ("/api/embed", BODIES["/api/embed"]),
        ("/api/show", {"model": CHAT}),
        ("/api/pull", {"model": CHAT}),
        ("/v1/chat/completions", CHAT_BODY),
        ("/v1/chat/completions", BODIES["/v1/chat/completions"]),
    ],
)
def test_a_connection_is_closed_for_who_asks_for_it(proxy: Proxy, path: str, body: Any, version: str) -> None:
    headers = "Connection: close\r\n" if version == "1.1" else ""
    with proxy.connect() as sock:
        sock.sendall(post_bytes(path, body, version=version, headers=headers))
        received = b""
        while data := sock.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in received


def test_a_client_that_encrypts_gets_no_plain_text(proxy: Proxy, sim: Sim) -> None:
    with proxy.client(base_url=proxy.url.replace("http:", "https:"), verify=False) as client:
        assert content_of(ndjson(chat(client))) == "You said: hi"
        sim.fault(disconnect=Disconnect(how="before_headers"))
        assert_failed(chat(client), 502, "")
        sim.faults.clear()
        sim.fault(disconnect=Disconnect(after=1))
        with marked(cut=True), pytest.raises(httpx.RemoteProtocolError):
            chat(client)


def test_requests_one_after_the_other_on_one_connection(proxy: Proxy, sim: Sim) -> None:
    one = [post_bytes("/api/chat", CHAT_BODY | {"messages": [{"role": "user", "content": text}]}) for text in "abc"]
    with proxy.connect() as sock:
        sock.sendall(b"".join(one))
        data = b""
        while data.count(b"0\r\n\r\n") < 3:
            received = sock.recv(65536)
            assert received
            data += received
    said = [
        json.loads(line)["message"]["content"]
        for line in data.replace(b"\r\n", b"\n").split(b"\n")
        if line.startswith(b"{")
    ]
    assert "".join(said) == "You said: aYou said: bYou said: c"


def test_lmstudio_closes_idle_connections(start_proxy: StartProxy) -> None:
    with SimThread(models(), keep_alive=0.3) as sim:
        proxy = start_proxy(sim.url)
        with proxy.client() as client:
            for pause in (0.0, 0.4, 0.3, 0.4):
                time.sleep(pause)
                assert content_of(ndjson(chat(client))) == "You said: hi"
                assert chat(client, stream=False).status_code == 200
                assert client.get("/v1/models").status_code == 200
                assert client.get("/api/tags").status_code == 200


def test_a_connection_that_closes_under_a_request(client: httpx.Client, sim: Sim) -> None:
    ndjson(chat(client))
    sim.fault(stale=True, times=1)
    assert_failed(chat(client), 502, "LM Studio closed the connection")
    assert content_of(ndjson(chat(client))) == "You said: hi"


def test_many_streams_at_once_do_not_mix(proxy: Proxy, sim: Sim) -> None:
    sim.set(token_delay=0.005)

    def ask(number: int) -> tuple[str, str]:
        text = " ".join([f"n{number}"] * 20)
        with proxy.client() as client:
            response = chat(client, stream=number % 4 != 0, messages=[{"role": "user", "content": text}])
        lines = ndjson(response) if number % 4 else [response.json()]
        assert lines[-1]["done"] is True
        return content_of(lines), f"You said: {text}"

    with ThreadPoolExecutor(16) as pool:
        for said, expected in pool.map(ask, range(16)):
            assert said == expected
    assert sum(request.path == "/v1/chat/completions" for request in sim.requests) == 16


def test_a_slow_reader_gets_everything(proxy: Proxy, sim: Sim) -> None:
    word = "word " * 400
    sim.script([content(*[word] * 4000)])
    with proxy.connect() as sock:
        sock.sendall(post_bytes("/api/chat", CHAT_BODY))
        time.sleep(0.3)
        data = bytearray()
        while not data.endswith(b"0\r\n\r\n"):
            received = sock.recv(65536)
            assert received
            data += received
    assert data.count(word.encode()) == 4000
    assert data.count(b'"done":true') == 1


@pytest.mark.parametrize("fault", [Fault(disconnect=Disconnect(after=1)), Fault(mid_error=MidError(after=1))])
def test_a_connection_goes_on_or_ends_after_an_error(client: httpx.Client, sim: Sim, fault: Fault) -> None:
    sim.fault(fault)
    for _ in range(3):
        assert list(ndjson(chat(client))[-1]) == ["error"]
    sim.faults.clear()
    assert content_of(ndjson(chat(client))) == "You said: hi"
