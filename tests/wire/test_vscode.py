"""The way of VS Code's Copilot Chat through a real mitmdump: it lists models by Ollama's API and talks to them by
OpenAI's, with tools that LM Studio's validator refuses as they come.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest
from tests.strict.ways import Tap
from tests.wire.conftest import CHAT, EMBEDDER, NO_TOOLS, THINKING, VISION, Proxy, StartProxy, models

from ollama_lmstudio.sim import Recorded, Sim, SimModel, SimThread, content, error, reasoning, tool_call
from ollama_lmstudio.sim.validate import tool_issues

LEAST_VERSION = (0, 6, 4)
ANSWER_TOKENS = 4096

# All of its requests carry these; no key is set, so that there is nothing after `Bearer`.
FETCH = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "User-Agent": "GitHubCopilotChat/0.35.0",
    "X-VSCode-User-Agent-Library-Version": "electron-fetch",
}
REQUEST = {
    "Authorization": "Bearer ",
    "Content-Type": "application/json",
    "OpenAI-Intent": "conversation-agent",
    "X-Agent-Task-Id": "9f0c2f8e-58c0-4a3b-8f0e-0e9b1c7c5a11",
    "X-GitHub-Api-Version": "2025-05-01",
    "X-Interaction-Type": "conversation-agent",
    "X-Request-Id": "9f0c2f8e-58c0-4a3b-8f0e-0e9b1c7c5a11",
}


def function(name: str, **rest: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": f"The tool {name}"} | rest}


READ_FILE = function(
    "read_file",
    parameters={
        "type": "object",
        "properties": {"path": {"type": "string", "description": "Absolute path"}, "limit": {"type": "number"}},
        "required": ["path"],
    },
)
# As extensions and MCP servers declare tools that have nothing to be told.
SLOPPY = [
    function("get_errors", parameters={}),
    function("list_terminals", parameters=None),
    function("refresh", parameters={"type": "object"}),
    function("get_weather", parameters={"properties": {"city": {"type": "string"}}, "required": ["city"]}),
    function("snapshot", parameters={"type": None, "properties": None, "required": None}),
    function("screenshot", parameters={"type": "object", "properties": {}, "$defs": None}, description=None),
    function("ping"),
]


@dataclass(frozen=True)
class Picked:
    """What its list of models makes of one."""

    id: str
    name: str
    input_tokens: int
    tools: bool
    vision: bool


class Copilot:
    """Read answers as VS Code's extension does; whatever it stumbles over is an exception here."""

    def __init__(self, proxy: Proxy) -> None:
        self._stack = ExitStack()
        self.client = self._stack.enter_context(proxy.client(headers=FETCH))
        tap = self._stack.enter_context(Tap(proxy.port))
        # httpx would not send a header that ends with a space.
        self.connection = self._stack.enter_context(closing(HTTPConnection("127.0.0.1", tap.port, timeout=20)))

    def close(self) -> None:
        """Close its connections."""
        self._stack.close()

    def models(self) -> list[Picked]:
        """Read the list of models: a version that is new enough, then one question for each model."""
        version = self.client.get("/api/version").json()["version"]
        assert tuple(map(int, version.split("."))) >= LEAST_VERSION
        return [self._model(entry["model"]) for entry in self.client.get("/api/tags").json()["models"]]

    def _model(self, model: str) -> Picked:
        shown = self.client.post(
            "/api/show", content=json.dumps({"model": model}), headers={"Content-Type": "application/json"}
        ).json()
        info, can = shown["model_info"], shown["capabilities"]
        assert isinstance(can, list)
        window = info[f"{info['general.architecture']}.context_length"]
        output = window // 2 if window < ANSWER_TOKENS else ANSWER_TOKENS
        return Picked(model, info["general.basename"], window - output, "tools" in can, "vision" in can)

    def chat(self, **body: Any) -> Reply:
        """Send a turn and read the events."""
        data = json.dumps({"temperature": 0.1, "top_p": 1, "n": 1, "stream": True} | body | _USAGE, ensure_ascii=False)
        self.connection.request("POST", "/v1/chat/completions", data.encode(), FETCH | REQUEST)
        response = self.connection.getresponse()
        if response.status != 200:
            return Reply(response.status, failure=response.read().decode())
        assert response.headers["content-type"].startswith("text/event-stream")
        reply = Reply(200, sent=data.encode())
        for event in _events(iter(response.read1, b"")):
            reply.take(event)
        assert reply.failure or reply.finish_reason
        return reply


_USAGE = {"stream_options": {"include_usage": True}}


def _events(chunks: Iterator[bytes]) -> Iterator[Any]:
    """Cut a stream into events: only `\\n` ends a line, a comment is skipped, and 5 characters go before the data."""
    rest, done = b"", False
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line or line.startswith(b":"):
                continue
            assert not done, "more after the end"
            data = line[len("data:") :].strip()
            if data == b"[DONE]":
                done = True
            elif not line.startswith(b"event:"):  # which it takes for broken JSON
                yield json.loads(data)
    assert rest == b""


@dataclass
class Reply:
    """What it understands of an answer. Calls of tools are told apart by their ids alone."""

    status: int
    sent: bytes = b""
    text: str = ""
    thinking: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    finish_reason: str = ""
    failure: str = ""

    def take(self, event: dict[str, Any]) -> None:
        """Take one event."""
        if event.get("usage"):
            self.usage = event["usage"]
        if not event.get("choices"):
            if "error" in event:
                self.failure = event["error"]["message"]
            return
        (choice,) = event["choices"]
        assert choice["index"] == 0
        delta = choice["delta"]
        self.text += delta.get("content") or ""
        self.thinking += delta.get("reasoning_content") or ""
        for call in delta.get("tool_calls", ()):
            if not self.calls or (call.get("id") and call["id"] != self.calls[-1]["id"]):
                self.calls.append({"id": "", "name": "", "arguments": ""})
            self.calls[-1]["id"] = call.get("id") or self.calls[-1]["id"]
            self.calls[-1]["name"] = call["function"].get("name") or self.calls[-1]["name"]
            self.calls[-1]["arguments"] += call["function"].get("arguments") or ""
        self.finish_reason = choice["finish_reason"] or self.finish_reason


def chats(sim: Sim) -> list[Recorded]:
    """Give the turns that reached LM Studio."""
    return [request for request in sim.requests if request.path == "/v1/chat/completions"]


def turn(text: str) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "You are an AI programming assistant."},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]


@pytest.fixture
def copilot(proxy: Proxy, sim: Sim) -> Iterator[Copilot]:
    with closing(Copilot(proxy)) as copilot:
        yield copilot


def test_the_agent(copilot: Copilot, sim: Sim) -> None:
    """Open the list of models, pick one, ask it, run the tool that it calls, and tell it the result."""
    picked = copilot.models()
    assert not chats(sim), "a list loads nothing"
    assert len({model.name for model in picked}) == len(picked) == len(models())
    by_id = {model.id: model for model in picked}
    assert by_id[f"{CHAT}:latest"].tools
    assert by_id[f"{VISION}:latest"].vision
    assert not by_id[f"{NO_TOOLS}:latest"].tools
    assert not by_id[f"{EMBEDDER}:latest"].tools
    assert by_id[f"{CHAT}:latest"].input_tokens == 131072 - ANSWER_TOKENS

    tools = [READ_FILE, *SLOPPY]
    asked = turn("“Gëht das?”\u2028What is the weather in Paris?")
    reply = copilot.chat(model=f"{CHAT}:latest", messages=asked, tools=tools, tool_choice="auto")
    (call,) = reply.calls
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})
    assert call["id"]
    assert reply.finish_reason == "tool_calls"
    assert reply.usage["prompt_tokens"] + reply.usage["completion_tokens"] == reply.usage["total_tokens"] > 0

    answered = [
        *asked,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": call["id"], "type": "function", "function": {**call, "id": "x"}}],
        },
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "sunny"}]},
    ]
    last = copilot.chat(model=f"{CHAT}:latest", messages=answered, tools=tools, tool_choice="auto")
    assert (last.text, last.calls, last.finish_reason) == ("The tool answered: sunny", [], "stop")

    for request, sent in zip(chats(sim), (reply.sent, last.sent), strict=True):
        check_request(request, sent)


def check_request(request: Recorded, sent: bytes) -> None:
    """Check that LM Studio got what was sent, and nothing else, but for what it would have refused."""
    assert request.header("authorization") is None
    assert {name: request.header(name) for name in REQUEST if name != "Authorization"} == {
        name: value for name, value in REQUEST.items() if name != "Authorization"
    }
    assert request.header("user-agent") == FETCH["User-Agent"]
    got, gave = request.json, json.loads(sent)
    assert got["model"] == CHAT
    assert {**got, "model": 0, "tools": 0} == {**gave, "model": 0, "tools": 0}
    assert list(got) == list(gave)
    assert list(tool_issues(got["tools"])) == []
    assert [tool["function"]["name"] for tool in got["tools"]] == [tool["function"]["name"] for tool in gave["tools"]]
    # What LM Studio takes came byte for byte, spaces too, and so did all that is not a tool.
    assert json.dumps(READ_FILE).encode() in request.body
    assert request.body.partition(b'"messages"')[2].partition(b'"tools"')[0] in sent


@pytest.mark.parametrize("tool", SLOPPY, ids=lambda tool: str(tool["function"]["name"]))
def test_a_tool_alone(copilot: Copilot, sim: Sim, tool: dict[str, Any]) -> None:
    reply = copilot.chat(model=CHAT, messages=turn("Use it in Rome"), tools=[tool])
    (call,) = reply.calls
    assert call["name"] == tool["function"]["name"]
    assert isinstance(json.loads(call["arguments"]), dict)


def test_calls_at_once(copilot: Copilot, sim: Sim) -> None:
    sim.script([tool_call("read_file", {"path": path}) for path in ("/a", "/b")])
    reply = copilot.chat(model=CHAT, messages=turn("read both"), tools=[READ_FILE, *SLOPPY])
    assert [json.loads(call["arguments"]) for call in reply.calls] == [{"path": "/a"}, {"path": "/b"}]
    assert len({call["id"] for call in reply.calls}) == 2


def test_thinking_and_pictures(copilot: Copilot, sim: Sim) -> None:
    sim.script([reasoning("Hm", "."), content("Ah", "!")], times=1)
    reply = copilot.chat(model="qwen3-8b:latest", messages=turn("hi"))
    assert (reply.thinking, reply.text, reply.finish_reason) == ("Hm.", "Ah!", "stop")
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}", "detail": "high"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "see?"}, image]}]
    reply = copilot.chat(model=f"{VISION}:latest", messages=messages, tools=[])
    assert reply.text == "You said: see? I see 1 image."
    assert [request.json["model"] for request in chats(sim)] == [THINKING, VISION]


def test_what_goes_wrong(copilot: Copilot, sim: Sim) -> None:
    sim.script([content("So"), error("Context size has been exceeded.")])
    assert copilot.chat(model=CHAT, messages=turn("hi")).failure == "Context size has been exceeded."
    gone = copilot.chat(model="nosuch:latest", messages=turn("hi"))
    assert gone.status == 404
    assert json.loads(gone.failure)["error"]["message"] == "model 'nosuch:latest' not found"


def test_every_byte_alone(start_proxy: StartProxy, sim: Sim) -> None:
    """Switched off, LM Studio gets what was sent, and says what it does not like."""
    proxy = start_proxy(sim.url, options={"repair_passthrough": "false"})
    with closing(Copilot(proxy)) as copilot:
        reply = copilot.chat(model=CHAT, messages=turn("hi"), tools=SLOPPY, response_format={"type": "json_object"})
    assert reply.status == 400
    assert "Invalid discriminator value. Expected 'object'" in json.loads(reply.failure)["error"]
    (request,) = chats(sim)
    assert request.json["tools"] == SLOPPY
    assert request.json["response_format"] == {"type": "json_object"}


def test_any_object(copilot: Copilot, sim: Sim) -> None:
    reply = copilot.chat(model=CHAT, messages=turn("hi"), response_format={"type": "json_object"})
    assert isinstance(json.loads(reply.text), dict)
    (request,) = chats(sim)
    assert request.json["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_names_that_nobody_takes_for_another() -> None:
    """Two models of one name in LM Studio have names of their own in the picker."""
    twins = [SimModel(key=f"{owner}/m-7b", display_name="M 7B") for owner in ("a", "b")]
    twins.append(SimModel(key="m-7b@q8_0", display_name="M 7B"))
    with SimThread(models=twins) as sim, Proxy(sim.url) as proxy, closing(Copilot(proxy)) as copilot:
        picked = copilot.models()
    assert len({model.name for model in picked}) == 3


def test_the_log_says_it_once(start_proxy: StartProxy, sim: Sim) -> None:
    proxy = start_proxy(sim.url)
    with proxy.client() as client:
        for _ in range(2):
            body = {"model": CHAT, "messages": turn("hi"), "tools": SLOPPY}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
    said = "LM Studio would refuse the tools of /v1/chat/completions"
    proxy.wait_for_log(said)
    assert len(re.findall(said, proxy.log)) == 1


def test_responses_too(client: httpx.Client, sim: Sim) -> None:
    tools = [{"type": "function", **tool["function"]} for tool in SLOPPY]
    answer = client.post("/v1/responses", json={"model": CHAT, "input": "weather in Paris?", "tools": tools}).json()
    (call,) = [item for item in answer["output"] if item["type"] == "function_call"]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})
