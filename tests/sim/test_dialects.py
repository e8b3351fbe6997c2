"""The native chat, `/v1/responses` and `/v1/messages`."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from ollama_lmstudio.sim import Sim, SimModel, SimThread, content, error, gpt_oss, reasoning, tool_call
from ollama_lmstudio.sim.faults import MidError

from .conftest import Connect

NATIVE, RESPONSES, MESSAGES = "/api/v1/chat", "/v1/responses", "/v1/messages"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def named(body: bytes) -> list[tuple[str, Any]]:
    """Return the names and data of a stream of named events."""
    found = []
    for frame in body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def names(body: bytes) -> list[str]:
    return [name for name, _ in named(body)]


@pytest.fixture
def scripted(sim: Sim) -> Sim:
    sim.script([reasoning("Hm"), content("Yes", "!")])
    return sim


# Native


def native(**more: Any) -> dict[str, Any]:
    return {"model": "plain", "input": "Hi", **more}


def test_native_reply(scripted: Sim, connect: Connect) -> None:
    wire = connect(scripted)
    reply = wire.call("POST", NATIVE, native()).json
    assert list(reply) == ["model_instance_id", "output", "stats", "response_id"]
    assert reply["output"] == [{"type": "reasoning", "content": "Hm"}, {"type": "message", "content": "Yes!"}]
    assert list(reply["stats"]) == [
        "input_tokens",
        "total_output_tokens",
        "reasoning_output_tokens",
        "tokens_per_second",
        "time_to_first_token_seconds",
        "model_load_time_seconds",
    ]
    assert (reply["stats"]["total_output_tokens"], reply["stats"]["reasoning_output_tokens"]) == (3, 1)
    assert re.fullmatch("resp_[0-9a-f]{48}", reply["response_id"])
    warm = wire.call("POST", NATIVE, native(store=False)).json
    assert "response_id" not in warm
    assert "model_load_time_seconds" not in warm["stats"]


def test_native_stream(scripted: Sim, connect: Connect) -> None:
    wire = connect(scripted)
    cold, warm = (wire.call("POST", NATIVE, native(stream=True)).body for _ in range(2))
    rest = [
        "prompt_processing.start",
        "prompt_processing.progress",
        "prompt_processing.end",
        "reasoning.start",
        "reasoning.delta",
        "reasoning.end",
        "message.start",
        "message.delta",
        "message.delta",
        "message.end",
        "chat.end",
    ]
    loads = ["model_load.start", *["model_load.progress"] * 4, "model_load.end"]
    assert names(cold) == ["chat.start", *loads, *rest]
    assert names(warm) == ["chat.start", *rest]
    assert all(name == data["type"] for name, data in named(cold))
    assert cold.startswith(b'event: chat.start\ndata: {"type":"chat.start","model_instance_id":"plain"}\n\n')
    result = named(warm)[-1][1]["result"]
    assert result["output"] == [{"type": "reasoning", "content": "Hm"}, {"type": "message", "content": "Yes!"}]


def test_native_refuses_unknown_models_however_many_are_loaded(sim: Sim, connect: Connect) -> None:
    sim.load("plain")
    for name in ("nobody", "text-embedding-nomic-embed-text-v1.5"):
        reply = connect(sim).call("POST", NATIVE, native(model=name))
        assert reply.status == 404
        assert reply.json["error"]["type"] == "invalid_request"
        assert reply.json["error"]["code"] == "model_not_found"
        assert reply.json["error"]["message"].startswith(f'Invalid model identifier "{name}"')


def test_native_does_not_let_an_embedding_model_chat(sim: Sim, connect: Connect) -> None:
    embedder = sim.load("text-embedding-nomic-embed-text-v1.5")
    assert connect(sim).call("POST", NATIVE, native(model=embedder.id)).status == 404


def test_native_ignores_calls_of_tools(sim: Sim, connect: Connect) -> None:
    sim.script([tool_call("f", "{}"), content("a")])
    found = named(connect(sim).call("POST", NATIVE, native(stream=True)).body)
    assert found[-1][1]["result"]["output"] == [{"type": "message", "content": "a"}]


def test_native_reasoning_setting(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("POST", NATIVE, native(model="openai/gpt-oss-20b", reasoning="off"))
    assert reply.status == 400
    assert "Supported settings: 'low', 'medium', 'high'." in reply.json["error"]["message"]


def test_native_plugins_need_permission(sim: Sim, connect: Connect) -> None:
    reply = connect(sim).call("POST", NATIVE, native(integrations=["mcp/playwright"]))
    assert reply.status == 403
    assert reply.json["error"]["message"].startswith("Permission denied to use plugin 'mcp/playwright'.")
    assert reply.json["error"]["param"] == "integrations"


def test_native_context_length_is_for_its_own_load(sim: Sim, connect: Connect) -> None:
    connect(sim).call("POST", NATIVE, native(context_length=5000))
    assert sim.instances[0].context_length == 5000


def test_native_conversations_go_on(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    alone = wire.call("POST", NATIVE, native()).json
    first = wire.call("POST", NATIVE, native(input="one two three")).json
    second = wire.call("POST", NATIVE, native(previous_response_id=first["response_id"])).json
    assert second["stats"]["input_tokens"] >= alone["stats"]["input_tokens"] + 3
    reply = wire.call("POST", NATIVE, native(previous_response_id="resp_0"))
    assert (reply.status, reply.json["error"]["param"]) == (400, "previous_response_id")


def test_native_errors(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    sim.load("plain")
    sim.fault(mid_error=MidError(after=1, message="Oh"))
    body = wire.call("POST", NATIVE, native(stream=True)).body
    assert names(body)[-5:] == ["message.start", "message.delta", "error", "message.end", "chat.end"]
    sim.faults.clear()
    sim.script([error("Oh")])
    reply = wire.call("POST", NATIVE, native())
    assert reply.status == 500
    assert reply.json == {"error": {"type": "internal_error", "message": "Oh", "code": "unknown", "param": None}}


def test_native_load_that_fails(connect: Connect) -> None:
    with SimThread([SimModel("bad", load_outcome="guardrail")]) as sim:
        wire = connect(sim)
        reply = wire.call("POST", NATIVE, native(model="bad"))
        assert (reply.status, reply.json["error"]["type"]) == (500, "model_load_failed")
        found = named(wire.call("POST", NATIVE, native(model="bad", stream=True)).body)
        assert found[-1][0] == "error"
        assert found[-1][1]["error"]["type"] == "model_load_failed"
        assert "model_load.end" not in [name for name, _ in found]


# Responses


def responses(**more: Any) -> dict[str, Any]:
    return {"model": "plain", "input": "Hi", **more}


REPLY_KEYS = [
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
]


def test_responses_reply(scripted: Sim, connect: Connect) -> None:
    reply = connect(scripted).call("POST", RESPONSES, responses(instructions="Be kind")).json
    assert list(reply) == REPLY_KEYS
    assert re.fullmatch("resp_[0-9a-f]{48}", reply["id"])
    thought, message = reply["output"]
    assert re.fullmatch("rs_[a-z0-9]{22}", thought.pop("id"))
    assert thought == {
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm"}],
    }
    assert message["content"] == [{"type": "output_text", "text": "Yes!", "annotations": [], "logprobs": []}]
    assert reply["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}
    assert (reply["status"], reply["instructions"], reply["store"]) == ("completed", "Be kind", True)


def test_responses_stream(scripted: Sim, connect: Connect) -> None:
    found = named(connect(scripted).call("POST", RESPONSES, responses(stream=True)).body)
    assert [name for name, _ in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    assert all((*data,)[:: len(data) - 1] == ("type", "sequence_number") for _, data in found)
    final = found[-1][1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "message"]
    assert found[0][1]["response"]["usage"] is None
    assert final["output"][1]["content"][0]["text"] == "Yes!"


FUNCTION = {"type": "function", "name": "weather", "parameters": SCHEMA}


def test_responses_tools(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    body = responses(input="Weather in Paris?", tools=[FUNCTION, {"type": "mcp"}])
    (call,) = wire.call("POST", RESPONSES, body).json["output"]
    assert list(call) == ["id", "call_id", "type", "name", "arguments", "status"]
    assert (call["name"], call["arguments"]) == ("weather", '{"city":"Paris"}')
    found = named(wire.call("POST", RESPONSES, {**body, "stream": True}).body)
    fragments = [data["delta"] for name, data in found if name == "response.function_call_arguments.delta"]
    assert "".join(fragments) == '{"city":"Paris"}'
    assert found[-1][1]["response"]["output"][0]["arguments"] == '{"city":"Paris"}'
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "mild"}
    history = [{"role": "user", "content": "Weather?"}, {**call}, output]
    reply = wire.call("POST", RESPONSES, responses(input=history, tools=[FUNCTION])).json
    assert reply["output"][0]["content"][0]["text"] == "The tool answered: mild"


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ({"text": {}}, "text.format", "missing_required_parameter", "Required"),
        ({"input": None}, "input", "missing_required_parameter", "Required"),
        ({"input": 5}, "input", "custom", "Invalid input"),
        ({"input": [5]}, "input.0", "custom", "Invalid input"),
        ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, "input.0", "custom", "Invalid input"),
        ({"tools": [FUNCTION, {**FUNCTION, "parameters": {}}]}, "tools.1", "custom", "Invalid input"),
        ({"tools": [5]}, "tools.0", "custom", "Invalid input"),
        ({"previous_response_id": "x"}, "previous_response_id", "invalid_value", "Response with id 'x' not found"),
    ],
)
def test_responses_refuses(
    sim: Sim, connect: Connect, body: dict[str, Any], param: str, code: str, message: str
) -> None:
    reply = connect(sim).call("POST", RESPONSES, responses(**body))
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    assert (reply.status, reply.json) == (400, {"error": error})


def test_responses_other_inputs_and_ends(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
    message = {"role": "user", "content": [{"type": "input_text", "text": "Look"}, image]}
    reply = wire.call("POST", RESPONSES, responses(input=[message], max_output_tokens=1)).json
    assert reply["status"] == "incomplete"
    assert reply["incomplete_details"] == {"reason": "max_output_tokens"}
    again = wire.call("POST", RESPONSES, responses(previous_response_id=reply["id"])).json
    assert again["previous_response_id"] == reply["id"]
    sim.script([content("a"), error("Oh")])
    name, data = named(wire.call("POST", RESPONSES, responses(stream=True)).body)[-1]
    assert (name, data["message"]) == ("error", "Oh")
    assert wire.call("POST", RESPONSES, responses()).status == 500


def test_responses_ignores_the_ttl(sim: Sim, connect: Connect) -> None:
    connect(sim).call("POST", RESPONSES, responses(ttl=5))
    assert sim.instances[0].ttl == 3600


# Messages


def message(text: Any = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": "plain", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}


def test_messages_reply(scripted: Sim, connect: Connect) -> None:
    reply = connect(scripted).call("POST", MESSAGES, message()).json
    assert re.fullmatch("msg_[a-z0-9]{21}", reply.pop("id"))
    assert reply == {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Yes!"}],
        "model": "plain",
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 0},
    }


def test_messages_stream(scripted: Sim, connect: Connect) -> None:
    found = named(connect(scripted).call("POST", MESSAGES, message(stream=True)).body)
    assert [name for name, _ in found] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert found[0][1]["message"]["usage"]["output_tokens"] == 0
    assert [data["delta"]["text"] for name, data in found if name == "content_block_delta"] == ["Yes", "!", ""]
    assert found[-2][1]["usage"]["output_tokens"] == 3


TOOL = {"name": "weather", "description": "The weather", "input_schema": SCHEMA}


def test_messages_tools(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    body = message("Weather in Paris?", tools=[TOOL], tool_choice={"type": "tool", "name": "weather"})
    reply = wire.call("POST", MESSAGES, body).json
    (use,) = reply["content"]
    assert (use["type"], use["name"], use["input"], reply["stop_reason"]) == (
        "tool_use",
        "weather",
        {"city": "Paris"},
        "tool_use",
    )
    found = named(wire.call("POST", MESSAGES, {**body, "stream": True}).body)
    pieces = [data["delta"]["partial_json"] for name, data in found if name == "content_block_delta"]
    assert json.loads("".join(pieces)) == {"city": "Paris"}
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": [{"type": "text", "text": "mild"}]}
    history = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    reply = wire.call("POST", MESSAGES, {**body, "messages": history}).json
    assert reply["content"] == [{"type": "text", "text": "The tool answered: mild"}]


def test_messages_blocks_follow_each_other(sim: Sim, connect: Connect) -> None:
    sim.script([content("Let me see"), tool_call("f", {"a": 1}), tool_call("g", {"b": 2})])
    found = named(connect(sim).call("POST", MESSAGES, message(stream=True)).body)
    starts = [(data["index"], data["content_block"]["type"]) for name, data in found if name == "content_block_start"]
    assert starts == [(0, "text"), (1, "tool_use"), (2, "tool_use")]
    assert [data["index"] for name, data in found if name == "content_block_stop"] == [0, 1, 2]


def test_messages_options(connect: Connect) -> None:
    with SimThread([SimModel("plain", vision=True), gpt_oss()]) as sim:
        wire = connect(sim)
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        reply = wire.call("POST", MESSAGES, message([{"type": "text", "text": "Look"}, image], system="Be kind")).json
        assert reply["content"][0]["text"] == "You said: Look I see 1 image."
        reply = wire.call("POST", MESSAGES, message("one two three", stop_sequences=[" two"])).json
        assert reply["content"][0]["text"] == "You said: one"
        assert wire.call("POST", MESSAGES, message(max_tokens=1)).json["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": None},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
        {"tools": [{"name": "x"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"media_type": "image/webp", "data": ""}}]}
            ]
        },
        {"model": ""},
    ],
)
def test_messages_refuses(sim: Sim, connect: Connect, body: dict[str, Any]) -> None:
    reply = connect(sim).call("POST", MESSAGES, {**message(), **body})
    assert reply.status == 400
    assert (reply.json["type"], reply.json["error"]["type"]) == ("error", "invalid_request_error")


def test_messages_engine_errors(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    sim.script([content("a"), error("Oh")])
    assert named(wire.call("POST", MESSAGES, message(stream=True)).body)[-1] == (
        "error",
        {"type": "error", "error": {"type": "api_error", "message": "Oh"}},
    )
    assert wire.call("POST", MESSAGES, message()).status == 500
