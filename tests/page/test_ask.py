"""What is asked again from the page, with what was changed there: the body of the request, in each API's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.inspect.conftest import PNG, flow_of, record, snapshot

from ollama_lmstudio.inspect.conversation import read_request
from ollama_lmstudio.inspect.repeat import NotRepeatable
from ollama_lmstudio.options import Upstream
from ollama_lmstudio.page.ask import ask_again

UPSTREAM = Upstream("http", "lmstudio", 1234, "")
SYSTEM, ONE, TWO = (
    {"role": role, "content": text} for role, text in (("system", "S"), ("user", "1"), ("assistant", "2"))
)
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "18"}]}


def again(body: Any, path: str = "/api/chat", **wanted: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    flow = flow_of(snapshot(record(data, path=path, limit=10_000_000)))
    made = ask_again(flow, wanted, UPSTREAM)
    return json.loads(made.request.content or b"")


def content(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def text(said: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": said}


# A request and what is wanted of it, and the request that is made of it.
MADE: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "chat: a message": (
        "/api/chat",
        {"messages": [ONE, TWO]},
        {"messages": {"1": "x"}},
        {"messages": [ONE, {**TWO, "content": "x"}]},
    ),
    "chat: a system text": (
        "/api/chat",
        {"messages": [SYSTEM, ONE]},
        {"system": "x"},
        {"messages": [{**SYSTEM, "content": "x"}, ONE]},
    ),
    "chat: a new system text": (
        "/api/chat",
        {"messages": [ONE]},
        {"system": "x"},
        {"messages": [{**SYSTEM, "content": "x"}, ONE]},
    ),
    "chat: no system text": ("/api/chat", {"messages": [SYSTEM, ONE]}, {"system": ""}, {"messages": [ONE]}),
    "chat: a system text that is not the first": (
        "/api/chat",
        {"messages": [ONE, SYSTEM]},
        {"system": "x"},
        {"messages": [ONE, {**SYSTEM, "content": "x"}]},
    ),
    "chat: a message and a system text": (
        "/api/chat",
        {"messages": [ONE, TWO]},
        {"system": "x", "messages": {"0": "y"}},
        {"messages": [{**SYSTEM, "content": "x"}, {**ONE, "content": "y"}, TWO]},
    ),
    "chat: a message with a picture": (
        "/api/chat",
        {"messages": [{**ONE, "images": [PNG]}]},
        {"messages": {"0": "x"}},
        {"messages": [{**ONE, "images": [PNG], "content": "x"}]},
    ),
    "chat: names in another case": (
        "/api/chat",
        {"Messages": [ONE]},
        {"messages": {"0": "x"}},
        {"Messages": [{**ONE, "content": "x"}]},
    ),
    "generate: a prompt": ("/api/generate", {"prompt": "1"}, {"messages": {"0": "x"}}, {"prompt": "x"}),
    "generate: a prompt under a system text": (
        "/api/generate",
        {"prompt": "1", "system": "S"},
        {"system": "x", "messages": {"1": "y"}},
        {"prompt": "y", "system": "x"},
    ),
    "generate: no system text": ("/api/generate", {"prompt": "1", "system": "S"}, {"system": ""}, {"prompt": "1"}),
    "completions: content parts": (
        "/v1/chat/completions",
        {"messages": [content(text("1"), PICTURE, text("2"))]},
        {"messages": {"0": "x"}},
        {"messages": [content(text("x"), PICTURE)]},
    ),
    "responses: an input": ("/v1/responses", {"input": "1"}, {"messages": {"0": "x"}}, {"input": "x"}),
    "responses: instructions": (
        "/v1/responses",
        {"input": "1", "instructions": "S"},
        {"system": "x", "messages": {"1": "y"}},
        {"input": "y", "instructions": "x"},
    ),
    "responses: new instructions": (
        "/v1/responses",
        {"input": [ONE]},
        {"system": "x"},
        {"input": [ONE], "instructions": "x"},
    ),
    "responses: an item": (
        "/v1/responses",
        {"input": [ONE, content(text("2", "input_text"))], "instructions": "S"},
        {"messages": {"2": "x"}},
        {"input": [ONE, content(text("x", "input_text"))], "instructions": "S"},
    ),
    "messages: a system text": (
        "/v1/messages",
        {"messages": [ONE], "system": [{"type": "text", "text": "S"}]},
        {"system": "x", "messages": {"1": "y"}},
        {"messages": [{**ONE, "content": "y"}], "system": "x"},
    ),
    "messages: a new system text": (
        "/v1/messages",
        {"messages": [ONE]},
        {"system": "x"},
        {"messages": [ONE], "system": "x"},
    ),
    "api/v1/chat: an input": ("/api/v1/chat", {"input": "1"}, {"messages": {"0": "x"}}, {"input": "x"}),
    "api/v1/chat: a system prompt": (
        "/api/v1/chat",
        {"input": "1"},
        {"system": "x"},
        {"input": "1", "system_prompt": "x"},
    ),
    "api/v1/chat: a part": (
        "/api/v1/chat",
        {"input": [{"type": "text", "content": "1"}, {"type": "image", "data_url": PNG}]},
        {"messages": {"0": "x"}},
        {"input": [{"type": "text", "content": "x"}, {"type": "image", "data_url": PNG}]},
    ),
    "an option": (
        "/api/chat",
        {"messages": [ONE]},
        {"changes": {"temperature": 0.5}},
        {"messages": [ONE], "options": {"temperature": 0.5}},
    ),
    "a model": (
        "/api/chat",
        {"messages": [ONE], "model": "a"},
        {"changes": {"model": "b"}},
        {"messages": [ONE], "model": "b"},
    ),
    "no option": (
        "/api/chat",
        {"messages": [ONE], "options": {"temperature": 1}},
        {"changes": {"temperature": None}},
        {"messages": [ONE], "options": {}},
    ),
    "what is the same": ("/api/chat", {"messages": [ONE]}, {"messages": {"0": "1"}}, {"messages": [ONE]}),
    "what is no wish": (
        "/api/chat",
        {"messages": [ONE]},
        {"changes": 5, "system": 5, "messages": [5], "other": 5},
        {"messages": [ONE]},
    ),
    "what is no number": (
        "/api/chat",
        {"messages": [ONE]},
        {"messages": {"x": "1", "²": "1", "-1": "1", "9" * 5000: "1"}},
        {"messages": [ONE]},
    ),
    "what is broken": (
        "/api/chat",
        {"messages": [ONE]},
        {"messages": {"0": "\ud800"}},
        {"messages": [{**ONE, "content": "?"}]},
    ),
}


@pytest.mark.parametrize(("path", "body", "wanted", "expected"), MADE.values(), ids=MADE)
def test_what_is_made(path: str, body: dict[str, Any], wanted: dict[str, Any], expected: dict[str, Any]) -> None:
    assert again(body, path, **wanted) == expected


@pytest.mark.parametrize(("path", "body", "wanted", "expected"), MADE.values(), ids=MADE)
def test_the_message_that_is_edited_is_the_one_that_was_shown(
    path: str, body: dict[str, Any], wanted: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The numbers are those of the view, wherever the API has its messages."""
    texts = wanted.get("messages")
    shown = read_request(json.dumps(body).encode(), path).messages
    made = read_request(json.dumps(again(body, path, **wanted)).encode(), path).messages
    for at, said in texts.items() if isinstance(texts, dict) else ():
        if at in map(str, range(len(shown))) and said.isascii():
            moved = len(made) - len(shown)
            assert made[int(at) + moved].text == said
            assert made[int(at) + moved].attachments == shown[int(at)].attachments


REFUSED: dict[str, tuple[Any, str, dict[str, str]]] = {
    "a message that is not there": ({"messages": [ONE]}, "/api/chat", {"1": "x"}),
    "the system text by its number": ({"prompt": "1", "system": "S"}, "/api/generate", {"0": "x"}),
    "a tool's result": ({"messages": [RESULT]}, "/v1/messages", {"0": "x"}),
    "a picture alone": ({"messages": [content(PICTURE)]}, "/v1/chat/completions", {"0": "x"}),
    "a text that is no message": ({"messages": ["1"]}, "/api/chat", {"0": "x"}),
    "a tool's call": ({"input": [{"type": "function_call", "name": "f"}]}, "/v1/responses", {"0": "x"}),
    "several prompts": ({"prompt": ["1", "2"]}, "/v1/completions", {"0": "x"}),
    "nothing": ({}, "/api/chat", {"0": "x"}),
    "a number that is too long": ({"messages": [ONE]}, "/api/chat", {"9" * 9: "x"}),
}


@pytest.mark.parametrize(("body", "path", "texts"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_edited_is_not_asked_as_if_it_were(body: Any, path: str, texts: dict[str, str]) -> None:
    with pytest.raises(NotRepeatable, match="edited"):
        again(body, path, messages=texts)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"\xff"])
def test_what_is_no_object_is_not_asked(body: bytes) -> None:
    with pytest.raises(NotRepeatable, match="no JSON object"):
        again(body, system="x", messages={"0": "x"})


def test_the_first_request_stays_as_it_was() -> None:
    body = {"messages": [SYSTEM, content(text("1"), PICTURE)]}
    flow = flow_of(snapshot(record(body)))
    before = dict(flow.metadata)
    ask_again(flow, {"system": "x", "messages": {"1": "y"}}, UPSTREAM)
    assert flow.metadata == before
