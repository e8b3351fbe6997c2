"""What clients ask, read into one structure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.clients import ClientRequest, client_requests
from tests.inspect.conftest import ASKED, CALL, PNG, dumps

from ollama_lmstudio.inspect.conversation import (
    Attachment,
    ParsedMessage,
    ParsedRequest,
    ParsedToolCall,
    Tool,
    read_request,
)

IMAGE = Attachment("image/png", 70)
USER = ParsedMessage("user", "hi")


def test_a_chat() -> None:
    request = read_request(dumps(ASKED), "/api/chat")
    assert request.model == "llama3.2"
    assert request.messages == (
        ParsedMessage("system", "Be terse."),
        ParsedMessage("user", "What is this?\nLook.", attachments=(IMAGE,)),
        ParsedMessage("assistant", thinking="Where?", tool_calls=(ParsedToolCall("weather", '{"city": "Rome"}'),)),
        ParsedMessage("tool", "18 degrees", answers="weather"),
    )
    assert [str(tool) for tool in request.tools] == ["weather(city: string, unit?: string)"]
    assert request.options == {"temperature": 0.2, "num_predict": 100, "num_ctx": 8192}
    assert request.fields == {"stream": True, "think": True, "keep_alive": "5m"}
    assert not request.problem


def test_the_call_of_a_chat_has_the_same_conversation() -> None:
    before, after = read_request(dumps(ASKED), "/api/chat"), read_request(dumps(CALL), "/v1/chat/completions")
    assert [message.text for message in after.messages] == [message.text for message in before.messages]
    assert after.messages[1] == before.messages[1]
    assert after.messages[2].tool_calls == (ParsedToolCall("weather", '{"city": "Rome"}', "call_1"),)
    assert after.messages[3].answers == "call_1"
    assert after.tools == before.tools


IMAGE_URL = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG}"}}

MESSAGES: dict[str, tuple[str, dict[str, Any], list[ParsedMessage]]] = {
    "generate": (
        "/api/generate",
        {"system": "s", "prompt": "hi", "images": [PNG]},
        [ParsedMessage("system", "s"), ParsedMessage("user", "hi", attachments=(IMAGE,))],
    ),
    "an empty prompt": ("/api/generate", {"prompt": ""}, []),
    "an image alone": ("/api/generate", {"images": [PNG]}, [ParsedMessage("user", attachments=(IMAGE,))]),
    "keys in capitals": ("/api/generate", {"Prompt": "hi"}, [USER]),
    "parts": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE_URL, {"text": "b"}]}]},
        [ParsedMessage("user", "a\nb", attachments=(Attachment("image/jpeg", 70),))],
    ),
    "an image elsewhere": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://a/b.png"}]}]},
        [ParsedMessage("user", attachments=(Attachment("at http://a/b.png", 0),))],
    ),
    "reasoning": (
        "/v1/chat/completions",
        {"messages": [{"role": "assistant", "content": None, "reasoning_content": "hm"}]},
        [ParsedMessage("assistant", thinking="hm")],
    ),
    "messages of Anthropic's": (
        "/v1/messages",
        {
            "system": [{"type": "text", "text": "s"}],
            "messages": [
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm"},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "content": [
                                {"type": "text", "text": "ok"},
                                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                            ],
                        }
                    ],
                },
            ],
        },
        [
            ParsedMessage("system", "s"),
            ParsedMessage("assistant", thinking="hm", tool_calls=(ParsedToolCall("f", '{"a": 1}', "1"),)),
            ParsedMessage("user", "ok", attachments=(IMAGE,), answers="1"),
        ],
    ),
    "responses": (
        "/v1/responses",
        {
            "instructions": "s",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "function_call", "call_id": "c", "id": "f_1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "ok"},
            ],
        },
        [
            ParsedMessage("system", "s"),
            USER,
            ParsedMessage("assistant", thinking="hm"),
            ParsedMessage("assistant", tool_calls=(ParsedToolCall("f", "{}", "c"),)),
            ParsedMessage("tool", "ok", answers="c"),
        ],
    ),
    "responses to one text": ("/v1/responses", {"input": "hi"}, [USER]),
    "LM Studio's own chat": (
        "/api/v1/chat",
        {
            "system_prompt": "s",
            "input": [
                {"type": "text", "content": "hi"},
                {"type": "image", "data_url": f"data:image/png;base64,{PNG}"},
            ],
        },
        [ParsedMessage("system", "s"), USER, ParsedMessage("user", attachments=(IMAGE,))],
    ),
    "what is no message": (
        "/api/chat",
        {"messages": ["hi", 5, {"content": {"a": 1}}, {"role": "user", "tool_calls": ["f", {"function": 1}]}]},
        [
            ParsedMessage("?", "hi"),
            ParsedMessage("?", "5"),
            ParsedMessage("?", '{"a": 1}'),
            ParsedMessage("user", tool_calls=(ParsedToolCall("", "f"), ParsedToolCall(""))),
        ],
    ),
    "images that are none": (
        "/api/chat",
        {"messages": [{"role": "user", "images": [{"0": 137, "1": 80}, 7, "????", "QUJD"]}]},
        [
            ParsedMessage(
                "user",
                attachments=(
                    Attachment("not in base64", 2),
                    Attachment("not in base64", 0),
                    Attachment("unknown type", 3),
                    Attachment("unknown type", 3),
                ),
            )
        ],
    ),
}


@pytest.mark.parametrize(("path", "body", "messages"), MESSAGES.values(), ids=MESSAGES)
def test_messages(path: str, body: dict[str, Any], messages: list[ParsedMessage]) -> None:
    request = read_request(dumps(body), path)
    assert list(request.messages) == messages
    assert not request.fields


@pytest.mark.parametrize("given_input", ["one", ["one", "two"], [1, ["x"]]])
def test_texts_to_embed(given_input: Any) -> None:
    request = read_request(dumps({"model": "m", "input": given_input, "truncate": False}), "/api/embed")
    texts = given_input if isinstance(given_input, list) else [given_input]
    assert list(request.texts) == [text if isinstance(text, str) else json.dumps(text) for text in texts]
    assert request.fields == {"truncate": False}


def test_other_requests_are_fields() -> None:
    assert read_request(b'{"source":"a","destination":"b"}').fields == {"source": "a", "destination": "b"}
    pull = read_request(b'{"model":"","name":"m","username":"u","password":"secret"}')
    assert pull.model == "m"
    assert pull.fields == {"username": "u", "password": "***"}


def test_what_is_of_the_wrong_type_is_shown_as_it_is() -> None:
    body = {"model": 5, "options": [1], "tools": {"a": 1}, "messages": "hi"}
    assert read_request(dumps(body)).fields == body


def test_tools_of_any_form() -> None:
    tools = [
        {"name": "f", "description": "d", "input_schema": {"properties": {"a": {}}, "required": "a"}},
        {"type": "mcp"},
        "x",
        {"function": {"name": "g", "parameters": {"properties": {"a": {}}, "required": [["a"]]}}},
    ]
    request = read_request(dumps({"tools": tools}))
    assert [str(tool) for tool in request.tools] == ["f(a?)", "mcp()", "?()", "g(a?)"]
    assert request.tools[2] == Tool("", "x")


def test_a_body_that_is_cut_in_an_image() -> None:
    body = dumps({"model": "m", "messages": [{"role": "user", "content": "hi", "images": [PNG]}], "stream": True})
    request = read_request(body[: body.index(PNG.encode()) + 40], "/api/chat")
    assert request.problem.startswith("broken: ")
    assert request.messages == (ParsedMessage("user", "hi", attachments=(Attachment("image/png", 30),)),)


@pytest.mark.parametrize(
    ("body", "problem"), [(b"", ""), (b"[]", ""), (b"null", ""), (b"x", "not JSON: Expecting value at character 1")]
)
def test_no_object(body: bytes, problem: str) -> None:
    request = read_request(body)
    assert request.problem == problem
    assert not request.messages


@pytest.mark.parametrize("sent", [each for each in client_requests() if each.json], ids=str)
def test_bodies_of_real_clients(sent: ClientRequest) -> None:
    """Nothing that a client sent is lost."""
    body = sent.json
    request = read_request(sent.body, sent.path)
    assert not request.problem
    assert request.model == (body.get("model") or body.get("name") or "")
    assert len(request.messages) == len(body.get("messages", [])) + bool(body.get("system")) + bool(body.get("prompt"))
    assert len(request.tools) == len(body.get("tools") or [])
    known = {"model", "name", "messages", "system", "prompt", "images", "input", "tools", "options"}
    assert set(request.fields) - known == set(body) - known


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "images",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "source",
                    "data",
                    "id",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)
BODIES = st.dictionaries(
    st.sampled_from(["model", "messages", "prompt", "system", "input", "tools", "options", "images", "name"]), VALUES
)


@given(st.binary())
def test_never_raises(body: bytes) -> None:
    assert isinstance(read_request(body), ParsedRequest)


@given(BODIES, st.sampled_from(["/api/chat", "/api/embed", "/v1/responses"]))
def test_never_raises_for_nearly_right_bodies(body: dict[str, Any], path: str) -> None:
    request = read_request(dumps(body), path)
    assert all(isinstance(str(tool), str) for tool in request.tools)


def test_what_is_nested_deeply() -> None:
    content: Any = "x"
    for _ in range(300):
        content = [{"type": "tool_result", "content": content}]
    assert read_request(dumps({"messages": [{"role": "user", "content": content}]})).messages[0].role == "user"
