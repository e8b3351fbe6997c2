"""What was changed on the way to LM Studio."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inspect.conftest import ASKED, CALL, PNG, WEATHER, dumps

from ollama_lmstudio.inspect.changes import MAX_LINES, changes
from ollama_lmstudio.ollama.requests import ChatRequest
from ollama_lmstudio.translate.messages import messages_to_lmstudio
from ollama_lmstudio.translate.tools import tools_to_lmstudio

CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"


def test_a_chat() -> None:
    assert changes(dumps(ASKED), CHAT, dumps(CALL), COMPLETIONS) == [
        ("model", "llama3.2 -> llama-3.2-3b-instruct"),
        ("message 3", "thinking not sent, weather has the id call_1"),
        ("message 4", "answers weather -> call_1"),
        ("num_predict", "100 -> max_tokens"),
        ("think", 'true -> reasoning_effort "medium"'),
        ("keep_alive", '"5m" -> ttl 300'),
        ("as it came", "temperature, stream"),
        ("added", 'stream_options {"include_usage": true}'),
        ("not sent", "num_ctx 8192"),
    ]


def test_what_goes_as_it_came() -> None:
    assert changes(b'{"a":1}', COMPLETIONS, b'{"a":1}', COMPLETIONS) == [("as it came", "a")]
    assert changes(b"", "/v1/models", b"", "/v1/models") == []
    assert changes(b"x", COMPLETIONS, b"x", COMPLETIONS) == []
    assert changes(b"xx", COMPLETIONS, b"x", COMPLETIONS) == [("body", "2 -> 1 bytes")]


HI = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "Be terse."}
SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}


IMAGE_URL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def _calling(call_id: str, arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": call_id, "function": {"name": "f", "arguments": arguments}}]}


def _schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, str]]]] = {
    "a system message is added": (
        {"messages": [HI]},
        {"messages": [SYSTEM, HI]},
        [("added", "system: Be terse.")],
    ),
    "a role is changed": (
        {"messages": [{"role": "banana", "content": "hi"}]},
        {"messages": [HI]},
        [("message 1", "role banana -> user")],
    ),
    "images of a tool follow": (
        {"messages": [HI, {"role": "tool", "content": "see", "images": [PNG]}]},
        {
            "messages": [
                HI,
                {"role": "tool", "content": "see"},
                {"role": "user", "content": [IMAGE_URL]},
            ]
        },
        [
            ("message 2", "images [image/png, 1 x 1 pixels, 70 bytes] -> none"),
            ("added", "user: [image/png, 1 x 1 pixels, 70 bytes]"),
        ],
    ),
    "a message is lost": ({"messages": [HI, SYSTEM]}, {"messages": [SYSTEM]}, [("message 1", "not sent: user: hi")]),
    "a prompt becomes a message": ({"prompt": "hi", "system": "Be terse."}, {"messages": [SYSTEM, HI]}, []),
    "earlier turns come from the context": (
        {"prompt": "hi", "context": list(range(99))},
        {"messages": [SYSTEM, HI]},
        [("added", "system: Be terse."), ("not sent", "context [99 values] (the earlier turns are read from it)")],
    ),
    "a suffix becomes part of the prompt": (
        {"prompt": "a", "suffix": "b"},
        {"prompt": "<pre>a<suf>b<mid>"},
        [
            ("message 1", "text of 1 -> 17 characters"),
            ("not sent", 'suffix "b" (it became part of the prompt)'),
        ],
    ),
    "the order of a schema's keys is kept": (
        {"format": SCHEMA},
        _schema(SCHEMA),
        [("format", f"{json.dumps(SCHEMA)} -> response_format, the same schema")],
    ),
    "the order of a schema's keys is not kept": (
        {"format": {"a": 1, "b": 2}},
        _schema({"b": 2, "a": 1}),
        [("format", '{"a": 1, "b": 2} -> response_format, schema {"b": 2, "a": 1}')],
    ),
    "any JSON": (
        {"format": "json"},
        _schema({"type": "object"}),
        [("format", '"json" -> response_format, schema {"type": "object"}')],
    ),
    "a penalty's substitute": (
        {"options": {"repeat_penalty": 1.1}},
        {"frequency_penalty": 1.1},
        [("repeat_penalty", "1.1 -> frequency_penalty")],
    ),
    "of two options one goes before": (
        {"options": {"num_predict": 5, "max_tokens": 7}},
        {"max_tokens": 7},
        [("as it came", "max_tokens"), ("not sent", "num_predict 5")],
    ),
    "a fraction is cut": ({"options": {"top_k": 10.9}}, {"top_k": 10}, [("top_k", "10.9 -> 10")]),
    "nothing is not lost": ({"format": None, "suffix": "", "options": {"stop": []}}, {}, []),
    "an answer that is asked as a stream": ({"stream": False}, {"stream": True}, [("stream", "false -> true")]),
    "what the model does anyway": ({"think": True}, {}, [("not sent", "think true (the model's default holds)")]),
    "what the bridge sees to": ({"keep_alive": 0}, {}, [("not sent", "keep_alive 0 (the bridge sees to it)")]),
    "texts": ({"input": "a"}, {"input": ["a"]}, []),
    "other texts": ({"input": "a"}, {"input": ["a", "b"]}, [("input", "1 -> 2 texts")]),
    "tools": (
        {
            "tools": [
                {"function": {"name": "f", "parameters": {"type": None, "properties": {"a": {"type": "x"}}}}},
                {"function": {"name": "g", "description": "d"}},
            ]
        },
        {"tools": [{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "y"}}, "required": []}}}]},
        [
            ("tool f", "parameters.type null taken out"),
            ("tool f", 'parameters.properties.a.type "x" -> "y"'),
            ("tool f", "parameters.required [] put in"),
            ("tool g", "not offered"),
        ],
    ),
    "calls": (
        {"messages": [_calling("a", {"x": 1})]},
        {"messages": [_calling("b", '{"x": 2}')]},
        [("message 1", 'f has the id b, not a, call "f({\\"x\\": 1})" -> "f({\\"x\\": 2})"')],
    ),
}


@pytest.mark.parametrize(("asked", "call", "expected"), CHANGES.values(), ids=CHANGES)
def test_changes(asked: dict[str, Any], call: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    client_path = "/api/embed" if "input" in asked else CHAT
    path = "/v1/embeddings" if "input" in asked else COMPLETIONS
    assert changes(dumps(asked), client_path, dumps(call), path) == expected


def test_what_the_mapping_does_is_what_is_reported() -> None:
    """The real mapping of real messages and tools: nothing is reported that was not done."""
    tools = [{**WEATHER, "function": {**WEATHER["function"], "strict": None}}]
    asked = {"model": "m", "messages": ASKED["messages"], "tools": tools}
    request = ChatRequest.decode(dumps(asked))
    call = {
        "model": "m",
        "messages": messages_to_lmstudio(request.messages),
        "tools": tools_to_lmstudio(request.tools),
    }
    assert changes(dumps(asked), CHAT, dumps(call), COMPLETIONS) == [
        ("message 3", "thinking not sent, weather has the id call_00000001"),
        ("message 4", "answers weather -> call_00000001"),
    ]


def test_of_many_changes_the_first_are_shown() -> None:
    lines = changes(b"{}", CHAT, dumps({"messages": [HI] * 1000}), COMPLETIONS)
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == ("added", f"and {1000 - MAX_LINES} more changes")


@given(st.binary(), st.binary())
def test_never_raises(asked: bytes, call: bytes) -> None:
    changes(asked, CHAT, call, COMPLETIONS)


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(
    st.sampled_from(["model", "messages", "options", "tools", "format", "think", "response_format", "prompt", "stop"]),
    VALUES,
)


@given(BODIES, BODIES)
def test_never_raises_for_nearly_right_bodies(asked: dict[str, Any], call: dict[str, Any]) -> None:
    changes(dumps(asked), CHAT, dumps(call), COMPLETIONS)
