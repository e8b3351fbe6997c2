"""Exchanges to take away: what a file of them holds."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.test import tflow

from ollama_lmstudio.inspect import exchange as exchanges
from ollama_lmstudio.inspect import export
from ollama_lmstudio.inspect.exchange import Exchange
from ollama_lmstudio.inspect.record import Kind, Numbers, Record

ADDRESS = "http://localhost:11434"
TOOL = {"type": "function", "function": {"name": "f", "description": "does it", "parameters": {}}}
ASKED: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'it\'s ```odd``` $HOME\n"x"'}],
    "tools": [TOOL],
    "options": {"temperature": 0.5},
}
CALLED = {"model": "org/m", "messages": ASKED["messages"], "tools": [TOOL], "stream": True}
SAID = [
    {"model": "m", "message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
    {"model": "m", "message": {"role": "assistant", "content": "Hello"}, "done": False},
    {
        "model": "m",
        "message": {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}],
        },
        "done": False,
    },
    {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
]


def exchange_of(
    asked: Any = ASKED,
    said: Any = SAID,
    *,
    kind: Kind = "call",
    path: str = "/api/chat",
    method: str = "POST",
    status: int = 200,
    **changes: Any,
) -> Exchange:
    """Make an exchange as the bridge leaves it in a flow."""
    flow = tflow.tflow(resp=True)
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    flow.request.method, flow.request.path = method, "/v1/chat/completions" if kind == "call" else path
    flow.request.content = json.dumps(CALLED).encode() if kind == "call" else body
    lines = said if isinstance(said, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in said)
    flow.response = http.Response.make(status, lines, {"Content-Type": "application/x-ndjson"})
    record = Record(
        kind=kind,
        method=method,
        path=path,
        model="m",
        upstream_model="org/m",
        headers=(("Content-Type", "application/json"), ("Authorization", "Bearer k3y"), ("Host", "h"), ("X-Empty", "")),
        request=body,
        request_size=len(body),
        status=status,
        response_size=len(lines),
        numbers=Numbers(answer_tokens=5, generation=10**9, done_reason="stop"),
    )
    for name, value in changes.items():
        setattr(record, name, value)
    record.save(flow.metadata)
    found = exchanges.of(flow)
    assert found is not None
    return found


def test_markdown() -> None:
    text = export.markdown(exchange_of())
    for part in (
        "## POST `/api/chat`",
        "- model: `m`, LM Studio's `org/m`",
        '- options: `{"temperature": 0.5}`',
        "### system\n\nBe brief.",
        "### user\n\nit's ```odd``` $HOME",
        "### assistant\n\n> hm\n\nHello\n\ncalls `f`",
        "*answer 5 tokens, speed 5 tok/s, done reason stop*",
    ):
        assert part in text
    assert "k3y" not in text


def test_markdown_of_an_error() -> None:
    text = export.markdown(exchange_of(said=b'{"error":"no such model"}', status=404, kind="answer"))
    assert "**Error:** no such model" in text


def curl_arguments(text: str) -> list[str]:
    return shlex.split(text)


def test_curl_is_what_the_client_sent() -> None:
    text = export.curl(exchange_of(query="a=1"), ADDRESS + "/")
    arguments = curl_arguments(text)
    assert arguments[:3] == ["curl", "--no-buffer", f"{ADDRESS}/api/chat?a=1"]
    assert arguments[3:-2] == ["-H", "Content-Type: application/json", "-H", "X-Empty;"]
    assert json.loads(arguments[-1]) == ASKED
    assert "k3y" not in text


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        ("GET", b"", ["curl", ADDRESS + "/api/tags"]),
        ("HEAD", b"", ["curl", "--head", ADDRESS + "/api/tags"]),
        ("DELETE", b"{}", ["curl", "-X", "DELETE", "--no-buffer", ADDRESS + "/api/tags"]),
    ],
)
def test_curl_of_other_methods(method: str, body: bytes, expected: list[str]) -> None:
    text = export.curl(exchange_of(body, kind="answer", path="/api/tags", method=method, headers=()), ADDRESS)
    assert curl_arguments(text)[: len(expected)] == expected


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
def test_the_shell_gives_curl_the_body_as_it_was(body: bytes) -> None:
    command = export.curl(exchange_of(body, kind="answer"), ADDRESS)
    if not body:
        return
    if "base64 -d" in command:
        _, *lines, end = command.split("\n")
        assert end == "END"
        assert base64.b64decode("".join(lines)) == body
    else:
        assert shlex.split(command)[-1].encode() == body


@pytest.mark.parametrize("body", [b"@file", b"zero\0", b"it's $HOME `x`\n", b"x" * 150_000, b"\xff\xfe"])
def test_a_real_shell_sends_the_same_bytes(body: bytes, tmp_path: Any) -> None:
    command = export.curl(exchange_of(body, kind="answer", headers=()), ADDRESS)
    stand_in = tmp_path / "curl"
    stand_in.write_text('#!/bin/sh\nfor last; do :; done\nif [ "$last" = @- ]; then cat; else printf %s "$last"; fi\n')
    stand_in.chmod(0o755)
    script = tmp_path / "script.sh"
    script.write_text(command)
    done = subprocess.run(
        ["sh", str(script)], capture_output=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True
    )
    assert done.stdout == body


@pytest.mark.parametrize(("changes", "why"), [({"kind": "own"}, "no client"), ({"request_size": 10**6}, "kept")])
def test_what_curl_cannot_repeat(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(export.NotExportable, match=why):
        export.curl(exchange_of(**changes), ADDRESS)


def test_a_password_is_masked() -> None:
    asked = {"model": "m", "username": "me", "Password": "hunter2"}
    exchange = exchange_of(asked, kind="answer", path="/api/pull", said=b"{}")
    for text in (export.curl(exchange, ADDRESS), export.markdown(exchange)):
        assert "hunter2" not in text


def test_a_line_for_fine_tuning() -> None:
    line = json.loads(export.jsonl(exchange_of()))
    assert line["messages"][:-1] == ASKED["messages"]
    assert line["messages"][-1] == {
        "role": "assistant",
        "content": "Hello",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
    }
    assert line["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"said": SAID[:2]}, "not whole"),
        ({"said": [*SAID[:3], {**SAID[3], "done_reason": "length"}]}, "not whole"),
        ({"said": [*SAID[:2], {"error": "gone"}]}, "not whole"),
        ({"said": [SAID[3]]}, "empty"),
        ({"status": 500, "said": b'{"error":"x"}'}, "not end well"),
        ({"error": "the client left"}, "not end well"),
        ({"kind": "answer", "path": "/api/tags"}, "no conversation"),
        ({"response_size": 10**6}, "kept"),
    ],
)
def test_what_is_no_line_for_fine_tuning(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(export.NotExportable, match=why):
        export.jsonl(exchange_of(**changes))


def test_every_format_has_a_suffix() -> None:
    assert set(export.SUFFIXES.values()) == set(export.FORMATS)
    for form in export.FORMATS:
        assert export.write(exchange_of(), form, ADDRESS).endswith("\n")
