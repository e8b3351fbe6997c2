"""What is kept of an exchange while it goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from ollama_lmstudio.lmstudio.errors import MASK
from ollama_lmstudio.ollama.chunks import Metrics
from ollama_lmstudio.outcomes import Call, FirstWords, LocalStream, Measured, Passthrough, Request, Response
from ollama_lmstudio.record.arrivals import unpacked
from ollama_lmstudio.record.record import UNFINISHED, Record
from ollama_lmstudio.record.recorder import CappedBody, ProgressBody, Recorder

SECOND = 10**9
EVENTS = http.Headers(((b"Content-Type", b"text/event-stream"),))


def recorder(limit: int = 1000, **arguments: Any) -> Recorder:
    made = Recorder(limit, SECOND, Record(), **arguments)
    made.set_request(Request("POST", "/api/chat", "a=1", {"accept": "*/*"}, b'{"model":"m"}', SECOND))
    return made


def test_a_body_is_kept_up_to_a_limit() -> None:
    kept = CappedBody(5)
    for data in (b"abc", b"def", b"ghi"):
        kept.add(data)
    assert (bytes(kept.data), kept.size) == (b"abcde", 9)
    nothing = CappedBody(0)
    nothing.add(b"abc")
    assert (bytes(nothing.data), nothing.size) == (b"", 3)


def progress(completed: int, status: str = "pulling abc") -> bytes:
    return json.dumps({"status": status, "digest": "sha256:abc", "completed": completed}).encode() + b"\n"


@pytest.mark.parametrize("size", [1, 7, 100_000_000])
def test_of_a_download_the_first_and_last_line_of_each_kind_are_kept(size: int) -> None:
    kept = ProgressBody(2000)
    whole = b"".join(
        [
            b'{"status":"pulling manifest"}\n',
            *(progress(number) for number in range(3000)),
            b'{"status":"paused"}\n' * 3,
            *(progress(number) for number in range(3000, 3002)),
            b"no JSON\n" * 3,
            b'{"status":"success"}',
        ]
    )
    for at in range(0, len(whole), size):
        before = kept.version
        kept.add(whole[at : at + size])
        assert kept.version != before
    assert bytes(kept.data) == b"".join(
        [
            b'{"status":"pulling manifest"}\n',
            progress(0),
            progress(2999),
            b'{"status":"paused"}\n' * 2,
            progress(3000),
            progress(3001),
            b"no JSON\n" * 3,
            b'{"status":"success"}',
        ]
    )
    assert kept.size == len(whole)


def test_progress_is_kept_up_to_a_limit() -> None:
    kept = ProgressBody(100)
    for number in range(100):
        kept.add(progress(number, f"pulling {number}"))
    assert len(kept.data) <= 100


def test_the_request() -> None:
    kept = recorder(5).record
    assert (kept.method, kept.path, kept.query, kept.headers) == ("POST", "/api/chat", "a=1", (("accept", "*/*"),))
    assert (kept.request, kept.request_size) == (b'{"mod', 13)


async def _lines() -> Any:
    yield {}


@pytest.mark.parametrize(
    ("outcome", "kind", "models"),
    [
        (Call("/v1/x", b"", Any, "org/m", "m", unsupported=["a"]), "call", ("m", "org/m")),  # type: ignore[arg-type]
        (Passthrough("/v1/x", b"", model="org/m", asked="m"), "relay", ("m", "org/m")),
        (Response(200), "answer", ("m", "")),
        (LocalStream(_lines(), True), "served", ("m", "")),
    ],
)
def test_what_became_of_it(outcome: Any, kind: str, models: tuple[str, str]) -> None:
    made = recorder()
    made.set_outcome(outcome)
    assert made.record.kind == kind
    assert (made.record.model, made.record.upstream_model) == models
    assert made.record.dropped == (("a",) if kind == "call" else ())


def finished(made: Recorder, measured: Measured | None = None, error: str = "") -> tuple[http.HTTPFlow, Record]:
    flow = tflow.tflow(resp=True, err=bool(error))
    assert flow.response is not None
    if error:
        assert flow.error is not None
        flow.error.msg = error
    flow.response.raw_content = None
    made.finish(flow, 3 * SECOND, measured)
    return flow, Record.load(flow.metadata)


def test_both_sides_of_a_stream() -> None:
    made = recorder()
    made.set_outcome(Call("/v1/x", b"", Any))  # type: ignore[arg-type]
    made.set_upstream_head(http.Response.make(200, headers=EVENTS))
    made.add_upstream(b"data: x\n\n", 2 * SECOND)
    made.client_body.add(b'{"a":1}\n')
    metrics = Metrics(total_duration=7, load_duration=1, prompt_eval_count=2, eval_count=3, eval_duration=4)
    flow, kept = finished(made, Measured(metrics, 5, "stop"))
    assert flow.response is not None
    assert flow.response.raw_content == b'{"a":1}\n'
    assert (kept.upstream, kept.upstream_size, kept.response_size) == (b"data: x\n\n", 9, 8)
    assert (kept.status, dict(kept.upstream_headers)["Content-Type"]) == (200, "text/event-stream")
    numbers = kept.numbers
    assert numbers is not None
    assert (numbers.total, numbers.load, numbers.first_token, numbers.generation) == (7, 1, 5, 4)
    assert (numbers.prompt_tokens, numbers.answer_tokens, numbers.done_reason) == (2, 3, "stop")


@pytest.mark.parametrize("limit", [10_000, 20])
def test_what_was_passed_on_is_kept_once(limit: int) -> None:
    made = recorder(limit)
    made.set_outcome(Passthrough("/v1/chat/completions", b""))
    made.set_upstream_head(http.Response.make(200, headers=EVENTS))
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 1}}
    parts = [
        b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n',
        b'data: {"choices":[],"usage":%s}\n\ndata: [DONE]\n\n' % json.dumps(usage).encode(),
    ]
    for number, part in enumerate(parts):
        made.add_upstream(part, (2 + number) * SECOND // 2)
    flow, kept = finished(made)
    assert flow.response is not None
    body = b"".join(parts)
    assert (flow.response.raw_content, kept.response_size) == (body[:limit], len(body))
    assert kept.upstream == b""
    numbers = kept.numbers
    assert numbers is not None
    assert (numbers.prompt_tokens, numbers.answer_tokens, numbers.done_reason) == (5, 7, "length")
    assert (numbers.total, numbers.first_token, numbers.generation) == (2 * SECOND, 0, 2 * SECOND)


@pytest.mark.parametrize("kind", ["call", "relay", "served"])
def test_what_has_come_so_far(kind: str) -> None:
    outcomes: dict[str, Any] = {
        "call": Call("/v1/x", b"", Any),  # type: ignore[arg-type]
        "relay": Passthrough("/v1/x", b""),
        "served": LocalStream(_lines(), True),
    }
    made = recorder(8)
    made.set_outcome(outcomes[kind])
    flow = tflow.tflow(resp=True)
    assert flow.response is not None
    flow.response.raw_content = None

    def come(data: bytes) -> None:
        if kind != "served":
            made.add_upstream(b"heard" if kind == "call" else data, SECOND)
        if kind != "relay":
            made.client_body.add(data)

    assert not made.update(flow)
    assert flow.response.raw_content is None
    for data, body in ((b"abc", b"abc"), (b"def", b"abcdef"), (b"ghi", b"abcdefgh")):
        come(data)
        assert made.update(flow)
        assert not made.update(flow)
        # It is another one when it has ended, even if nothing more comes: else it would not be rendered again.
        assert flow.response.raw_content == body + UNFINISHED
    kept = Record.load(flow.metadata)
    assert (kept.numbers, kept.response_size) == (None, 9)
    assert kept.upstream == (b"heardhea" if kind == "call" else b"")
    come(b"jkl")
    made.finish(flow, 3 * SECOND, None)
    assert flow.response.raw_content == b"abcdefgh"
    kept = Record.load(flow.metadata)
    assert (kept.response_size, kept.upstream) == (12, b"heardhea" if kind == "call" else b"")


@pytest.mark.parametrize("distance", [0, 4000, 5000])
@pytest.mark.parametrize("piece", [7, 1000, 20000])
def test_the_usage_is_near_the_end_of_a_long_body(distance: int, piece: int) -> None:
    made = recorder(10)
    made.set_outcome(Passthrough("/v1/chat/completions", b""))
    made.set_upstream_head(http.Response.make(200, headers=EVENTS))
    body = b"x" * 30000 + b'"usage":{"prompt_tokens":5}' + b"y" * distance
    for start in range(0, len(body), piece):
        made.add_upstream(body[start : start + piece], SECOND)
    numbers = finished(made)[1].numbers
    assert numbers is not None
    assert numbers.prompt_tokens == (0 if distance == 5000 else 5)


@pytest.mark.parametrize("tail", [b"", b'"usage":{broken}', b'"usage":{"prompt_tokens":"many"}', b"\xff" * 5000])
def test_numbers_that_cannot_be_read(tail: bytes) -> None:
    made = recorder()
    made.set_outcome(Passthrough("/v1/chat/completions", b""))
    made.add_upstream(b"x" + tail, 2 * SECOND)
    numbers = finished(made)[1].numbers
    assert numbers is not None
    assert (numbers.total, numbers.answer_tokens) == (2 * SECOND, 0)


@pytest.mark.parametrize(
    ("measured", "error", "told"),
    [
        (Measured(error="no room"), "", "no room"),
        (Measured(), "Client disconnected.", "Client disconnected."),
        (None, "gone", "gone"),
        (Measured(), "", ""),
    ],
)
def test_what_went_wrong(measured: Measured | None, error: str, told: str) -> None:
    assert finished(recorder(), measured, error)[1].error == told


def test_the_first_words_of_both_sides() -> None:
    made = recorder()
    words = FirstWords("Why?", "[tools]")
    made.set_outcome(Call("/v1/x", b"", Any, words=words))  # type: ignore[arg-type]
    assert (made.record.prompt, made.record.signs) == ("Why?", "[tools]")
    made.record.state = "31 tokens"
    kept = finished(made, Measured(words=FirstWords("Because", "[thinking]")))[1]
    assert (kept.prompt, kept.answer, kept.signs, kept.state) == ("Why?", "Because", "[tools] [thinking]", "")
    # A replay is sent as it is, and its answer is another one.
    kept.forget_answer()
    again = Recorder(1000, SECOND, kept)
    again.set_outcome(Passthrough("/v1/x", b""))
    assert (kept.prompt, kept.answer, kept.signs) == ("Why?", "", "[tools]")


def test_the_end_of_a_response_that_broke_off_is_that_of_the_error() -> None:
    flow = tflow.tflow(resp=True, err=True)
    assert flow.response is not None
    assert flow.error is not None
    flow.response.timestamp_end = None
    recorder().finish(flow, 2 * SECOND, None)
    assert flow.response.timestamp_end == flow.error.timestamp


@pytest.mark.parametrize(
    ("outcome", "last", "error"),
    [
        (
            LocalStream(_lines(), True),
            b'{"status":"pulling manifest"}\n{"error":"file does not exist"}\n',
            "file does not exist",
        ),
        (LocalStream(_lines(), True), b'{"status":"success"}\n', ""),
        (Passthrough("/v1/x", b""), b'data: {"error":{"message":"boom"}}\n\ndata: [DONE]\n\n', "boom"),
        (Passthrough("/v1/x", b""), b'event: error\ndata: {"type":"error","error":{"message":"boom"}}\n\n', "boom"),
        (
            Passthrough("/v1/x", b""),
            b'data: {"type":"response.failed","response":{"status":"failed","error":{"message":"boom"}}}\n\n',
            "boom",
        ),
        (Passthrough("/v1/x", b""), b'data: {"type":"response.completed","response":{"error":null}}\n\n', ""),
        (Passthrough("/v1/x", b""), b'{"choices":[{"message":{"content":"{\\"error\\":1}"}}],"error":null}', ""),
        (Passthrough("/v1/x", b""), b'data: {"error"', ""),
    ],
)
def test_an_error_that_a_success_ended_with(outcome: Any, last: bytes, error: str) -> None:
    made = recorder(20)
    made.set_outcome(outcome)
    if isinstance(outcome, LocalStream):
        made = recorder()
        made.set_outcome(outcome)
        made.client_body.add(last)
    else:
        made.add_upstream(b"x" * 30 + b"\n", SECOND)
        made.add_upstream(last, SECOND)
    assert finished(made)[1].error == error


def test_secrets_that_lmstudio_tells() -> None:
    made = recorder(secrets=("t0ken",))
    made.set_outcome(Passthrough("/v1/x", b""))
    made.set_upstream_head(http.Response.make(400, headers=http.Headers(((b"X-Echo", b"t0ken"),))))
    made.add_upstream(b'{"error":"bad t0ken, bad sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"}', SECOND)
    flow, kept = finished(made)
    assert flow.response is not None
    assert flow.response.raw_content == b'{"error":"bad ***, bad ***"}'
    assert dict(kept.upstream_headers)["X-Echo"] == "***"


def test_the_label_is_set_whenever_the_record_changes() -> None:
    labelled: list[tuple[http.HTTPFlow, Record]] = []
    made = recorder(label=lambda flow, record: labelled.append((flow, record)))
    flow, _ = finished(made)
    assert labelled == [(flow, made.record)]
    made.save(flow)
    assert labelled == [(flow, made.record)] * 2


@pytest.mark.parametrize("value", ["t0ken", "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST", "plain"])
def test_secrets_in_lmstudios_headers(value: str) -> None:
    made = recorder(secrets=("t0ken",))
    made.set_upstream_head(http.Response.make(200, b"", {"x-a": "1", "x-b": f"is {value}", "x-c": "ü"}))
    headers = dict(made.record.upstream_headers)
    assert (headers["x-a"], headers["x-b"], headers["x-c"]) == ("1", f"is {value if value == 'plain' else MASK}", "ü")


MS = SECOND // 1000
# When parts of a stream came, in ms from the request on.
PARTS = (
    (b'data: {"a":1}\n\n', 600),
    (b'data: {"a":2}\n\nda', 640),
    (b"ta: 3\n\n", 2_640),
    (b"data: [DONE]\n\n", 2_650),
)


def streamed(limit: int = 1000, headers: http.Headers = EVENTS, error: str = "") -> Record:
    made = recorder(limit)
    made.set_outcome(Passthrough("/v1/chat/completions", b""))
    made.set_upstream_head(http.Response.make(200, headers=headers))
    for data, at in PARTS:
        made.add_upstream(data, SECOND + at * MS)
    made.started_ns += 100 * MS  # the user has held the request for so long
    return finished(made, error=error)[1]


def test_when_it_came_is_kept() -> None:
    kept = streamed()
    assert [(read.size, read.at_us) for read in unpacked(kept.arrivals)] == [
        (len(data), (at - 100) * 1000) for data, at in PARTS
    ]


def test_the_longest_pause_and_where_it_was() -> None:
    numbers = streamed().numbers
    assert numbers is not None
    assert (numbers.pause, numbers.pause_after, numbers.pause_events) == (2000 * MS, 540 * MS, 2)


def test_nothing_came_before_a_stream_was_given_up() -> None:
    made = recorder()
    made.set_outcome(Passthrough("/v1/chat/completions", b""))
    made.set_upstream_head(http.Response.make(200, headers=EVENTS))
    made.add_upstream(PARTS[0][0], SECOND + 600 * MS)
    numbers = finished(made, error="Client disconnected.")[1].numbers
    assert numbers is not None
    assert (numbers.pause, numbers.pause_after, numbers.pause_events) == (1400 * MS, 600 * MS, 1)


def test_times_are_of_what_is_kept_and_of_streams_alone() -> None:
    cut = streamed(limit=35)
    assert [read.size for read in unpacked(cut.arrivals)] == [15, 17]
    assert cut.numbers is not None
    # A longer one may be in what is not kept.
    assert cut.numbers.pause == 0
    whole = streamed(headers=http.Headers(((b"Content-Type", b"application/json"),)))
    assert whole.arrivals == b""
    assert whole.numbers is not None
    assert whole.numbers.pause == 0


@pytest.mark.parametrize(
    ("cached", "rough", "at_once", "expected"),
    [(None, False, False, (300, 0)), (400, True, False, (300, 112)), (0, False, True, (0, 512))],
)
def test_how_the_prompt_was_read(cached: int | None, rough: bool, at_once: bool, expected: tuple[int, int]) -> None:
    metrics = Metrics(prompt_eval_count=512, prompt_eval_cached_count=cached, prompt_eval_duration=300)
    measured = Measured(metrics, 310, "stop", at_once=at_once, is_load_rough=rough)
    numbers = finished(recorder(), measured)[1].numbers
    assert numbers is not None
    assert (numbers.reading, numbers.read_tokens) == expected
    assert numbers.is_load_rough == rough


@pytest.mark.parametrize("details", ["prompt_tokens_details", "input_tokens_details"])
def test_what_was_in_the_cache_of_what_is_passed_on(details: str) -> None:
    made = recorder()
    made.set_outcome(Passthrough("/v1/chat/completions", b""))
    made.add_upstream(json.dumps({"usage": {"prompt_tokens": 50, details: {"cached_tokens": 20}}}).encode(), SECOND)
    numbers = finished(made)[1].numbers
    assert numbers is not None
    assert (numbers.prompt_tokens, numbers.read_tokens) == (50, 30)


@pytest.mark.parametrize("known", [None, 3.0])
def test_a_response_that_broke_off_has_an_end(known: float | None) -> None:
    made, flow = recorder(), tflow.tflow(resp=True)
    assert flow.response is not None
    flow.response.timestamp_end = known
    made.record.state = "31 tokens"
    made.finish(flow, SECOND, None)
    assert flow.response.timestamp_end is not None
    assert (flow.response.timestamp_end == known) == (known is not None)
    assert "ollama_state" not in flow.metadata


def test_a_response_that_took_the_place_of_what_was_shown_keeps_its_body() -> None:
    made, flow = recorder(), tflow.tflow(resp=True)
    made.record.kind = "call"
    made.add_upstream(b"data: {}\n\n", SECOND)
    assert made.update(flow)
    flow.response = http.Response.make(200, b'{"done":true}')
    made.finish(flow, 2 * SECOND, Measured())
    assert flow.response.raw_content == b'{"done":true}'
    assert made.record.response_size == len(b'{"done":true}')
