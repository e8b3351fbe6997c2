"""The strictest client of all: it reads one answer as it comes, and refuses what a real client would break on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError
from tests.strict import answers
from tests.strict.answers import ENDPOINTS, Endpoint, Strict

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"

BLOBS = "/api/blobs/"
# LM Studio's own APIs, and the header by which its answers are known.
PASSED_ON = ("/v1/", "/api/v0/", "/api/v1/")
LM_STUDIOS = "x-powered-by"

# Go's scanner takes no longer line.
LONGEST_LINE = 8_000_000


class Refused(AssertionError):  # noqa: N818 - it is what a client does
    """A real client would break on this answer."""


def check(right: object, problem: str) -> None:
    """Raise Refused unless something is right."""
    if not right:
        raise Refused(problem)


@dataclass(frozen=True)
class Marks:
    """What a test says of answers that a client could not like: they are `cut` short or not read to their end, LM
    Studio counts no tokens for them (`uncounted`, None where that is all the same), or another program gives them
    (`foreign`).
    """

    cut: bool = False
    uncounted: bool | None = False
    foreign: bool = False


_marks = Marks()


def current_marks() -> Marks:
    """Give what the test says now."""
    return _marks


@contextmanager
def marked(**marks: bool) -> Iterator[None]:
    """Say something of every answer to what is asked inside; an answer that is not so is refused."""
    global _marks
    before, _marks = _marks, Marks(**marks)
    try:
        yield
    finally:
        _marks = before


def parse(text: bytes) -> Any:
    """Parse one JSON value that stands on one line, in ASCII, and says nothing twice."""
    check(text.isascii(), "not ASCII: Python's clients cut lines at U+2028, and others cut characters")
    check(not set(text) & {*b"\r\n<>&"}, "a line break or a character that Go escapes")
    check(text == text.strip(), "space around the JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        check(len(found) == len(pairs), f"a key twice: {[key for key, _ in pairs]}")
        return found

    def never(constant: str) -> Any:
        raise Refused(f"{constant} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=never)
    except ValueError as problem:
        raise Refused(f"not JSON: {problem}: {text[:200]!r}") from None


def validate(model: type[Strict], value: Any) -> Any:
    """Check a value against one of the models; raises Refused."""
    try:
        return model.model_validate(value)
    except ValidationError as problem:
        raise Refused(f"{json.dumps(value)[:500]}: {problem}") from None


@dataclass(frozen=True)
class Asked:
    """What was asked; `body` is empty where it was no JSON object."""

    method: str
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)
    marks: Marks = field(default_factory=current_marks)

    @classmethod
    def of(cls, method: str, target: str, data: bytes) -> Asked:
        """Read a request."""
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        return cls(method, unquote(target.partition("?")[0]), body if isinstance(body, dict) else {})


# What an object with these keys is; the first that fits.
OBJECTS: tuple[tuple[set[str], type[Strict]], ...] = (
    ({"error", "type"}, answers.AnthropicError),
    ({"error"}, answers.AnyError),
    ({"message", "done", "total_duration"}, answers.ChatAnswer),
    ({"message", "done", "done_reason"}, answers.ChatLoaded),
    ({"message"}, answers.ChatLine),
    ({"response", "done", "total_duration"}, answers.GenerateAnswer),
    ({"response", "done", "done_reason"}, answers.GenerateLoaded),
    ({"response"}, answers.GenerateLine),
    ({"embeddings", "total_duration"}, answers.Embedded),
    ({"embeddings"}, answers.NothingEmbedded),
    ({"embedding"}, answers.Embedding),
    ({"models"}, answers.AnyList),
    ({"model_info"}, answers.Shown),
    ({"answers"}, answers.Decided),
    ({"status"}, answers.Progress),
    ({"version"}, answers.Version),
    ({"cloud"}, answers.Status),
    ({"recommendations"}, answers.Recommendations),
    ({"data"}, answers.OpenAIEmbeddings),
    (set(), answers.OpenAIModel),
)


class Lines:
    """Read the objects of a streamed answer, or the only one of another."""

    def __init__(self, asked: Asked, endpoint: Endpoint) -> None:
        self._asked = asked
        self._endpoint = endpoint
        self._calls: list[answers.ToolCall] = []
        self._said = False
        self.ended = False

    def anew(self) -> Lines:
        """Give a reader of another answer to the same question."""
        return Lines(self._asked, self._endpoint)

    def take(self, value: Any) -> None:
        """Take the next object."""
        check(not self.ended, f"something after the last line: {value}")
        check(isinstance(value, dict), "not an object")
        assert self._endpoint.line is not None
        assert self._endpoint.last is not None
        if "error" in value:
            self.ended = True
            validate(answers.Error, value)
        elif value.get("done") is True or value.get("status") == "success":
            self.ended = True
            self._look(validate(self._endpoint.last, value), last=True)
        else:
            self._look(validate(self._endpoint.line, value), last=False)

    def whole(self, value: Any) -> None:
        """Take the answer that is one object."""
        endpoint, self.ended = self._endpoint, True
        check(isinstance(value, dict), "not an object")
        assert endpoint.whole is not None
        loaded = value.get("done_reason") in ("load", "unload") or value.get("embeddings") == []
        model = endpoint.loaded if loaded and endpoint.loaded else endpoint.whole
        found = validate(model, value)
        self._look(found, last=model is endpoint.whole)
        if model is answers.Progress:
            check(found.status == "success", "an answer that is no end")

    def _look(self, found: Any, *, last: bool) -> None:
        """Look at what the parts of an answer have to do with each other and with the question."""
        asked = self._asked.body
        name = asked.get("model") or asked.get("name")
        if isinstance(name, str) and hasattr(found, "model"):
            check(found.model == name, f"the model is {found.model!r}, asked for was {name!r}")
        message = getattr(found, "message", found)
        thinking = getattr(message, "thinking", "")
        calls = getattr(message, "tool_calls", [])
        text = getattr(message, "content", "") or getattr(message, "response", "")
        self._said = self._said or bool(text or thinking or calls)
        check(not (thinking and asked.get("think") is False), "a thought that was not wanted")
        check(asked.get("logprobs") is True or not getattr(found, "logprobs", []), "logprobs that were not wanted")
        for call in calls:
            check(call.function.index == len(self._calls), f"the index of {call}")
            check(call.id not in {other.id for other in self._calls}, f"the id of {call}")
            self._calls.append(call)
        if last and hasattr(found, "eval_count"):
            self._counts(found)
        if last and isinstance(found, answers.GenerateAnswer):
            check(bool(found.context) is not (asked.get("raw") is True), "context is there, unless the prompt is raw")

    def _counts(self, found: Any) -> None:
        uncounted = self._asked.marks.uncounted
        if uncounted is None:
            return
        check(bool(found.prompt_eval_count) is not uncounted, "prompt_eval_count: Haystack adds it up")
        check(bool(found.eval_count) is not uncounted or not self._said, "eval_count: Haystack adds it up")


def read_object(text: bytes) -> None:
    """Read one object of which only its keys tell what it is. Raises Refused."""
    value = parse(text.removesuffix(b"\n"))
    check(isinstance(value, dict), "not an object")
    if "proxy_version" not in value:  # that of /health is our own
        validate(next(model for keys, model in OBJECTS if keys <= value.keys()), value)


def _judged_as(path: str) -> str:
    """Give the path whose rules an answer has to keep: `/v1/systemone` is one of Ollama's own API, all but its name."""
    return "/api/systemone" if path == "/v1/systemone" else path


class Reading:
    """Read one answer as it comes: `feed` its body, then say how it ended. Raises Refused.

    Answers of LM Studio's own APIs are LM Studio's affair, but for those that are made here.
    """

    def __init__(self, asked: Asked, status: int, headers: Mapping[str, str]) -> None:
        self._asked = asked
        self._status = status
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._type = self._headers.get("content-type", "")
        self._endpoint = Endpoint() if asked.path.startswith(BLOBS) else ENDPOINTS.get(asked.path)
        self._body = bytearray()
        self._lines: Lines | None = None
        passed_on = asked.path.startswith(PASSED_ON) and LM_STUDIOS in self._headers
        self._ours = not (passed_on or asked.marks.foreign)
        if self._ours:
            self._head()

    def _head(self) -> None:
        check("server" not in self._headers, "Ollama names no server")
        check("content-encoding" not in self._headers, "compressed")
        check("date" in self._headers, "no date")
        if self._type == NDJSON:
            check(self._status == 200, "lines, but no 200")
            check(self._endpoint is not None and self._endpoint.line is not None, "lines where nobody expects them")
            check(self._asked.body.get("stream") is not False, "lines, but one object was wanted")
            assert self._endpoint is not None
            self._lines = Lines(self._asked, self._endpoint)

    def feed(self, data: bytes) -> None:
        """Take bytes of the body."""
        if not self._ours:
            return
        self._body += data
        if self._lines is None:
            return
        *lines, rest = self._body.split(b"\n")
        for line in lines:
            check(line, "a blank line")
            check(len(line) < LONGEST_LINE, "a line too long for Go")
            self._lines.take(parse(bytes(line)))
        self._body = rest

    def chunk(self, data: bytes) -> None:
        """Take that these bytes came as one chunk: ollama-rs reads whole lines of each, and one only of progress."""
        if self._lines is None:
            return
        check(data.endswith(b"\n"), f"a chunk that ends within a line: {data[-200:]!r}")
        progress = self._endpoint is not None and self._endpoint.line is answers.Progress
        check(not progress or data.count(b"\n") == 1, f"a chunk of several lines: {data[-200:]!r}")

    def cut(self) -> None:
        """Take that the rest of the answer is not wanted. After the last line many clients wait for nothing more."""
        enough = not self._ours or (self._lines is not None and self._lines.ended)
        check(enough or self._asked.marks.cut, "an answer that was not read to its end: it has to be marked as cut")

    def end(self) -> None:
        """Take the end of the body."""
        if not self._ours:
            return
        check(not self._asked.marks.cut, "marked as cut, but whole")
        if self._lines is not None:
            check(not self._body, "a last line without its end: Continue drops it")
            check(self._lines.ended, "no last line: ollama-js raises an error")
        elif self._asked.method == "HEAD":
            check(not self._body, "a body for HEAD")
        elif self._status in (200, 201):
            self._success(bytes(self._body))
        else:
            self._failure(bytes(self._body))

    def _success(self, body: bytes) -> None:
        asked, endpoint = self._asked, self._endpoint
        if _judged_as(asked.path).startswith(PASSED_ON):
            check(self._type == PLAIN_JSON, f"JSON as {self._type!r}")
            validate(answers.OpenAIModel, parse(body.removesuffix(b"\n")))
        elif asked.path == "/health":
            check(self._type == JSON and isinstance(parse(body), dict), "no object")
        elif asked.path == "/health/live":
            check((self._type, body) == ("", b""), f"it tells something: {self._type}, {body!r}")
        elif asked.path == "/metrics":
            # https://prometheus.io/docs/instrumenting/exposition_formats: lines, and the last one ends, too.
            is_known = self._type.startswith(("text/plain; version=", "application/openmetrics-text; version="))
            check(is_known and body.endswith(b"\n"), f"no numbers for Prometheus: {self._type}")
        elif endpoint is None:
            raise Refused(f"a {self._status} for {asked.path}, which Ollama does not have")
        elif endpoint.text:
            check(self._type == f"{TEXT}; charset=utf-8" and body == endpoint.text.encode(), f"{self._type}: {body!r}")
        elif endpoint.whole is None:
            check((self._type, body) == ("", b""), f"something instead of nothing: {self._type}, {body!r}")
            check(self._headers.get("content-length") == "0", "no length")
        else:
            plain = endpoint.whole is answers.Progress
            check(self._type == (PLAIN_JSON if plain else JSON), f"JSON as {self._type!r}")
            value = parse(body)
            Lines(asked, endpoint).whole(value)
            streams = endpoint.line is not None and asked.body.get("stream") is not False
            check(not streams or "load" in str(value.get("done_reason")), "one object, but lines were wanted")
        check(self._status == 200 or asked.path.startswith(BLOBS), "Continue takes 200 only")

    def _failure(self, body: bytes) -> None:
        status, path = self._status, _judged_as(self._asked.path)
        if status in (301, 307):
            check(self._headers.get("location", "").startswith("/"), "nowhere to go")
        elif status == 204 or (status == 403 and not body):
            check((self._type, body) == ("", b""), f"something instead of nothing: {self._type}, {body!r}")
        elif status == 405:
            check((self._type, body) == (TEXT, b"405 method not allowed"), f"{self._type}: {body!r}")
            check("allow" in self._headers, "no Allow")
        elif status == 404 and self._endpoint is None and (self._type == TEXT or not path.startswith(PASSED_ON)):
            check((self._type, body) == (TEXT, b"404 page not found"), f"{self._type}: {body!r}")
        else:
            check(status >= 400, f"status {status}")
            # ollama-js reads the error only of what says that it is JSON.
            check(self._type in (JSON, PLAIN_JSON), f"an error as {self._type!r}")
            value = parse(body.removesuffix(b"\n") if path.startswith("/v1/") else body)
            if path == "/health":
                return
            # The cloud has one form on all APIs that Ollama has, and /v1/systemone has Ollama's own.
            is_cloud = status == 403 and path.startswith("/v1/") and isinstance(value.get("error"), str)
            if not path.startswith(PASSED_ON) or is_cloud or path == "/v1/systemone":
                validate(answers.Error, value)
            else:
                messages = path.startswith("/v1/messages")
                validate(answers.AnthropicError if messages else answers.OpenAIError, value)
