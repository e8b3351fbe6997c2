"""Snapshots of exchanges, written by hand: of a chat that uses every feature, and of other kinds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mitmproxy import http
from mitmproxy.test import tflow

from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.record.record import Numbers, Record

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # 70 bytes
SECRET = "sk-lm-abcdefgh:12345678901234567890"

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
            "required": ["city"],
        },
    },
}

ASKED: dict[str, Any] = {
    "model": "llama3.2",
    "messages": [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "What is this?\nLook.", "images": [PNG]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Where?",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}],
        },
        {"role": "tool", "content": "18 degrees", "tool_name": "weather"},
    ],
    "tools": [WEATHER],
    "options": {"temperature": 0.2, "num_predict": 100, "num_ctx": 8192},
    "stream": True,
    "think": True,
    "keep_alive": "5m",
}
CALL: dict[str, Any] = {
    "model": "llama-3.2-3b-instruct",
    "messages": [
        {"role": "system", "content": "Be terse."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?\nLook."},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.2,
    "max_tokens": 100,
    "tools": [WEATHER],
    "reasoning_effort": "medium",
    "ttl": 300,
}
NUMBERS = Numbers(
    total=2_400_000_000,
    first_token=310_000_000,
    generation=2_000_000_000,
    prompt_tokens=512,
    answer_tokens=87,
    done_reason="stop",
)


def dumps(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


def ndjson(*values: object) -> bytes:
    """Return values as NDJSON."""
    return b"".join(dumps(value) + b"\n" for value in values)


def sse(*values: object, done: bool = True) -> bytes:
    """Return values as LM Studio's events."""
    events = [b"data: " + dumps(value) + b"\n\n" for value in values]
    return b"".join(events) + (b"data: [DONE]\n\n" if done else b"")


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a chunk of a chat completion."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def line(content: str = "", *, done: bool = False, reason: str = "stop", **message: Any) -> dict[str, Any]:
    """Return a line of /api/chat."""
    value = {"model": "llama3.2", "message": {"role": "assistant", "content": content, **message}, "done": done}
    return value | ({"done_reason": reason} if done else {})


LINES = ndjson(line(thinking="Let me see."), line("It is "), line("a dot."), line(done=True))
EVENTS = sse(chunk(content="It is "), chunk(content="a dot."), chunk("stop"))


def record(body: object = ASKED, **changed: Any) -> Record:
    """Return the record of a chat, with some fields changed."""
    request = body if isinstance(body, bytes) else dumps(body)
    kept = Record(
        kind="call",
        method="POST",
        path="/api/chat",
        model="llama3.2",
        headers=(("User-Agent", "ollama-python/0.6"), ("Content-Type", "application/json")),
        request=request,
        request_size=len(request),
        upstream_model="llama-3.2-3b-instruct",
        dropped=("num_ctx",),
        status=200,
        upstream_headers=(("Content-Type", "text/event-stream"), ("Set-Cookie", SECRET)),
        upstream=EVENTS,
        upstream_size=len(EVENTS),
        response_size=len(LINES),
        numbers=NUMBERS,
    )
    return replace(kept, **changed)


def snapshot(
    kept: Record | None = None,
    *,
    call: object = CALL,
    response: bytes | None = LINES,
    content_type: str = "application/x-ndjson",
    **changed: Any,
) -> Snapshot:
    """Return the snapshot of a chat, with some fields changed."""
    kept = record(response_size=len(response or b"")) if kept is None else kept
    whole = Snapshot(
        record=kept,
        method="POST",
        path="/v1/chat/completions",
        headers=(("Content-Type", "application/json"),),
        body=call if isinstance(call, bytes) else dumps(call),
        status=200,
        reason="OK",
        response_headers=(("Content-Type", content_type),),
        response=response,
    )
    return replace(whole, **changed)


def answered(path: str, response: object, *, method: str = "GET", status: int = 200, **kept: Any) -> Snapshot:
    """Return the snapshot of a request that the bridge itself answered."""
    body = response if isinstance(response, bytes) else dumps(response)
    return Snapshot(
        record=Record(kind="answer", method=method, path=path, response_size=len(body), **kept),
        method=method,
        path=path,
        headers=(),
        body=kept.get("request", b""),
        status=status,
        reason="",
        response_headers=(("Content-Type", "application/json; charset=utf-8"),),
        response=body,
    )


def flow_of(snapshot: Snapshot) -> http.HTTPFlow:
    """Return a flow whose snapshot this is."""
    flow = tflow.tflow()
    flow.request = http.Request.make(snapshot.method, f"http://localhost:1234{snapshot.path}", snapshot.body)
    flow.request.headers = _headers(snapshot.headers)
    flow.response = None
    if snapshot.status:
        flow.response = http.Response.make(snapshot.status, snapshot.response or b"")
        flow.response.headers = _headers(snapshot.response_headers)
        flow.response.reason = snapshot.reason
        flow.response.raw_content = snapshot.response
    snapshot.record.save(flow.metadata)
    return flow


def _headers(fields: Sequence[tuple[str, str]]) -> http.Headers:
    return http.Headers([(name.encode(), value.encode()) for name, value in fields])


def parts(text: str) -> Mapping[str, str]:
    """Return the lines under each heading of a view's text."""
    found: dict[str, str] = {}
    heading = ""
    for text_line in text.split("\n"):
        if text_line.startswith("━━ "):
            heading = text_line.strip("━ ")
            found[heading] = ""
        elif text_line or heading:
            found[heading] = found.get(heading, "") + text_line + "\n"
    return {name: lines.strip("\n") for name, lines in found.items()}


def rule(title: str) -> str:
    """Return the rule that begins a section of a view."""
    return f"━━ {title} ".ljust(36, "━") + "━━"


def said(title: str, text: str) -> str:
    """Return a text between its rules."""
    return f"── {title} ".ljust(38, "─") + f"\n{text}\n" + "─" * 38
