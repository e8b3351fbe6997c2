"""The bodies of Ollama's requests: decoded as Ollama decodes them, refused in its words."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.clients import ClientRequest, client_requests

from ollama_lmstudio.ollama import errors, requests
from ollama_lmstudio.ollama.decode import decode
from ollama_lmstudio.ollama.durations import FOREVER, KeepAlive
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.names import parse_name
from ollama_lmstudio.ollama.options import check_options
from ollama_lmstudio.ollama.requests import (
    ChatRequest,
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    EmbeddingRequest,
    EmbedRequest,
    GenerateRequest,
    Message,
    MessageToolCall,
    PullRequest,
    PushRequest,
    RequestBody,
    ShowRequest,
)
from ollama_lmstudio.threads import LARGE_BYTES

DATA = Path(__file__).parent / "data"

REQUESTS: dict[str, type[RequestBody]] = {
    "/api/chat": ChatRequest,
    "/api/generate": GenerateRequest,
    "/api/embed": EmbedRequest,
    "/api/embeddings": EmbeddingRequest,
    "/api/show": ShowRequest,
    "/api/copy": CopyRequest,
    "/api/delete": DeleteRequest,
    "/api/pull": PullRequest,
    "/api/push": PushRequest,
    "/api/create": CreateRequest,
}

# What these endpoints do with a missing model, and whether they parse its name before they do anything.
NEEDS_MODEL = ("/api/chat", "/api/show", "/api/embeddings", "/api/delete", "/api/push")
NAMES_MODEL = (ChatRequest, GenerateRequest, EmbedRequest, EmbeddingRequest, ShowRequest, PullRequest, CreateRequest)


def recorded(name: str) -> list[Any]:
    return [json.loads(text) for text in (DATA / name).read_text(encoding="utf-8").splitlines()]


def check(path: str, body: bytes) -> None:
    """Do what can be done with a request without any model, in Ollama's order."""
    request = REQUESTS[path].decode(body)
    if isinstance(request, EmbedRequest):
        request.inputs()
    model = getattr(request, "model", "")
    if path in NEEDS_MODEL and not model:
        raise errors.model_required()
    if isinstance(request, ChatRequest | GenerateRequest):
        request.check_top_logprobs()
    # An empty name is not found by these, but never parsed.
    if isinstance(request, NAMES_MODEL) and (model or path in ("/api/pull", "/api/create")):
        parse_name(model)
    if isinstance(request, GenerateRequest):
        request.check_raw()
    if isinstance(request, ChatRequest | GenerateRequest):
        check_options(request.options)
        request.check_format()


@pytest.mark.parametrize(("path", "body", "status", "message"), recorded("recorded.jsonl"))
def test_recorded(path: str, body: str, status: int | None, message: str | None) -> None:
    """Replay what a real Ollama was asked; where it refused for another reason, it must decode."""
    if message is None:
        check(path, body.encode())
        return
    with pytest.raises(OllamaError) as caught:
        check(path, body.encode())
    assert (caught.value.status, caught.value.message) == (status, message)


@pytest.mark.parametrize("request_", [each for each in client_requests() if each.path in REQUESTS], ids=str)
def test_what_clients_send(request_: ClientRequest) -> None:
    check(request_.path, request_.body)


def chat(text: str) -> ChatRequest:
    return ChatRequest.decode(text.encode())


def message(text: str) -> Message:
    return chat(f'{{"messages":[{text}]}}').messages[0]


def refusal(request: type[RequestBody], text: str) -> str:
    with pytest.raises(OllamaError) as caught:
        request.decode(text.encode())
    assert caught.value.status == 400
    return caught.value.message


def test_an_empty_chat() -> None:
    assert chat("{}") == ChatRequest()
    assert ChatRequest().stream is True
    assert (ChatRequest().messages, ChatRequest().tools, ChatRequest().extras) == ([], [], {})


def test_a_full_chat() -> None:
    request = chat(
        """{"model": " Plain ", "stream": false, "format": {"b": 1, "a": 2}, "keep_alive": "5m", "think": "max",
        "options": {"temperature": null, "num_ctx": 8.7}, "truncate": false, "shift": null, "logprobs": true,
        "_debug_render_only": true, "top_logprobs": 3, "tool_choice": "auto", "messages": [], "tools": null}"""
    )
    assert request == ChatRequest(
        model=" Plain ",
        stream=False,
        format={"b": 1, "a": 2},
        keep_alive=KeepAlive(300),
        think="max",
        options={"temperature": None, "num_ctx": 8.7},
        truncate=False,
        debug_render_only=True,
        logprobs=True,
        top_logprobs=3,
        extras={"tool_choice": "auto"},
    )
    assert list(request.format or ()) == ["b", "a"]


def test_a_message() -> None:
    assert message(
        """{"role": "ASSISTANT", "content": null, "thinking": "t", "images": ["aGk=", "aG\\nk=\\r"],
        "tool_calls": [{"id": "c", "type": "function", "function": {"index": 1, "name": "f",
        "arguments": {"z": 1.0, "a": {"y": 1}}}}, {"function": {"name": "g", "arguments": null}}, {}],
        "tool_name": "n", "tool_call_id": "i", "name": "ignored"}"""
    ) == Message(
        role="assistant",
        thinking="t",
        images=[b"hi", b"hi"],
        tool_calls=[
            MessageToolCall("c", 1, "f", {"z": 1.0, "a": {"y": 1}}),
            MessageToolCall(name="g"),
            MessageToolCall(),
        ],
        tool_name="n",
        tool_call_id="i",
    )
    assert message("null") == Message()


def test_generate() -> None:
    request = GenerateRequest.decode(
        b'{"prompt":"p","suffix":"s","system":"y","template":"t","context":[1,2],"raw":true,"images":["aGk="],'
        b'"keep_alive":-1,"think":false,"width":5}'
    )
    assert request == GenerateRequest(
        prompt="p",
        suffix="s",
        system="y",
        template="t",
        context=[1, 2],
        raw=True,
        images=[b"hi"],
        keep_alive=FOREVER,
        think=False,
        extras={"width": 5},
    )


@pytest.mark.parametrize("field", ["system", "template", "context"])
def test_raw_stands_alone(field: str) -> None:
    value = [1] if field == "context" else "x"
    GenerateRequest.decode(json.dumps({field: value}).encode()).check_raw()
    GenerateRequest.decode(json.dumps({"raw": True, "prompt": "x", "suffix": "y"}).encode()).check_raw()
    with pytest.raises(OllamaError, match="raw mode does not support template, system, or context"):
        GenerateRequest.decode(json.dumps({"raw": True, field: value}).encode()).check_raw()


@pytest.mark.parametrize(("number", "good"), [(-1, False), (0, True), (20, True), (21, False)])
def test_top_logprobs(number: int, good: bool) -> None:
    request = ChatRequest(top_logprobs=number)
    if good:
        request.check_top_logprobs()
    else:
        with pytest.raises(OllamaError, match="must be between 0 and 20"):
            request.check_top_logprobs()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("null", None), ('""', None), ('"json"', "json"), ("{}", {}), ('{"type":"object"}', {"type": "object"})],
)
def test_formats(text: str, expected: Any) -> None:
    request = chat(f'{{"format":{text}}}')
    request.check_format()
    assert request.format == expected


@pytest.mark.parametrize("text", ['"xml"', "[]", "[ 1 ]", "5.0", "true", '"a\\"b"'])
def test_bad_formats(text: str) -> None:
    request = chat(f'{{"format": {text} }}')
    with pytest.raises(OllamaError) as caught:
        request.check_format()
    shown = text.replace("\\", "\\\\").replace('"', '\\"')
    assert (caught.value.status, caught.value.message) == (
        500,
        f'invalid format: "{shown}"; expected "json" or a valid JSON Schema object',
    )


@pytest.mark.parametrize("value", [True, False, "low", "medium", "high", "max", None])
def test_think(value: Any) -> None:
    assert chat(json.dumps({"think": value})).think == value


# Where a real client and LM Studio agree, we are more tolerant than Ollama.
def test_tolerances() -> None:
    assert message('{"content":[]}').content == ""
    png = message('{"images":[{"0":137,"1":80,"2":78,"3":71},[137,80]]}')
    assert png.images == [b"\x89PNG", b"\x89P"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"think":1}', 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
        ('{"keep_alive":[]}', "Unsupported type: '[]interface {}'"),
        (
            '{"keep_alive":1e999}',
            "json: cannot unmarshal number 1e999 into Go struct field ChatRequest.keep_alive of type float64",
        ),
        (
            '{"messages":{}}',
            "json: cannot unmarshal object into Go struct field ChatRequest.messages of type []api.Message",
        ),
        (
            '{"messages":["x"]}',
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type api.Alias",
        ),
        (
            '{"messages":[{"content":["x"]}]}',
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
        ),
        (
            '{"messages":[{"content":{}}]}',
            "json: cannot unmarshal object into Go struct field ChatRequest.messages.content of type string",
        ),
        (
            '{"messages":[{"images":"x"}]}',
            "json: cannot unmarshal string into Go struct field ChatRequest.messages.images of type []api.ImageData",
        ),
        (
            '{"messages":[{"images":[{}]}]}',
            "json: cannot unmarshal object into Go struct field ChatRequest.messages.images of type api.ImageData",
        ),
        (
            '{"messages":[{"images":[{"0":256}]}]}',
            "json: cannot unmarshal number 256 into Go struct field ChatRequest.messages.images of type uint8",
        ),
        (
            '{"messages":[{"tool_calls":{}}]}',
            "json: cannot unmarshal object into Go struct field ChatRequest.messages.tool_calls of type []api.ToolCall",
        ),
        (
            '{"messages":[{"tool_calls":[{"function":{"index":1.5}}]}]}',
            "json: cannot unmarshal number 1.5 into Go struct field "
            "ChatRequest.messages.tool_calls.function.index of type int",
        ),
        (
            '{"messages":[{"tool_calls":[{"function":{"arguments":"{}"}}]}]}',
            "Value looks like object, but can't find closing '}' symbol",
        ),
        (
            '{"tools":{}}',
            "json: cannot unmarshal object into Go struct field ChatRequest.tools of type api.Tools",
        ),
        (
            '{"tools":[1]}',
            "json: cannot unmarshal number into Go struct field ChatRequest.tools of type api.Tool",
        ),
        (
            '{"tools":[{"type":1}]}',
            "json: cannot unmarshal number into Go struct field Tool.tools.type of type string",
        ),
        (
            '{"tools":[{"function":{"parameters":{"type":["object"]}}}]}',
            "json: cannot unmarshal array into Go struct field "
            "ToolFunctionParameters.tools.function.parameters.type of type string",
        ),
        (
            '{"tools":[{"function":{"parameters":{"required":"x"}}}]}',
            "json: cannot unmarshal string into Go struct field "
            "ToolFunctionParameters.tools.function.parameters.required of type []string",
        ),
        (
            '{"tools":[{"function":{"parameters":{"properties":[]}}}]}',
            "Value looks like object, but can't find closing '}' symbol",
        ),
        (
            '{"tools":[{"function":{"parameters":{"properties":{"a":{"type":[1]}}}}}]}',
            "json: cannot unmarshal number into Go struct field "
            "ToolFunctionParameters.tools.function.parameters.properties.type of type string",
        ),
        (
            '{"tools":[{"function":{"parameters":{"properties":{"a":{"anyOf":[{"enum":{}}]}}}}}]}',
            "json: cannot unmarshal object into Go struct field "
            "ToolFunctionParameters.tools.function.parameters.properties.anyOf.enum of type []interface {}",
        ),
    ],
)
def test_refused_chats(body: str, expected: str) -> None:
    assert refusal(ChatRequest, body) == expected


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("data:image/png;base64,aGk=", 4),
        ("!!", 0),
        ("aGk", 0),
        ("aGk=a", 4),
        ("aGkaGk=x", 6),
        ("aGk=\nx", 5),
        ("a=", 1),
        ("aG=", 3),
        ("aG=x", 2),
        ("aG==aGk=", 4),
        ("aGkx=", 4),
        ("aGkx====", 4),
        ("aGkaaG\n", 5),
        ("aGkéaGk=", 3),
        ("=", 0),
        ("====", 0),
        ("aG-_", 2),
    ],
)
def test_bad_images(text: str, at: int) -> None:
    expected = f"illegal base64 data at input byte {at}"
    assert refusal(GenerateRequest, json.dumps({"images": [text]})) == expected
    assert refusal(ChatRequest, json.dumps({"messages": [{"images": [text]}]})) == expected


@given(st.binary(max_size=64))
def test_good_images(data: bytes) -> None:
    import base64

    text = base64.encodebytes(data).decode()
    assert GenerateRequest.decode(json.dumps({"images": [text]}).encode()).images == [data]


def test_tools_are_kept_as_sent() -> None:
    tools = [
        {
            "type": "function",
            "function": {
                "strict": True,
                "name": "f",
                "parameters": {
                    "type": "object",
                    "$schema": "s",
                    "additionalProperties": False,
                    "properties": {
                        "z": {"type": ["string", "null"], "default": None, "pattern": "x"},
                        "a": {"anyOf": [{"$ref": "#/$defs/q"}], "properties": {"b": {"minimum": 0.5}}},
                        "n": None,
                    },
                    "required": ["z"],
                },
            },
        },
        {},
    ]
    kept = chat(json.dumps({"tools": tools})).tools
    assert json.dumps(kept) == json.dumps(tools)
    assert chat('{"tools":[null]}').tools == [{}]


@pytest.mark.parametrize("request_type", [ShowRequest, DeleteRequest, PullRequest, PushRequest, CreateRequest])
def test_the_old_name_of_the_model(request_type: type[ShowRequest]) -> None:
    assert request_type.decode(b'{"name":"n"}').model == "n"
    assert request_type.decode(b'{"model":"","name":"n"}').model == "n"
    assert request_type.decode(b'{"model":"m","name":"n"}').model == "m"
    assert request_type.decode(b"{}").model == ""


@pytest.mark.parametrize("request_type", [ChatRequest, GenerateRequest, EmbedRequest, EmbeddingRequest])
def test_no_old_name(request_type: type[ChatRequest]) -> None:
    request = request_type.decode(b'{"name":"n"}')
    assert (request.model, request.extras) == ("", {"name": "n"})


def test_create() -> None:
    request = CreateRequest.decode(
        b'{"model":"m","from":"x","quantization":"q4","files":{"a":"b"},"license":["L"],'
        b'"parameters":{"stop":["a"]},"messages":[{"role":"USER","content":"c"}],"info":{"a":1},"modelfile":"x"}'
    )
    assert request == CreateRequest(
        model="m",
        from_="x",
        quantize="q4",
        quantization="q4",
        files={"a": "b"},
        license=["L"],
        parameters={"stop": ["a"]},
        messages=[Message(role="user", content="c")],
        info={"a": 1},
        extras={"modelfile": "x"},
    )
    assert CreateRequest.decode(b'{"quantize":"a","quantization":"b"}').quantize == "a"
    assert (
        refusal(CreateRequest, '{"files":{"a":1}}')
        == "json: cannot unmarshal number into Go struct field CreateRequest.files of type string"
    )


def test_passwords_are_not_shown() -> None:
    request = PullRequest.decode(b'{"password":"hunter2"}')
    assert request.password == "hunter2"
    assert "hunter2" not in repr(request)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, []), ("", []), ([], []), ("a", ["a"]), (["a", ""], ["a", ""]), ([""], [""])],
)
def test_inputs(value: Any, expected: list[str]) -> None:
    assert EmbedRequest.decode(json.dumps({"input": value}).encode()).inputs() == expected


@pytest.mark.parametrize("value", [1, True, {}, [1], ["a", None], [["a"]]])
def test_bad_inputs(value: Any) -> None:
    with pytest.raises(OllamaError, match="invalid input type"):
        EmbedRequest.decode(json.dumps({"input": value}).encode()).inputs()


KEYS = st.sampled_from(
    [
        "model",
        "messages",
        "role",
        "content",
        "images",
        "tool_calls",
        "function",
        "arguments",
        "tools",
        "parameters",
        "properties",
        "type",
        "anyOf",
        "format",
        "keep_alive",
        "think",
        "options",
        "x",
    ]
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)


@given(st.sampled_from(list(REQUESTS)), TREES.map(lambda tree: json.dumps(tree).encode()) | st.binary())
def test_nothing_but_ollama_errors(path: str, body: bytes) -> None:
    with suppress(OllamaError):
        check(path, body)


def test_a_large_body_is_decoded_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def note(go_type: Any, body: bytes) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return decode(go_type, body)

    monkeypatch.setattr(requests, "decode", note)
    small, large = b'{"prompt":"a"}', b'{"prompt":"%b"}' % (b"a" * LARGE_BYTES)
    assert asyncio.run(GenerateRequest.read(small)) == GenerateRequest.decode(small)
    assert asyncio.run(GenerateRequest.read(large)) == GenerateRequest.decode(large)
    with pytest.raises(OllamaError, match="unexpected EOF"):
        asyncio.run(GenerateRequest.read(large[:-1]))
    assert threads == [True, True, False, True, False]
