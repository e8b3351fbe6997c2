"""Exchanges to take away."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inspect.conftest import (
    ASKED,
    CALL,
    LINES,
    SECRET,
    WEATHER,
    answered,
    chunk,
    dumps,
    line,
    ndjson,
    record,
    snapshot,
    sse,
)
from tests.inspect.test_render import internal_call

from ollama_lmstudio.inspect import export
from ollama_lmstudio.inspect.snapshot import Snapshot
from ollama_lmstudio.record.record import Record

ADDRESS = "http://localhost:11434"

MARKDOWN = """\
## POST `/api/chat`

- model: `llama3.2`, LM Studio's `llama-3.2-3b-instruct`
- status: 200
- `stream`: `true`
- `think`: `true`
- `keep_alive`: `"5m"`
- options: `{"temperature": 0.2, "num_predict": 100, "num_ctx": 8192}`
- tool `weather(city: string, unit?: string)`: Tell the weather

### system

Be terse.

### user

What is this?
Look.

[image/png, 1 x 1 pixels, 70 bytes]

### assistant

> Where?

calls `weather`

```json
{
  "city": "Rome"
}
```

### tool weather

18 degrees

### assistant

> Let me see.

It is a dot.

*prompt 512 tokens, answer 87 tokens, speed 43.5 tok/s, first token 310 ms, total 2.4 s, done reason stop*
"""


def test_markdown() -> None:
    assert export.markdown(snapshot()) == MARKDOWN


def test_markdown_names_the_key() -> None:
    assert export.markdown(snapshot(record(key="alice"))) == MARKDOWN.replace(
        "- status: 200\n", "- key: `alice`\n- status: 200\n", 1
    )


def test_markdown_of_other_answers() -> None:
    failed = snapshot(record(numbers=None), response=dumps({"error": "model 'nope' not found"}), status=404)
    assert export.markdown(failed).endswith("\n\n**Error:** model 'nope' not found\n")
    listed = export.markdown(answered("/api/tags", {"models": []}))
    assert listed == '## GET `/api/tags`\n\n- status: 200\n\n### answer\n\n```json\n{\n  "models": []\n}\n```\n'
    assert "\n\n### answer\n\nOllama is running\n" in export.markdown(answered("/", b"Ollama is running"))
    embedded = snapshot(
        record({"input": ["a\nb"]}, path="/api/embed", numbers=None), response=dumps({"embedding": [1] * 99})
    )
    assert "### texts\n\n1. a b\n" in export.markdown(embedded)
    assert "[1, 1, 1, 1, 1, ... 94 more]" in export.markdown(embedded)


def test_markdown_cannot_be_broken_out_of() -> None:
    calls = [{"function": {"name": "a`b", "arguments": {"x": "```\n# no heading"}}}]
    body = {"model": "m`", "messages": [{"role": "assistant", "tool_calls": calls}]}
    text = export.markdown(snapshot(record(body)))
    assert 'calls ``a`b``\n\n````json\n{\n  "x": "```\\n# no heading"\n}\n````' in text


@pytest.fixture
def heard() -> Iterator[tuple[str, list[Any]]]:
    """A server that keeps what it hears: its address, and the method, path, headers and body of each request."""
    requests: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if self.raw_requestline and self.parse_request():
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                requests.append((self.command, self.path, dict(self.headers), body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


needs_curl = pytest.mark.skipif(not shutil.which("curl") or not shutil.which("base64"), reason="needs curl")

BODIES: dict[str, bytes] = {
    "a chat": dumps(ASKED),
    "quotes and a shell's marks": b'{"a":"it\'s $HOME `id` \\"!\\" \\\\ \n%s"}',
    "other alphabets": '{"a":"übermäßig 日本語 🙂"}'.encode(),
    "a file's name": b"@/etc/passwd",
    "no text": b"\x00\xff\xfe",
    "a zero": b"a\x00b",
    "line breaks at its end": b"{}\r\n\n",
    "long": dumps({"a": "x y " * 100_000}),
    "an option": b"--version",
}


@needs_curl
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_curl_sends_the_same_body(body: bytes, heard: tuple[str, list[Any]]) -> None:
    address, requests = heard
    _run(export.curl(snapshot(record(body)), address))
    assert [(method, path, sent) for method, path, _, sent in requests] == [("POST", "/api/chat", body)]


REQUESTS: dict[str, tuple[str, str, str, bytes]] = {
    "a list": ("GET", "/api/tags", "", b""),
    "the head of one": ("HEAD", "/api/tags", "", b""),
    "a query": ("GET", "/v1/models", "a=1&b=$x;'y'", b""),
    "brackets": ("GET", "/v1/models/{a}[1-3]", "", b""),
    "dots": ("GET", "/v1/../models", "", b""),
    "a deletion": ("DELETE", "/api/delete", "", b'{"model":"m"}'),
    "a post without a body": ("POST", "/api/signout", "", b""),
    "a get with a body": ("GET", "/api/tags", "", b"{}"),
}


@needs_curl
@pytest.mark.parametrize(("method", "path", "query", "body"), REQUESTS.values(), ids=REQUESTS)
def test_curl_sends_the_same_request(
    method: str, path: str, query: str, body: bytes, heard: tuple[str, list[Any]]
) -> None:
    address, requests = heard
    kept = Record(kind="answer", method=method, path=path, query=query, request=body, request_size=len(body))
    _run(export.curl(snapshot(kept, call=b""), f"{address}/"))
    assert [(sent[0], sent[1], sent[3]) for sent in requests] == [(method, path + (f"?{query}" if query else ""), body)]


@needs_curl
def test_curl_sends_the_clients_headers_but_no_secrets(heard: tuple[str, list[Any]]) -> None:
    address, requests = heard
    fields = (
        ("User-Agent", "it's mine"),
        ("Content-Type", "application/json"),
        ("X-Empty", ""),
        ("Content-Length", "999"),
        ("Host", "elsewhere"),
        ("Connection", "close"),
        ("Accept-Encoding", "gzip"),
        ("Authorization", f"Bearer {SECRET}"),
        ("X-Api-Key", SECRET),
        ("Cookie", SECRET),
        ("@/etc/passwd", "x"),
    )
    command = export.curl(snapshot(record({"model": "m", "name": "n", "password": SECRET}, headers=fields)), address)
    assert SECRET not in command
    _run(command)
    ((_, _, headers, body),) = requests
    assert headers == {
        "Host": address.removeprefix("http://"),
        "User-Agent": "it's mine",
        "Accept": "*/*",
        "Content-Type": "application/json",
        "X-Empty": "",
        "Content-Length": str(len(body)),
    }
    assert json.loads(body) == {"model": "m", "name": "n", "password": "***"}


def _run(command: str) -> None:
    # Not as an argument, for which it may be too long.
    subprocess.run(["sh", "-e"], input=command, text=True, check=True, timeout=20, capture_output=True)


def test_curl_reads_well() -> None:
    kept = record({"model": "m"}, headers=(("Content-Type", "application/json"),))
    assert export.curl(snapshot(kept), ADDRESS) == (
        "curl --no-buffer http://localhost:11434/api/chat -H 'Content-Type: application/json' "
        '--data-binary \'{"model": "m"}\''
    )
    assert export.curl(answered("/api/tags", {}), ADDRESS) == "curl http://localhost:11434/api/tags"


def test_curl_is_refused_where_there_is_no_request() -> None:
    with pytest.raises(export.NotExportable, match="own"):
        export.curl(internal_call(), ADDRESS)
    with pytest.raises(export.NotExportable, match="not all"):
        export.curl(snapshot(record(request_size=10**6)), ADDRESS)


CALLING = ndjson(
    line(
        tool_calls=[
            {"id": "c", "function": {"index": 0, "name": "weather", "arguments": {"unit": "C", "city": "Rome"}}}
        ]
    ),
    line(done=True),
)


def test_jsonl_is_what_lm_studio_got_and_answered() -> None:
    text = export.jsonl(snapshot())
    assert "\n" not in text
    value = json.loads(text)
    assert value["messages"] == [*CALL["messages"], {"role": "assistant", "content": "It is a dot."}]
    assert value["tools"] == [WEATHER]
    assert set(value) == {"messages", "tools"}


def test_jsonl_has_tool_calls_in_openais_form() -> None:
    call = {"messages": [{"role": "user", "content": "hi"}]}
    expected = {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "c",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"unit": "C", "city": "Rome"}'},
                    }
                ],
            },
        ]
    }
    assert json.loads(export.jsonl(snapshot(call=call, response=CALLING))) == expected
    events = sse(
        chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "weather", "arguments": '{"unit": "C", '}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '"city": "Rome"}'}}]),
        chunk("tool_calls"),
    )
    sent_on = snapshot(Record(kind="relay", path="/v1/chat/completions"), call=call, response=events)
    assert json.loads(export.jsonl(sent_on)) == expected


REFUSED: dict[str, tuple[Snapshot, str]] = {
    "an error": (snapshot(record(error="gone")), "did not end well"),
    "a status": (snapshot(status=404), "did not end well"),
    "an answer that was cut off": (snapshot(response=ndjson(line("a"), line(done=True, reason="length"))), "length"),
    "an answer without an end": (snapshot(response=ndjson(line("a"))), "no end"),
    "an answer that is not kept": (snapshot(record(response_size=10**6)), "not all"),
    "an empty answer": (snapshot(response=ndjson(line(done=True))), "empty"),
    "a broken line": (snapshot(response=b"oops\n" + LINES), "whole"),
    "a load": (snapshot(call=b""), "no conversation"),
    "a raw prompt": (snapshot(call={"prompt": "a"}, path="/v1/completions"), "no conversation"),
    "messages of another API": (snapshot(path="/v1/messages"), "no conversation"),
    "a list": (answered("/api/tags", {"models": []}), "no conversation"),
    "an internal call": (internal_call(), "no conversation"),
}


@pytest.mark.parametrize(("case", "reason"), REFUSED.values(), ids=REFUSED)
def test_jsonl_is_of_exchanges_that_ended_well(case: Snapshot, reason: str) -> None:
    with pytest.raises(export.NotExportable, match=reason):
        export.jsonl(case)


def test_every_format_has_a_suffix() -> None:
    assert set(export.SUFFIXES.values()) == set(export.FORMATS)


@pytest.mark.parametrize("form", export.FORMATS)
def test_no_secrets_in_any(form: str) -> None:
    kept = record(
        ASKED | {"password": SECRET},
        headers=(("Authorization", SECRET), ("User-Agent", "curl")),
        upstream_headers=(("Set-Cookie", SECRET),),
    )
    text = export.write(snapshot(kept, headers=(("Authorization", SECRET),)), form, ADDRESS)
    assert SECRET not in text
    assert text.endswith("\n")


@given(
    st.sampled_from(["call", "relay", "served", "answer", "own", ""]),
    st.binary(),
    st.binary(),
    st.none() | st.binary(),
    st.text(),
)
def test_only_refusals_are_raised(kind: Any, asked: bytes, call: bytes, response: bytes | None, text: str) -> None:
    kept = Record(kind=kind, path=text, request=asked, model=text, error=text)
    whole = Snapshot(kept, text, text, ((text, text),), call, 200, "OK", (), response)
    for form in export.FORMATS:
        with suppress(export.NotExportable):
            export.write(whole, form, ADDRESS).encode()
