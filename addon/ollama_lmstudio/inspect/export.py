"""Export exchanges without secrets: as Markdown, as the client's `curl` command, as JSON Lines for fine-tuning."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from ..record.redaction import without_secrets
from ..translate.paths import CHAT_COMPLETIONS
from ..unicode import well_formed
from . import answers, jsontext, numbers, summary
from .answers import ParsedAnswer
from .conversation import ParsedMessage, ParsedToolCall, read_request
from .render_parts import excerpt
from .snapshot import SECRET_HEADERS, Snapshot

# Headers that curl sets itself, and hop-by-hop headers (RFC 9110, section 7.6.1).
_LEFT_TO_CURL = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
# A field name (RFC 9110, section 5.1): a token.
_NAME = re.compile(r"[\w.!#$%&'*+^`|~-]+", re.ASCII)
# A longer argument does not fit everywhere: Linux allows 128 KiB for one (MAX_ARG_STRLEN), with its quoting.
ARGUMENT_BYTES = 100_000
# The length of a line of base64 (RFC 2045, section 6.8).
_BASE64_WIDTH = 76
# Limits of an error message and of code within a line, in Markdown.
_ERROR_CHARACTERS = 2000
_CODE_CHARACTERS = 500
_DATA_CHARACTERS = 1_000_000

# The method that curl uses by default: with a body, and without.
_DEFAULT_METHOD = {True: "POST", False: "GET"}


class NotExportable(ValueError):  # noqa: N818
    """An exchange cannot be exported in a format; the message says why."""


# Markdown


def markdown(snapshot: Snapshot) -> str:
    """Return an exchange as Markdown: the request and the response."""
    parts = [f"## {snapshot.client_method} {_inline(snapshot.client_target)}", *_facts(snapshot)]
    request = read_request(snapshot.client_body, snapshot.client_path)
    for name, value in request.fields.items():
        parts.append(f"- {_inline(name)}: {_inline(jsontext.without_base64(jsontext.compact(value)))}")
    if request.options:
        parts.append(f"- options: {_inline(jsontext.compact(request.options))}")
    for tool in request.tools:
        description = jsontext.one_line(tool.description)
        parts.append(f"- tool {_inline(str(tool))}{f': {description}' if description else ''}")
    sections = ["\n".join(parts)]
    sections += [section for message in request.messages for section in _message(message)]
    if request.texts:
        sections.append("### texts\n\n" + "\n".join(f"1. {jsontext.one_line(text)}" for text in request.texts))
    if request.problem:
        sections.append(f"The body is {request.problem}.")
    sections += _answer(snapshot)
    return well_formed("\n\n".join(sections)) + "\n"


def _facts(snapshot: Snapshot) -> Iterator[str]:
    record = snapshot.record
    yield ""
    if record.model:
        upstream = f", LM Studio's {_inline(record.upstream_model)}" if record.upstream_model else ""
        yield f"- model: {_inline(record.model)}{upstream}"
    if record.key:
        yield f"- key: {_inline(record.key)}"
    if snapshot.status:
        yield f"- status: {snapshot.status}"


def _message(message: ParsedMessage) -> Iterator[str]:
    yield f"### {jsontext.one_line(f'{message.role} {message.answers}')}"
    if message.thinking:
        yield _quoted(message.thinking)
    text = jsontext.without_base64(message.text)
    if text:
        yield text
    if message.attachments:
        yield " ".join(map(str, message.attachments))
    for call in message.tool_calls:
        yield _call(call)


def _call(call: ParsedToolCall) -> str:
    value, problem = jsontext.read(call.arguments)
    arguments = call.arguments if problem else jsontext.pretty(value)
    return f"calls {_inline(call.name or '?')}\n\n{_fenced(jsontext.without_base64(arguments), 'json')}"


def _answer(snapshot: Snapshot) -> Iterator[str]:
    answer = answers.read_answer(snapshot.response or b"", snapshot.content_type)
    if answer.has_answer:
        yield from _message(ParsedMessage("assistant", answer.text, answer.thinking, (), answer.tool_calls))
    elif answer.data is not None:
        text = excerpt(answer.data, _DATA_CHARACTERS)
        yield f"### answer\n\n{_fenced(text, 'json')}"
    elif answer.plain or answer.progress:
        yield f"### answer\n\n{answer.plain or answer.progress[-1].status}"
    known = [f"{name} {text}" for name, text in numbers.lines(snapshot.record.numbers or answer.numbers, snapshot)]
    if known:
        yield f"*{', '.join(known)}*"
    error = snapshot.error or answer.error
    if error:
        yield f"**Error:** {jsontext.one_line(error, _ERROR_CHARACTERS)}"


def _inline(text: str) -> str:
    """Return a code span (CommonMark, section 6.1): its fence is longer than any run of backticks in the text."""
    text = jsontext.one_line(text, _CODE_CHARACTERS)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}" if text else ""


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in jsontext.without_base64(text).splitlines())


# curl


def curl(snapshot: Snapshot, address: str) -> str:
    """Return the client's request as a command for a POSIX shell.

    `address` is the bridge's, such as `http://localhost:11434`. Raises NotExportable where there is no client, or where
    not all of its body was kept.
    """
    if snapshot.is_internal:
        raise NotExportable("a call of the bridge's own has no client")
    body = snapshot.client_body
    if snapshot.record.is_cut(snapshot.record.request_size, len(body)):
        raise NotExportable("not all of the request's body was kept")
    body = without_secrets(body)
    method, target = snapshot.client_method, snapshot.client_target
    arguments = ["curl"]
    if method == "HEAD":
        arguments.append("--head")
    elif method != _DEFAULT_METHOD[bool(body)]:
        arguments += ["-X", method]
    if body:
        # Show each line of a stream as it comes.
        arguments.append("--no-buffer")
    # By default curl expands brackets and braces in a URL, and removes dot segments.
    if set("[]{}") & set(target) or "/." in target:
        arguments += ["--globoff", "--path-as-is"]
    arguments.append(address.rstrip("/") + target)
    for name, value in _headers(snapshot):
        # curl sends a header without a value only if a semicolon ends it.
        arguments += ["-H", f"{name}: {value}" if value else f"{name};"]
    return well_formed(_command(arguments, body))


def _headers(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    for name, value in snapshot.client_headers:
        # Where a header begins with an @, curl would read a file of headers.
        if name.lower() not in _LEFT_TO_CURL | SECRET_HEADERS and _NAME.fullmatch(name):
            yield name, value


def _command(arguments: list[str], body: bytes) -> str:
    command = shlex.join(arguments)
    if not body:
        return command
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    # Where a body begins with an @, curl would read a file; no argument can hold a NUL.
    if text.startswith("@") or "\0" in text or len(body) > ARGUMENT_BYTES:
        encoded = base64.b64encode(body).decode()
        lines = [encoded[at : at + _BASE64_WIDTH] for at in range(0, len(encoded), _BASE64_WIDTH)]
        return "\n".join([f"base64 -d <<'END' | {command} --data-binary @-", *lines, "END"])
    return f"{command} --data-binary {shlex.quote(text)}"


# Fine-tuning


def jsonl(snapshot: Snapshot) -> str:
    """Return a conversation as one line for fine-tuning, in OpenAI's format: `{"messages": [...], "tools": [...]}`.

    The messages are those that LM Studio got, and its answer. Raises NotExportable for what is no chat completion, or
    has no complete answer.
    """
    call = jsontext.read(snapshot.body)
    messages = call.value.get("messages") if isinstance(call.value, dict) and not call.problem else None
    path = snapshot.path.partition("?")[0]
    if not snapshot.called or not path.endswith(CHAT_COMPLETIONS) or not isinstance(messages, list) or not messages:
        raise NotExportable("it is no conversation")
    if summary.has_failed(snapshot) or snapshot.status != HTTPStatus.OK:
        raise NotExportable("it did not end well")
    body = snapshot.response or b""
    if snapshot.record.is_cut(snapshot.record.response_size, len(body)):
        raise NotExportable("not all of the answer was kept")
    answer = answers.read_answer(body, snapshot.content_type)
    if answer.error or answer.problems or not answer.done or answer.finish not in _COMPLETE:
        raise NotExportable(f"the answer is not whole ({answer.finish or answer.error or 'it has no end'})")
    if not (answer.text or answer.tool_calls):
        raise NotExportable("the answer is empty")
    line: dict[str, Any] = {"messages": [*messages, _assistant_message(answer)]}
    if call.value.get("tools"):
        line["tools"] = call.value["tools"]
    return well_formed(jsontext.compact(line))


# The finish reasons of a complete answer.
_COMPLETE = frozenset({"stop", "tool_calls"})


def _assistant_message(answer: ParsedAnswer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id or f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for number, call in enumerate(answer.tool_calls, 1)
        ]
    return message


def write(snapshot: Snapshot, form: str, address: str) -> str:
    """Return an exchange in one of FORMATS; raises NotExportable."""
    return FORMATS[form](snapshot, address)


FORMATS: Mapping[str, Callable[[Snapshot, str], str]] = {
    "markdown": lambda snapshot, address: markdown(snapshot),
    "curl": lambda snapshot, address: curl(snapshot, address) + "\n",
    "jsonl": lambda snapshot, address: jsonl(snapshot) + "\n",
}
SUFFIXES: Mapping[str, str] = {".md": "markdown", ".markdown": "markdown", ".sh": "curl", ".jsonl": "jsonl"}
