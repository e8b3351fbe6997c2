"""What chat and generate share: the bodies of the calls, the call and its translator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ollama_lmstudio.lmstudio.catalog import Model, ReasoningOptions
from ollama_lmstudio.ollama.durations import KeepAlive
from ollama_lmstudio.ollama.requests import ChatRequest
from ollama_lmstudio.outcomes import CollectedCall, Request, StreamedCall
from ollama_lmstudio.services import Services
from ollama_lmstudio.translate.inference import Inference, chat_body, completion_body, make_call
from ollama_lmstudio.translate.line_format import CHAT
from ollama_lmstudio.translate.models import ResolvedModel
from ollama_lmstudio.translate.options import MappedOptions

MakeServices = Callable[..., Services]

ON_OFF = ReasoningOptions(("off", "on"), "on")
THINKER = Model("thinker", reasoning=ON_OFF, capabilities_known=True)
RESOLVED = ResolvedModel(THINKER, "thinker@q8_0")
MESSAGES = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f"}}


def inference(services: Services, arrived: int = 0, **body: Any) -> Inference:
    request = Request("POST", "/api/chat", "", {}, b"", arrived)
    return Inference(request, ChatRequest(**body), RESOLVED, {}, CHAT, services)


STREAM = {"stream": True, "stream_options": {"include_usage": True}}
OBJECT = {"type": "json_schema", "json_schema": {"name": "json", "strict": True, "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({}, {}),
        ({"tools": []}, {}),
        ({"tools": [TOOL]}, {"tools": [TOOL]}),
        ({"tools": [TOOL], "extras": {"tool_choice": "none"}}, {"tools": [TOOL], "tool_choice": "none"}),
        (
            {"tools": [TOOL, {"function": {"name": "g"}}], "extras": {"tool_choice": {"function": {"name": "f"}}}},
            {"tools": [TOOL], "tool_choice": "required"},
        ),
        ({"extras": {"tool_choice": "required"}}, {}),
        ({"format": "json"}, {"response_format": OBJECT}),
        ({"format": "json", "tools": []}, {"response_format": OBJECT}),
        ({"think": False}, {"reasoning_effort": "none"}),
        ({"think": True}, {}),
        ({"logprobs": True}, {"logprobs": True}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"top_logprobs": 3}, {}),
        ({"keep_alive": KeepAlive(60)}, {"ttl": 60}),
    ],
    ids=str,
)
def test_chat_body(given: dict[str, Any], more: dict[str, Any], make_services: MakeServices) -> None:
    body = chat_body(inference(make_services(), **given), MESSAGES, MappedOptions({"seed": 1}))
    assert body == {"model": "thinker@q8_0", "messages": MESSAGES, **STREAM, "seed": 1, **more}


def test_no_schema_together_with_tools(make_services: MakeServices) -> None:
    mapped = MappedOptions()
    body = chat_body(inference(make_services(), format="json", tools=[TOOL]), MESSAGES, mapped)
    assert "response_format" not in body
    assert mapped.unsupported == ["format together with tools"]


def test_completion_body(make_services: MakeServices) -> None:
    body = completion_body(inference(make_services(), keep_alive=KeepAlive(60)), "P", MappedOptions({"seed": 1}))
    assert body == {"model": "thinker@q8_0", "prompt": "P", **STREAM, "seed": 1, "ttl": 60}


def test_make_call(make_services: MakeServices) -> None:
    services = make_services(THINKER, lmstudio_token="hunter2", max_buffer_size=2048)
    made = make_call(inference(services, 400_000_000, model="asked", think=False), "/p", {"b": "é"})
    assert isinstance(made, StreamedCall)
    assert (made.path, made.body, made.model, made.asked) == ("/p", '{"b":"é"}'.encode(), "thinker@q8_0", "asked")
    lines = made.translation.feed(b'data: {"choices":[{"delta":{"content":"<think>x</think>y"}}]}\n\n', 1_500_000_000)
    lines += made.translation.feed(
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n', 2_000_000_000
    )
    text, last = map(json.loads, lines)
    assert (text["model"], text["message"]["content"]) == ("asked", "y")
    # The services' clock stands at one second, and on the wall at 22:13:20.
    assert text["created_at"] == "2023-11-14T22:13:20.500000Z"
    assert (last["total_duration"], last["load_duration"]) == (1_600_000_000, 600_000_000)


def test_a_client_that_wants_one_object_gets_a_collected_call(make_services: MakeServices) -> None:
    for streaming, kind in ((True, StreamedCall), (False, CollectedCall)):
        made = make_call(inference(make_services(THINKER), model="n", stream=streaming), "/p", {})
        assert type(made) is kind


def test_a_call_keeps_secrets_and_limits(make_services: MakeServices) -> None:
    services = make_services(THINKER, lmstudio_token="hunter2", max_buffer_size=2048)

    def fed(data: bytes) -> dict[str, Any]:
        made = make_call(inference(services, model="n"), "/p", {})
        assert isinstance(made, StreamedCall)
        (line,) = made.translation.feed(data, 1)
        value: dict[str, Any] = json.loads(line)
        return value

    assert fed(b'data: {"error":"no, hunter2"}\n\n') == {"error": "no, ***"}
    assert "max_buffer_size" in fed(b"data: " + b"x" * 2048)["error"]
