"""What Ollama's /v1 takes and LM Studio's does not, through a real mitmdump."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import httpx
import pytest
from tests.translate.test_images import JPEG, PNG, WEBP
from tests.wire.conftest import (
    CHAT,
    CODER,
    EMBEDDER,
    GPT_OSS,
    HI,
    THINKING,
    UNSCALED_EMBEDDER,
    VISION,
    Proxy,
    StartProxy,
)
from tests.wire.test_passthrough import assert_same

from ollama_lmstudio.sim import Sim

CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"


def sent(sim: Sim) -> dict[str, Any]:
    """Give the body of the one POST that reached LM Studio."""
    (request,) = [request for request in sim.requests if request.method == "POST"]
    body: dict[str, Any] = request.json
    return body


def ask(client: httpx.Client, sim: Sim, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask, check that LM Studio took it; give the body that reached it."""
    sim.clear()
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return sent(sim)


# Embeddings

FLOATS = [0.25, -0.5, 0.125, 0.75, 1.0, 2.0, 3.0, 4.0]
ANSWER = {
    "object": "list",
    "data": [{"object": "embedding", "embedding": FLOATS, "index": 0}],
    "model": EMBEDDER,
    "usage": {"prompt_tokens": 0, "total_tokens": 0},
}


def vector_of(response: httpx.Response, encoding: str = "base64") -> list[float]:
    """Give the one vector of an answer."""
    assert response.status_code == 200, response.text
    (row,) = response.json()["data"]
    vector = row["embedding"]
    if encoding == "base64":
        data = base64.b64decode(vector, validate=True)
        vector = list(struct.unpack(f"<{len(data) // 4}f", data))
    return list(vector)


def test_embeddings_as_base64(client: httpx.Client, sim: Sim) -> None:
    sim.fault(path=EMBEDDINGS, pre_error=(200, "application/json", json.dumps(ANSWER)))
    response = client.post(EMBEDDINGS, json={"model": EMBEDDER, "input": "hi", "encoding_format": "base64"})
    length = math.hypot(*FLOATS)
    assert vector_of(response) == pytest.approx([x / length for x in FLOATS])
    assert response.headers["content-length"] == str(len(response.content))
    assert "etag" not in response.headers
    rest = response.json()
    assert list(rest) == list(ANSWER)
    assert list(rest["data"][0]) == ["object", "embedding", "index"]
    assert (rest["object"], rest["model"], rest["usage"]) == ("list", EMBEDDER, ANSWER["usage"])


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_dimensions_of_embeddings(client: httpx.Client, sim: Sim, encoding: str) -> None:
    body = {"model": UNSCALED_EMBEDDER, "input": "hi there", "encoding_format": encoding}
    whole, cut = (vector_of(client.post(EMBEDDINGS, json=body | extra), encoding) for extra in ({}, {"dimensions": 2}))
    assert (len(whole), len(cut)) == (16, 2)
    assert [math.hypot(*vector) for vector in (whole, cut)] == pytest.approx([1, 1])
    assert cut[0] / cut[1] == pytest.approx(whole[0] / whole[1])
    assert sim.requests[-1].json["input"] == "hi there"


def test_embeddings_are_those_of_api_embed(client: httpx.Client, sim: Sim) -> None:
    for extra in ({}, {"dimensions": 3}):
        body = {"model": UNSCALED_EMBEDDER, "input": "hi there", **extra}
        ((embedded,),) = (client.post("/api/embed", json=body).json()["embeddings"],)
        assert vector_of(client.post(EMBEDDINGS, json=body), "float") == embedded


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": None}])
def test_embeddings_that_are_as_they_should_be_keep_their_bytes(
    client: httpx.Client, sim: Sim, encoding: dict[str, Any]
) -> None:
    body = {"model": EMBEDDER, "input": ["hi", "there"], **encoding}
    response = client.post(EMBEDDINGS, json=body)
    with httpx.Client(base_url=sim.url, trust_env=False) as direct:
        own = direct.post(EMBEDDINGS, json=body)
    assert response.content == own.content
    assert response.headers["etag"] == own.headers["etag"]
    assert sim.requests[0].body == sim.requests[1].body


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"encoding_format": "hex"},
            "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64'].",
        ),
        (
            {"encoding_format": ["base64"]},
            "json: cannot unmarshal array into Go struct field EmbedRequest.encoding_format of type string",
        ),
        (
            {"dimensions": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field EmbedRequest.dimensions of type int",
        ),
    ],
)
def test_formats_of_embeddings_that_ollama_refuses(
    client: httpx.Client, sim: Sim, wrong: dict[str, Any], message: str
) -> None:
    response = client.post(EMBEDDINGS, json={"model": EMBEDDER, "input": "hi", **wrong})
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    assert (response.status_code, response.json()) == (400, {"error": error})
    assert not any(request.method == "POST" for request in sim.requests)


def test_an_embedding_that_is_not_finite(client: httpx.Client, sim: Sim) -> None:
    broken = json.dumps(ANSWER | {"data": [{"object": "embedding", "embedding": [None, 1], "index": 0}]})
    sim.fault(path=EMBEDDINGS, pre_error=(200, "application/json", broken))
    response = client.post(EMBEDDINGS, json={"model": EMBEDDER, "input": "hi"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "embedding contains NaN or Inf values"


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_errors_of_embeddings_are_lm_studios(client: httpx.Client, encoding: str) -> None:
    response = client.post(EMBEDDINGS, json={"model": EMBEDDER, "input": [1, 2], "encoding_format": encoding})
    assert response.status_code == 400
    assert response.json() == {"error": "'input' field must be a string or an array of strings"}


# Tools


def tool(name: str, **more: Any) -> dict[str, Any]:
    """Give a definition that LM Studio takes."""
    parameters = {"type": "object", "properties": {"zcity": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


WEATHER, CLOCK = tool("get_weather"), tool("get_time")
NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize(
    ("choice", "made", "offered"),
    [
        (NAMED, "required", [WEATHER]),
        ("any", "required", [WEATHER, CLOCK]),
        ({"type": "any"}, "required", [WEATHER, CLOCK]),
        ("get_time", "required", [CLOCK]),
        ("nosuch", "auto", [WEATHER, CLOCK]),
        (True, "auto", [WEATHER, CLOCK]),
    ],
)
def test_tool_choice(client: httpx.Client, sim: Sim, choice: Any, made: str, offered: list[Any]) -> None:
    body = {"messages": HI, "tools": [WEATHER, CLOCK], "tool_choice": choice}
    for path in (CHATS, "/api/chat"):
        reached = ask(client, sim, path, {"model": CHAT, "stream": False, **body})
        assert (reached["tool_choice"], reached["tools"]) == (made, offered)


@pytest.mark.parametrize("choice", ["none", "auto", "required", None])
def test_tool_choices_of_lm_studio_stay(client: httpx.Client, sim: Sim, choice: Any) -> None:
    body = {"model": CHAT, "messages": HI, "tools": [WEATHER, CLOCK], "tool_choice": choice}
    assert ask(client, sim, CHATS, body) == body


def test_a_tool_choice_without_tools(client: httpx.Client, sim: Sim) -> None:
    body = {"model": CHAT, "messages": HI, "tool_choice": NAMED}
    assert ask(client, sim, CHATS, body) == body | {"tool_choice": "auto"}


def test_the_other_tools_are_still_repaired(client: httpx.Client, sim: Sim) -> None:
    bare = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
    body = {"model": CHAT, "messages": HI, "tools": [CLOCK, bare], "tool_choice": NAMED}
    reached = ask(client, sim, CHATS, body)
    made = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
    assert (reached["tool_choice"], reached["tools"]) == ("required", [made])


def flat(tool: dict[str, Any]) -> dict[str, Any]:
    """Give a definition as /v1/responses has it."""
    return {"type": "function", **tool["function"]}


@pytest.mark.parametrize(
    ("choice", "made", "offered"),
    [
        ({"type": "function", "name": "get_weather"}, "required", [WEATHER]),
        ("any", "required", [WEATHER, CLOCK]),
        ({"type": "mcp", "server_label": "x"}, {"type": "mcp", "server_label": "x"}, [WEATHER, CLOCK]),
        ("auto", "auto", [WEATHER, CLOCK]),
    ],
)
def test_tool_choice_of_responses(client: httpx.Client, sim: Sim, choice: Any, made: Any, offered: list[Any]) -> None:
    body = {"model": CHAT, "input": "hi", "tools": [flat(WEATHER), flat(CLOCK)], "tool_choice": choice}
    reached = ask(client, sim, RESPONSES, body)
    assert (reached["tool_choice"], reached["tools"]) == (made, [flat(tool) for tool in offered])


# Messages

TEXT = {"type": "text", "text": "what"}


def data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("image_url", "made"),
    [
        ({"url": data_url(WEBP, "image/webp")}, "data:image/png;base64,iVBORw0KGgo"),
        ({"url": data_url(JPEG, "image/jpg")}, data_url(JPEG, "image/jpeg")),
        ({"url": data_url(PNG, "")}, data_url(PNG, "image/png")),
        (data_url(PNG, "image/png"), data_url(PNG, "image/png")),
    ],
)
def test_images(client: httpx.Client, sim: Sim, image_url: Any, made: str) -> None:
    chat = [{"role": "user", "content": [TEXT, {"type": "image_url", "image_url": image_url}]}]
    reached = ask(client, sim, CHATS, {"model": VISION, "messages": chat})
    text, image = reached["messages"][0]["content"]
    assert (text, image["type"]) == (TEXT, "image_url")
    assert image["image_url"]["url"].startswith(made)

    given = image_url if isinstance(image_url, str) else image_url["url"]
    item = {"role": "user", "content": [{"type": "input_image", "image_url": given}]}
    reached = ask(client, sim, RESPONSES, {"model": VISION, "input": [item]})
    assert reached["input"][0]["content"][0]["image_url"].startswith(made)

    media_type, _, data = given.removeprefix("data:").partition(";base64,")
    source = {"type": "base64", "media_type": media_type, "data": data}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    reached = ask(client, sim, MESSAGES, {"model": VISION, "messages": messages, "max_tokens": 9})
    source = reached["messages"][0]["content"][0]["source"]
    assert f"data:{source['media_type']};base64,{source['data']}".startswith(made)


@pytest.mark.parametrize("path", [CHATS, RESPONSES, MESSAGES])
def test_a_broken_image_has_the_shape_of_its_api(client: httpx.Client, sim: Sim, path: str) -> None:
    url = data_url(WEBP[:16], "image/webp")
    media_type, _, data = url.removeprefix("data:").partition(";base64,")
    source = {"type": "base64", "media_type": media_type, "data": data}
    bodies: dict[str, Any] = {
        CHATS: {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]},
        RESPONSES: {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]},
        MESSAGES: {"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}], "max_tokens": 9},
    }
    response = client.post(path, json={"model": VISION, **bodies[path]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["message"]) == ("invalid_request_error", "the image/webp image cannot be read")
    assert ("request_id" in response.json()) is (path == MESSAGES)
    assert not any(request.method == "POST" for request in sim.requests)


def test_results_of_tools_without_an_id(client: httpx.Client, sim: Sim) -> None:
    function = {"name": "get_weather", "arguments": "{}"}
    calls = {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "type": "function", "function": function}]}
    history = [*HI, calls, {"role": "tool", "content": "sunny"}]
    reached = ask(client, sim, CHATS, {"model": CHAT, "messages": history, "tools": [WEATHER]})
    assert reached["messages"] == [*HI, calls, {"role": "tool", "content": "sunny", "tool_call_id": "a"}]


def test_an_output_of_a_function_as_a_list(client: httpx.Client, sim: Sim) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "get_weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "sunny"}]}
    reached = ask(client, sim, RESPONSES, {"model": CHAT, "input": [*HI, call, output]})
    assert reached["input"] == [*HI, call, output | {"output": "sunny"}]


def test_system_messages_of_anthropics_api(client: httpx.Client, sim: Sim) -> None:
    messages = [*HI, {"role": "system", "content": "Be brief."}, *HI]
    reached = ask(client, sim, MESSAGES, {"model": CHAT, "messages": messages, "max_tokens": 9, "system": "Be kind."})
    assert (reached["system"], reached["messages"]) == ("Be kind.\n\nBe brief.", [*HI, *HI])


# How hard to think


@pytest.mark.parametrize(
    ("model", "given", "effort"),
    [
        (GPT_OSS, {"reasoning_effort": "max"}, "high"),
        (GPT_OSS, {"reasoning_effort": "ultra"}, "high"),
        (THINKING, {"reasoning_effort": "max"}, "high"),
        (CHAT, {"reasoning_effort": "max"}, "xhigh"),
        (GPT_OSS, {"reasoning": {"effort": "low"}}, "low"),
        (GPT_OSS, {"reasoning": {"effort": "max"}, "reasoning_effort": "low"}, "high"),
        (GPT_OSS, {"reasoning_effort": "minimal"}, "minimal"),
        (GPT_OSS, {"reasoning_effort": ""}, None),
        (GPT_OSS, {"reasoning_effort": "on"}, None),
        (GPT_OSS, {"reasoning_effort": "default"}, None),
        (THINKING, {"reasoning_effort": "off"}, "none"),
        (GPT_OSS, {"reasoning": {"effort": "bogus"}}, None),
        (GPT_OSS, {"reasoning": {}, "think": "high"}, None),
    ],
)
def test_reasoning_effort(client: httpx.Client, sim: Sim, model: str, given: Any, effort: str | None) -> None:
    reached = ask(client, sim, CHATS, {"model": model, "messages": HI, **given})
    assert reached.get("reasoning_effort") == effort
    assert sim.requests[-1].body.count(b"reasoning_effort") == (effort is not None)


@pytest.mark.parametrize(
    ("model", "given", "reasoning"),
    [
        (GPT_OSS, {"reasoning": {"effort": "max", "summary": "auto"}}, {"effort": "high", "summary": "auto"}),
        (GPT_OSS, {"think": "high"}, {"effort": "high"}),
        (THINKING, {"think": False, "reasoning": None}, {"effort": "none"}),
        (THINKING, {"think": True, "reasoning": {"effort": "none"}}, {"effort": "none"}),
        (THINKING, {"think": True}, None),
        (GPT_OSS, {"reasoning": {"effort": "bogus", "summary": "auto"}}, {"summary": "auto"}),
        (GPT_OSS, {"reasoning": {"effort": "low"}}, {"effort": "low"}),
    ],
)
def test_effort_of_responses(client: httpx.Client, sim: Sim, model: str, given: Any, reasoning: Any) -> None:
    reached = ask(client, sim, RESPONSES, {"model": model, "input": "hi", **given})
    assert reached.get("reasoning") == reasoning


def test_a_text_without_a_format(client: httpx.Client, sim: Sim) -> None:
    # Codex sends this.
    reached = ask(client, sim, RESPONSES, {"model": CHAT, "input": "hi", "text": {"verbosity": "low"}})
    assert reached["text"] == {"verbosity": "low", "format": {"type": "text"}}


# Completions


@pytest.mark.parametrize("stream", [True, False])
def test_suffix(client: httpx.Client, sim: Sim, stream: bool) -> None:
    body = {"model": "qwen2.5-coder:7b", "prompt": "def add(a,", "max_tokens": 10, "stream": stream}
    reached = ask(client, sim, COMPLETIONS, body | {"suffix": "return a+b"})
    made = {"prompt": "<|fim_prefix|>def add(a,<|fim_suffix|>return a+b<|fim_middle|>"}
    assert reached == body | {"model": CODER} | made
    assert ask(client, sim, COMPLETIONS, body | {"suffix": ""}) == body | {"model": CODER, "suffix": ""}


def test_suffix_for_a_model_that_cannot(client: httpx.Client, sim: Sim) -> None:
    response = client.post(COMPLETIONS, json={"model": CHAT, "prompt": "a", "suffix": "b"})
    message = f"registry.ollama.ai/library/{CHAT}:latest does not support insert"
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    assert (response.status_code, response.json()) == (400, {"error": error})
    assert not any(request.method == "POST" for request in sim.requests)


# The list


def test_the_entries_of_the_list_have_ollamas_keys(client: httpx.Client, sim: Sim) -> None:
    response = client.get("/v1/models")
    with httpx.Client(base_url=sim.url, trust_env=False) as direct:
        own = direct.get("/v1/models").json()
    listed = response.json()
    assert list(listed) == list(own)
    for entry, other in zip(listed["data"], own["data"], strict=True):
        assert list(entry) == ["id", "object", "created", "owned_by"]
        assert entry == other | {"created": entry["created"]}
        assert client.get(f"/v1/models/{entry['id']}").json()["created"] == entry["created"]
    assert response.headers["content-length"] == str(len(response.content))
    assert len(sim.requests) == 2, "nothing else is asked for"


# Not at all


def test_nothing_is_repaired_where_that_is_switched_off(start_proxy: StartProxy, sim: Sim) -> None:
    proxy: Proxy = start_proxy(sim.url, options={"repair_passthrough": "false"})
    chat = {"model": CHAT, "messages": HI, "tools": [WEATHER], "tool_choice": NAMED}
    completion = {"model": CODER, "prompt": "a", "suffix": "b"}
    embedding = {"model": UNSCALED_EMBEDDER, "input": "hi", "encoding_format": "base64", "dimensions": 2}
    with proxy.client() as client, httpx.Client(base_url=sim.url, trust_env=False) as direct:
        for path, body in ((EMBEDDINGS, embedding), (CHATS, chat), (COMPLETIONS, completion)):
            sim.clear()
            through, own = (asker.post(path, json=body) for asker in (client, direct))
            assert_same(through, own)
            assert len({request.body for request in sim.requests if request.method == "POST"}) == 1
        assert client.get("/v1/models").content == direct.get("/v1/models").content
        client.post("/api/create", json={"model": "mine", "from": CHAT, "system": "S"}).raise_for_status()
        assert ask(client, sim, CHATS, {"model": "mine", "messages": HI}) == {"model": CHAT, "messages": HI}
