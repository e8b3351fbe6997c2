"""Conversations, as LM Studio's validator reads them: roles, content, tool calls and their results."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.translate.test_images import GIF, JPEG, PNG
from tests.translate.test_tools import json_values

from ollama_lmstudio.ollama.requests import Message, MessageToolCall
from ollama_lmstudio.sim import validate
from ollama_lmstudio.sim.models import Version
from ollama_lmstudio.state.aliases import Alias
from ollama_lmstudio.translate.compact_json import dumps
from ollama_lmstudio.translate.images import image_to_lmstudio
from ollama_lmstudio.translate.messages import content_to_lmstudio, conversation_to_lmstudio, messages_to_lmstudio

VERSION = Version("0.4.25")


def ask(*calls: tuple[str, str]) -> Message:
    return Message(
        "assistant", tool_calls=[MessageToolCall(call_id, index, name) for index, (call_id, name) in enumerate(calls)]
    )


def tell(call_id: str = "", name: str = "") -> Message:
    return Message("tool", "result", tool_call_id=call_id, tool_name=name)


def ids(messages: list[Message]) -> list[str]:
    """Return the ids of calls and results as they come."""
    found: list[str] = []
    for message in messages_to_lmstudio(messages):
        found += [call["id"] for call in message.get("tool_calls", [])]
        found += [message["tool_call_id"]] if message["role"] == "tool" else []
    return found


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([ask(("a", "f"), ("b", "g")), tell("b"), tell("a")], ["a", "b", "b", "a"]),
        ([ask(("a", "f"), ("b", "g")), tell(name="g"), tell(name="f")], ["a", "b", "b", "a"]),
        ([ask(("a", "f"), ("b", "g")), tell(), tell()], ["a", "b", "a", "b"]),
        ([ask(("a", "f"), ("b", "f")), tell(name="f"), tell(name="f")], ["a", "b", "a", "b"]),
        ([ask(("a", "f"), ("b", "g")), tell("b"), tell()], ["a", "b", "b", "a"]),
        # The id counts more than the name, the name more than the place.
        ([ask(("a", "f"), ("b", "g")), tell("b", "f"), tell("", "f")], ["a", "b", "b", "a"]),
        ([ask(("a", "f"), ("b", "g")), tell("x", "g")], ["a", "b", "b"]),
        ([ask(("a", "f"), ("b", "g")), tell("x", "y")], ["a", "b", "a"]),
        # Without ids they are made up, and found again.
        ([ask(("", "f"), ("", "g")), tell(name="g")], ["call_00000001", "call_00000002", "call_00000002"]),
        ([ask(("", "f")), tell(), ask(("", "f")), tell()], [f"call_0000000{n}" for n in (1, 1, 2, 2)]),
        # Results without a call keep their own id, or get one.
        ([tell("a")], ["a"]),
        ([tell()], ["call_00000001"]),
        ([ask(("a", "f")), tell(), tell()], ["a", "a", "call_00000001"]),
        # A call without a result is not matched a turn later.
        ([ask(("a", "f")), ask(("b", "f")), tell(name="f")], ["a", "b", "b"]),
    ],
)
def test_results_find_their_calls(messages: list[Message], expected: list[str]) -> None:
    assert ids(messages) == expected


def test_arguments_are_a_string_of_json_in_their_order() -> None:
    call = MessageToolCall("a", 0, "f", {"z": "é", "a": [1]})
    (made,) = messages_to_lmstudio([Message("assistant", "Let me", tool_calls=[call])])
    function = {"name": "f", "arguments": '{"z": "é", "a": [1]}'}
    assert made == {
        "role": "assistant",
        "content": "Let me",
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }


@pytest.mark.parametrize(
    ("role", "made"),
    [
        *[(role, role) for role in ("system", "user", "assistant", "developer")],
        ("banana", "user"),
        ("", "user"),
        ("function", "user"),
    ],
)
def test_roles(role: str, made: str) -> None:
    assert messages_to_lmstudio([Message(role, "x")]) == [{"role": made, "content": "x"}]


def test_images_of_a_message() -> None:
    image = image_to_lmstudio(PNG)
    assert content_to_lmstudio("x", []) == "x"
    assert content_to_lmstudio("x", [PNG, PNG]) == [{"type": "text", "text": "x"}, image, image]
    assert content_to_lmstudio("", [PNG]) == [image]


def test_images_of_a_tools_result_follow_as_the_users() -> None:
    result = Message("tool", "see", images=[PNG], tool_call_id="a")
    assert messages_to_lmstudio([ask(("a", "f")), result])[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "see"},
        {"role": "user", "content": [image_to_lmstudio(PNG)]},
    ]


names = st.sampled_from(["", "f", "g"])
calls = st.builds(
    MessageToolCall,
    id=st.sampled_from(["", "a", "b"]),
    name=names,
    arguments=st.dictionaries(st.text(max_size=3), json_values, max_size=2),
)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool", "tool", "developer", "banana", ""]),
    content=st.text(max_size=5),
    thinking=st.text(max_size=3),
    images=st.lists(st.sampled_from([PNG, JPEG, GIF]), max_size=2),
    tool_calls=st.lists(calls, max_size=3),
    tool_name=names,
    tool_call_id=st.sampled_from(["", "a", "b", "c"]),
)


@settings(max_examples=200)
@given(st.lists(messages, max_size=8))
def test_lm_studio_takes_every_conversation(conversation: list[Message]) -> None:
    made = messages_to_lmstudio(conversation)
    validate.chat_prompt(json.loads(dumps({"messages": made})), VERSION)
    results = [message["content"] for message in made if message["role"] == "tool"]
    assert results == [message.content for message in conversation if message.role == "tool"]


SYSTEM = {"role": "system", "content": "S"}
HI = Message("user", "Hi")
HI_ALONE = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("messages", "system", "expected"),
    [
        ([HI], "S", [SYSTEM, *HI_ALONE]),
        ([], "S", [SYSTEM]),
        ([HI], "", HI_ALONE),
        ([HI], None, HI_ALONE),
        ([HI], 5, HI_ALONE),
        ([HI, Message("system", "S")], "other", [*HI_ALONE, SYSTEM]),
    ],
)
def test_a_system_text_is_the_first_message_unless_there_is_one(
    messages: list[Message], system: object, expected: list[dict[str, Any]]
) -> None:
    assert conversation_to_lmstudio(None, messages, system) == expected


OWN_SYSTEM, LATE_SYSTEM = Message("system", "own"), Message("system", "late")
ASKED = Message("user", "q")


@pytest.mark.parametrize(
    ("adds", "messages", "system", "contents"),
    [
        ({}, [ASKED], None, ["q"]),
        ({}, [ASKED], "", ["q"]),
        ({}, [ASKED], "option", ["option", "q"]),
        ({}, [ASKED], 5, ["q"]),
        ({}, [OWN_SYSTEM, ASKED], "option", ["own", "q"]),
        ({"system": "S"}, [ASKED], None, ["S", "q"]),
        ({"system": "S"}, [ASKED], "option", ["option", "q"]),
        ({"system": "S"}, [OWN_SYSTEM, ASKED], None, ["own", "q"]),
        ({"system": "S"}, [ASKED, LATE_SYSTEM], None, ["q", "late"]),
        ({"messages": [{"role": "user", "content": "1"}]}, [ASKED], None, ["1", "q"]),
        ({"messages": [{"role": "user", "content": "1"}]}, [OWN_SYSTEM, ASKED], None, ["own", "1", "q"]),
        ({"system": "S", "messages": [{"role": "user", "content": "1"}]}, [ASKED], None, ["S", "1", "q"]),
        ({"messages": [{"role": "user", "content": "1"}]}, [ASKED, LATE_SYSTEM], None, ["1", "q", "late"]),
    ],
)
def test_conversations(adds: dict[str, Any], messages: list[Message], system: Any, contents: list[str]) -> None:
    alias = Alias("mine:latest", "c", 1, 2, **adds)
    given = conversation_to_lmstudio(alias, messages, system)
    assert [message["content"] for message in given] == contents
    if not adds:
        assert conversation_to_lmstudio(None, messages, system) == given
