"""What requests become for LM Studio: tables, and what its own validator says of the results."""

from __future__ import annotations

import base64
import io
import json
import sys
import warnings
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ollama_lmstudio.lmstudio.catalog import Model, ReasoningOptions
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.requests import ChatRequest, Message, MessageToolCall
from ollama_lmstudio.sim import validate
from ollama_lmstudio.sim.models import Version
from ollama_lmstudio.translate import mapping
from ollama_lmstudio.translate.mapping import CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS

VERSION = Version("0.4.25")

# Options

OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    *[
        ({name: value}, {name: value})
        for name, value in {
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 40,
            "min_p": 0.05,
            "presence_penalty": -1.5,
            "frequency_penalty": 0.0,
            "repeat_penalty": 1.1,
            "seed": 0,
            "stop": ["a", "b"],
            "max_tokens": 7,
            "logit_bias": {"50256": -100},
        }.items()
    ],
    ({"num_predict": 7}, {"max_tokens": 7}),
    ({"num_predict": 0}, {"max_tokens": 0}),
    ({"num_predict": -1}, {}),
    ({"num_predict": -2}, {}),
    ({"max_tokens": -1}, {}),
    ({"max_tokens": 7.9}, {"max_tokens": 7}),
    ({"num_predict": 5, "max_tokens": 7}, {"max_tokens": 7}),
    ({"max_tokens": -1, "num_predict": 5}, {}),
    ({"max_tokens": None, "num_predict": 5}, {"max_tokens": 5}),
    ({"temperature": None, "stop": [], "seed": None, "top_k": ""}, {}),
    ({"logit_bias": [[15, -100], (16, 1.5), [17], "x", [1, 2, 3]]}, {"logit_bias": {"15": -100, "16": 1.5}}),
    ({"logit_bias": []}, {}),
    ({"num_ctx": 4096, "system": "S", "format": "json"}, {}),
    ({"reasoning_effort": "low", "draft_model": "d"}, {"reasoning_effort": "low", "draft_model": "d"}),
]


@pytest.mark.parametrize(("options", "body"), OPTIONS)
def test_options(options: dict[str, Any], body: dict[str, Any]) -> None:
    mapped = mapping.options_to_lmstudio(options, {}, CHAT_COMPLETIONS)
    assert mapped.body == body
    assert mapped.unsupported == []


def test_every_option_of_the_table_is_tested() -> None:
    tested = {name for options, _ in OPTIONS for name in options}
    assert {name for name, _ in mapping.OPTION_TO_LMSTUDIO} <= tested


def test_what_lm_studio_has_nothing_for_is_named() -> None:
    options = {"mirostat": 1, "num_gpu": 99, "num_keep": None, "typical_p": 1.0, "seed": 1, "num_ctx": 5}
    mapped = mapping.options_to_lmstudio(options, {"whatever": 1}, CHAT_COMPLETIONS)
    assert mapped.body == {"seed": 1}
    assert mapped.unsupported == ["mirostat", "num_gpu", "typical_p"]


@pytest.mark.parametrize(
    ("endpoint", "extras", "body"),
    [
        (CHAT_COMPLETIONS, {"parallel_tool_calls": False, "user": "u"}, {"parallel_tool_calls": False, "user": "u"}),
        (COMPLETIONS, {"parallel_tool_calls": False, "reasoning_effort": "low", "user": "u"}, {"user": "u"}),
        (EMBEDDINGS, {"preset": "p", "user": "u"}, {"user": "u"}),
        (CHAT_COMPLETIONS, {"preset": None, "draft_model": ""}, {}),
        (CHAT_COMPLETIONS, {"messages": [], "model": "other", "stream": False, "temperature": 1}, {}),
    ],
)
def test_keys_beside_the_options(endpoint: str, extras: dict[str, Any], body: dict[str, Any]) -> None:
    assert mapping.options_to_lmstudio({}, extras, endpoint).body == body


def test_an_option_wins_over_the_key_beside_it() -> None:
    mapped = mapping.options_to_lmstudio({"preset": "inner"}, {"preset": "outer"}, CHAT_COMPLETIONS)
    assert mapped.body == {"preset": "inner"}


@pytest.mark.parametrize(
    ("options", "body", "dropped"),
    [
        ({"repeat_penalty": 1.2}, {"frequency_penalty": 1.2}, []),
        ({"repeat_penalty": 1.2, "frequency_penalty": 0.1}, {"frequency_penalty": 0.1}, ["repeat_penalty"]),
        ({"repeat_penalty": 1.2, "frequency_penalty": None}, {"frequency_penalty": 1.2}, []),
    ],
)
def test_a_substitute_for_a_key_that_an_endpoint_lacks(
    options: dict[str, Any], body: dict[str, Any], dropped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = mapping.ENDPOINT_KEYS[COMPLETIONS] - {"repeat_penalty"}
    monkeypatch.setattr(mapping, "ENDPOINT_KEYS", {COMPLETIONS: lacking})
    mapped = mapping.options_to_lmstudio(options, {}, COMPLETIONS)
    assert (mapped.body, mapped.unsupported) == (body, dropped)


def test_no_substitute_where_that_is_lacking_too() -> None:
    mapped = mapping.options_to_lmstudio({"repeat_penalty": 1.2, "seed": 1}, {}, EMBEDDINGS)
    assert (mapped.body, mapped.unsupported) == ({}, ["repeat_penalty", "seed"])


def test_lm_studio_knows_the_keys_it_is_sent() -> None:
    ignored = {"user", "parallel_tool_calls", "preset", "max_completion_tokens"}
    assert mapping.ENDPOINT_KEYS[CHAT_COMPLETIONS] <= validate.CHAT_KEYS | ignored
    assert mapping.ENDPOINT_KEYS[COMPLETIONS] <= validate.COMPLETION_KEYS | ignored
    assert mapping.ENDPOINT_KEYS[EMBEDDINGS] <= validate.EMBEDDING_KEYS | ignored


# Format


@pytest.mark.parametrize(
    ("given_format", "name", "schema"),
    [
        ("json", "json", {"type": "object"}),
        ({"type": "array", "$defs": {"b": 1, "a": 2}}, "format", {"type": "array", "$defs": {"b": 1, "a": 2}}),
        ({}, "format", {}),
    ],
)
def test_format(given_format: Any, name: str, schema: dict[str, Any]) -> None:
    made = mapping.format_to_lmstudio(given_format)
    assert made == {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
    prompt = validate.chat_prompt({"messages": [], "response_format": made}, VERSION)
    assert prompt.schema == schema


# Tools

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
texts = st.none() | st.text(max_size=5)


def sloppy(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that have some of these fields, null, or something else altogether, in any order."""
    unknown = st.dictionaries(st.sampled_from(["strict", "title", "items", "$schema"]), json_values, max_size=1)
    objects = st.tuples(st.fixed_dictionaries({}, optional=fields), unknown).map(lambda both: both[0] | both[1])
    return st.none() | objects.flatmap(lambda value: st.permutations(list(value.items()))).map(dict) | json_values


parameters = sloppy(
    type=st.none() | st.sampled_from(["object", "string", ""]),
    properties=st.none() | st.dictionaries(st.text(max_size=4), sloppy(type=texts), max_size=3),
    required=st.none() | st.lists(texts, max_size=3),
    **{"$defs": json_values},
)
tools = sloppy(
    type=st.none() | st.sampled_from(["function", "tool"]),
    function=sloppy(name=texts, description=texts, parameters=parameters),
)


@settings(deadline=None, max_examples=500)
@given(st.lists(tools, max_size=3))
def test_lm_studio_takes_every_tool_that_ollama_takes(given_tools: list[Any]) -> None:
    try:
        decoded = ChatRequest.decode(json.dumps({"tools": given_tools}).encode()).tools
    except OllamaError:
        assume(False)
        return
    made = mapping.tools_to_lmstudio(decoded)
    assert list(validate.tool_issues(made)) == []
    assert len(made) == len(given_tools)
    assert mapping.tools_to_lmstudio(made) == made


EMPTY = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("function", "made"),
    [
        ({"name": "f"}, {"name": "f"}),
        ({}, {"name": ""}),
        ({"name": "f", "description": None, "parameters": None}, {"name": "f"}),
        ({"name": "f", "parameters": {}}, {"name": "f", "parameters": EMPTY}),
        ({"name": "f", "parameters": {"type": "object"}}, {"name": "f", "parameters": EMPTY}),
        ({"name": "f", "parameters": {"type": "", "properties": None}}, {"name": "f", "parameters": EMPTY}),
        (
            {"name": "f", "parameters": {"required": ["a", None], "$defs": 5}},
            {"name": "f", "parameters": {"required": ["a"], **EMPTY}},
        ),
        (
            {"name": "f", "strict": True, "parameters": {**EMPTY, "$defs": {"D": {}}, "additionalProperties": False}},
            {"name": "f", "strict": True, "parameters": {**EMPTY, "$defs": {"D": {}}, "additionalProperties": False}},
        ),
    ],
)
def test_tools(function: dict[str, Any], made: dict[str, Any]) -> None:
    before = json.dumps(function)
    assert mapping.tools_to_lmstudio([{"function": function}]) == [{"type": "function", "function": made}]
    assert json.dumps(function) == before, "the request is not to be changed"


@pytest.mark.parametrize("tool", [{}, {"function": None}, {"type": "x", "function": 5}])
def test_tools_without_a_function(tool: dict[str, Any]) -> None:
    assert mapping.tools_to_lmstudio([tool]) == [{"type": "function", "function": {"name": ""}}]


def test_the_order_of_keys_is_kept() -> None:
    properties = {"z": {"type": "string", "description": "Z"}, "a": {"enum": [1]}, "m": {}}
    given_parameters = {"required": ["z"], "properties": properties, "$defs": {}, "type": "object"}
    tool = {"type": "function", "function": {"parameters": given_parameters, "name": "f", "description": "d"}}
    (made,) = mapping.tools_to_lmstudio([tool])
    assert json.dumps(made) == json.dumps(tool)


TWO_TOOLS = mapping.tools_to_lmstudio([{"function": {"name": name}} for name in ("f", "g")])


@pytest.mark.parametrize(
    ("choice", "made", "offered"),
    [
        ("none", "none", ["f", "g"]),
        ("auto", "auto", ["f", "g"]),
        ("required", "required", ["f", "g"]),
        ({"type": "function", "function": {"name": "g"}}, "required", ["g"]),
        ({"type": "function", "function": {"name": "nosuch"}}, "required", ["f", "g"]),
        ({"type": "function", "function": None}, "required", ["f", "g"]),
        ({}, "required", ["f", "g"]),
    ],
)
def test_tool_choice(choice: Any, made: str, offered: list[str]) -> None:
    found, left = mapping.tool_choice_to_lmstudio(choice, TWO_TOOLS)
    assert (found, [tool["function"]["name"] for tool in left]) == (made, offered)
    body = {"messages": [], "tools": left, "tool_choice": found}
    assert validate.chat_prompt(body, VERSION).tool_choice == made


# Thinking

GPT_OSS = ReasoningOptions(("low", "medium", "high"), "low")
ON_OFF = ReasoningOptions(("off", "on"), "on")
OFF_ON = ReasoningOptions(("off", "on"), "off")
ALWAYS = ReasoningOptions(("on",), "on")
LEVELS = ReasoningOptions(("off", "low", "medium", "xhigh", "on"), "xhigh")


@pytest.mark.parametrize(
    ("reasoning", "think", "effort"),
    [
        *[(None, think, None) for think in (None, True, False, "low", "max")],
        *[(reasoning, None, None) for reasoning in (GPT_OSS, ON_OFF, OFF_ON, ALWAYS, LEVELS)],
        (ON_OFF, True, None),
        (ON_OFF, False, "none"),
        (ON_OFF, "low", None),
        (ON_OFF, "max", None),
        (OFF_ON, True, "medium"),
        (OFF_ON, False, "none"),
        (OFF_ON, "high", "medium"),
        (ALWAYS, True, None),
        (ALWAYS, False, None),
        (ALWAYS, "high", None),
        (GPT_OSS, True, None),
        (GPT_OSS, False, "low"),
        (GPT_OSS, "low", "low"),
        (GPT_OSS, "medium", "medium"),
        (GPT_OSS, "high", "high"),
        (GPT_OSS, "max", "high"),
        (LEVELS, True, None),
        (LEVELS, False, "none"),
        (LEVELS, "low", "low"),
        (LEVELS, "high", None),
        (LEVELS, "max", "xhigh"),
        (ReasoningOptions(), True, None),
        (ReasoningOptions(), False, None),
    ],
)
def test_think(reasoning: ReasoningOptions | None, think: bool | str | None, effort: str | None) -> None:
    assert mapping.think_to_lmstudio(think, Model("m", reasoning=reasoning)) == effort
    assert effort is None or effort in validate.EFFORTS


# Images


def picture(kind: str, color: tuple[int, ...] = (200, 10, 20), mode: str = "RGB") -> bytes:
    data = io.BytesIO()
    Image.new(mode, (4, 3), color).save(data, kind)
    return data.getvalue()


PNG, JPEG, GIF = (picture(kind) for kind in ("PNG", "JPEG", "GIF"))
WEBP = picture("WEBP")


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (b"GIF89a", "image/gif"),
        (WEBP, "image/webp"),
        (picture("BMP"), "image/bmp"),
        (picture("TIFF"), "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"RIFF\0\0\0\0WAVE", ""),
        (b"", ""),
        (b"hello", ""),
        (PNG[1:], ""),
    ],
)
def test_image_types(data: bytes, media_type: str) -> None:
    assert mapping.image_type(data) == media_type


def sent(part: dict[str, Any]) -> tuple[str, bytes]:
    assert part["type"] == "image_url"
    head, _, body = part["image_url"]["url"].partition(",")
    return head, base64.b64decode(body, validate=True)


@pytest.mark.parametrize(("data", "label"), [(PNG, "png"), (JPEG, "jpeg"), (b"hello", "png"), (b"", "png")])
def test_images_that_go_as_they_are(data: bytes, label: str) -> None:
    assert sent(mapping.image_to_lmstudio(data)) == (f"data:image/{label};base64", data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF"])
def test_images_that_are_converted(kind: str) -> None:
    head, data = sent(mapping.image_to_lmstudio(picture(kind)))
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PNG", (4, 3))
        red, green, blue, alpha = image.convert("RGBA").getpixel((1, 1))  # type: ignore[misc]
    assert red > 180
    assert green < 40
    assert blue < 60
    assert alpha == 255


def test_what_is_transparent_stays_so() -> None:
    _, data = sent(mapping.image_to_lmstudio(picture("WEBP", (1, 2, 3, 0), "RGBA")))
    with Image.open(io.BytesIO(data)) as image:
        assert image.getpixel((0, 0))[3] == 0  # type: ignore[index]


def test_without_pillow_the_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert sent(mapping.image_to_lmstudio(PNG)) == ("data:image/png;base64", PNG)
    for data, kind in ((WEBP, "webp"), (GIF, "gif")):
        with pytest.raises(OllamaError, match=f"not image/{kind}: .* the extra `images`") as caught:
            mapping.image_to_lmstudio(data)
        assert caught.value.status == 400


@settings(deadline=None)
@given(st.sampled_from([GIF, WEBP, picture("BMP"), picture("TIFF")]), st.data())
def test_a_broken_image_is_the_clients_mistake(whole: bytes, drawn: st.DataObject) -> None:
    broken = bytearray(whole[: drawn.draw(st.integers(12, len(whole)))])
    for at in drawn.draw(st.lists(st.integers(12, max(12, len(broken) - 1)), max_size=6)):
        broken[at : at + 1] = drawn.draw(st.binary(min_size=1, max_size=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it reads all the same
        try:
            outcome: object = sent(mapping.image_to_lmstudio(bytes(broken)))[0]
        except OllamaError as error:
            outcome = (error.status, error.message.partition(" image ")[2])
    assert outcome in ("data:image/png;base64", (400, "cannot be read"))


# Messages


def ask(*calls: tuple[str, str]) -> Message:
    return Message(
        "assistant", tool_calls=[MessageToolCall(call_id, index, name) for index, (call_id, name) in enumerate(calls)]
    )


def tell(call_id: str = "", name: str = "") -> Message:
    return Message("tool", "result", tool_call_id=call_id, tool_name=name)


def ids(messages: list[Message]) -> list[str]:
    """Give the ids of calls and results as they come."""
    found: list[str] = []
    for message in mapping.messages_to_lmstudio(messages):
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
        # Results that nobody asked for keep their own id, or get one.
        ([tell("a")], ["a"]),
        ([tell()], ["call_00000001"]),
        ([ask(("a", "f")), tell(), tell()], ["a", "a", "call_00000001"]),
        # A call that nobody answered is not answered a turn later.
        ([ask(("a", "f")), ask(("b", "f")), tell(name="f")], ["a", "b", "b"]),
    ],
)
def test_results_find_their_calls(messages: list[Message], expected: list[str]) -> None:
    assert ids(messages) == expected


def test_arguments_are_a_string_of_json_in_their_order() -> None:
    call = MessageToolCall("a", 0, "f", {"z": "é", "a": [1]})
    (made,) = mapping.messages_to_lmstudio([Message("assistant", "Let me", tool_calls=[call])])
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
    assert mapping.messages_to_lmstudio([Message(role, "x")]) == [{"role": made, "content": "x"}]


def test_images_of_a_message() -> None:
    image = mapping.image_to_lmstudio(PNG)
    assert mapping.content_to_lmstudio("x", []) == "x"
    assert mapping.content_to_lmstudio("x", [PNG, PNG]) == [{"type": "text", "text": "x"}, image, image]
    assert mapping.content_to_lmstudio("", [PNG]) == [image]


def test_images_of_a_tools_result_follow_as_the_users() -> None:
    result = Message("tool", "see", images=[PNG], tool_call_id="a")
    assert mapping.messages_to_lmstudio([ask(("a", "f")), result])[1:] == [
        {"role": "tool", "tool_call_id": "a", "content": "see"},
        {"role": "user", "content": [mapping.image_to_lmstudio(PNG)]},
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


@settings(deadline=None, max_examples=200)
@given(st.lists(messages, max_size=8))
def test_lm_studio_takes_every_conversation(conversation: list[Message]) -> None:
    made = mapping.messages_to_lmstudio(conversation)
    validate.chat_prompt(json.loads(mapping.dumps({"messages": made})), VERSION)
    told = [message["content"] for message in made if message["role"] == "tool"]
    assert told == [message.content for message in conversation if message.role == "tool"]


def test_bodies_are_compact_utf_8() -> None:
    assert mapping.dumps({"b": "é", "a": [1, {}]}) == '{"b":"é","a":[1,{}]}'.encode()
    assert mapping.dumps({"x": "a\ud800b"}) == b'{"x":"a?b"}'
