"""Requests that Ollama's /v1 takes, made so that LM Studio's validator takes them."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.services import MakeServices
from tests.translate.test_images import GIF, JPEG, PNG, WEBP

from ollama_lmstudio.lmstudio.catalog import Model
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.services import Services
from ollama_lmstudio.sim.anthropic import message_prompt
from ollama_lmstudio.sim.models import Version
from ollama_lmstudio.sim.responses import response_prompt
from ollama_lmstudio.sim.validate import chat_prompt
from ollama_lmstudio.sim.wire import ApiError
from ollama_lmstudio.state.aliases import Alias
from ollama_lmstudio.translate.json_body import JSONBody
from ollama_lmstudio.translate.models import ResolvedModel
from ollama_lmstudio.translate.passthrough import PassedRequest, members_with_model
from ollama_lmstudio.translate.repairs import REPAIRS, repaired

CHATS = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"

Repair = Callable[[str, dict[str, Any]], dict[str, Any]]

READ_BY_LMSTUDIO: dict[str, Callable[[dict[str, Any]], object]] = {
    CHATS: lambda body: chat_prompt(body, Version("0.4.25")),
    RESPONSES: response_prompt,
    MESSAGES: message_prompt,
}


@pytest.fixture
def repair(make_services: MakeServices) -> Repair:
    """Return a function that gives the repaired body, which LM Studio takes; one that it takes already stays."""
    services = make_services(Model("m"))

    def made(path: str, body: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps({"model": "m", **body}, indent=1)
        parsed = members_with_model(text.encode())
        assert parsed is not None
        request = PassedRequest(path, JSONBody(*parsed), "m", ResolvedModel(Model("m"), "m"), services)
        result = repaired(request)
        read = READ_BY_LMSTUDIO[path]
        changed: dict[str, Any] = json.loads(result)
        if changed == json.loads(text):
            assert result == text.encode()
        else:
            with pytest.raises(ApiError):
                read(json.loads(text))
        read(changed)
        del changed["model"]
        return changed

    return made


# Images


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64(data)}"


TEXT = {"type": "text", "text": "what"}


def chat_image(image_url: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [TEXT, {"type": "image_url", "image_url": image_url}]}]}


def response_image(image_url: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": image_url, "detail": "low"}]}]}


def message_image(media_type: str | None, data: str) -> dict[str, Any]:
    source = {"type": "base64", "media_type": media_type, "data": data}
    return {"max_tokens": 9, "messages": [{"role": "user", "content": [TEXT, {"type": "image", "source": source}]}]}


# A label, an image, and the label that it gets; None if the image is converted.
IMAGES = [
    ("image/jpg", JPEG, "image/jpeg"),
    ("IMAGE/PNG", PNG, "image/png"),
    ("", PNG, "image/png"),
    ("", JPEG, "image/jpeg"),
    ("image/webp", PNG, "image/png"),
    ("image/x-anything", JPEG, "image/jpeg"),
    ("application/octet-stream", PNG, "image/png"),
    ("image/webp", WEBP, None),
    ("image/gif", GIF, None),
    ("", WEBP, None),
]


@pytest.mark.parametrize(("label", "data", "made"), IMAGES)
def test_images(label: str, data: bytes, made: str | None, repair: Repair) -> None:
    for found in (
        repair(CHATS, chat_image({"url": url(data, label), "detail": "low"})),
        repair(CHATS, chat_image(url(data, label))),
        repair(RESPONSES, response_image(url(data, label))),
        repair(MESSAGES, message_image(label, b64(data))),
    ):
        said = json.dumps(found)
        assert said.count("base64") == 1
        if made:
            assert made in said
            assert b64(data) in said
        else:
            assert "image/png" in said
            assert b64(b"\x89PNG\r\n\x1a\n\x00") in said
    assert repair(CHATS, chat_image({"url": url(data, label), "detail": "low"}))["messages"][0]["content"][0] == TEXT


@pytest.mark.parametrize(("label", "data"), [("image/png", PNG), ("image/jpeg", JPEG), ("image/png", JPEG)])
def test_images_that_stay(label: str, data: bytes, repair: Repair) -> None:
    for path, body in (
        (CHATS, chat_image({"url": url(data, label)})),
        (RESPONSES, response_image(url(data, label))),
        (MESSAGES, message_image(label, b64(data))),
    ):
        assert repair(path, body) == body


@pytest.mark.parametrize(
    "image_url",
    ["http://x/y.png", "data:image/png,abc", "data:image/webp;base64,%%%", "data:text/plain;base64,aGk=", ""],
)
def test_what_is_no_image_is_lm_studios_to_refuse(image_url: str, repair: Repair) -> None:
    for path, body in ((CHATS, chat_image({"url": image_url})), (RESPONSES, response_image(image_url))):
        with pytest.raises(ApiError):
            repair(path, body)


@pytest.mark.parametrize(("label", "data"), [("image/webp", WEBP), ("image/png", WEBP), ("", GIF)])
def test_without_the_converter_it_is_said_what_is_missing(
    label: str, data: bytes, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(OllamaError, match="install the extra `images`") as raised:
        repair(CHATS, chat_image({"url": url(data, label)}))
    assert raised.value.status == 400


def test_images_of_a_tools_result(repair: Repair) -> None:
    picture = {"type": "image_url", "image_url": {"url": url(PNG, "image/png")}}
    result = {"role": "tool", "tool_call_id": "a"}
    made = repair(CHATS, {"messages": [result | {"content": [TEXT, picture]}, result | {"content": [picture]}]})
    user = {"role": "user", "content": [picture]}
    assert made["messages"] == [result | {"content": [TEXT]}, user, result | {"content": ""}, user]
    nested = message_image("image/jpg", b64(JPEG))
    image = nested["messages"][0]["content"].pop()
    nested["messages"][0]["content"].append({"type": "tool_result", "tool_use_id": "a", "content": [TEXT, image]})
    assert "image/jpeg" in json.dumps(repair(MESSAGES, nested))


# Messages


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": "{}"}, **more}


def turn(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def tool(**more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": "7", **more}


@pytest.mark.parametrize(
    ("calls", "results", "ids"),
    [
        ([call("f", id="a", type="function")], [tool()], ["a", "a"]),
        ([call("f", id="a", type="function")], [tool(tool_call_id="")], ["a", "a"]),
        ([call("f", id="a", type="function")], [tool(tool_call_id=None)], ["a", "a"]),
        ([call("f", id="a"), call("g", id="b")], [tool(name="g"), tool(name="f")], ["a", "b", "b", "a"]),
        ([call("f", id="a"), call("g", id="b")], [tool(tool_call_id="a"), tool()], ["a", "b", "a", "b"]),
        ([call("f"), call("g", id="")], [tool(), tool()], [f"call_0000000{n}" for n in (1, 2, 1, 2)]),
        ([], [tool()], ["call_00000001"]),
        ([call("f", id="a")], [{"role": "Tool", "content": "7"}], ["a", "a"]),
    ],
)
def test_ids_of_calls_and_results(calls: list[Any], results: list[Any], ids: list[str], repair: Repair) -> None:
    history = [turn(*calls)] if calls else []
    made = repair(CHATS, {"messages": [{"role": "user", "content": "hi"}, *history, *results]})["messages"]
    found = [made_call["id"] for message in made for made_call in message.get("tool_calls", [])]
    assert [*found, *(message["tool_call_id"] for message in made if message["role"] == "tool")] == ids
    assert all(made_call["type"] == "function" for message in made for made_call in message.get("tool_calls", []))


@pytest.mark.parametrize(
    ("role", "made"),
    [("System", "system"), ("banana", "user"), ("", "user"), (None, "user"), ("function", "user")],
)
def test_roles(role: str | None, made: str, repair: Repair) -> None:
    rest = {"role": "developer", "content": "x"}
    found = repair(CHATS, {"messages": [rest, {"role": role, "content": "y", "name": "n"}]})
    assert found["messages"] == [rest, {"role": made, "content": "y", "name": "n"}]


def test_messages_that_stay(repair: Repair) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [TEXT]},
        {"role": "assistant", "content": None, "tool_calls": [call("f", id="a", type="function")]},
        {"role": "tool", "tool_call_id": "other", "content": [TEXT]},
    ]
    assert repair(CHATS, {"messages": messages}) == {"messages": messages}


@pytest.mark.parametrize(
    "messages", ["hi", None, 5, [5], [None], [{"role": 5}], [{"role": "assistant", "tool_calls": [5]}], [[]]]
)
def test_messages_that_both_refuse_stay(messages: Any, repair: Repair) -> None:
    with pytest.raises(ApiError):
        repair(CHATS, {"messages": messages})


def output(value: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": "c", "output": value}


def test_outputs_of_functions(repair: Repair) -> None:
    texts = [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}]
    picture = {"type": "input_image", "image_url": url(JPEG, "image/jpg")}
    made = repair(RESPONSES, {"input": [output(texts), output([]), output("c"), output([*texts, picture])]})["input"]
    assert made[:4] == [output("a\nb"), output(""), output("c"), output("a\nb")]
    assert made[4] == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_image", "image_url": url(JPEG, "image/jpeg")}],
    }
    assert len(made) == 5


@pytest.mark.parametrize("value", [[{"type": "input_file", "file_id": "f"}], [5], {"a": 1}])
def test_outputs_that_are_none(value: Any, repair: Repair) -> None:
    with pytest.raises(ApiError):
        repair(RESPONSES, {"input": [output(value)]})


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("system", "said", "made"),
    [
        (None, ["a"], "a"),
        ("s", ["a", "b"], "s\n\na\n\nb"),
        ("s", [[{"type": "text", "text": "a"}]], [{"type": "text", "text": "s"}, {"type": "text", "text": "a"}]),
        (
            [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            ["a"],
            [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "a"}],
        ),
        ("", ["", "a"], "a"),
    ],
)
def test_system_messages(system: Any, said: list[Any], made: Any, repair: Repair) -> None:
    messages = [USER, *({"role": "system", "content": text} for text in said), USER]
    body = {"max_tokens": 9, "messages": messages} | ({} if system is None else {"system": system})
    found = repair(MESSAGES, body)
    assert (found["system"], found["messages"]) == (made, [USER, USER])


def test_other_roles_of_anthropics_messages(repair: Repair) -> None:
    messages = [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "y"}, {"content": "z"}]
    found = repair(MESSAGES, {"max_tokens": 9, "messages": messages})
    assert [message["role"] for message in found["messages"]] == ["user", "assistant", "user"]


KEYS = (
    *("messages", "input", "instructions", "system", "tools", "tool_choice", "response_format", "reasoning_effort"),
    *("reasoning", "think", "text", "prompt", "suffix", "encoding_format", "dimensions", "stop", "temperature"),
)
words = st.sampled_from(["system", "user", "assistant", "tool", "image_url", "input_image", "image", "text", "base64"])
names = st.sampled_from(
    ["role", "content", "type", "tool_calls", "function", "name", "id", "image_url", "url", "source", "data", "output"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | words | st.text(max_size=3) | st.just(url(PNG, "image/jpg")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=2), inner, max_size=4),
    max_leaves=25,
)
ALIAS = Alias("a", "m", 1, 1, "s", parameters={"stop": "x"}, messages=[{"role": "user", "content": "hi"}])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    path=st.sampled_from(sorted(REPAIRS)),
    body=st.dictionaries(st.sampled_from(KEYS), anything),
    alias=st.sampled_from([None, ALIAS]),
)
def test_whatever_comes_stays_json(
    path: str, body: dict[str, Any], alias: Alias | None, make_services: MakeServices
) -> None:
    check_json(path, body, alias, make_services(Model("m")))


def check_json(path: str, body: dict[str, Any], alias: Alias | None, services: Services) -> None:
    parsed = members_with_model(json.dumps({"model": "m", **body}).encode())
    assert parsed is not None
    request = PassedRequest(path, JSONBody(*parsed), "m", ResolvedModel(Model("m"), "k", alias), services)
    try:
        made = json.loads(repaired(request))
    except OllamaError:
        return
    assert made["model"] == "k"
    # An unknown word for the effort means the model's default, and the suffix becomes a part of the prompt.
    assert body.keys() - {"reasoning_effort", "suffix"} <= made.keys()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHATS, {"messages": [{"role": []}, {"role": "tool", "tool_call_id": {}}]}),
        (CHATS, {"tool_choice": {"type": []}, "tools": [{"function": {"name": []}}]}),
        (CHATS, {"reasoning": {"effort": {}}, "reasoning_effort": []}),
        (CHATS, {"messages": None, "reasoning_effort": "system"}),
        (MESSAGES, {"messages": [{"role": {}}, {"role": "system", "content": 5}], "system": 5}),
        (RESPONSES, {"input": [{"role": [], "type": {}}], "tool_choice": {"type": {}}, "think": {}}),
    ],
)
def test_values_of_a_wrong_type(path: str, body: dict[str, Any], make_services: MakeServices) -> None:
    for alias in (None, ALIAS):
        check_json(path, body, alias, make_services(Model("m")))


def test_every_repair_has_a_row_of_its_own() -> None:
    rows = {repair for repairs in REPAIRS.values() for repair in repairs}
    assert len({(repair.name, repair.apply) for repair in rows}) == len(rows)
