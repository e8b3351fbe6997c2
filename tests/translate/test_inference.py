"""What the endpoints that ask a model share: finding it, what it can do, the body of the call."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from ollama_lmstudio.lmstudio.catalog import Model, ReasoningOptions
from ollama_lmstudio.lmstudio.resolve import Resolution
from ollama_lmstudio.ollama import errors
from ollama_lmstudio.ollama.durations import FOREVER, KeepAlive
from ollama_lmstudio.ollama.errors import OllamaError
from ollama_lmstudio.ollama.requests import Message
from ollama_lmstudio.outcomes import CollectedCall, Request, StreamedCall
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate import inference
from ollama_lmstudio.translate.mapping import Mapped
from ollama_lmstudio.translate.stream import CHAT, ResponseOptions

MakeServices = Callable[..., Services]

ON_OFF = ReasoningOptions(("off", "on"), "on")
THINKER = Model("thinker", reasoning=ON_OFF, capabilities_known=True)
PLAIN = Model("plain", capabilities_known=True)
FOUND = Resolution(THINKER, "thinker@q8_0")
MESSAGES = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f"}}


def find(name: str, services: Services) -> str:
    return asyncio.run(inference.find_model(name, services)).id


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("plain", "plain"),
        ("PLAIN:latest", "plain"),
        ("plain:local", "plain"),
        (" plain ", "plain"),
        ("registry.ollama.ai/library/plain:latest", "plain"),
        ("big@q4_k_m", "big@q4_k_m"),
        ("big:q4_k_m", "big@q4_k_m"),
    ],
)
def test_find_model(name: str, found: str, make_services: MakeServices) -> None:
    assert find(name, make_services(PLAIN, Model("big", variants=("big@q4_k_m", "big@q8_0")))) == found


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("nosuch", 404, "model 'nosuch' not found"),
        ("NoSuch:7B", 404, "model 'NoSuch:7B' not found"),
        ("nosuch:local", 404, "model 'nosuch:local' not found"),
        ("plai", 404, "model 'plai' not found"),
        ("nosuch@q4", 404, "model 'nosuch@q4' not found"),
        ("", 400, "invalid model name"),
        ("a b", 400, "invalid model name"),
        ("plain:", 400, "invalid model name"),
        ("/plain", 400, "invalid model name"),
        ("x:cloud:local", 400, 'use either :local or :cloud, not both: "x:cloud:local"'),
        ("plain:cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
        ("plain:20b-cloud", 403, "ollama cloud is disabled: remote model is unavailable"),
    ],
)
def test_names_that_are_not_found(name: str, status: int, message: str, make_services: MakeServices) -> None:
    with pytest.raises(OllamaError) as caught:
        find(name, make_services(PLAIN))
    assert (caught.value.status, caught.value.message) == (status, message)


def test_an_endpoint_has_its_own_words(make_services: MakeServices) -> None:
    with pytest.raises(OllamaError, match='model "x" not found, try pulling it first'):
        asyncio.run(inference.find_model("x", make_services(PLAIN), errors.embedding_model_not_found))


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("plain", "registry.ollama.ai/library/plain:latest"),
        ("ns/Plain:7b", "registry.ollama.ai/ns/Plain:7b"),
        ("key@q4_k_m", "key@q4_k_m"),
    ],
)
def test_canonical_name(name: str, canonical: str) -> None:
    assert inference.canonical_name(name) == canonical


@pytest.mark.parametrize(
    ("model", "others", "thinks"),
    [
        (THINKER, [], True),
        (Model("m", reasoning=ReasoningOptions(("off",), "off")), [], False),
        (Model("m", reasoning=ReasoningOptions()), [], False),
        # A version that tells of any model tells of all.
        (PLAIN, [THINKER], False),
        (PLAIN, [], None),
        (Model("m"), [THINKER], None),
    ],
)
def test_thinks(model: Model, others: list[Model], thinks: bool | None, make_services: MakeServices) -> None:
    services = make_services(model, *others)
    asyncio.run(services.catalog.get())
    assert inference.thinks(model, services) is thinks
    inference.check_thinking(False, "n", model, services)
    inference.check_thinking(None, "n", model, services)
    for think in (True, "low"):
        if thinks is False:
            with pytest.raises(OllamaError, match='"n" does not support thinking'):
                inference.check_thinking(think, "n", model, services)
        else:
            inference.check_thinking(think, "n", model, services)


@pytest.mark.parametrize(
    ("keep_alive", "ttl"),
    [
        (None, {}),
        (FOREVER, {}),
        (KeepAlive(0), {}),
        (KeepAlive(300), {"ttl": 300}),
        (KeepAlive(0.1), {"ttl": 1}),
        (KeepAlive(1.5), {"ttl": 2}),
        (KeepAlive(math.inf), {}),
    ],
)
def test_ttl(keep_alive: KeepAlive | None, ttl: dict[str, int]) -> None:
    assert inference.ttl(keep_alive) == ttl


STREAM = {"stream": True, "stream_options": {"include_usage": True}}
OBJECT = {"type": "json_schema", "json_schema": {"name": "json", "strict": True, "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({}, {}),
        ({"tools": []}, {}),
        ({"tools": [TOOL]}, {"tools": [TOOL]}),
        ({"tools": [TOOL], "tool_choice": "none"}, {"tools": [TOOL], "tool_choice": "none"}),
        (
            {"tools": [TOOL, {"function": {"name": "g"}}], "tool_choice": {"function": {"name": "f"}}},
            {"tools": [TOOL], "tool_choice": "required"},
        ),
        ({"tool_choice": "required"}, {}),
        ({"response_format": "json"}, {"response_format": OBJECT}),
        ({"response_format": "json", "tools": []}, {"response_format": OBJECT}),
        ({"think": False}, {"reasoning_effort": "none"}),
        ({"think": True}, {}),
        ({"logprobs": True}, {"logprobs": True}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"top_logprobs": 3}, {}),
        ({"keep_alive": KeepAlive(60)}, {"ttl": 60}),
    ],
    ids=str,
)
def test_chat_body(given: dict[str, Any], more: dict[str, Any]) -> None:
    body = inference.chat_body(FOUND, MESSAGES, Mapped({"seed": 1}), **given)
    assert body == {"model": "thinker@q8_0", "messages": MESSAGES, **STREAM, "seed": 1, **more}


def test_no_schema_together_with_tools() -> None:
    mapped = Mapped()
    body = inference.chat_body(FOUND, MESSAGES, mapped, response_format="json", tools=[TOOL])
    assert "response_format" not in body
    assert mapped.unsupported == ["format together with tools"]


def test_completion_body() -> None:
    body = inference.completion_body(FOUND, "P", Mapped({"seed": 1}), KeepAlive(60))
    assert body == {"model": "thinker@q8_0", "prompt": "P", **STREAM, "seed": 1, "ttl": 60}


SYSTEM = {"role": "system", "content": "S"}
HI = Message("user", "Hi")


@pytest.mark.parametrize(
    ("messages", "system", "expected"),
    [
        ([HI], "S", [SYSTEM, *MESSAGES]),
        ([], "S", [SYSTEM]),
        ([HI], "", MESSAGES),
        ([HI], None, MESSAGES),
        ([HI], 5, MESSAGES),
        ([HI, Message("system", "S")], "other", [*MESSAGES, SYSTEM]),
    ],
)
def test_a_system_text_is_the_first_message_unless_there_is_one(
    messages: list[Message], system: object, expected: list[dict[str, Any]]
) -> None:
    assert inference.converse(inference.ResolvedModel(THINKER, "thinker"), messages, system) == expected


def test_what_is_dropped_is_said_once(make_services: MakeServices, caplog: pytest.LogCaptureFixture) -> None:
    services = make_services()
    with caplog.at_level(logging.INFO):
        inference.log_unsupported(["mirostat", "num_gpu"], services)
        inference.log_unsupported(["num_gpu", "mirostat"], services)
    assert [record.args for record in caplog.records] == [("mirostat",), ("num_gpu",)]


def test_names_that_clients_make_up_fill_no_log(make_services: MakeServices, caplog: pytest.LogCaptureFixture) -> None:
    services = make_services()
    with caplog.at_level(logging.INFO):
        inference.log_unsupported([f"unheard{number}" for number in range(2000)], services)
        assert len(caplog.records) == len(services.logged_once) == inference.MENTIONED_AT_ONCE
        for number in range(1000):
            inference.log_unsupported([f"unheard{number}"], services)
    assert len(caplog.records) == len(services.logged_once) == inference.MENTIONED_AT_MOST


def test_names_that_clients_make_up_forge_no_line(
    make_services: MakeServices, caplog: pytest.LogCaptureFixture
) -> None:
    services = make_services()
    with caplog.at_level(logging.INFO):
        inference.log_unsupported(["x\n[12:00] \x1b[31mforged\u2028\ud800", "y" * 5000], services)
    assert [record.args for record in caplog.records] == [
        ("x\\n[12:00] \\x1b[31mforged\\u2028\\ud800",),
        ("y" * inference.SHOWN_CHARACTERS + "...",),
    ]
    assert all(line.isprintable() for line in caplog.messages)


def test_make_call(make_services: MakeServices) -> None:
    services = make_services(THINKER, lmstudio_token="hunter2", max_buffer_size=2048)
    incoming = Request("POST", "/api/chat", "", {}, b"", 400_000_000)
    made = inference.make_call(
        "/p", {"b": "é"}, FOUND, "asked", incoming, services, CHAT, ResponseOptions(), split_think=False
    )
    assert isinstance(made, StreamedCall)
    assert (made.path, made.body, made.model, made.asked) == ("/p", '{"b":"é"}'.encode(), "thinker@q8_0", "asked")
    lines = made.translation.feed(b'data: {"choices":[{"delta":{"content":"<think>x"}}]}\n\n', 1_500_000_000)
    lines += made.translation.feed(
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n', 2_000_000_000
    )
    text, last = map(json.loads, lines)
    assert (text["model"], text["message"]["content"]) == ("asked", "<think>x")
    # The services' clock stands at one second, and on the wall at 22:13:20.
    assert text["created_at"] == "2023-11-14T22:13:20.500000Z"
    assert (last["total_duration"], last["load_duration"]) == (1_600_000_000, 600_000_000)


def test_a_client_that_wants_one_object_gets_a_collected_call(make_services: MakeServices) -> None:
    request = Request("POST", "/api/chat", "", {}, b"", 0)
    for streaming, kind in ((True, StreamedCall), (False, CollectedCall)):
        options = ResponseOptions(streaming=streaming)
        services = make_services(THINKER)
        made = inference.make_call("/p", {}, FOUND, "n", request, services, CHAT, options, split_think=False)
        assert type(made) is kind


def test_a_call_keeps_secrets_and_limits(make_services: MakeServices) -> None:
    services = make_services(THINKER, lmstudio_token="hunter2", max_buffer_size=2048)
    incoming = Request("POST", "/api/chat", "", {}, b"", 0)

    def fed(data: bytes) -> dict[str, Any]:
        made = inference.make_call("/p", {}, FOUND, "n", incoming, services, CHAT, ResponseOptions(), split_think=False)
        assert isinstance(made, StreamedCall)
        (line,) = made.translation.feed(data, 1)
        told: dict[str, Any] = json.loads(line)
        return told

    assert fed(b'data: {"error":"no, hunter2"}\n\n') == {"error": "no, ***"}
    assert "max_buffer_size" in fed(b"data: " + b"x" * 2048)["error"]
