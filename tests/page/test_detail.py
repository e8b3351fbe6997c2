"""One exchange as the page shows it, in each API's shape, and the limits of what is shown."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from mitmproxy.test import tflow
from tests.inspect.conftest import (
    ASKED,
    EVENTS,
    PNG,
    SECRET,
    answered,
    chunk,
    dumps,
    flow_of,
    line,
    ndjson,
    record,
    snapshot,
    sse,
)

from ollama_lmstudio.inspect import thread
from ollama_lmstudio.page import detail
from ollama_lmstudio.page.detail import EVENT_CHARACTERS, MAX_EVENTS, MAX_MESSAGES, TEXT_CHARACTERS
from ollama_lmstudio.record.arrivals import Arrivals
from ollama_lmstudio.record.record import PREFIX
from ollama_lmstudio.unicode import well_formed


def shown(kept: Any = None, **changed: Any) -> dict[str, Any]:
    """Return an exchange as the page gets it."""
    found = detail.detail_of(flow_of(snapshot(kept, **changed)))
    assert found is not None
    sent: dict[str, Any] = json.loads(well_formed(json.dumps(found)))
    return sent


def request(body: Any, path: str = "/api/chat") -> dict[str, Any]:
    asked: dict[str, Any] = shown(record(body, path=path))["request"]
    return asked


def arrived(events: bytes) -> bytes:
    """Return that each event came in a read of its own."""
    made = Arrivals()
    for at, event in enumerate(events.split(b"\n\n")[:-1], 1):
        made.sizes.append(len(event) + 2)
        made.times.append(at * 10_000_000)
    return made.packed(0)


def test_a_chat_with_everything() -> None:
    found = shown(record(arrivals=arrived(EVENTS)))
    system, user, assistant, tool = found["request"]["messages"]
    assert system == {"at": 0, "role": "system", "text": "Be terse."}
    (picture,) = user["files"]
    assert (picture["type"], picture["size"], picture["width"], picture["height"]) == ("image/png", "70 bytes", 1, 1)
    assert picture["src"].endswith("/files/1/0")
    assert assistant["thinking"] == "Where?"
    assert assistant["calls"] == [{"name": "weather", "id": "", "arguments": '{\n  "city": "Rome"\n}'}]
    assert (tool["text"], tool["answers"]) == ("18 degrees", "weather")
    assert found["request"]["newAt"] == 3
    (shown_tool,) = found["request"]["tools"]
    assert shown_tool["name"] == "weather"
    assert '"city"' in shown_tool["schema"]
    assert found["request"]["options"].items() >= {"temperature": 0.2, "num_ctx": 8192, "think": True}.items()
    answer = found["answer"]
    assert (answer["text"], answer["thinking"], answer["finish"]) == ("It is a dot.", "Let me see.", "stop")
    assert ["done reason", "stop"] in answer["numbers"]
    assert found["events"] == [[10.0, "t", "It is "], [20.0, "t", "a dot."], [30.0, "", ""], [40.0, "", ""]]
    assert PNG not in json.dumps(found)


SAID = [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]
PLAIN = [{"role": role, "content": text} for role, text in SAID]
PARTS = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in SAID]
REQUESTS: dict[str, tuple[str, Any]] = {
    "chat": ("/api/chat", {"messages": PLAIN}),
    "chat completions": ("/v1/chat/completions", {"messages": PARTS}),
    "responses": ("/v1/responses", {"input": PLAIN}),
    "messages": ("/v1/messages", {"messages": PARTS}),
    "api/v1/chat": ("/api/v1/chat", {"input": PLAIN}),
}


@pytest.mark.parametrize(("path", "body"), REQUESTS.values(), ids=REQUESTS)
def test_messages_of_all_apis(path: str, body: Any) -> None:
    found = request(body, path)
    assert [(message["role"], message["text"]) for message in found["messages"]] == SAID
    assert found["newAt"] == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "Hi", "system": "S"}),
        ("/v1/responses", {"input": "Hi", "instructions": "S"}),
        ("/api/v1/chat", {"input": "Hi", "system_prompt": "S"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "system": [{"type": "text", "text": "S"}]}),
    ],
)
def test_a_system_text_of_its_own_field(path: str, body: Any) -> None:
    messages = request(body, path)["messages"]
    assert [(message["at"], message["role"], message["text"]) for message in messages] == [
        (0, "system", "S"),
        (1, "user", "Hi"),
    ]


def test_texts_to_embed() -> None:
    assert request({"input": ["one", "two"]}, "/api/embed")["texts"] == ["one", "two"]


ANSWERS: dict[str, tuple[str, bytes, str]] = {
    "generate": (
        "/api/generate",
        ndjson({"response": "Hi"}, {"response": " you", "done": True}),
        "application/x-ndjson",
    ),
    "one object": ("/api/chat", dumps(line("Hi you", done=True)), "application/json"),
    "chat completions": (
        "/v1/chat/completions",
        sse(chunk(content="Hi"), chunk(content=" you"), chunk("stop")),
        "text/event-stream",
    ),
    "responses": (
        "/v1/responses",
        sse(*({"type": "response.output_text.delta", "delta": text} for text in ("Hi", " you"))),
        "text/event-stream",
    ),
    "messages": (
        "/v1/messages",
        sse(
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
                for text in ("Hi", " you")
            )
        ),
        "text/event-stream",
    ),
    "api/v1/chat": (
        "/api/v1/chat",
        sse(*({"type": "message.delta", "content": text} for text in ("Hi", " you"))),
        "text/event-stream",
    ),
}


@pytest.mark.parametrize(("path", "body", "kind"), ANSWERS.values(), ids=ANSWERS)
def test_answers_of_all_apis(path: str, body: bytes, kind: str) -> None:
    assert (
        shown(record(path=path, response_size=len(body)), response=body, content_type=kind)["answer"]["text"]
        == "Hi you"
    )


def test_what_is_no_answer_of_a_model_is_shown_as_the_view_has_it() -> None:
    found = detail.detail_of(flow_of(answered("/api/tags", {"models": [{"name": "llama3.2:latest"}]})))
    assert found is not None
    assert "llama3.2" in found["answer"]["other"]
    assert found["events"] == []


def test_an_error_in_an_answer() -> None:
    found = shown(record(error="LM Studio has gone"), response=ndjson(line("Half")))
    assert (found["answer"]["text"], found["answer"]["error"]) == ("Half", "LM Studio has gone")


def test_nothing_is_shown_of_other_flows() -> None:
    for flow in (tflow.tflow(resp=True), flow_of(snapshot(record(kind="report")))):
        assert detail.detail_of(flow) is None
    assert detail.sides_of(tflow.tflow(resp=True)) is None
    assert detail.file_of(tflow.tflow(resp=True), 0, 0) is None


# Limits


def test_a_long_text_is_cut() -> None:
    found = request({"messages": [{"role": "user", "content": "x" * (TEXT_CHARACTERS + 1000)}]})
    (message,) = found["messages"]
    assert TEXT_CHARACTERS <= len(message["text"]) < TEXT_CHARACTERS + 100
    # It is not to be edited: what was cut off would be lost.
    assert message["isCut"]
    assert "isCut" not in request({"messages": [{"role": "user", "content": "x"}]})["messages"][0]


def test_the_last_of_many_messages_are_shown_with_their_numbers() -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(MAX_MESSAGES + 5)]
    found = request({"messages": messages})
    assert found["leftOut"] == 5
    assert [message["at"] for message in found["messages"]] == list(range(5, MAX_MESSAGES + 5))
    assert found["messages"][0]["text"] == "5"


def test_the_first_of_many_events_are_shown() -> None:
    events = sse(*(chunk(content="a") for _ in range(MAX_EVENTS + 10)))
    kept = record(upstream=events, upstream_size=len(events), arrivals=arrived(events), limit=100_000_000)
    flow = flow_of(snapshot(kept))
    found = detail.detail_of(flow)
    assert found is not None
    assert len(found["events"]) == MAX_EVENTS
    sides = detail.sides_of(flow)
    assert sides is not None
    assert len(sides["events"]) == MAX_EVENTS


def test_a_long_event_is_cut() -> None:
    events = sse(chunk(content="word " * EVENT_CHARACTERS))
    sides = detail.sides_of(flow_of(snapshot(record(upstream=events, upstream_size=len(events)))))
    assert sides is not None
    assert max(len(data) for _, _, data in sides["events"]) <= EVENT_CHARACTERS


def test_a_request_that_is_kept_in_part_says_so() -> None:
    body = dumps(ASKED)
    found = shown(record(body[:100], request_size=len(body), limit=100))["request"]
    assert "only 100 bytes of" in found["problem"]
    assert "max_kept_size" in found["problem"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b"\xff\xfe", b'{"messages":5}', b'{"messages":[5,null,[],{}]}', b"[" * 100_000]
)
def test_a_broken_request(body: bytes) -> None:
    shown(record(body), response=body)
    assert detail.sides_of(flow_of(snapshot(record(body), call=body, response=body))) is not None


def test_lone_surrogates() -> None:
    body = b'{"messages":[{"role":"\\ud800","content":"\\udfff"}],"\\ud800":"\\ud800"}'
    found = shown(record(body), response=b'{"message":{"content":"\\ud83d"}}\n')
    assert found["request"]["messages"]
    found["answer"]["text"].encode()


@pytest.mark.parametrize("value", [5, "x", b"\xff\xfe", None, [], {}, [[1]], {"total": "x"}, float("nan"), "\ud800"])
def test_a_file_may_have_anything_in_it(value: Any) -> None:
    flow = flow_of(snapshot())
    for name in list(flow.metadata):
        if name not in (f"{PREFIX}kind", f"{PREFIX}path"):
            flow.metadata[name] = value
    for read in (detail.detail_of, detail.sides_of):
        found = read(flow)
        assert found is not None
        json.loads(well_formed(json.dumps(found)))


# Pictures


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (f"data:text/html;base64,{PNG}", "image/png"),
        (base64.b64encode(b"<svg onload=x>").decode(), None),
        (f"data:image/png;base64,{base64.b64encode(b'<script>').decode()}", None),
        ("http://example.com/x.png", None),
        ("é", None),
        ("A", None),
        ("", None),
        (5, None),
        (None, None),
        ({"0": 137, "1": 80}, None),
    ],
)
def test_only_pictures_are_pictures(data: Any, kind: str | None) -> None:
    """By their bytes."""
    flow = flow_of(snapshot(record({"messages": [{"role": "user", "content": "", "images": [data]}]})))
    found = detail.file_of(flow, 0, 0)
    assert (found and found[1]) == kind
    assert detail.detail_of(flow) is not None
    for place in ((0, 1), (1, 0), (-1, 0), (0, -1)):
        assert detail.file_of(flow, *place) is None


# Both sides, and conversations


def test_both_sides() -> None:
    sides = detail.sides_of(flow_of(snapshot(record(arrivals=arrived(EVENTS)))))
    assert sides is not None
    assert sides["client"]["line"] == "POST /api/chat"
    assert sides["call"]["line"] == "POST /v1/chat/completions"
    assert sides["response"]["line"] == "200 OK"
    assert sides["lmstudio"]["line"] == "200"
    assert sides["lmstudio"]["body"] == ""
    assert [at for at, _, _ in sides["events"]] == [10.0, 20.0, 30.0, 40.0]
    assert any(name == "not sent" for name, _ in sides["changes"])
    assert SECRET not in json.dumps(sides)
    assert PNG not in json.dumps(sides)


def test_an_answer_of_the_bridges_own_has_one_side() -> None:
    sides = detail.sides_of(flow_of(answered("/api/version", {"version": "0.5"})))
    assert sides is not None
    assert set(sides) == {"client", "response"}


def test_a_call_of_the_bridges_own_has_the_other() -> None:
    sides = detail.sides_of(flow_of(snapshot(record(kind="own", path="/v1/models"))))
    assert sides is not None
    assert {"client", "response", "changes"} & set(sides) == set()
    assert {"call", "lmstudio"} <= set(sides)


def test_a_conversation_tells_each_thing_once() -> None:
    said: list[Any] = []
    flows = []
    for number in range(3):
        said.append({"role": "user", "content": f"question {number}"})
        kept = record({"messages": said}, conversation="ab12")
        flow = flow_of(snapshot(kept, response=ndjson(line(f"answer {number}", done=True))))
        flow.request.timestamp_start = number
        flows.append(flow)
        said.append({"role": "assistant", "content": f"answer {number}"})
    found = thread.find(flows[:1], flows)
    assert found is not None
    turns = detail.conversation_of(found)
    assert [turn["row"]["id"] for turn in turns] == [flow.id for flow in flows]
    assert [[message["text"] for message in turn["messages"]] for turn in turns] == [
        ["question 0"],
        ["question 1"],
        ["question 2"],
    ]
    assert [message["at"] for turn in turns for message in turn["messages"]] == [0, 2, 4]
    assert [turn["answer"]["text"] for turn in turns] == ["answer 0", "answer 1", "answer 2"]
