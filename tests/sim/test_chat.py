"""`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` and their `/api/v0` forms."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import httpx
import pytest

from ollama_lmstudio.sim import (
    Sim,
    SimModel,
    SimThread,
    content,
    embedder,
    end,
    error,
    gpt_oss,
    raw,
    reasoning,
    tool_call,
)

from .conftest import CHAT, Connect, events, user

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def deltas(body: bytes) -> list[Any]:
    return [event["choices"][0]["delta"] for event in events(body) if event != "[DONE]" and event["choices"]]


def test_a_whole_reply(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("POST", CHAT, user("Hi there"))
    text = re.sub(r"chatcmpl-[a-z0-9]{20,22}\"", 'ID"', reply.body.decode())
    text = re.sub(r'"created": \d{10},', '"created": 0,', text)
    assert text == (
        '{\n  "id": "ID",\n  "object": "chat.completion",\n  "created": 0,\n  "model": "plain",\n  "choices": [\n'
        '    {\n      "index": 0,\n      "message": {\n        "role": "assistant",\n'
        '        "content": "You said: Hi there",\n        "reasoning_content": "",\n        "tool_calls": []\n'
        '      },\n      "logprobs": null,\n      "finish_reason": "stop"\n    }\n  ],\n  "usage": {\n'
        '    "prompt_tokens": 6,\n    "completion_tokens": 5,\n    "total_tokens": 11,\n'
        '    "completion_tokens_details": {\n      "reasoning_tokens": 0\n    }\n  },\n  "stats": {},\n'
        '  "system_fingerprint": "plain"\n}'
    )


def test_a_stream(sim: Sim, connect: Connect) -> None:
    sim.script([content("Hel", "lo ", "😀\n\ndata: [DONE]")])
    reply = connect(sim).call("POST", CHAT, user(stream=True))
    frames = reply.body.decode().split("\n\n")
    match = re.match(
        r'data: \{"id":"(chatcmpl-[a-z0-9]{20,22})","object":"chat.completion.chunk","created":(\d+),', frames[0]
    )
    assert match
    head = (
        f'data: {match[0].removeprefix("data: ")}"model":"plain","system_fingerprint":"plain","choices":[{{"index":0,'
    )
    tail = ',"logprobs":null,"finish_reason":null}]}'
    assert frames == [
        head + '"delta":{"role":"assistant","content":"Hel"}' + tail,
        head + '"delta":{"content":"lo "}' + tail,
        head + '"delta":{"content":"😀\\n\\ndata: [DONE]"}' + tail,
        head + '"delta":{"content":""}' + tail,
        head + '"delta":{},"logprobs":null,"finish_reason":"stop"}]}',
        "data: [DONE]",
        "",
    ]


def test_each_token_is_a_chunk_of_its_own(sim: Sim, connect: Connect) -> None:
    sim.script([content(*"abcdefgh")])
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    assert [chunk.count(b"data: ") for chunk in wire.chunks()] == [1] * 11


def test_tokens_can_go_out_together(sim: Sim, connect: Connect) -> None:
    sim.script([content(*"abcdefgh")])
    sim.set(coalesce=4)
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    assert [chunk.count(b"data: ") for chunk in wire.chunks()] == [4, 4, 3]


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": None}])
def test_usage_is_not_told_unasked(sim: Sim, connect: Connect, options: dict[str, Any]) -> None:
    assert b"usage" not in connect(sim).call("POST", CHAT, user(stream=True, **options)).body


def test_usage_comes_in_a_chunk_of_its_own(sim: Sim, connect: Connect) -> None:
    body = user("Hi there", stream=True, stream_options={"include_usage": True})
    *_, finish, usage, done = events(connect(sim).call("POST", CHAT, body).body)
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert list(usage) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 5,
        "total_tokens": 11,
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert done == "[DONE]"


SCRIPT = [reasoning("Hm", "m"), content("Yes")]


@pytest.mark.parametrize(
    ("model", "separate", "streamed", "message"),
    [
        (
            "qwen",
            True,
            [{"role": "assistant", "reasoning_content": "Hm"}, {"reasoning_content": "m"}, {"content": "Yes"}],
            {"content": "Yes", "reasoning_content": "Hmm"},
        ),
        (
            "openai/gpt-oss-20b",
            True,
            [{"role": "assistant", "reasoning": "Hm"}, {"reasoning": "m"}, {"content": "Yes"}],
            {"content": "Yes", "reasoning": "Hmm"},
        ),
        (
            "openai/gpt-oss-20b",
            False,
            [{"role": "assistant", "reasoning": "Hm"}, {"reasoning": "m"}, {"content": "Yes"}],
            {"content": "Yes", "reasoning": "Hmm"},
        ),
        (
            "qwen",
            False,
            [
                {"role": "assistant", "content": "<think>"},
                {"content": "Hm"},
                {"content": "m"},
                {"content": "</think>"},
                {"content": "Yes"},
            ],
            {"content": "<think>Hmm</think>Yes"},
        ),
        (
            "glm",
            True,
            [{"role": "assistant", "content": "Hm"}, {"content": "m"}, {"content": "</think>"}, {"content": "Yes"}],
            {"content": "Hmm</think>Yes"},
        ),
    ],
)
def test_where_reasoning_is(
    connect: Connect, model: str, separate: bool, streamed: list[Any], message: dict[str, Any]
) -> None:
    models = [SimModel("qwen"), gpt_oss(), SimModel("glm", opens_thoughts=True)]
    with SimThread(models, separate_reasoning=separate) as sim:
        sim.script(SCRIPT)
        wire = connect(sim)
        found = deltas(wire.call("POST", CHAT, {**user(stream=True), "model": model}).body)
        assert found == [*streamed, {"content": ""}, {}]
        reply = wire.call("POST", CHAT, {**user(), "model": model}).json
        assert reply["choices"][0]["message"] == {"role": "assistant", **message, "tool_calls": []}
        assert reply["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}


def test_nothing_but_reasoning(sim: Sim, connect: Connect) -> None:
    sim.script([reasoning("Hm")])
    sim.set(separate_reasoning=False)
    wire = connect(sim)
    assert [delta.get("content") for delta in deltas(wire.call("POST", CHAT, user(stream=True)).body)] == [
        "<think>",
        "Hm",
        "</think>",
        "",
        None,
    ]


def test_nothing_at_all(sim: Sim, connect: Connect) -> None:
    sim.script([])
    wire = connect(sim)
    assert deltas(wire.call("POST", CHAT, user(stream=True)).body) == [{"role": "assistant", "content": ""}, {}]
    reply = wire.call("POST", CHAT, user()).json
    assert reply["choices"][0]["message"]["content"] == ""
    assert reply["usage"]["completion_tokens"] == 0


def test_effort_none_is_no_reasoning(connect: Connect) -> None:
    with SimThread([SimModel("plain"), gpt_oss("gpt-oss")]) as sim:
        body = {**user(reasoning_effort="none"), "model": "gpt-oss"}
        assert connect(sim).call("POST", CHAT, body).json["choices"][0]["message"]["reasoning"] == ""


def test_a_tool_call_streams_its_arguments(sim: Sim, connect: Connect) -> None:
    body = user("What is the weather in Paris?", tools=[TOOL], stream=True)
    raw_body = connect(sim).call("POST", CHAT, body).body
    first, *rest, finish = deltas(raw_body)
    call_id = first["tool_calls"][0]["id"]
    assert re.fullmatch("[A-Za-z0-9]{32}", call_id)
    assert json.dumps(first) == json.dumps(
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "index": 0,
                    "id": call_id,
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": ""},
                }
            ],
        }
    )
    assert all(list(delta["tool_calls"][0]) == ["index", "function"] for delta in rest)
    arguments = "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in rest)
    assert json.loads(arguments) == {"city": "Paris"}
    assert finish == {}
    assert events(raw_body)[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_tool_call_in_a_whole_reply(sim: Sim, connect: Connect) -> None:
    body = {**user("Weather in Paris?", tools=[TOOL]), "model": "openai/gpt-oss-20b"}
    choice = connect(sim).call("POST", CHAT, body).json["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert list(call) == ["type", "id", "function"]
    assert re.fullmatch(r"\d{9}", call["id"])
    assert call["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    assert choice["finish_reason"] == "tool_calls"


def test_results_of_tools_are_answered(sim: Sim, connect: Connect) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "15 degrees"},
    ]
    reply = connect(sim).call("POST", CHAT, {"model": "plain", "messages": messages, "tools": [TOOL]}).json
    assert reply["choices"][0]["message"]["content"] == "The tool answered: 15 degrees"


@pytest.mark.parametrize(
    ("step", "pieces"),
    [
        (
            tool_call("f", "{}", id="7", whole=True),
            [{"index": 0, "id": "7", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        ),
        (
            tool_call("f", '{"a', id="", fragments=1),
            [
                {"index": 0, "id": "", "type": "function", "function": {"name": "f", "arguments": ""}},
                {"index": 0, "function": {"arguments": '{"a'}},
            ],
        ),
    ],
)
def test_tool_calls_as_some_models_make_them(sim: Sim, connect: Connect, step: Any, pieces: list[Any]) -> None:
    sim.script([step])
    found = deltas(connect(sim).call("POST", CHAT, user(stream=True)).body)
    assert [delta["tool_calls"][0] for delta in found if delta] == pieces


def test_a_new_id_with_every_fragment(sim: Sim, connect: Connect) -> None:
    sim.script([tool_call("f", "{}", fragments=2, id_per_fragment=True)])
    found = deltas(connect(sim).call("POST", CHAT, user(stream=True)).body)
    calls = [delta["tool_calls"][0] for delta in found if delta]
    assert [call["function"]["name"] for call in calls] == ["f", "", ""]
    assert len({call["id"] for call in calls}) == 3


def test_0_3_15_says_an_empty_name_with_every_fragment(connect: Connect) -> None:
    with SimThread([SimModel("plain")], version="0.3.15") as sim:
        sim.script([tool_call("f", "{}", fragments=1)])
        body = user(stream=True, stream_options={"include_usage": True})
        raw_body = connect(sim).call("POST", CHAT, body).body
        assert deltas(raw_body)[1]["tool_calls"] == [
            {"index": 0, "type": "function", "function": {"name": "", "arguments": "{}"}}
        ]
        assert b"usage" not in raw_body


def test_limits(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    reply = wire.call("POST", CHAT, user("one two three", max_tokens=2)).json["choices"][0]
    assert (reply["message"]["content"], reply["finish_reason"]) == ("You said", "length")
    reply = wire.call("POST", CHAT, user("one two three", stop=["two"])).json["choices"][0]
    assert (reply["message"]["content"], reply["finish_reason"]) == ("You said: one ", "stop")
    streamed = wire.call("POST", CHAT, user("one two three", stop=["two"], stream=True)).body
    assert "".join(delta.get("content", "") for delta in deltas(streamed)) == "You said: one "


def test_finish_reasons_can_be_scripted(sim: Sim, connect: Connect) -> None:
    sim.script([content("x"), end("length")])
    assert (
        events(connect(sim).call("POST", CHAT, user(stream=True)).body)[-2]["choices"][0]["finish_reason"] == "length"
    )


def test_logprobs(sim: Sim, connect: Connect) -> None:
    sim.script([content("é", "x")])
    wire = connect(sim)
    body = user(logprobs=True, top_logprobs=2)
    found = wire.call("POST", CHAT, body).json["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in found] == ["é", "x"]
    assert found[0]["bytes"] == [0xC3, 0xA9]
    assert len(found[0]["top_logprobs"]) == 2
    assert found[0]["top_logprobs"][0]["logprob"] == found[0]["logprob"] < 0
    streamed = events(wire.call("POST", CHAT, {**body, "stream": True}).body)
    assert streamed[0]["choices"][0]["logprobs"]["content"] == found[:1]
    assert wire.call("POST", CHAT, user()).json["choices"][0]["logprobs"] is None


def test_a_schema_is_satisfied(sim: Sim, connect: Connect) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = connect(sim).call("POST", CHAT, user("Give me 7", response_format=wanted)).json
    assert json.loads(reply["choices"][0]["message"]["content"]) == {"n": 7}


@pytest.mark.parametrize(("vision", "text"), [(True, "You said: Look I see 2 images."), (False, "You said: Look")])
def test_images_are_seen_by_models_that_see(connect: Connect, vision: bool, text: str) -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}}] * 2
    message = {"role": "user", "content": [{"type": "text", "text": "Look"}, *parts]}
    with SimThread([SimModel("m", vision=vision)]) as sim:
        reply = connect(sim).call("POST", CHAT, {"model": "m", "messages": [message]}).json
        assert reply["choices"][0]["message"]["content"] == text


def test_the_reply_names_the_model_that_answered(connect: Connect) -> None:
    with SimThread([SimModel("a", loaded=True), SimModel("b")]) as sim:
        wire = connect(sim)
        reply = wire.call("POST", CHAT, {**user(), "model": "nobody"}).json
        assert (reply["model"], reply["system_fingerprint"]) == ("a", "a")
        sim.load("b")
        assert wire.call("POST", CHAT, {**user(), "model": "nobody"}).status == 400


def test_scripts_are_chosen_by_prompt_and_used_up(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    sim.script([content("number")], match=lambda body: body.get("seed") == 7)
    sim.script([content("once")], match="tell", times=1)
    sim.script(lambda prompt: [content(prompt.last_user.upper())], match="shout")

    def answer(text: str, **more: Any) -> str:
        reply = wire.call("POST", CHAT, user(text, **more)).json
        return str(reply["choices"][0]["message"]["content"])

    assert answer("tell me") == "once"
    assert answer("tell me") == "You said: tell me"
    assert answer("shout") == "SHOUT"
    assert answer("x", seed=7) == "number"


def test_an_engine_error_before_the_first_token_is_no_stream(sim: Sim, connect: Connect) -> None:
    sim.script([error("Context size has been exceeded.", status=500)])
    reply = connect(sim).call("POST", CHAT, user(stream=True))
    assert (reply.status, reply.body) == (500, b'{"error":"Context size has been exceeded."}')


def test_an_engine_error_after_it_is_an_event(sim: Sim, connect: Connect) -> None:
    sim.script([content("a"), error("Channel Error")])
    reply = connect(sim).call("POST", CHAT, user(stream=True))
    assert reply.status == 200
    assert reply.body.endswith(
        b'\n\nevent: error\ndata: {"error":{"message":"Channel Error"},"message":"Channel Error"}\n\n'
    )
    assert b"[DONE]" not in reply.body


def test_before_0_3_18_an_error_is_a_string(connect: Connect) -> None:
    with SimThread([SimModel("plain")], version="0.3.17") as sim:
        sim.script([content("a"), error("Channel Error")])
        reply = connect(sim).call("POST", CHAT, user(stream=True))
        assert reply.body.endswith(b'\n\ndata: {"error":"Channel Error"}\n\n')


def test_raw_bytes(sim: Sim, connect: Connect) -> None:
    sim.script([content("a"), raw(b'data: {"lone":"\\ud83d"}\n\n'), content("b")])
    reply = connect(sim).call("POST", CHAT, user(stream=True))
    assert b'\n\ndata: {"lone":"\\ud83d"}\n\ndata: ' in reply.body


OVERFLOW = (
    'Engine protocol predict request returned 400: {"error":{"code":400,"message":"request (24 tokens) exceeds the '
    'available context size (20 tokens), try increasing it","type":"exceed_context_size_error",'
    '"n_prompt_tokens":24,"n_ctx":20}}'
)


def long_prompt(**more: Any) -> dict[str, Any]:
    return user("x " * 19 + "x", **more)


@pytest.mark.parametrize(
    ("overflow", "stream", "status"),
    [("error", True, 400), ("error", False, 400), ("stream", False, 400), ("stream", True, 200)],
)
def test_a_prompt_too_long(connect: Connect, overflow: Any, stream: bool, status: int) -> None:
    with SimThread([SimModel("plain", max_context_length=20)], overflow=overflow) as sim:
        reply = connect(sim).call("POST", CHAT, long_prompt(stream=stream))
        assert reply.status == status
        data = reply.body.removeprefix(b"event: error\ndata: ")
        assert json.loads(data)["error"] == ({"message": OVERFLOW} if status == 200 else OVERFLOW)


def test_bionic_cuts_the_middle_silently(connect: Connect) -> None:
    with SimThread([SimModel("plain", max_context_length=20)], version="bionic-1.1.7") as sim:
        wire = connect(sim)
        body = long_prompt()
        assert wire.call("POST", CHAT, body).status == 400, "the last message alone is too long"
        body["messages"].append({"role": "user", "content": "Hi"})
        reply = wire.call("POST", CHAT, body)
        assert reply.json["usage"]["prompt_tokens"] == 15


def test_the_context_ends_an_answer(connect: Connect) -> None:
    with SimThread([SimModel("plain", max_context_length=8)]) as sim:
        choice = connect(sim).call("POST", CHAT, user("Hi there")).json["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("You said", "length")


# Other routes


def test_text_completions(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    body = {"model": "plain", "prompt": "Once upon", "max_tokens": 3}
    reply = wire.call("POST", "/v1/completions", body).json
    assert re.fullmatch("cmpl-[a-z0-9]{20,22}", reply["id"])
    assert list(reply) == ["id", "object", "created", "model", "choices", "usage", "stats"]
    assert reply["choices"] == [{"index": 0, "text": "You said:", "logprobs": None, "finish_reason": "length"}]
    assert reply["usage"]["prompt_tokens"] == 2, "no template"
    *chunks, finish, usage, done = events(
        wire.call("POST", "/v1/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}).body
    )
    assert list(chunks[0]) == ["id", "object", "created", "model", "choices"]
    assert [chunk["choices"][0] for chunk in chunks[:1]] == [
        {"index": 0, "text": "You", "logprobs": None, "finish_reason": None}
    ]
    assert finish["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]
    assert (usage["choices"], done) == ([], "[DONE]")


def test_text_completions_think_in_the_text(sim: Sim, connect: Connect) -> None:
    sim.script(SCRIPT)
    wire = connect(sim)
    body = {"model": "plain", "prompt": "x"}
    assert wire.call("POST", "/v1/completions", body).json["choices"][0]["text"] == "<think>Hmm</think>Yes"
    chunks = events(wire.call("POST", "/v1/completions", {**body, "stream": True}).body)[:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "<think>Hmm</think>Yes"


def test_v0_has_statistics_instead_of_a_fingerprint(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    for path, body in ((CHAT, user()), ("/v1/completions", {"model": "plain", "prompt": "x"})):
        reply = wire.call("POST", path.replace("/v1", "/api/v0"), body).json
        assert "system_fingerprint" not in reply
        assert list(reply)[-3:] == ["stats", "model_info", "runtime"]
        assert list(reply["stats"]) == ["tokens_per_second", "time_to_first_token", "generation_time", "stop_reason"]
        assert reply["stats"]["stop_reason"] == "eosFound"
        assert reply["model_info"] == {
            "arch": "llama",
            "quant": "Q4_K_M",
            "format": "gguf",
            "context_length": 131072,
        }
        assert reply["runtime"]["supported_formats"] == ["gguf"]


def test_v0_times_are_measured(connect: Connect) -> None:
    with SimThread([SimModel("plain")], token_delay=0.02) as sim:
        started = time.monotonic()
        stats = connect(sim).call("POST", "/api/v0/chat/completions", user("a b")).json["stats"]
        passed = time.monotonic() - started
        assert stats["time_to_first_token"] >= 0.02
        assert stats["generation_time"] >= 0.06
        assert stats["time_to_first_token"] + stats["generation_time"] <= passed
        assert 0 < stats["tokens_per_second"] < 80


def test_embeddings(connect: Connect) -> None:
    with SimThread([embedder("e", dimensions=8)]) as sim:
        wire = connect(sim)
        body = {"model": "e", "input": ["a", "b", "a"], "dimensions": 3, "encoding_format": "base64"}
        reply = wire.call("POST", "/v1/embeddings", body)
        assert list(reply.json) == ["object", "data", "model", "usage"]
        assert reply.json["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
        first, second, third = reply.json["data"]
        assert list(first) == ["object", "embedding", "index"]
        assert [item["index"] for item in (first, second, third)] == [0, 1, 2]
        assert len(first["embedding"]) == 8, "dimensions and encoding are ignored"
        assert first["embedding"] == third["embedding"] != second["embedding"]
        assert sim.requests[0].ignored == ("dimensions", "encoding_format")
        assert wire.call("POST", "/api/v0/embeddings", {"model": "e", "input": "a"}).json["data"] == [first]
        assert wire.call("POST", "/v1/embeddings", {"input": []}).json["data"] == []
        assert wire.call("POST", "/v1/embeddings", {"model": "e", "input": [1, 2]}).status == 400


@pytest.mark.parametrize(
    ("version", "gone"),
    [
        ("0.3.5", ["/api/v0/models", "/api/v1/models", "/api/v1/chat", "/v1/responses", "/v1/messages"]),
        ("0.3.36", ["/api/v1/models", "/api/v1/chat", "/v1/messages"]),
        ("0.4.0", ["/v1/messages"]),
        ("bionic-1.1.7", []),
    ],
)
def test_versions_have_the_routes_of_their_time(connect: Connect, version: str, gone: list[str]) -> None:
    routes = {
        "/api/v0/models": "GET",
        "/api/v1/models": "GET",
        "/v1/responses": "POST",
        "/v1/messages": "POST",
        "/api/v1/chat": "POST",
        "/v1/models": "GET",
    }
    with SimThread([SimModel("plain")], version=version) as sim:
        wire = connect(sim)
        unexpected = [
            path for path, method in routes.items() if b"Unexpected endpoint" in wire.call(method, path, {}).body
        ]
        assert sorted(unexpected) == sorted(gone)


def test_httpx_reads_a_stream(sim: Sim) -> None:
    with httpx.Client(base_url=sim.url) as client, client.stream("POST", CHAT, json=user("a b", stream=True)) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert (
        "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1])
        == "You said: a b"
    )


def test_a_huge_token_and_many_small_ones(sim: Sim) -> None:
    huge = "x" * (8 << 20)
    sim.script([content(huge)], match="huge")
    sim.script([content(*(["ab "] * 10_000))], match="many")
    with httpx.Client(base_url=sim.url, timeout=60) as client:
        reply = client.post(CHAT, json=user("huge", stream=True))
        assert deltas(reply.content)[0]["content"] == huge
        reply = client.post(CHAT, json=user("many", stream=True))
        assert len(deltas(reply.content)) == 10_002
