from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ollama_lmstudio.sim.generate import Prompt
from ollama_lmstudio.sim.models import GPT_OSS_REASONING, SimModel, Version
from ollama_lmstudio.sim.validate import (
    INVALID_MESSAGES,
    chat_prompt,
    check_native,
    check_reasoning,
    completion_prompt,
    embedding_inputs,
    native_prompt,
    read_body,
)
from ollama_lmstudio.sim.wire import ApiError

NEWEST = Version("0.4.25")
PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\nxx").decode()
JPEG = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xffxx").decode()
USER = {"role": "user", "content": "Hi"}


def refusal(body: dict[str, Any], version: Version = NEWEST) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat_prompt(body, version)
    return caught.value


def accepted(**body: Any) -> Prompt:
    return chat_prompt({"messages": [USER], **body}, NEWEST)


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


def assistant(arguments: Any) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


# Messages


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "'messages' field is required"),
        (5, "[Server Error] _0x48eeaf is not iterable"),
        ({}, "[Server Error] _0x48eeaf is not iterable"),
        ("abc", INVALID_MESSAGES),
        (["abc"], INVALID_MESSAGES),
        ([{"role": "robot", "content": "x"}], INVALID_MESSAGES),
        ([{"role": "user"}], INVALID_MESSAGES),
        ([{"role": "user", "content": None}], INVALID_MESSAGES),
        ([{"role": "assistant", "content": None}], INVALID_MESSAGES),
        ([{"role": "user", "content": 5}], INVALID_MESSAGES),
        ([{"role": "user", "content": [{"type": "text"}]}], INVALID_MESSAGES),
        ([{"role": "user", "content": [{"type": "audio"}]}], INVALID_MESSAGES),
        ([{"role": "tool", "content": "x"}], INVALID_MESSAGES),
        ([{"role": "tool", "content": "x", "tool_call_id": ""}], INVALID_MESSAGES),
        (
            [{"role": "tool", "tool_call_id": "1", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}],
            INVALID_MESSAGES,
        ),
        ([assistant({"city": "Berlin"})], INVALID_MESSAGES),
        ([{"role": "assistant", "tool_calls": {}}], INVALID_MESSAGES),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], INVALID_MESSAGES),
    ],
)
def test_messages_that_are_refused(messages: Any, message: str) -> None:
    problem = refusal({"messages": messages})
    assert (problem.status, problem.body, problem.indent) == (400, {"error": message}, 0)


def test_absent_messages_are_refused() -> None:
    assert refusal({}).body == {"error": "'messages' field is required"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Unexpected end of JSON input"),
        ("   ", "Unexpected end of JSON input"),
        ('{"a":', "Unexpected end of JSON input"),
        ("{a}", "Expected property name or '}' in JSON at position 1 (line 1 column 2)"),
        ('{"a" 1}', "Expected ':' after property name in JSON at position 5 (line 1 column 6)"),
        ('{"a":1 2}', "Expected ',' or '}' after property value in JSON at position 7 (line 1 column 8)"),
        ("[1\n 2]", "Expected ',' or ']' after array element in JSON at position 4 (line 2 column 2)"),
        ('{"a', "Unterminated string in JSON at position 3"),
        ("{} x", "Unexpected non-whitespace character after JSON at position 3 (line 1 column 4)"),
        ("x", "Unexpected token 'x', \"x\" is not valid JSON"),
        ('[{"[":{}} 5]', "Expected ',' or ']' after array element in JSON at position 10 (line 1 column 11)"),
        ("NaN", "Unexpected token 'N', \"NaN\" is not valid JSON"),
    ],
)
def test_broken_tool_arguments_are_a_server_error(arguments: str, message: str) -> None:
    problem = refusal({"messages": [assistant(arguments)]})
    assert (problem.status, problem.body) == (500, {"error": message})


def test_what_messages_may_be() -> None:
    prompt = chat_prompt(
        {
            "messages": [
                {"role": "developer", "content": "Be kind", "name": "x"},
                {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "is it?"}]},
                {**assistant("{}"), "reasoning_content": "hm"},
                {"role": "tool", "tool_call_id": "other", "content": [{"type": "text", "text": "42"}]},
            ]
        },
        NEWEST,
    )
    assert prompt.text == "Be kind\nWhat\nis it?\n\n42"
    assert prompt.last_user == "What\nis it?"
    assert prompt.tool_results == ["42"]


def test_tool_results_are_past_once_the_user_speaks_again() -> None:
    tool = {"role": "tool", "tool_call_id": "1", "content": "42"}
    assert chat_prompt({"messages": [USER, assistant("{}"), tool, USER]}, NEWEST).tool_results == []


# Images


def image(url: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.com/a.png", "'url' field must be a base64 encoded image."),
        (PNG.replace("png", "webp"), "'url' field must be a base64 encoded image."),
        (PNG.partition(",")[2], "'url' field must be a base64 encoded image."),
        ("data:image/png;base64,!!!", "'url' field must be a base64 encoded image."),
        (None, "'url' field must be a base64 encoded image."),
        ("data:image/png;base64,UklGRg==", "Failed to load image or audio file"),
    ],
)
def test_images_that_are_refused(url: Any, message: str) -> None:
    assert refusal(image(url)).body == {"error": message}


@pytest.mark.parametrize("url", [PNG, JPEG])
def test_images_that_are_taken(url: str) -> None:
    assert chat_prompt(image(url), NEWEST).images == 1


# Tools


def issues(tools: Any) -> Any:
    return json.loads(refusal({"messages": [USER], "tools": tools}).body["error"])


def test_missing_properties_are_told_as_lm_studio_was_seen_to() -> None:
    tools = [*[function()] * 5, function(parameters={"type": "object"})]
    assert refusal({"messages": [USER], "tools": tools}).body["error"] == (
        '[\n  {\n    "code": "invalid_type",\n    "expected": "object",\n    "received": "undefined",\n'
        '    "path": [\n      5,\n      "function",\n      "parameters",\n      "properties"\n    ],\n'
        '    "message": "Required"\n  }\n]'
    )


def test_missing_type_is_told_as_lm_studio_was_seen_to() -> None:
    tools = [*[function()] * 13, function(parameters={})]
    assert refusal({"messages": [USER], "tools": tools}).body["error"] == (
        '[\n  {\n    "code": "invalid_union_discriminator",\n    "options": [\n      "object"\n    ],\n'
        '    "path": [\n      13,\n      "function",\n      "parameters",\n      "type"\n    ],\n'
        '    "message": "Invalid discriminator value. Expected \'object\'"\n  }\n]'
    )


def wrong_type(expected: str, received: str, *path: str | int) -> dict[str, Any]:
    message = "Required" if received == "undefined" else f"Expected {expected}, received {received}"
    return {
        "code": "invalid_type",
        "expected": expected,
        "received": received,
        "path": list(path),
        "message": message,
    }


OBJECT = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("tools", "found"),
    [
        ({}, [wrong_type("array", "object")]),
        (["x"], [wrong_type("object", "string", 0)]),
        ([{"type": "function"}], [wrong_type("object", "undefined", 0, "function")]),
        ([{"type": "function", "function": {}}], [wrong_type("string", "undefined", 0, "function", "name")]),
        ([function(description=None)], [wrong_type("string", "null", 0, "function", "description")]),
        ([function(parameters=None)], [wrong_type("object", "null", 0, "function", "parameters")]),
        (
            [function(parameters={"type": "object", "properties": []})],
            [wrong_type("object", "array", 0, "function", "parameters", "properties")],
        ),
        (
            [function(parameters={**OBJECT, "required": None})],
            [wrong_type("array", "null", 0, "function", "parameters", "required")],
        ),
        (
            [function(parameters={**OBJECT, "required": ["a", 1, True]})],
            [
                wrong_type("string", "number", 0, "function", "parameters", "required", 1),
                wrong_type("string", "boolean", 0, "function", "parameters", "required", 2),
            ],
        ),
        (
            [function(parameters={**OBJECT, "$defs": "x"})],
            [wrong_type("object", "string", 0, "function", "parameters", "$defs")],
        ),
        (
            [function(name=1), function(parameters={"type": "object"})],
            [
                wrong_type("string", "number", 0, "function", "name"),
                wrong_type("object", "undefined", 1, "function", "parameters", "properties"),
            ],
        ),
    ],
)
def test_tools_that_are_refused(tools: Any, found: list[dict[str, Any]]) -> None:
    assert issues(tools) == found


def test_tool_of_another_type_is_refused() -> None:
    assert issues([{"type": "mcp"}])[0]["message"] == "Invalid discriminator value. Expected 'function'"


@pytest.mark.parametrize(
    "tool",
    [
        function(),
        function(name=""),
        function(parameters=OBJECT, strict=True),
        function(parameters={**OBJECT, "required": ["a"], "additionalProperties": False, "$defs": {}, "title": "x"}),
        {**function(), "extra": 1},
    ],
)
def test_tools_that_are_taken(tool: dict[str, Any]) -> None:
    assert accepted(tools=[tool]).tools == [tool]


# Options


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
        ),
        ({"tool_choice": True}, "Invalid tool_choice type: 'boolean'. Supported string values: none, auto, required"),
        ({"tool_choice": "any"}, "Invalid tool_choice: 'any'. Supported string values: none, auto, required"),
        ({"response_format": {"type": "json_object"}}, "'response_format.type' must be 'json_schema' or 'text'"),
        ({"response_format": "json"}, "'response_format.type' must be 'json_schema' or 'text'"),
        (
            {"response_format": {"type": "json_schema"}},
            "'response_format.json_schema.schema' must be an object",
        ),
    ],
)
def test_options_that_are_refused(option: dict[str, Any], message: str) -> None:
    assert refusal({"messages": [USER], **option}).body == {"error": message}


@pytest.mark.parametrize("effort", ["on", "off", "max", "default", "", True, 5])
def test_efforts_that_are_refused(effort: Any) -> None:
    assert refusal({"messages": [USER], "reasoning_effort": effort}).status == 400


@pytest.mark.parametrize("count", [-1, 21, 1.5, "5", True])
def test_logprobs_that_are_refused(count: Any) -> None:
    assert refusal({"messages": [USER], "logprobs": True, "top_logprobs": count}).status == 400


def test_before_0_3_18_the_format_text_is_refused() -> None:
    body = {"messages": [USER], "response_format": {"type": "text"}}
    assert refusal(body, Version("0.3.17")).body == {"error": "'response_format.type' must be 'json_schema'"}
    assert chat_prompt(body, Version("0.3.18")).schema is None


def test_before_0_4_8_the_effort_is_ignored() -> None:
    assert chat_prompt({"messages": [USER], "reasoning_effort": "on"}, Version("0.4.7")).thinks


def test_options_that_are_taken() -> None:
    schema = {"type": "object", "properties": {}}
    prompt = accepted(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": "true"}},
        reasoning_effort="none",
        max_tokens=7,
        stop="END",
        tool_choice="required",
        top_logprobs=3,
        logprobs=True,
        num_ctx=5,
    )
    assert prompt.schema == schema
    assert not prompt.thinks
    assert prompt.max_tokens == 7
    assert prompt.stop == ("END",)
    assert prompt.tool_choice == "required"
    assert prompt.top_logprobs == 3
    assert accepted(max_completion_tokens=9, stop=["a", "", "b"]).max_tokens == 9
    assert accepted(stop=["a", "", "b"]).stop == ("a", "b")
    assert accepted(top_logprobs=3).top_logprobs is None
    assert accepted(reasoning_effort="xhigh").thinks


# Other routes


@pytest.mark.parametrize("texts", [None, 5, {}, [1, 2], [[1]], ["a", 1]])
def test_embedding_inputs_that_are_refused(texts: Any) -> None:
    with pytest.raises(ApiError) as caught:
        embedding_inputs({"input": texts})
    assert caught.value.body == {"error": "'input' field must be a string or an array of strings"}


def test_embedding_inputs_that_are_taken() -> None:
    assert embedding_inputs({"input": "a"}) == ["a"]
    assert embedding_inputs({"input": ["a", ""]}) == ["a", ""]
    assert embedding_inputs({"input": []}) == []


def test_completion_prompts() -> None:
    assert completion_prompt({"prompt": "abc", "max_tokens": 3}).text == "abc"
    assert completion_prompt({"prompt": ["a", "b"]}).text == "ab"
    for body in ({}, {"prompt": 5}, {"prompt": [1]}):
        with pytest.raises(ApiError):
            completion_prompt(body)


def test_bodies() -> None:
    assert read_body(b"") == {}
    assert read_body(b'{"a": 1}') == {"a": 1}
    text = "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON"
    for body in (b"{", b"[]", b"\xff", b"NaN", b"[" * 100_000):
        with pytest.raises(ApiError) as caught:
            read_body(body)
        assert caught.value.body == {"error": text}
    with pytest.raises(ApiError) as caught:
        read_body(b"{", native=True)
    assert caught.value.body == {"error": {"message": text, "type": "invalid_request", "code": "invalid_json"}}


# Native routes


def native_refusal(route: str, body: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        check_native(body, route)
    assert caught.value.status == 400
    error: dict[str, Any] = caught.value.body["error"]
    assert error["type"] == "invalid_request"
    return error


@pytest.mark.parametrize(
    ("route", "body", "code", "param", "message"),
    [
        ("load", {}, "missing_required_parameter", "model", '"model" is required'),
        ("load", {"model": 5}, "invalid_type", "model", "Expected string, received number"),
        ("load", {"model": "x", "ttl": 5}, "unrecognized_keys", None, "Unrecognized key(s) in object: 'ttl'"),
        (
            "load",
            {"model": "x", "gpu": 1, "parallel": 2},
            "unrecognized_keys",
            None,
            "Unrecognized key(s) in object: 'gpu', 'parallel'",
        ),
        (
            "load",
            {"model": "x", "context_length": "8"},
            "invalid_type",
            "context_length",
            "Expected number, received string",
        ),
        (
            "load",
            {"model": "x", "flash_attention": 1},
            "invalid_type",
            "flash_attention",
            "Expected boolean, received number",
        ),
        ("unload", {"model": "x"}, "missing_required_parameter", "instance_id", '"instance_id" is required'),
        ("download", {"model": None}, "invalid_type", "model", "Expected string, received null"),
        ("chat", {"model": "x"}, "missing_required_parameter", "input", '"input" is required'),
        (
            "chat",
            {"model": "x", "input": "y", "messages": []},
            "unrecognized_keys",
            None,
            "Unrecognized key(s) in object: 'messages'",
        ),
        (
            "chat",
            {"model": "x", "input": "y", "temperature": 1.5},
            "too_big",
            "temperature",
            "Number must be less than or equal to 1",
        ),
        (
            "chat",
            {"model": "x", "input": "y", "top_k": -1},
            "too_small",
            "top_k",
            "Number must be greater than or equal to 0",
        ),
    ],
)
def test_native_bodies_that_are_refused(
    route: str, body: dict[str, Any], code: str, param: str | None, message: str
) -> None:
    error = native_refusal(route, body)
    assert (error["code"], error.get("param"), error["message"]) == (code, param, message)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (5, "invalid_union"),
        ([5], "invalid_union_discriminator"),
        ([{"type": "message", "content": "x"}], "invalid_union_discriminator"),
        ([{"type": "text"}], "missing_required_parameter"),
        ([{"type": "text", "content": "x", "role": "user"}], "unrecognized_keys"),
        ([{"type": "image", "data_url": "http://x/a.png"}], "invalid_value"),
    ],
)
def test_native_inputs_that_are_refused(given: Any, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        native_prompt({"model": "x", "input": given})
    assert caught.value.body["error"]["code"] == code


def test_native_inputs_that_are_taken() -> None:
    prompt = native_prompt(
        {
            "model": "x",
            "system_prompt": "Be kind",
            "input": [{"type": "text", "content": "Look"}, {"type": "image", "data_url": PNG}],
            "max_output_tokens": 5,
            "reasoning": "off",
        }
    )
    assert (prompt.text, prompt.last_user, prompt.images) == ("Be kind\nLook", "Look", 1)
    assert (prompt.max_tokens, prompt.thinks) == (5, False)


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        (
            SimModel("m", reasoning=GPT_OSS_REASONING),
            "0.4.25",
            "Reasoning setting 'off' is not supported by model 'm'. Supported settings: 'low', 'medium', 'high'.",
        ),
        (SimModel("m"), "0.4.25", "Model 'm' does not expose reasoning configuration."),
        (SimModel("m"), "0.4.6", "Model 'm' does not support reasoning configuration."),
    ],
)
def test_reasoning_settings_that_are_refused(model: SimModel, version: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_reasoning({"reasoning": "off"}, model, Version(version))
    error = {"message": message, "type": "invalid_request", "param": "reasoning", "code": "invalid_value"}
    assert caught.value.body == {"error": error}
    check_reasoning({}, model, Version(version))


def test_reasoning_settings_that_are_taken() -> None:
    check_reasoning({"reasoning": "low"}, SimModel("m", reasoning=GPT_OSS_REASONING), NEWEST)
