"""Chats through a real mitmdump, asserting on both sides."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.wire.conftest import CHAT, GPT_OSS, HI, NO_TOOLS, THINKING, VISION, Proxy, content_of, ndjson, thinking_of

from ollama_lmstudio.sim import Sim, content, reasoning, sleep, tool_call

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string"}, "city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
METRICS = [
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
]


def chat(client: httpx.Client, **body: Any) -> httpx.Response:
    """Ask for a chat."""
    return client.post("/api/chat", json={"model": CHAT, "messages": HI} | body)


def sent(sim: Sim) -> dict[str, Any]:
    """Give the body of the one call that reached LM Studio."""
    assert [(request.method, request.path) for request in sim.requests] == [("POST", "/v1/chat/completions")]
    body: dict[str, Any] = sim.requests[0].json
    return body


# Lines


def test_stream(client: httpx.Client, sim: Sim) -> None:
    response = chat(client)
    lines = ndjson(response)
    assert response.text.isascii()
    assert content_of(lines) == "You said: hi"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "stop"
    assert lines[-1]["eval_count"] == 4
    assert lines[-1]["prompt_eval_count"] > 0
    # One call, and nothing else, on a warm path.
    assert sent(sim) == {
        "model": CHAT,
        "messages": HI,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_one_object(client: httpx.Client, sim: Sim) -> None:
    response = chat(client, stream=False)
    answer = response.json()
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert not response.text.endswith("\n")
    assert answer["message"] == {"role": "assistant", "content": "You said: hi"}
    assert answer["done_reason"] == "stop"
    assert answer["total_duration"] >= answer["load_duration"] > 0
    assert sent(sim)["stream"] is True


def test_keys_come_in_ollamas_order(client: httpx.Client) -> None:
    first, *_, last = ndjson(chat(client))
    assert list(first) == ["model", "created_at", "message", "done"]
    assert list(first["message"]) == ["role", "content"]
    assert list(last) == ["model", "created_at", "message", "done", "done_reason", *METRICS]
    whole = chat(client, stream=False).json()
    assert list(whole) == list(last)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", first["created_at"])


def test_durations_are_measured(client: httpx.Client, sim: Sim) -> None:
    sim.fault(prefill=0.2, times=2)
    sim.script([content("one"), sleep(0.4), content(" two")])
    for answer in (ndjson(chat(client))[-1], chat(client, stream=False).json()):
        assert answer["prompt_eval_duration"] >= 0.2e9
        assert answer["eval_duration"] >= 0.1e9
        parts = answer["load_duration"] + answer["prompt_eval_duration"] + answer["eval_duration"]
        assert answer["total_duration"] >= parts * 0.99


def test_the_name_comes_back_as_it_was_asked_for(client: httpx.Client, sim: Sim) -> None:
    assert {line["model"] for line in ndjson(chat(client, model="LLAMA-3.2-3b-instruct:latest"))} == {
        "LLAMA-3.2-3b-instruct:latest"
    }
    assert sent(sim)["model"] == CHAT


@pytest.mark.parametrize("stream", [True, False])
def test_text_that_json_escapes(client: httpx.Client, sim: Sim, stream: bool) -> None:
    text = 'é <&> "\\ \n\t\u2028 \U0001f600 \x01'
    sim.script([content(*text)])
    response = chat(client, stream=stream)
    if stream:
        assert content_of(ndjson(response)) == text
    else:
        assert response.json()["message"]["content"] == text
    assert "<" not in response.text


# Requests as clients send them


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_the_content_type_of_a_request_does_not_matter(client: httpx.Client, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    response = client.post("/api/chat", content=json.dumps({"model": CHAT, "messages": HI}), headers=headers)
    assert content_of(ndjson(response)) == "You said: hi"


def test_a_chunked_request(client: httpx.Client) -> None:
    body = json.dumps({"model": CHAT, "messages": HI}).encode()
    response = client.post("/api/chat", content=iter([body[:10], body[10:]]))
    assert content_of(ndjson(response)) == "You said: hi"


def test_empty_lists_are_nothing(client: httpx.Client, sim: Sim) -> None:
    messages = [{"role": "user", "content": "hi", "images": [], "tool_calls": []}]
    assert content_of(ndjson(chat(client, messages=messages, tools=[], options={}, format=""))) == "You said: hi"
    assert sent(sim).keys() == {"model", "messages", "stream", "stream_options"}
    assert sent(sim)["messages"] == HI


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "user", "content": None}])
def test_a_message_without_content(client: httpx.Client, sim: Sim, message: dict[str, Any]) -> None:
    assert content_of(ndjson(chat(client, messages=[message]))) == "You said: "
    assert sent(sim)["messages"] == [{"role": "user", "content": ""}]


def test_the_key_of_the_client_does_not_reach_lmstudio(client: httpx.Client, sim: Sim) -> None:
    client.headers.update({"Authorization": "Bearer mine", "X-Api-Key": "mine", "Cookie": "mine"})
    chat(client).raise_for_status()
    assert "mine" not in str(sim.requests[0].headers)


# Thinking


@pytest.mark.parametrize("model", [THINKING, GPT_OSS])
@pytest.mark.parametrize("separate", [True, False])
def test_thinking(client: httpx.Client, sim: Sim, model: str, separate: bool) -> None:
    """LM Studio calls it `reasoning_content`, for gpt-oss `reasoning`, or writes `<think>` into the text."""
    sim.set(separate_reasoning=separate)
    sim.script([reasoning("Let", " me", " see"), content("\n", "Hel", "lo")])
    lines = ndjson(chat(client, model=model))
    assert thinking_of(lines) == "Let me see"
    assert content_of(lines).lstrip() == "Hello"
    told = ["thinking" if line["message"].get("thinking") else "content" for line in lines]
    assert told == sorted(told, reverse=True)
    assert list(lines[0]["message"]) == ["role", "content", "thinking"]
    assert lines[0]["message"]["content"] == ""
    assert "thinking" not in lines[-1]["message"]
    assert lines[-1]["eval_count"] == 6

    message = chat(client, model=model, stream=False).json()["message"]
    assert list(message) == ["role", "content", "thinking"]
    assert message["thinking"] == "Let me see"
    assert message["content"].lstrip() == "Hello"


def test_a_think_tag_that_reads_cut(client: httpx.Client, sim: Sim) -> None:
    sim.set(separate_reasoning=False)
    sim.fault(split=7)
    lines = ndjson(chat(client, model=THINKING))
    assert thinking_of(lines) == "The user says: hi\nI will answer that."
    assert content_of(lines) == "You said: hi"


@pytest.mark.parametrize(
    ("model", "think", "effort", "thinks"),
    [
        (THINKING, None, None, True),
        (THINKING, True, None, True),
        (THINKING, False, "none", False),
        (THINKING, "high", None, True),
        (GPT_OSS, None, None, True),
        (GPT_OSS, True, None, True),
        # It cannot help thinking: as little as possible, and nothing of it told.
        (GPT_OSS, False, "low", False),
        (GPT_OSS, "medium", "medium", True),
        (GPT_OSS, "max", "high", True),
        (CHAT, False, None, False),
    ],
)
def test_think(
    client: httpx.Client, sim: Sim, model: str, think: bool | str | None, effort: str | None, thinks: bool
) -> None:
    lines = ndjson(chat(client, model=model, think=think))
    assert sent(sim).get("reasoning_effort") == effort
    assert bool(thinking_of(lines)) is thinks
    assert content_of(lines) == "You said: hi"


def test_think_for_a_model_that_does_not(client: httpx.Client, sim: Sim) -> None:
    response = chat(client, think=True)
    assert response.status_code == 400
    assert response.json() == {"error": f'"{CHAT}" does not support thinking'}
    assert not sim.requests


# Tools


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "fragmented"])
def test_a_tool_call(client: httpx.Client, sim: Sim, whole: bool) -> None:
    sim.script([content("One", " moment"), tool_call("get_weather", {"zone": "Z", "city": "Köln"}, "c1", whole=whole)])
    *before, called, last = ndjson(chat(client, tools=[WEATHER]))
    assert content_of(before) == "One moment"
    assert called["done"] is False
    assert called["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "function": {"index": 0, "name": "get_weather", "arguments": {"zone": "Z", "city": "Köln"}}}
        ],
    }
    call = called["message"]["tool_calls"][0]
    assert list(call) == ["id", "function"]
    assert list(call["function"]) == ["index", "name", "arguments"]
    assert list(call["function"]["arguments"]) == ["zone", "city"]
    assert last["done_reason"] == "stop"
    assert last["message"] == {"role": "assistant", "content": ""}
    assert sent(sim)["tools"] == [WEATHER]
    assert json.dumps(sent(sim)["tools"]) == json.dumps([WEATHER])


def test_parallel_tool_calls(client: httpx.Client, sim: Sim) -> None:
    cities = ["Paris", "Rome", "Oslo"]
    sim.script([tool_call("get_weather", {"city": city}, id_per_fragment=True) for city in cities])
    *called, last = ndjson(chat(client, tools=[WEATHER]))
    calls = [call for line in called for call in line["message"]["tool_calls"]]
    assert len(called) == len(calls) == 3
    assert [call["function"]["index"] for call in calls] == [0, 1, 2]
    assert [call["function"]["arguments"] for call in calls] == [{"city": city} for city in cities]
    assert len({call["id"] for call in calls}) == 3
    assert last["done"]

    whole = chat(client, tools=[WEATHER], stream=False).json()
    assert [call["function"] for call in whole["message"]["tool_calls"]] == [call["function"] for call in calls]
    assert whole["message"]["content"] == ""
    assert whole["done_reason"] == "stop"


def test_a_tool_call_without_an_id_gets_one(client: httpx.Client, sim: Sim) -> None:
    sim.script([tool_call("get_weather", {}, "")])
    call = chat(client, tools=[WEATHER], stream=False).json()["message"]["tool_calls"][0]
    assert re.fullmatch(r"call_[a-z0-9]{8}", call["id"])
    assert call["function"]["arguments"] == {}


def test_tool_arguments_that_are_not_json(client: httpx.Client, sim: Sim) -> None:
    sim.script([content("Hm"), tool_call("get_weather", '{"city": Paris}')])
    lines = ndjson(chat(client, tools=[WEATHER]))
    assert list(lines[-1]) == ["error"]
    assert "get_weather" in lines[-1]["error"]
    assert not any(line.get("done") for line in lines)
    response = chat(client, tools=[WEATHER], stream=False)
    assert response.status_code == 500
    assert "get_weather" in response.json()["error"]


def test_a_model_without_tools(client: httpx.Client, sim: Sim) -> None:
    response = chat(client, model=NO_TOOLS, tools=[WEATHER])
    assert response.status_code == 400
    assert response.json() == {"error": "registry.ollama.ai/library/plain:latest does not support tools"}
    assert not sim.requests


@pytest.mark.parametrize("parameters", [{}, None, {"type": "object"}, {"type": "object", "properties": None}])
def test_tools_are_brought_into_the_form_that_lmstudio_takes(
    client: httpx.Client, sim: Sim, parameters: dict[str, Any] | None
) -> None:
    tool = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": parameters}}
    ndjson(chat(client, tools=[tool]))
    function = sent(sim)["tools"][0]["function"]
    assert function["name"] == "now"
    assert function.get("parameters", {"type": "object", "properties": {}}) == {"type": "object", "properties": {}}


def _calls(*names: str, **ids: str) -> dict[str, Any]:
    calls = [{"function": {"name": name, "arguments": {"of": name}}} for name in names]
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": i, **call} for i, call in zip(ids.values(), calls, strict=True)] if ids else calls,
    }


@pytest.mark.parametrize(
    ("calls", "results", "answered"),
    [
        pytest.param(
            _calls("one", "two", a="x", b="y"),
            [{"tool_call_id": "y", "content": "2"}, {"tool_call_id": "x", "content": "1"}],
            [1, 0],
            id="by id",
        ),
        pytest.param(
            _calls("one", "two"),
            [{"tool_name": "two", "content": "2"}, {"tool_name": "one", "content": "1"}],
            [1, 0],
            id="by name",
        ),
        pytest.param(_calls("one", "two"), [{"content": "1"}, {"content": "2"}], [0, 1], id="by position"),
    ],
)
def test_a_tool_round_trip(
    client: httpx.Client,
    sim: Sim,
    calls: dict[str, Any],
    results: list[dict[str, Any]],
    answered: list[int],
) -> None:
    messages = [*HI, calls, *({"role": "tool", **result} for result in results)]
    lines = ndjson(chat(client, messages=messages, tools=[WEATHER]))
    assert content_of(lines) == f"The tool answered: {' '.join(result['content'] for result in results)}"
    _, asked, *told = sent(sim)["messages"]
    ids = [call["id"] for call in asked["tool_calls"]]
    assert all(ids)
    assert len(set(ids)) == 2
    assert [call["type"] for call in asked["tool_calls"]] == ["function"] * 2
    assert [json.loads(call["function"]["arguments"]) for call in asked["tool_calls"]] == [{"of": "one"}, {"of": "two"}]
    assert [message["tool_call_id"] for message in told] == [ids[index] for index in answered]
    assert [message["content"] for message in told] == [result["content"] for result in results]


# Format


def test_a_schema(client: httpx.Client, sim: Sim) -> None:
    schema = {
        "type": "object",
        "properties": {"zebra": {"type": "integer"}, "apple": {"type": "string"}},
        "required": ["zebra", "apple"],
    }
    lines = ndjson(chat(client, format=schema))
    assert json.loads(content_of(lines)) == {"zebra": 1, "apple": "hi"}
    assert sent(sim)["response_format"]["type"] == "json_schema"
    # The order of the keys is what the model is held to.
    assert json.dumps(sent(sim)["response_format"]["json_schema"]["schema"]) == json.dumps(schema)


def test_json_without_a_schema(client: httpx.Client, sim: Sim) -> None:
    ndjson(chat(client, format="json"))
    assert sent(sim)["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_format_that_is_none(client: httpx.Client) -> None:
    response = chat(client, format="xml")
    assert response.status_code == 500
    assert response.json() == {
        "error": 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object',
    }


# Images


def picture(kind: str) -> str:
    """Give a small picture as base64."""
    data = io.BytesIO()
    Image.new("RGB", (2, 2), (200, 10, 10)).save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


def see(client: httpx.Client, image: str) -> httpx.Response:
    """Ask about one image."""
    return chat(client, model=VISION, messages=[{"role": "user", "content": "what", "images": [image]}])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_that_lmstudio_takes(client: httpx.Client, sim: Sim, kind: str) -> None:
    image = picture(kind)
    assert content_of(ndjson(see(client, image))) == "You said: what I see 1 image."
    assert sent(sim)["messages"][0]["content"] == [
        {"type": "text", "text": "what"},
        {"type": "image_url", "image_url": {"url": f"data:image/{kind.lower()};base64,{image}"}},
    ]


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_an_image_that_is_converted(client: httpx.Client, sim: Sim, kind: str) -> None:
    assert content_of(ndjson(see(client, picture(kind)))) == "You said: what I see 1 image."
    label, _, data = sent(sim)["messages"][0]["content"][1]["image_url"]["url"].partition(",")
    assert label == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "PNG"
        assert image.size == (2, 2)


def test_an_image_that_is_not_base64(client: httpx.Client, sim: Sim) -> None:
    response = see(client, "data:image/png;base64,AAAA")
    assert response.status_code == 400
    assert response.json() == {"error": "illegal base64 data at input byte 4"}
    assert not sim.requests


def test_an_image_that_is_none(client: httpx.Client) -> None:
    response = see(client, base64.b64encode(b"not an image").decode())
    assert response.status_code == 400
    assert response.json() == {"error": "Failed to load image or audio file"}


# Options


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({"temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.05, "seed": 7}, ...),
        ({"presence_penalty": 0.1, "frequency_penalty": 0.2, "repeat_penalty": 1.1}, ...),
        ({"stop": ["\n", "END"]}, ...),
        ({"logit_bias": {"12": -100}}, ...),
        ({"logit_bias": [[12, -100], [13, 5]]}, {"logit_bias": {"12": -100, "13": 5}}),
        ({"num_predict": 10}, {"max_tokens": 10}),
        ({"num_predict": 10.0, "top_k": 40.9, "seed": 3.0}, {"max_tokens": 10, "top_k": 40, "seed": 3}),
        ({"num_predict": -1}, {}),
        ({"num_predict": -2}, {}),
        ({"temperature": None, "num_predict": None, "stop": None, "logit_bias": None}, {}),
        ({"stop": []}, {}),
        ({"num_ctx": 8192.0, "num_gpu": 1, "mirostat": 1, "use_mmap": True, "nonsense": {"a": 1}}, {}),
        ({"max_tokens": 5}, ...),
    ],
)
def test_options(client: httpx.Client, sim: Sim, options: dict[str, Any], body: Any) -> None:
    ndjson(chat(client, options=options))
    extra = {k: v for k, v in sent(sim).items() if k not in ("model", "messages", "stream", "stream_options")}
    assert extra == (options if body is ... else body)
    assert {k: type(v) for k, v in extra.items() if k in ("max_tokens", "top_k", "seed")} == {
        k: int for k in extra if k in ("max_tokens", "top_k", "seed")
    }
    assert sim.requests[0].ignored == ()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_ctx": "many"}, 'option "num_ctx" must be of type integer'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_options_of_a_wrong_type(client: httpx.Client, sim: Sim, options: dict[str, Any], error: str) -> None:
    response = chat(client, options=options)
    assert response.status_code == 500
    assert response.json() == {"error": error}
    assert not sim.requests


def test_a_limit_ends_the_answer(client: httpx.Client) -> None:
    lines = ndjson(chat(client, options={"num_predict": 2}))
    assert content_of(lines) == "You said"
    assert lines[-1]["done_reason"] == "length"
    assert lines[-1]["eval_count"] == 2
    assert chat(client, options={"num_predict": 1}, stream=False).json()["done_reason"] == "length"


def test_a_stop_string_ends_the_answer(client: httpx.Client) -> None:
    lines = ndjson(chat(client, options={"stop": ["said"]}))
    assert content_of(lines) == "You "
    assert lines[-1]["done_reason"] == "stop"


def test_logprobs(client: httpx.Client, sim: Sim) -> None:
    *lines, last = ndjson(chat(client, logprobs=True, top_logprobs=2))
    assert sent(sim)["logprobs"] is True
    assert sent(sim)["top_logprobs"] == 2
    assert "logprobs" not in last
    entries = [entry for line in lines for entry in line["logprobs"]]
    assert "".join(entry["token"] for entry in entries) == "You said: hi"
    for entry in entries:
        assert list(entry) == ["token", "logprob", "bytes", "top_logprobs"]
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] <= 0
        assert [list(top) for top in entry["top_logprobs"]] == [["token", "logprob", "bytes"]] * 2
    whole = chat(client, logprobs=True, top_logprobs=2, stream=False).json()
    assert whole["logprobs"] == entries
    assert list(whole).index("logprobs") < list(whole).index("total_duration")


def test_logprobs_nobody_asked_for(client: httpx.Client, sim: Sim) -> None:
    assert all("logprobs" not in line for line in ndjson(chat(client, top_logprobs=2)))
    response = chat(client, logprobs=True, top_logprobs=21)
    assert response.status_code == 400
    assert response.json() == {"error": "top_logprobs must be between 0 and 20"}


# The life of the model


@pytest.mark.parametrize(("keep_alive", "ttl"), [(300, 300), ("5m", 300), ("1m30s", 90), (1.5, 2), (None, None)])
def test_keep_alive_is_a_time_to_live(client: httpx.Client, sim: Sim, keep_alive: Any, ttl: int | None) -> None:
    ndjson(chat(client, keep_alive=keep_alive))
    assert sent(sim).get("ttl") == ttl
    assert [instance.ttl for instance in sim.instances] == [ttl or 3600]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("keep_alive", [0, "0s"])
def test_keep_alive_zero_unloads_afterwards(
    client: httpx.Client, proxy: Proxy, sim: Sim, stream: bool, keep_alive: Any
) -> None:
    response = chat(client, keep_alive=keep_alive, stream=stream)
    assert "hi" in response.text
    assert '"done":true' in response.text
    proxy.wait_for(lambda: not sim.instances)
    assert "ttl" not in sim.requests[0].json
    assert sim.requests[0].path == "/v1/chat/completions"
    assert sim.requests[-1].path == "/api/v1/models/unload"


def test_keep_alive_for_ever_is_the_longest_time_to_live(client: httpx.Client, sim: Sim) -> None:
    for _ in range(2):
        assert content_of(ndjson(chat(client, keep_alive=-1))) == "You said: hi"
        assert [instance.ttl for instance in sim.instances] == [2_147_483]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("messages", [[], None])
def test_no_messages_load_the_model(client: httpx.Client, sim: Sim, stream: bool, messages: list[Any] | None) -> None:
    for _ in range(2):
        response = chat(client, messages=messages, stream=stream)
        answer = response.json()
        assert response.headers["content-type"] == "application/json; charset=utf-8"
        assert list(answer) == ["model", "created_at", "message", "done", "done_reason"]
        assert answer["message"] == {"role": "assistant", "content": ""}
        assert answer["done_reason"] == "load"
        assert [instance.id for instance in sim.instances] == [CHAT]


def test_no_messages_unload_the_model(client: httpx.Client, sim: Sim) -> None:
    sim.load(CHAT)
    sim.load(CHAT)
    for _ in range(2):
        answer = chat(client, messages=[], keep_alive=0).json()
        assert (answer["done"], answer["done_reason"]) == (True, "unload")
        assert not sim.instances


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "nosuch"}, 404, "model 'nosuch' not found"),
        ({"model": "NoSuch:7b", "stream": False}, 404, "model 'NoSuch:7b' not found"),
        ({"model": ""}, 400, "model is required"),
        ({"model": "a b"}, 400, "invalid model name"),
        (
            {"model": "text-embedding-nomic-embed-text-v1.5"},
            400,
            '"text-embedding-nomic-embed-text-v1.5" does not support chat',
        ),
        ({"model": "gpt-oss:120b-cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
        ({"keep_alive": "abc"}, 400, 'time: invalid duration "abc"'),
        ({"keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
        (
            {"think": "huge"},
            400,
            'invalid think value: "huge" (must be "high", "medium", "low", "max", true, or false)',
        ),
        (
            {"messages": "hi"},
            400,
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
        ),
    ],
)
def test_what_ollama_refuses(client: httpx.Client, sim: Sim, body: dict[str, Any], status: int, error: str) -> None:
    response = chat(client, **body)
    assert (response.status_code, response.json()) == (status, {"error": error})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert not any(request.method == "POST" for request in sim.requests)


@pytest.mark.parametrize(("path", "prompt"), [("/api/chat", {"messages": HI}), ("/api/generate", {"prompt": "hi"})])
def test_a_prompt_is_not_shown_and_not_asked_either(
    client: httpx.Client, sim: Sim, path: str, prompt: dict[str, Any]
) -> None:
    response = client.post(path, json={"model": CHAT, **prompt, "_debug_render_only": True})
    assert (response.status_code, list(response.json())) == (501, ["error"])
    assert sim.requests == []
