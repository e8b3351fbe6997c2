"""What can go wrong on the way, each alone and some together."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ollama_lmstudio.sim import Disconnect, Fault, MidError, Sim, SimThread, Step, close, content, reset, sleep, wait
from ollama_lmstudio.sim.models import SimModel

from .conftest import CHAT, Connect, Wire, events, user

TOKENS = ("a", "b", "c", "d")
# How many frames the script below makes: its tokens, the end-of-sequence token, the finish chunk, [DONE].
FRAMES = len(TOKENS) + 3


@pytest.fixture
def scripted(sim: Sim) -> Sim:
    sim.script([content(*TOKENS)])
    return sim


def streamed(sim: Sim, connect: Connect) -> bytes:
    return connect(sim).call("POST", CHAT, user(stream=True)).body


def says(body: bytes) -> str:
    return "".join(
        event["choices"][0]["delta"].get("content", "")
        for event in events(body)
        if isinstance(event, dict) and event.get("choices")
    )


# Before the answer


@pytest.mark.parametrize("stream", [True, False])
def test_cold_load_is_silent(scripted: Sim, connect: Connect, stream: bool) -> None:
    scripted.fault(cold_load=0.3)
    wire = connect(scripted, timeout=0.1)
    wire.send("POST", CHAT, user(stream=stream))
    with pytest.raises(TimeoutError):
        wire.fill()
    wire.sock.settimeout(5)
    assert wire.reply().status == 200


def test_headers_can_come_before_the_silence(scripted: Sim, connect: Connect) -> None:
    scripted.fault(cold_load=0.5, headers_first=True)
    wire = connect(scripted)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    begun = time.monotonic()
    wire.chunks()
    assert time.monotonic() - begun > 0.1


def test_an_error_after_early_headers_is_an_event(scripted: Sim, connect: Connect) -> None:
    scripted.fault(headers_first=True)
    scripted.load("plain")
    scripted.load("plain")
    reply = connect(scripted).call("POST", CHAT, {**user(stream=True), "model": "nobody"})
    assert reply.status == 200
    assert reply.body.startswith(b'event: error\ndata: {"error":{"message":"Invalid model identifier')


def test_prefill_is_silent_too(scripted: Sim, connect: Connect) -> None:
    scripted.fault(prefill=0.2)
    started = time.monotonic()
    connect(scripted).call("POST", "/v1/embeddings", {"model": "text-embedding-nomic-embed-text-v1.5", "input": "x"})
    connect(scripted).call("POST", CHAT, user())
    streamed(scripted, connect)
    assert time.monotonic() - started > 0.6


def test_answers_of_others(scripted: Sim, connect: Connect) -> None:
    wire = connect(scripted)
    scripted.fault(pre_error=(500, "text/plain", ""), times=1)
    reply = wire.call("POST", CHAT, user(stream=True))
    assert (reply.status, reply.body, reply.header("Content-Type")) == (500, b"", "text/plain")
    scripted.fault(pre_error=(200, "application/json", b'{"choices": ['), times=1)
    assert wire.call("POST", CHAT, user()).body == b'{"choices": ['
    scripted.fault(html_502=True, times=1)
    reply = wire.call("POST", CHAT, user())
    assert (reply.status, reply.header("Content-Type")) == (502, "text/html")
    assert reply.body.startswith(b"<html>")
    scripted.fault(ok_error=True, times=1)
    reply = wire.call("POST", CHAT, user(stream=True))
    assert (reply.status, reply.header("Content-Type")) == (200, "application/json; charset=utf-8")
    assert reply.body == b'{"error":"Unexpected endpoint or method. (POST /v1/chat/completions)"}'
    assert says(wire.call("POST", CHAT, user(stream=True)).body) == "abcd"


def test_no_answer_at_all(scripted: Sim, connect: Connect) -> None:
    scripted.fault(disconnect=Disconnect(how="before_headers"), times=1)
    wire = connect(scripted)
    wire.send("POST", CHAT, user())
    assert wire.rest() == b""
    assert scripted.requests[-1].status is None


def silent(wire: Wire) -> bool:
    wire.sock.settimeout(0.2)
    try:
        return not wire.fill()
    except TimeoutError:
        return True


@pytest.mark.parametrize("hang", ["accept", "headers", "read"])
def test_hanging(scripted: Sim, connect: Connect, hang: Any) -> None:
    scripted.fault(hang=hang)
    wire = connect(scripted)
    wire.send("POST", CHAT, user(stream=True))
    if hang == "headers":
        assert wire.head()[0] == 200
    assert silent(wire)
    assert scripted.active == 1
    (record,) = scripted.requests
    assert record.body == b"" if hang == "read" else record.json["stream"] is True


def test_a_kept_alive_connection_can_be_stale(scripted: Sim, connect: Connect) -> None:
    scripted.fault(stale=True, times=1)
    wire = connect(scripted)
    assert wire.call("GET", "/v1/models").status == 200
    assert wire.call("GET", "/v1/models").status == 200, "lists are no inference"
    wire.send("POST", CHAT, user())
    assert wire.rest() == b""
    fresh = connect(scripted)
    assert fresh.call("POST", CHAT, user()).status == 200, "the fault is used up"


def test_only_used_connections_are_stale(scripted: Sim, connect: Connect) -> None:
    scripted.fault(stale=True, path="/v1/models")
    wire = connect(scripted)
    assert wire.call("GET", "/v1/models").status == 200
    wire.send("GET", "/v1/models")
    assert wire.rest() == b""
    assert len(scripted.requests) == 1, "LM Studio never saw it"


def test_a_status_without_a_name(sim: Sim, connect: Connect) -> None:
    sim.fault(pre_error=(599, "text/plain", "x"))
    assert connect(sim).call("POST", CHAT).status == 599


# In the answer


def test_tokens_can_be_slow(scripted: Sim, connect: Connect) -> None:
    scripted.fault(token_delay=0.05)
    started = time.monotonic()
    streamed(scripted, connect)
    assert time.monotonic() - started > len(TOKENS) * 0.05


def test_each_token_goes_out_at_once(sim: Sim, connect: Connect) -> None:
    """The next one waits until this one has been read."""
    read = [threading.Event() for _ in TOKENS]
    sim.script([step for token, event in zip(TOKENS, read, strict=True) for step in (content(token), wait(event))])
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    for token, event in zip(TOKENS, read, strict=True):
        assert says(wire.chunk()) == token
        event.set()
    assert wire.chunks()[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("after", [0, 2, 99])
def test_an_error_in_the_middle(scripted: Sim, connect: Connect, after: int) -> None:
    scripted.fault(mid_error=MidError(after=after, message="Channel Error"))
    body = streamed(scripted, connect)
    assert says(body) == "".join(TOKENS)[:after]
    assert body.endswith(b'event: error\ndata: {"error":{"message":"Channel Error"},"message":"Channel Error"}\n\n')
    reply = connect(scripted).call("POST", CHAT, user())
    assert (reply.status, reply.body) == (400, b'{"error":"Channel Error"}')


def test_an_error_in_the_middle_with_variations(scripted: Sim, connect: Connect) -> None:
    scripted.fault(mid_error=MidError(done=True, old_style=True, message="Oh"))
    assert streamed(scripted, connect).endswith(b'\n\ndata: {"error":"Oh"}\n\ndata: [DONE]\n\n')


# On Windows asyncio says goodbye (FIN) before it resets a connection.
resets = pytest.mark.skipif(sys.platform == "win32", reason="asyncio cannot reset a connection on Windows")


@pytest.mark.parametrize("how", ["fin", pytest.param("rst", marks=resets)])
def test_the_connection_breaks_off(scripted: Sim, connect: Connect, how: Any) -> None:
    # A reset may overtake what was sent, so the tokens are given time to arrive.
    scripted.fault(disconnect=Disconnect(after=2, how=how), token_delay=0.05)
    wire = connect(scripted)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    assert says(wire.chunk() + wire.chunk()) == "ab"
    with pytest.raises(EOFError if how == "fin" else ConnectionResetError):
        wire.chunk()


@pytest.mark.parametrize(
    ("step", "ending"), [(close(), EOFError), pytest.param(reset(), ConnectionResetError, marks=resets)]
)
def test_a_script_can_break_off(sim: Sim, connect: Connect, step: Step, ending: type[Exception]) -> None:
    sim.script([content("a"), sleep(0.1), step, content("b")])
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    assert says(wire.chunk()) == "a"
    with pytest.raises(ending):
        wire.chunk()
    whole = connect(sim)
    whole.send("POST", CHAT, user())
    with pytest.raises(ending):
        whole.head()
    assert sim.requests[-1].closed is None, "it was not the client that went"


def test_the_connection_breaks_off_in_a_line(scripted: Sim, connect: Connect) -> None:
    scripted.fault(disconnect=Disconnect(after=1, how="mid_line"))
    wire = connect(scripted)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    assert wire.chunk().endswith(b"\n\n")
    half = wire.chunk()
    assert half.startswith(b'data: {"id"')
    assert b"\n" not in half
    with pytest.raises(EOFError):
        wire.chunk()


def test_the_last_chunk_is_missing(scripted: Sim, connect: Connect) -> None:
    scripted.fault(disconnect=Disconnect(how="no_last_chunk"))
    wire = connect(scripted)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    assert [wire.chunk() for _ in range(FRAMES)][-1] == b"data: [DONE]\n\n"
    with pytest.raises(EOFError):
        wire.chunk()


@pytest.mark.parametrize("after", [0, 2, 99])
def test_the_body_ends_too_early(scripted: Sim, connect: Connect, after: int) -> None:
    scripted.fault(disconnect=Disconnect(after=after, how="end"))
    wire = connect(scripted)
    body = wire.call("POST", CHAT, user(stream=True)).body
    assert says(body) == "".join(TOKENS)[:after]
    assert b'finish_reason":"stop' not in body
    assert b"[DONE]" not in body
    assert wire.call("GET", "/v1/models").status == 200, "the connection is fine"


def test_a_whole_reply_breaks_off_in_its_middle(scripted: Sim, connect: Connect) -> None:
    scripted.fault(disconnect=Disconnect())
    wire = connect(scripted)
    wire.send("POST", CHAT, user())
    _, headers = wire.head()
    length = int(dict(headers)["Content-Length"])
    assert len(wire.rest()) == length // 2


@pytest.mark.parametrize(
    ("fault", "finish", "done"), [({"no_done": True}, True, False), ({"done_without_finish": True}, False, True)]
)
def test_ends_that_are_not_complete(
    scripted: Sim, connect: Connect, fault: dict[str, Any], finish: bool, done: bool
) -> None:
    scripted.fault(**fault)
    body = streamed(scripted, connect)
    assert says(body) == "abcd"
    assert (b'"finish_reason":"stop"' in body) is finish
    assert (b"data: [DONE]" in body) is done


def test_a_stream_of_nothing(sim: Sim, connect: Connect) -> None:
    sim.script([])
    sim.fault(no_done=True, done_without_finish=True)
    assert streamed(sim, connect) == b""


# In the bytes


def test_one_byte_at_a_time(scripted: Sim, connect: Connect) -> None:
    plain = streamed(scripted, connect)
    scripted.fault(split=1)
    wire = connect(scripted)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    chunks = wire.chunks()
    assert {len(chunk) for chunk in chunks} == {1}
    assert says(b"".join(chunks)) == says(plain)
    reply = connect(scripted).call("POST", CHAT, user())
    assert reply.json["choices"][0]["message"]["content"] == "abcd"


def test_cuts_at_positions(sim: Sim, connect: Connect) -> None:
    sim.script([content("😀", "b")])
    whole = streamed(sim, connect)
    inside = whole.index("😀".encode()) + 2
    border = whole.index(b"\n\n") + 1
    sim.fault(split=[4, inside, border])
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    chunks = wire.chunks()
    assert [len(chunk) for chunk in chunks[:4]] == [4, inside - 4, border - inside, 1]
    assert chunks[4].startswith(b"data: ")
    assert says(b"".join(chunks)) == "😀b"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"newline": "\r\n"}, lambda frame: frame.replace(b"\n", b"\r\n")),
        ({"newline": "\r"}, lambda frame: frame.replace(b"\n", b"\r")),
        ({"comments": True}, lambda frame: b": ping\n\n" + frame),
        ({"pings": True}, lambda frame: b"event: ping\ndata: {}\n\n" + frame),
        ({"blank_lines": True}, lambda frame: b"\n\n" + frame),
        ({"retry_and_id": True}, lambda frame: b"retry: 1000\nid: 1\n" + frame),
        ({"no_space": True}, lambda frame: frame.replace(b"data: ", b"data:")),
        ({"multi_line_data": True}, lambda frame: frame.replace(b"data: {", b"data: {\ndata: ")),
        (
            {"unknown_events": True},
            lambda frame: b'event: tool_call.name\ndata: {"type":"tool_call.name"}\n\n' + frame,
        ),
        (
            {"comments": True, "no_space": True, "newline": "\r\n"},
            lambda frame: (b": ping\n\n" + frame.replace(b"data: ", b"data:")).replace(b"\n", b"\r\n"),
        ),
    ],
)
def test_frames_as_others_write_them(fault: dict[str, Any], expected: Callable[[bytes], bytes]) -> None:
    for frame in (b'data: {"id":"1","data: ":2}\n\n', b"data: [DONE]\n\n"):
        inner = frame
        assert Fault(**fault).dress(inner) == expected(inner)


def test_dressed_frames_are_sent(scripted: Sim, connect: Connect) -> None:
    scripted.fault(comments=True, bom=True)
    body = streamed(scripted, connect)
    assert body.startswith(b"\xef\xbb\xbf: ping\n\ndata: ")
    assert body.count(b": ping") == FRAMES
    assert body.count(b"\xef\xbb\xbf") == 1


# Which requests


def test_faults_are_for_inference_unless_they_name_a_path(scripted: Sim, connect: Connect) -> None:
    wire = connect(scripted)
    scripted.fault(html_502=True)
    assert wire.call("GET", "/v1/models").status == 200
    for path in (CHAT, "/v1/completions", "/api/v0/embeddings", "/v1/responses", "/v1/messages", "/api/v1/chat"):
        assert wire.call("POST", path).status == 502
    scripted.faults.clear()
    scripted.fault(html_502=True, path="/v1/models")
    assert wire.call("GET", "/v1/models").status == 502
    assert wire.call("POST", CHAT, user()).status == 200


def test_faults_strike_so_many_times_and_those_that_match(scripted: Sim, connect: Connect) -> None:
    wire = connect(scripted)
    scripted.fault(Fault(html_502=True, times=2, match="unlucky"))
    scripted.fault(pre_error=(503, "text/plain", "x"), match=lambda body: body.get("seed") == 7)
    statuses = [
        wire.call("POST", CHAT, body).status
        for body in (user("lucky"), user("unlucky one"), user("unlucky two"), user("unlucky"), user(seed=7))
    ]
    # "lucky" is no "unlucky"; after two strikes the first fault is used up.
    assert statuses == [200, 502, 502, 200, 503]


def test_faults_combine(connect: Connect) -> None:
    with SimThread([SimModel("plain")]) as sim:
        sim.script([content(*TOKENS)])
        sim.fault(cold_load=0.05, split=1, newline="\r\n", comments=True, mid_error=MidError(after=2), bom=True)
        body = streamed(sim, connect)
        assert body.startswith(b"\xef\xbb\xbf: ping\r\n\r\n")
        assert body.count(b"data: ") == 3
        assert b"\r\nevent: error\r\ndata: " in body
