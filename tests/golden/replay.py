"""Replay recorded exchanges with a real Ollama, and compare what comes back.

What a recorded model said is generated text, as is what the stand-in says now; times, durations, digests, sizes and ids
differ from run to run. All of these are brought to one form on both sides; everything else must be equal: status,
headers, the order of keys, every error text. Ollama has two ways to run a model that shape a stream differently
(whether thoughts are taken out of the text of generate, whether tool calls have a line of their own): both are brought
to the form of one.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ollama_lmstudio.sim import Prompt, Reasoning, SimModel, Step, content, embedder, end, error, reasoning, tool_call

TIMEOUT = 20

COMPARED_HEADERS = (
    "Content-Type",
    "Allow",
    "Location",
    "Vary",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Max-Age",
)

# The models that the recorded server had, as far as LM Studio can have such models.
# What the recorded `plain` had of its own (a system text, parameters, licenses) is an alias's here.
MODELS = (
    SimModel("plain-base", tools=False, loaded=True),
    SimModel("tooly@7b"),
    SimModel("thinky", reasoning=Reasoning()),
    SimModel("gothink", tools=False, reasoning=Reasoning()),
    SimModel("q3"),
    SimModel("q3think", reasoning=Reasoning()),
    SimModel("ns/gotool", publisher="ns"),
    SimModel("code", tools=False, architecture="starcoder2"),
    embedder("bert", max_context_length=512, dimensions=4),
)
PLAIN = {"model": "plain", "from": "plain-base"}
THINKERS = ("thinky", "gothink", "q3think")


@dataclass(frozen=True, eq=False)
class Recording:
    """A file of recorded exchanges. `plain` makes an alias with what the recorded model of that name had of its own.

    `encoding` is the one in which the bytes of the requests' bodies stand in the file. `last_headers` is whether only
    the last value of a header was kept. On the paths `thoughtless` the recorded runner did not think.
    """

    file: str
    plain: Mapping[str, Any]
    encoding: str = "utf-8"
    last_headers: bool = False
    thoughtless: tuple[str, ...] = ()

    def cases(self) -> list[Case]:
        """Read the exchanges, in their order."""
        text = Path(__file__).with_name(self.file).read_text(encoding="utf-8")
        return [self._case(json.loads(line)) for line in text.splitlines()]

    def _case(self, row: dict[str, Any]) -> Case:
        headers = row["headers"]
        fields = headers.items() if isinstance(headers, dict) else headers
        return Case(
            self,
            row["n"],
            row["method"],
            row["path"],
            row["req_headers"],
            row["req_body"],
            row["status"],
            tuple((name, value) for name, value in fields),
            row["body"],
        )


OLLAMA = Recording(
    "ollama.jsonl",
    PLAIN
    | {
        "system": "You are <x>.",
        "parameters": {"num_ctx": 2048, "stop": ["<|a|>", "b"], "temperature": 0.7},
        "license": ["LIC A", "LIC B"],
    },
)
# Each field with values that are wrong in many ways, and each path with all methods. Every other exchange of what was
# recorded: see `Case.missing`.
VARIATIONS = Recording(
    "variations.jsonl",
    PLAIN | {"parameters": {"stop": ["<|im_start|>", "<|im_end|>"]}},
    encoding="latin-1",
    last_headers=True,
    thoughtless=("/api/generate",),
)


class Runner:
    """Say what the recorded runner said to the same prompts. `path` is what is being replayed."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.path = ""

    def __call__(self, prompt: Prompt, model: SimModel) -> list[Step]:
        thinks = prompt.thinks and model.reasoning and self.path not in self.recording.thoughtless
        thoughts = [reasoning("hmm", " ok")] if thinks else []
        said = [content("Hello", " <w> & é'\"\u2028")]
        match prompt.last_user or prompt.text:
            case "ERR0":
                return [error("boom before", 500)]
            case "ERR1":
                return [content("Hello"), error("boom mid <x>" if self.path == "/api/chat" else "boom mid", 500)]
            case "STATUS" if self.path != "/api/generate":
                return [error('{"error":{"code":400}}', 400)]
            case "TOOLCALL" if model.key in ("q3", "ns/gotool"):
                # Its call is one, or what Go's templates do not find in the text.
                call = [tool_call("get_weather", '{"zcity":"Paris","a":1}')] if model.key == "q3" else []
                return [content("Let me", " check."), *call]
            case "TOOLCALL" if prompt.tools and model.tools:
                calls = [tool_call("get_weather", '{"zcity":"Paris","a":1,"n":null}'), tool_call("noargs", "{}")]
                return [*thoughts, *calls]
            case "LEN":
                return [*thoughts, *said, end("length")]
        return [*thoughts, *said]


@dataclass(frozen=True, eq=False)
class Case:
    """One recorded exchange."""

    recording: Recording
    n: int
    method: str
    path: str
    request_headers: dict[str, str]
    request_body: str | None
    status: int
    headers: tuple[tuple[str, str], ...]
    body: str

    def __str__(self) -> str:
        return f"{self.n} {self.method} {self.path} {(self.request_body or '')[:100]}"

    @property
    def missing(self) -> Mapping[str, Any] | None:
        """The body of the create before this exchange that the recording lacks; None where nothing is missing."""
        if self.recording is not VARIATIONS or (self.method, self.status) != ("DELETE", HTTPStatus.OK):
            return None
        return {**json.loads(self.request_body or "{}"), "from": PLAIN["from"]}


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: str


@dataclass
class Outcome:
    """A case and its comparison; no differences are equality."""

    case: Case
    answer: Answer
    differences: list[str] = field(default_factory=list)


def send(case: Case, port: int) -> Answer:
    """Send a recorded request as it was sent, byte for byte."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.putrequest(
            case.method, case.path, skip_host="Host" in case.request_headers, skip_accept_encoding=True
        )
        for name, value in case.request_headers.items():
            connection.putheader(name, value)
        data = None if case.request_body is None else case.request_body.encode(case.recording.encoding)
        if data is not None or case.method == "POST":
            connection.putheader("Content-Length", str(len(data or b"")))
        connection.endheaders(data)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read().decode())
    finally:
        connection.close()


def compare(case: Case, answer: Answer) -> Outcome:
    """Compare an answer with the recorded one."""
    outcome = Outcome(case, answer)
    told = outcome.differences
    if answer.status != case.status:
        told.append(f"status {answer.status} instead of {case.status}")
    for name in COMPARED_HEADERS:
        was, now = _values(case.headers, name), _values(answer.headers, name)
        now = now[-1:] if case.recording.last_headers else now
        if was != now:
            told.append(f"{name}: {now} instead of {was}")
    if answer.body.endswith("\n") != case.body.endswith("\n"):
        told.append("newline at the end" if answer.body.endswith("\n") else "no newline at the end")
    was_body, now_body = normalised(case, case.body), normalised(case, answer.body)
    if was_body != now_body:
        told.append(f"body {now_body}\ninstead of {was_body}")
    return outcome


def _values(headers: Sequence[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in headers if key.lower() == name.lower()]


def normalised(case: Case, body: str) -> str:
    """Bring a body to the form in which two are compared."""
    try:
        values = [json.loads(line) for line in body.split("\n") if line.strip()]
    except ValueError:
        return body
    if case.path == "/api/generate":
        values = _take_thoughts_out(case, values)
    if _values(case.headers, "Content-Type") == ["application/x-ndjson"]:
        values = _split_tool_calls(values)
    values = [_normalise(value) for value in values]
    texts = [json.dumps(value, ensure_ascii=False) for value in values if not _says_nothing(value)]
    return "\n".join(text for at, text in enumerate(texts) if at == 0 or text != texts[at - 1])


def _says_nothing(value: Any) -> bool:
    """Whether a line of generate has nothing in it, as for tokens that Go's templates swallow."""
    return isinstance(value, dict) and value.get("done") is False and value.get("response") == "" and len(value) == 4


def _take_thoughts_out(case: Case, values: list[Any]) -> list[Any]:
    """Take thoughts out of the text of generate, where Ollama left them in."""
    text = "".join(value.get("response", "") for value in values if isinstance(value, dict))
    if not text.startswith("<think>"):
        return values
    body = json.loads(case.request_body or "{}")
    if body.get("model") not in THINKERS or body.get("think") is False:
        return values
    if len(values) == 1:
        keys = list(values[0].items())
        at = next(index for index, (key, _) in enumerate(keys) if key == "response") + 1
        return [dict([*keys[:at], ("thinking", "hmm"), *keys[at:]])]
    first = {key: value for key, value in values[0].items() if key != "done"}
    return [{**first, "response": "", "thinking": "hmm", "done": False}, *values]


def _split_tool_calls(values: list[Any]) -> list[Any]:
    """Give tool calls that came on the last line of a stream a line of their own, each call one."""
    result: list[Any] = []
    for value in values:
        message = value.get("message") if isinstance(value, dict) else None
        if not isinstance(message, dict) or not message.get("tool_calls"):
            result.append(value)
            continue
        head = {key: value[key] for key in ("model", "created_at")}
        bare = {key: part for key, part in message.items() if key != "tool_calls"}
        result += [{**head, "message": {**bare, "tool_calls": [call]}, "done": False} for call in message["tool_calls"]]
        if value["done"]:
            result.append({**value, "message": bare})
    return result


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("content", "response", "thinking")
_NUMBERS = (
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
    "prompt_eval_count",
    "eval_count",
    "context_length",
    "created",
    "size",
    "size_vram",
)
# What a model is rather than how Ollama tells of it.
_FACTS = ("family", "families", "parameter_size", "quantization_level", "model_info", "template")
# What only Ollama knows of a model: the parts of its file.
_UNKNOWN = ("tensors", "embedding_length")


def _normalise(value: Any, key: str = "") -> Any:
    if key in _FACTS and value:
        return "FACT"
    if isinstance(value, dict):
        parts = list(value.items())
        if "model_info" in value:
            # Ollama leaves out what is empty; some clients want it all the same.
            parts = [(name, item) for name, item in parts if item or name not in ("license", "parameters")]
            # Later versions tell it, and clients look for it.
            parts = [(name, item) for name, item in parts if name != "thinking"]
        return {name: _normalise(item, name) for name, item in parts if name not in _UNKNOWN}
    if isinstance(value, list):
        return _normalise_list(value, key)
    if key in _NUMBERS and isinstance(value, int) and value > 0:
        return "NUMBER"
    if isinstance(value, str):
        return _normalise_text(value, key)
    return value


def _normalise_text(value: str, key: str) -> str:
    if key.endswith("_at") and _TIME.fullmatch(value):
        return "TIME"
    if key in ("id", "request_id") and not value.startswith("plain"):
        return "ID"
    if key in _TEXTS and value:
        return "TEXT"
    if key == "version":
        return "VERSION"
    if key == "parent_model":
        return "PARENT"
    if key == "modelfile":
        # Where the model's file is, and the template, which LM Studio does not tell.
        return re.sub(r'^(FROM .*|TEMPLATE ("""[^"]*"""|"[^"]*"|.*)\n)', "", value, flags=re.MULTILINE)
    if key == "status":
        return _DIGEST.sub("DIGEST", value)
    return "DIGEST" if key == "digest" and _DIGEST.fullmatch(value) else value


def _normalise_list(value: list[Any], key: str) -> Any:
    if key == "context" and value and all(isinstance(number, int) for number in value):
        return "CONTEXT"
    if key in ("embedding", "embeddings") and value:
        return ["VECTOR"] * (len(value) if isinstance(value[0], list) else 1)
    if key == "logprobs":
        # The recorded runner has no alternatives for the tokens of generate.
        return [{name: "X" for name in entry if name != "top_logprobs"} for entry in value[:1]]
    if key == "models" and value:
        # Which models there are, and in which order, is not the same.
        return [{name: item if name == "details" else "X" for name, item in _normalise(value[0]).items()}]
    return [_normalise(item, key) for item in value]
