"""The strict reader itself: it refuses what real clients break on, and takes what a real Ollama answers."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from tests.golden.replay import OLLAMA, VARIATIONS, Case
from tests.strict.reader import LONGEST_LINE, Asked, Marks, Reading, Refused, marked
from tests.strict.ways import Socket, Tap, attach, read_connection

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
DATE = {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}

Value = Mapping[str, Any]


def read(
    path: str,
    body: bytes,
    asked: Value | None = None,
    *,
    method: str = "POST",
    status: int = 200,
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
    marks: Marks | None = None,
    ends: bool = True,
) -> None:
    """Read one answer."""
    named = {"Content-Type": content_type} if content_type else {}
    question = Asked(method, path, asked or {}, marks or Marks())
    reading = Reading(question, status, DATE | named | dict(headers or {}))
    half = len(body) // 2
    reading.feed(body[:half])
    reading.feed(body[half:])
    if ends:
        reading.end()
    else:
        reading.cut()


def one(value: Any) -> bytes:
    """Write one object."""
    return json.dumps(value, separators=(",", ":")).encode()


def lines(*values: Any) -> bytes:
    """Write lines; bytes are lines already."""
    return b"".join(value if isinstance(value, bytes) else one(value) + b"\n" for value in values)


NOW = "2026-01-02T03:04:05.123456Z"
SAID = {"role": "assistant", "content": "Hi"}
SILENCE = {"role": "assistant", "content": ""}
LINE = {"model": "m", "created_at": NOW, "message": SAID, "done": False}
METRICS = {
    "total_duration": 9,
    "load_duration": 1,
    "prompt_eval_count": 2,
    "prompt_eval_duration": 3,
    "eval_count": 4,
    "eval_duration": 5,
}
LAST = {"model": "m", "created_at": NOW, "message": SILENCE, "done": True, "done_reason": "stop"} | METRICS
FUNCTION = {"index": 0, "name": "f", "arguments": {"a": 1}}
CALL: dict[str, Any] = {"id": "call_1", "function": FUNCTION}
CALLS = LINE | {"message": {**SILENCE, "tool_calls": [CALL]}}
THOUGHT = LINE | {"message": SILENCE | {"thinking": "Hm"}}
ANSWER = LAST | {"message": SAID | {"thinking": "Hm", "tool_calls": [CALL]}}
LOADED = {"model": "m", "created_at": NOW, "message": SILENCE, "done": True, "done_reason": "load"}

GENERATED = {"model": "m", "created_at": NOW, "response": "Hi", "done": False}
GENERATED_LAST = {
    "model": "m",
    "created_at": NOW,
    "response": "",
    "done": True,
    "done_reason": "stop",
    "context": [1],
    **METRICS,
}
EMBEDDED = {
    "model": "m",
    "embeddings": [[0.5, 1]],
    "total_duration": 1,
    "load_duration": 1,
    "prompt_eval_count": 1,
}

DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "8B",
    "quantization_level": "Q4_K_M",
}
TAG = {
    "name": "m:latest",
    "model": "m:latest",
    "modified_at": NOW,
    "size": 5,
    "digest": "ab" * 32,
    "details": DETAILS | {"context_length": 4096},
    "capabilities": ["completion", "tools"],
}
RUNNING = {
    "name": "m:latest",
    "model": "m:latest",
    "size": 5,
    "digest": "ab" * 32,
    "details": DETAILS,
    "expires_at": "2318-01-02T03:04:05.123456789+02:00",
    "size_vram": 5,
    "context_length": 4096,
}
INFO = {"general.architecture": "llama", "general.basename": "M", "llama.context_length": 4096}
SHOWN = {
    "license": "",
    "modelfile": "FROM m",
    "parameters": "",
    "template": "{{ .Tools }}",
    "details": DETAILS,
    "model_info": INFO,
    "capabilities": ["completion", "tools"],
    "modified_at": NOW,
}
PROGRESS = {"status": "pulling abc", "digest": f"sha256:{'ab' * 32}", "total": 5, "completed": 1}
SUCCESS = {"status": "success"}
ERROR = {"error": "model 'x' not found"}
OPENAI_ERROR = {"error": {"message": "no", "type": "api_error", "param": None, "code": None}}


def said(**changes: Any) -> dict[str, Any]:
    """Make a line whose message has these keys."""
    return LINE | {"message": SILENCE | changes}


def called(**changes: Any) -> dict[str, Any]:
    """Make a line of a call whose function has these keys."""
    return said(tool_calls=[CALL | {"function": FUNCTION | changes}])


def without(value: Value, *keys: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in keys}


def chat(*values: Any, **asked: Any) -> tuple[str, bytes, dict[str, Any]]:
    return "/api/chat", lines(*values), {"asked": asked, "content_type": NDJSON}


def answered(value: Any, **asked: Any) -> tuple[str, bytes, dict[str, Any]]:
    return "/api/chat", one(value), {"asked": {"stream": False} | asked, "content_type": JSON}


def generate(*values: Any, **asked: Any) -> tuple[str, bytes, dict[str, Any]]:
    return "/api/generate", lines(*values), {"asked": asked, "content_type": NDJSON}


def whole(path: str, value: Any, **options: Any) -> tuple[str, bytes, dict[str, Any]]:
    return path, one(value), {"content_type": JSON, "method": "GET"} | options


def pulled(*values: Any) -> tuple[str, bytes, dict[str, Any]]:
    return "/api/pull", lines(*values), {"content_type": NDJSON}


def failed(value: Any, status: int = 400, path: str = "/api/chat", **options: Any) -> tuple[str, bytes, dict[str, Any]]:
    return path, value if isinstance(value, bytes) else one(value), {"status": status, "content_type": JSON} | options


def shown(**changes: Any) -> tuple[str, bytes, dict[str, Any]]:
    return whole("/api/show", SHOWN | changes, method="POST")


def informed(**changes: Any) -> tuple[str, bytes, dict[str, Any]]:
    return shown(model_info=dict(sorted({**INFO, **changes}.items())))


def tagged(**changes: Any) -> tuple[str, bytes, dict[str, Any]]:
    return whole("/api/tags", {"models": [TAG | changes]})


def detailed(**changes: Any) -> tuple[str, bytes, dict[str, Any]]:
    return tagged(details=DETAILS | changes)


def nothing(path: str, **options: Any) -> tuple[str, bytes, dict[str, Any]]:
    return path, b"", {"headers": {"Content-Length": "0"}} | options


TAKEN = [
    chat(LINE, LAST, model="m"),
    chat(LAST | {"done_reason": "length"} | METRICS),
    chat(THOUGHT, LINE, CALLS, LAST),
    chat(LINE, ERROR),
    chat(LINE | {"logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]}, LAST, logprobs=True),
    answered(ANSWER),
    whole("/api/chat", LOADED, method="POST"),
    generate(GENERATED, GENERATED_LAST),
    generate(GENERATED, without(GENERATED_LAST, "context"), raw=True),
    whole("/api/embed", EMBEDDED, method="POST"),
    whole("/api/embed", {"model": "m", "embeddings": []}, method="POST"),
    whole("/api/embeddings", {"embedding": [0.1, 1e-7]}, method="POST"),
    tagged(),
    whole("/api/tags", {"models": []}),
    whole("/api/ps", {"models": [RUNNING]}),
    shown(),
    whole("/api/version", {"version": "0.33.0"}),
    pulled({"status": "pulling manifest"}, PROGRESS, SUCCESS),
    pulled({"status": "pulling manifest"}, ERROR),
    ("/api/pull", one(SUCCESS), {"asked": {"stream": False}, "content_type": PLAIN_JSON}),
    nothing("/api/copy"),
    nothing("/api/delete", method="DELETE"),
    nothing("/api/blobs/sha256:0", status=201),
    nothing("/api/tags", method="HEAD", content_type=JSON, headers={"Content-Length": "11"}),
    nothing("/api/chat", method="OPTIONS", status=204),
    nothing("/api/chat", status=403),
    ("/", b"Ollama is running", {"method": "GET", "content_type": f"{TEXT}; charset=utf-8"}),
    failed(ERROR, 404),
    failed({"error": "unauthorized"}, 401),
    failed({"error": "unauthorized"}, 401, "/api/tags"),
    failed(OPENAI_ERROR, 401, "/v1/models", content_type=PLAIN_JSON),
    failed(b"404 page not found", 404, "/metrics", content_type=TEXT),
    failed(b"405 method not allowed", 405, content_type=TEXT, headers={"Allow": "POST"}),
    failed(OPENAI_ERROR, 404, "/v1/chat/completions", content_type=PLAIN_JSON),
    ("/v1/models", b"anything", {"headers": {"X-Powered-By": "Express"}}),
]

BROKEN: list[tuple[str, tuple[str, bytes, dict[str, Any]]]] = [
    # How it comes
    ("httpx: a line ends at U+2028", chat(lines(LINE).replace(b"Hi", "\u2028".encode()), LAST)),
    ("ollama-rs: a character may be split", chat(lines(LINE).replace(b"Hi", "é".encode()), LAST)),
    ("Go writes < > & as escapes", chat(lines(LINE).replace(b"Hi", b"<b>"), LAST)),
    ("httpx, Go: a blank line", chat(LINE, b"\n", LAST)),
    ("httpx, Go: a blank line at the end", chat(LINE, LAST, b"\n")),
    ("Continue: no end of the last line", chat(LINE, one(LAST))),
    ("everyone: SSE", chat(b"data: " + lines(LINE), LAST)),
    ("Go: an object of several lines", chat(json.dumps(LINE, indent=1).encode() + b"\n", LAST)),
    ("everyone: two objects on a line", chat(one(LINE) + lines(LINE), LAST)),
    ("everyone: not JSON", chat(b'{"model":\n', LAST)),
    ("JSON.parse: NaN", chat(LINE, lines(LAST).replace(b":9", b":NaN"))),
    ("serde: a key twice", chat(lines(LINE).replace(b'{"role"', b'{"role":"x","role"'), LAST)),
    ("Go: a line of 8 MB", chat(lines(LINE).replace(b"Hi", b"x" * LONGEST_LINE), LAST)),
    ("Spring AI: lines as text", ("/api/chat", lines(LINE, LAST), {"content_type": "text/event-stream"})),
    ("Ollama: lines as JSON", ("/api/chat", lines(LINE, LAST), {"content_type": JSON})),
    ("Open WebUI: JSON as text", whole("/api/tags", {"models": [TAG]}, content_type=TEXT)),
    ("Open WebUI: JSON without a type", whole("/api/tags", {"models": [TAG]}, content_type="")),
    ("ollama-js: an error as text", failed(ERROR, content_type=TEXT)),
    ("everyone: compressed", whole("/api/tags", {"models": []}, headers={"Content-Encoding": "gzip"})),
    ("Ollama has no Server", whole("/api/tags", {"models": []}, headers={"Server": "mitmproxy"})),
    ("Continue: a status that is not 200", (*answered(ANSWER)[:2], {"content_type": JSON, "status": 201})),
    ("everyone: lines, one object was wanted", chat(LINE, LAST, stream=False)),
    ("everyone: one object, lines were wanted", whole("/api/chat", ANSWER, method="POST")),
    # How it ends
    ("ollama-js: no last line", chat(LINE)),
    ("everyone: nothing at all", chat()),
    ("ollama-python: something after the last line", chat(LINE, LAST, LINE)),
    ("everyone: something after an error", chat(LINE, ERROR, LAST)),
    ("everyone: an answer that is cut", (*chat(LINE)[:2], {"content_type": NDJSON, "ends": False})),
    # Errors
    ("ollama-js: [object Object]", failed({"error": {"message": "no"}})),
    ("ollama-js: an error of null", chat(LINE | {"error": None}, LAST)),
    ("ollama-python: an error that is an object, in a stream", chat(LINE, {"error": {"message": "no"}})),
    ("ollama-python: a string for an object", failed("no")),
    ("everyone: an error without words", failed({"error": ""})),
    ("everyone: a page", failed(b"404: no", 404, content_type="text/html")),
    ("ollama: an error of an unknown path is text", failed(ERROR, 404, "/api/nothing")),
    ("clients of 405: no Allow", failed(b"405 method not allowed", 405, content_type=TEXT)),
    ("OpenAI's libraries: an error that is a string", failed(ERROR, 404, "/v1/completions")),
    ("Anthropic's libraries: OpenAI's error", failed(OPENAI_ERROR, 404, "/v1/messages")),
    # Chat
    ("ollama-python, LiteLLM: no message at the end", chat(LINE, without(LAST, "message"))),
    ("ollama-python: no role", chat(LINE | {"message": {"content": "Hi"}}, LAST)),
    ("Zed, Spring AI: another role", chat(said(role="model"), LAST)),
    ("LangChain, Haystack: content is null", chat(said(content=None), LAST)),
    ("LlamaIndex: no content", chat(LINE | {"message": {"role": "assistant", "thinking": "Hm"}}, LAST)),
    ("AI SDK: null for thoughts", chat(said(thinking=None), LAST)),
    ("Ollama leaves out what is empty", chat(said(thinking=""), LAST)),
    ("ollama-rs: null for calls", chat(said(tool_calls=None), LAST)),
    ("Zed: an unknown key of a message", chat(said(images=None), LAST)),
    ("Zed, Go: no model", chat(without(LINE, "model"), LAST)),
    ("everyone: another model", chat(LINE, LAST, model="other")),
    ("Go: no date", chat(without(LINE, "created_at"), LAST)),
    ("Go: seconds for a date", chat(LINE | {"created_at": 1767322800}, LAST)),
    ("langchain4j: a date of few digits", chat(LINE | {"created_at": "2026-01-02T03:04:05.54Z"}, LAST)),
    ("Swift: a date without a zone", chat(LINE | {"created_at": NOW[:-1]}, LAST)),
    ("Go: no such date", chat(LINE | {"created_at": NOW.replace("01-02", "13-02")}, LAST)),
    ("Zed: no done", chat(without(LINE, "done"), LAST)),
    ("Smart Connections: done_reason before the end", chat({**LINE, "done_reason": "stop"}, LAST)),
    ("AI SDK: done_reason is null", chat({**LINE, "done_reason": None}, LAST)),
    ("Ollama has no such done_reason", chat(LINE, LAST | {"done_reason": "tool_calls"})),
    ("everyone: no done_reason", chat(LINE, without(LAST, "done_reason"))),
    ("AI SDK, AnythingLLM: text in the last line", chat(LINE, LAST | {"message": SAID})),
    ("Zed: calls in the last line", chat(LINE, LAST | {"message": SILENCE | {"tool_calls": [CALL]}})),
    ("Continue: a key `type`", chat({**LINE, "type": "text"}, LAST)),
    ("Dify: a key `response`", chat({**LINE, "response": "Hi"}, LAST)),
    ("Zed, Continue: text and thoughts in a line", chat(said(content="Hi", thinking="Hm"), LAST)),
    ("Zed: text and a call in a line", chat(said(content="Hi", tool_calls=[CALL]), LAST)),
    ("the order of keys", chat(dict(reversed(LINE.items())), LAST)),
    ("everyone: a thought, though think is false", chat(THOUGHT, LAST, think=False)),
    ("everyone: logprobs that nobody wanted", chat({**LINE, "logprobs": [{"token": "a", "logprob": -1}]}, LAST)),
    *[
        (f"Haystack, ollama-rs, Open WebUI: {name} is {value!r}", chat(LINE, LAST | {name: value}))
        for name in METRICS
        for value in (None, 1.5, 1.0, "1", True, 0, -1)
    ],
    *[(f"Haystack, ollama-rs: no {name}", chat(LINE, without(LAST, name))) for name in METRICS],
    *[(f"Haystack: no {name} of one object", answered(without(ANSWER, name))) for name in METRICS],
    ("LiteLLM: content of one object is null", answered(ANSWER | {"message": SAID | {"content": None}})),
    ("ollama-python: one object without an end", answered(without(ANSWER, "done") | {"done": False})),
    # Tools
    ("ollama-python, AI SDK: arguments are text", chat(called(arguments='{"a":1}'), LAST)),
    ("ollama-python: arguments are null", chat(called(arguments=None), LAST)),
    ("everyone: a call without a name", chat(called(name=""), LAST)),
    ("Zed: an index of null", chat(called(index=None), LAST)),
    ("Go: an index with a point", chat(called(index=0.0), LAST)),
    ("everyone: an index too far", chat(called(index=1), LAST)),
    ("Zed: a call without an id", chat(said(tool_calls=[without(CALL, "id")]), LAST)),
    ("Zed: an id that is empty", chat(said(tool_calls=[CALL | {"id": ""}]), LAST)),
    ("Ollama's calls have no type", chat(said(tool_calls=[{**CALL, "type": "function"}]), LAST)),
    ("Zed: two calls in a line", chat(said(tool_calls=[CALL, {"id": "2", "function": FUNCTION | {"index": 1}}]), LAST)),
    ("AI SDK: two calls of one id", chat(CALLS, called(index=1), LAST)),
    ("LangChain: content of a call is null", chat(said(content=None, tool_calls=[CALL]), LAST)),
    # Generate
    ("comfyui-ollama: no context", generate(GENERATED, without(GENERATED_LAST, "context"))),
    ("Ollama: context of a raw prompt", generate(GENERATED, GENERATED_LAST, raw=True)),
    ("AI SDK: context is null", generate(GENERATED, GENERATED_LAST | {"context": None})),
    ("ollama-python: no response", generate(without(GENERATED, "response"), GENERATED_LAST)),
    ("ollama-rs: response is null", generate(GENERATED | {"response": None}, GENERATED_LAST)),
    ("AI SDK: text in the last line of generate", generate(GENERATED, GENERATED_LAST | {"response": "Hi"})),
    # Embeddings
    *[
        (f"AI SDK: no {name}", whole("/api/embed", without(EMBEDDED, name), method="POST"))
        for name in ("total_duration", "load_duration", "prompt_eval_count", "embeddings")
    ],
    ("Continue: no vectors", whole("/api/embed", EMBEDDED | {"embeddings": []}, method="POST")),
    ("ollama-python: a vector of texts", whole("/api/embed", EMBEDDED | {"embeddings": [["1"]]}, method="POST")),
    ("ollama-python: one vector for a list", whole("/api/embeddings", {"embeddings": [[1]]}, method="POST")),
    # Lists
    *[(f"Zed, Roo: {name} of a tag is null", tagged(**{name: None})) for name in TAG],
    *[(f"parllama, Koog: no {name} of a tag", whole("/api/tags", {"models": [without(TAG, name)]})) for name in TAG],
    *[(f"Zed, Roo: {name} of the details is null", detailed(**{name: None})) for name in DETAILS],
    *[(f"parllama: no {name} in the details", tagged(details=without(DETAILS, name))) for name in DETAILS],
    ("Zed: a size with a point", tagged(size=5.0)),
    ("Zed: a size below nothing", tagged(size=-1)),
    ("ollama list: a digest too short", tagged(digest="abc")),
    ("ollama list: a digest with a prefix", tagged(digest=f"sha256:{'ab' * 32}")),
    ("langchain4j: a tag's date of few digits", tagged(modified_at="2026-01-02T03:04:05Z")),
    ("everyone: two names", tagged(name="other")),
    ("Koog: an unknown capability", tagged(capabilities=["completion", "chat"])),
    ("Koog: a capability twice", tagged(capabilities=["tools", "tools"])),
    ("everyone: a model twice", whole("/api/tags", {"models": [TAG, TAG]})),
    ("Go: null for a list", whole("/api/tags", {"models": None})),
    *[(f"OllamaSharp: {key} in ps is null", whole("/api/ps", {"models": [RUNNING | {key: None}]})) for key in RUNNING],
    # Show
    *[(f"OllamaKit, Zed: {name} is null", shown(**{name: None})) for name in SHOWN],
    *[(f"OllamaKit, Zed: no {name}", whole("/api/show", without(SHOWN, name), method="POST")) for name in SHOWN],
    ("Koog: an unknown capability in show", shown(capabilities=["completion", "reasoning"])),
    ("OllamaKit: a list of licenses", shown(license=["MIT"])),
    ("ollama: parameters as an object", shown(parameters={"num_ctx": 5})),
    ("Continue: .Suffix where nothing can be inserted", shown(template="{{ .Suffix }}")),
    ("LiteLLM: .Tools where there are none", shown(capabilities=["completion"])),
    ("VS Code: no architecture", shown(model_info=without(INFO, "general.architecture"))),
    ("VS Code: no name", shown(model_info=without(INFO, "general.basename"))),
    ("Roo, LlamaIndex: two context_length", informed(**{"a.context_length": 5})),
    ("VS Code: a context_length of another architecture", informed(**{"general.architecture": "other"})),
    ("Zed: a context_length with a point", informed(**{"llama.context_length": 4096.0})),
    ("OllamaSharp: a null among the facts", informed(**{"general.parameter_count": None})),
    ("OllamaSharp: a count with a point", informed(**{"general.parameter_count": 8e9})),
    # Version
    *[
        (f"{who}: version {text!r}", whole("/api/version", {"version": text}))
        for who, text in (
            ("Open WebUI", "0.33.0+lmstudio"),
            ("Codex", "0.33.0-rc1"),
            ("Codex", "0.6.4"),
            ("VS Code", "LM Studio"),
            ("Codex", "0.33"),
            ("VS Code", "v0.33.0"),
        )
    ],
    # Progress
    ("OllamaSharp: no status", pulled({"digest": f"sha256:{'ab' * 32}"}, SUCCESS)),
    ("OllamaSharp: a total of null", pulled(PROGRESS | {"total": None}, SUCCESS)),
    ("ollama: a total with a point", pulled(PROGRESS | {"total": 5.0}, SUCCESS)),
    ("ollama: a digest that is none", pulled(PROGRESS | {"digest": "abc"}, SUCCESS)),
    ("ollama-js: a pull without success", pulled(PROGRESS)),
    ("Go: a body for copy", ("/api/copy", b"null", {"content_type": JSON})),
    ("everyone: a body for HEAD", ("/api/tags", b"{}", {"method": "HEAD", "content_type": JSON})),
    ("Page Assist: another root", ("/", b"OK", {"method": "GET", "content_type": f"{TEXT}; charset=utf-8"})),
]  # fmt: skip


@pytest.mark.parametrize("answer", TAKEN, ids=lambda answer: f"{answer[0]} {answer[1][:60]!r}")
def test_what_is_taken(answer: tuple[str, bytes, dict[str, Any]]) -> None:
    path, body, options = answer
    read(path, body, **options)


@pytest.mark.parametrize(("answer"), [answer for _, answer in BROKEN], ids=[who for who, _ in BROKEN])
def test_what_a_client_breaks_on(answer: tuple[str, bytes, dict[str, Any]]) -> None:
    path, body, options = answer
    with pytest.raises(Refused):
        read(path, body, **options)


# Real answers

# What real clients break on, though a real Ollama answers so. Besides these, it writes characters as they are.
PARTS = "the parts of a model's file, and nulls for long lists"
OLLAMA_BREAKS: Mapping[str, tuple[int, ...]] = {
    "a build of one's own has version 0.0.0": (5, 52, 56, 58, 64),
    "a model that makes images, which Koog has no word for": (9, 621),
    "calls in the last line, two at once": (416, 448),
    "a template is shown instead of an answer": (580,),
    "no prompt_eval_count for a text without words": (591,),
    PARTS: (618, 619, 620, 623, 624, 625),
}
VARIATIONS_BREAK: Mapping[str, tuple[int, ...]] = {PARTS: (784, 786, 788, 790, 792)}
BREAKING = {OLLAMA: OLLAMA_BREAKS, VARIATIONS: VARIATIONS_BREAK}
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


@pytest.mark.parametrize(
    "case",
    [case for recording in BREAKING for case in recording.cases() if not case.path.startswith("/v1")],
    ids=str,
)
def test_what_ollama_answers(case: Case) -> None:
    def read_case(body: str) -> None:
        asked = Asked.of(case.method, case.path, (case.request_body or "").encode())
        marks = Marks(uncounted=None)  # its model counts nothing for some texts
        # Of one recording the lengths were not kept.
        headers = dict(case.headers) | {"Content-Length": str(len(case.body))}
        read(case.path, body.encode(), asked.body, method=case.method, status=case.status, headers=headers, marks=marks)

    escaped = _NOT_ASCII.sub(lambda match: f"\\u{ord(match[0]):04x}", case.body)
    if escaped != case.body:
        with pytest.raises(Refused, match="not ASCII"):
            read_case(case.body)
    if any(case.n in numbers for numbers in BREAKING[case.recording].values()):
        with pytest.raises(Refused):
            read_case(escaped)
    else:
        read_case(escaped)


# Ways of answers

ASK = b"GET /api/version HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: application/json; charset=utf-8\r\n"
GOOD = HEAD + b'Content-Length: 20\r\n\r\n{"version":"0.33.0"}'
BAD = GOOD.replace(b"0.33.0", b"0.6.30")
ASK_CHAT = b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n" + b'{"model":"m"}'
ASK_PULL = ASK_CHAT.replace(b"/api/chat", b"/api/pull")
STATUS, SUCCESS = {"status": "pulling manifest"}, {"status": "success"}
CHAT_HEAD = b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
TOLD = lines(LINE, LAST)


def chunked(*parts: bytes) -> bytes:
    return CHAT_HEAD + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


CUT, WHOLE = Marks(cut=True), Marks()


@pytest.mark.parametrize(
    ("sent", "received", "closed", "marks", "taken"),
    [
        (ASK, GOOD, False, WHOLE, True),
        (ASK, GOOD, True, WHOLE, True),
        (ASK, BAD, False, WHOLE, False),
        (ASK * 3, GOOD * 3, False, WHOLE, True),
        (ASK * 3, GOOD + BAD + GOOD, False, WHOLE, False),
        (ASK * 2, GOOD, False, CUT, True),
        (ASK * 2, GOOD, False, WHOLE, False),
        (ASK, b"", True, WHOLE, False),
        (ASK, b"", True, CUT, True),
        (ASK, GOOD[:-5], True, WHOLE, False),
        (ASK, GOOD[:-5], True, CUT, True),
        (ASK, GOOD[:-5], False, WHOLE, False),
        (ASK, GOOD, False, CUT, False),
        (ASK, b"nonsense", True, WHOLE, False),
        # A request that is not whole may be answered, and then has to be answered well.
        (ASK_CHAT[:-1], b"", False, WHOLE, True),
        (ASK_CHAT[:-1], HEAD + b"\r\n", True, WHOLE, False),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\nDate: now\r\n\r\nno", True, WHOLE, False),
        (ASK_CHAT, chunked(TOLD), False, WHOLE, True),
        (ASK_CHAT, chunked(lines(LINE), lines(LAST)), False, WHOLE, True),
        (ASK_PULL, chunked(lines(STATUS), lines(SUCCESS)), False, WHOLE, True),
        (ASK_PULL, chunked(lines(STATUS, SUCCESS)), False, WHOLE, False),
        (ASK_CHAT, chunked(TOLD[:9], TOLD[9:]), False, WHOLE, False),
        (ASK_CHAT, chunked(lines(LINE), lines(LINE)), False, WHOLE, False),
        (ASK_CHAT, chunked(lines(LINE))[:-5], False, WHOLE, False),
        (ASK_CHAT, chunked(lines(LINE))[:-5], False, CUT, True),
        (ASK_CHAT, chunked(lines({"model": 5}))[:-5], False, CUT, False),
        # One that has the last line may leave.
        (ASK_CHAT, chunked(TOLD)[:-5], False, WHOLE, True),
        (ASK_CHAT, chunked(TOLD)[:-5], True, WHOLE, False),
    ],
)
def test_connections(sent: bytes, received: bytes, closed: bool, marks: Marks, taken: bool) -> None:
    if taken:
        read_connection(sent, received, closed=closed, marks=marks)
    else:
        with pytest.raises(Refused):
            read_connection(sent, received, closed=closed, marks=marks)


class Server(socketserver.ThreadingTCPServer):
    """Answer one request of each connection with bytes, then close it."""

    def __init__(self, answer: bytes) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(65536)
                self.request.sendall(answer)

        super().__init__(("127.0.0.1", 0), Handler)
        self.port: int = self.server_address[1]

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def get(port: int) -> httpx.Response:
    hooks = {"response": [attach]}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, event_hooks=hooks) as client:
        return client.get("/api/version")


def test_a_client_of_httpx() -> None:
    with Server(GOOD) as server:
        assert get(server.port).json() == {"version": "0.33.0"}
        with marked(cut=True), pytest.raises(Refused, match="marked as cut, but whole"):
            get(server.port)
    with Server(BAD) as server:
        with pytest.raises(Refused, match="too old for Codex"):
            get(server.port)
        with marked(foreign=True):
            get(server.port)
    with Server(GOOD[:-5]) as server:
        with pytest.raises(Refused, match="not read to its end"):
            get(server.port)
        with marked(cut=True), pytest.raises(httpx.RemoteProtocolError):
            get(server.port)


def test_a_client_of_httpx_that_leaves() -> None:
    hooks = {"response": [attach]}
    with Server(chunked(lines(LINE))) as server:
        url = f"http://127.0.0.1:{server.port}/api/chat"

        def leave() -> None:
            with (
                httpx.Client(trust_env=False, event_hooks=hooks) as client,
                client.stream("POST", url, json={"model": "m"}) as response,
            ):
                assert next(response.iter_bytes())

        with pytest.raises(Refused, match="not read to its end"):
            leave()
        with marked(cut=True):
            leave()


def test_a_socket() -> None:
    def ask(server: Server, *, reads: bool) -> None:
        with Socket(server.port) as sock:
            sock.sendall(ASK)
            while reads and sock.recv(65536):
                pass

    with Server(BAD) as server, pytest.raises(Refused, match="too old"):
        ask(server, reads=True)
    with Server(GOOD) as server:
        with marked(cut=True):
            ask(server, reads=False)
        with pytest.raises(Refused, match="no answer"):
            ask(server, reads=False)


def test_a_tap() -> None:
    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(ASK)
            data = b""
            while received := sock.recv(65536):
                data += received
            return data

    with Server(GOOD) as server, Tap(server.port) as tap:
        assert [ask(tap.port), ask(tap.port)] == [GOOD, GOOD]
    for bad, problem in ((BAD, "too old"), (GOOD[:-5], "no HTTP, or cut")):
        with Server(bad) as server, Tap(server.port) as tap:
            assert ask(tap.port) == bad
            with pytest.raises(Refused, match=problem):
                tap.read()
    with Server(GOOD[:-5]) as server, Tap(server.port) as tap, marked(cut=True):
        assert ask(tap.port) == GOOD[:-5]
