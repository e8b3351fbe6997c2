"""One line about an exchange, for the flow's comment, and its mark in the list of flows.

They are made on the event loop, so nothing here parses a whole stream: of a long body only the beginning or the end is
read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from mitmproxy import http

from ..lmstudio.errors import peel
from ..record import record as records
from ..record.record import LEFT, PREFIX, Numbers, Record
from ..translate import first_words
from ..translate.first_words import CALLS, RESULT
from ..unicode import well_formed
from ..units import plural, size
from . import answers, conversation, jsontext, response_data
from . import snapshot as snapshots
from .quantities import duration, speed
from .snapshot import Snapshot

# What fits on a line: of the whole comment, of the model's name in it, and of an error message.
COMMENT_CHARACTERS = 200
NAME_CHARACTERS = 60
MESSAGE_CHARACTERS = 120
# A longer body is not parsed for its summary: that would hold up the event loop.
PARSED_BYTES = 262_144

# What fits of the prompt: 35 characters are to show which model it was for, too.
PROMPT_CHARACTERS = 28
OWN = "(bridge)"
"""Begins the summary of a call that the bridge has made on its own."""
EMBEDDINGS = ("embed", "embeddings", "v1/embeddings")

# Of an answer that was passed through, so much is parsed for its first words.
ANSWER_BYTES = 4096

# The done, finish and stop reasons of an answer that reached a limit, as each API calls them.
CUT_OFF = ("length", "max_tokens", "max_output_tokens", "incomplete")

CROSS = "✗ "
"""What the comment of a failed request begins with."""

# The first embedding in a response, of Ollama or LM Studio, as far as the next bracket.
_VECTOR = re.compile(rb'"embeddings?"\s*:\s*\[\s*\[?([^\]\[]*)\]')
# The same in base64, of 32 bit floats: three bytes for four letters, without the padding.
_BASE64_VECTOR = re.compile(rb'"embedding"\s*:\s*"([A-Za-z0-9+/]+)')


def comment(snapshot: Snapshot) -> str:
    """Return a summary of an exchange: `"Why is the sky blue?" [tools]  llama3.2  42 tok/s, first token 310 ms`.

    What tells it from others comes first: of a list, 35 characters may be all that is seen.
    """
    # While it runs, the status may be that of a call which is made once more, when the model has been loaded.
    trouble = "" if snapshot.record.state else failure_text(snapshot)
    numbers = ", ".join(facts(snapshot))
    if snapshot.is_internal:
        parts = [f"{OWN} {snapshot.record.purpose or 'call'}", trouble, snapshot.record.state, numbers]
    else:
        name = model_name(snapshot)
        # LM Studio's words often name the model already.
        shown = "" if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", trouble) else name
        # mitmweb shows marks beside the path, for which a line has no room.
        trouble = f"{CROSS}{trouble}" if trouble and is_error(snapshot) else trouble
        asker = f"by {snapshot.record.key}" if snapshot.record.key else ""
        parts = [trouble, snapshot.record.state, *_subject(snapshot, shown), numbers, asker]
    text = "  ".join(filter(None, (jsontext.one_line(part, COMMENT_CHARACTERS) for part in parts)))
    return well_formed(text if len(text) <= COMMENT_CHARACTERS else f"{text[: COMMENT_CHARACTERS - 3]}...")


def _subject(snapshot: Snapshot, name: str) -> Sequence[str]:
    """Return what the exchange is about: what was said and the model, else the endpoint."""
    record = snapshot.record
    calls = record.answer if record.answer.startswith(CALLS) else ""
    said = " ".join(filter(None, (quoted(record.prompt, PROMPT_CHARACTERS), calls, record.signs)))
    if said and is_conversation(snapshot):
        return said, name
    if snapshot.endpoint in EMBEDDINGS:
        # The texts are counted first; the name comes after that.
        return (snapshot.endpoint,)
    return (f"{snapshot.endpoint} {name}".strip(),)


def quoted(text: str, limit: int) -> str:
    """Return the beginning of a text in quotes; a mark of what it is stays before them."""
    if not text:
        return ""
    mark = RESULT if text.startswith(RESULT) else ""
    return f'{mark}"{jsontext.one_line(text.removeprefix(mark), limit)}"'


def failure_text(snapshot: Snapshot) -> str:
    """Return what went wrong: with its status, or of an answer that broke with how much of it had come."""
    if not has_failed(snapshot) or _found_nothing(snapshot):
        return ""
    message = jsontext.one_line(failure(snapshot), MESSAGE_CHARACTERS)
    if snapshot.status >= HTTPStatus.BAD_REQUEST:
        # Ollama's message for an unknown path, `404 page not found`, begins with the status itself.
        return message if message.startswith(f"{snapshot.status} ") else f"{snapshot.status} {message}".strip()
    numbers = snapshot.record.numbers or Numbers()
    come = ""
    if numbers.answer_tokens:
        come = f"{numbers.answer_tokens:,} {plural(numbers.answer_tokens, 'token')}"
    elif numbers.total and not snapshot.status and not snapshot.is_internal:
        # mitmweb's column of times has none for a flow without a response.
        come = duration(numbers.total)
    if not come:
        return message
    # The end of a sentence; not that of a long message, which has an ellipsis.
    return f"{message if message.endswith('...') else message.removesuffix('.')}, after {come}"


def facts(snapshot: Snapshot) -> list[str]:
    """Return the numbers of an exchange, or what else its endpoint has to say; the first says most."""
    found = [fact for fact in _facts(snapshot) if fact]
    if is_cut_off(snapshot) and not has_failed(snapshot):
        found.append("cut off: length")
    if snapshot.is_internal and snapshot.duration:
        found.append(duration(snapshot.duration))
    if snapshot.replayed:
        found.append("replay")
    return found


def has_failed(snapshot: Snapshot) -> bool:
    """Return whether the exchange ended with an error of any kind."""
    return bool(snapshot.error) or snapshot.status >= HTTPStatus.BAD_REQUEST


def failure(snapshot: Snapshot) -> str:
    """Return the error message: the exchange's own, else that of the response's body, else the status's reason."""
    if snapshot.error or not snapshot.response:
        return snapshot.error or snapshot.reason
    value = _small_json(snapshot.response)
    if isinstance(value, dict):
        return peel(value).message
    return snapshot.response[:PARSED_BYTES].decode("utf-8", "replace")


def is_broken(snapshot: Snapshot) -> bool:
    """Return whether the error came after a response had begun as a success."""
    return bool(snapshot.error) and 0 < snapshot.status < HTTPStatus.BAD_REQUEST


def is_cut_off(snapshot: Snapshot) -> bool:
    """Return whether the answer ended at a limit of its length."""
    return _done_reason(snapshot) in CUT_OFF


def is_left(snapshot: Snapshot) -> bool:
    """Return whether an answer that had begun was broken off by the client or the user: nothing has failed then."""
    return is_broken(snapshot) and snapshot.error.startswith(LEFT)


def is_error(snapshot: Snapshot) -> bool:
    """Return whether the request failed, or its answer broke.

    A HEAD request that gets a 404 asked whether something exists: no failure.
    """
    return has_failed(snapshot) and not is_left(snapshot) and not _found_nothing(snapshot)


def _found_nothing(snapshot: Snapshot) -> bool:
    return snapshot.client_method == "HEAD" and snapshot.status == HTTPStatus.NOT_FOUND


FAILED = ":x:"
# Predicate -> the mark in mitmproxy's list of flows; the first that holds is taken.
MARKS: Sequence[tuple[Callable[[Snapshot], bool], str]] = (
    (lambda snapshot: snapshot.is_internal, ":gear:"),
    (is_error, FAILED),
    (lambda snapshot: is_left(snapshot) or is_cut_off(snapshot), ":scissors:"),
    (lambda snapshot: snapshot.replayed, ":repeat:"),
)


def mark(snapshot: Snapshot) -> str:
    """Return the name of one of mitmproxy's emojis; empty for an exchange without a mark."""
    if snapshot.record.state and not snapshot.is_internal:
        return ""  # the status may be that of a call which is made once more
    return next((emoji for holds, emoji in MARKS if holds(snapshot)), "")


def has_mark_of_failure(flow: http.HTTPFlow) -> bool:
    """Return whether the mark that a flow has been given says that it failed, whatever mark the user has set."""
    return bool(flow.metadata.get(f"{PREFIX}marked") == FAILED)


def speed_of(flow: http.HTTPFlow) -> str:
    """Return the tokens per second of a flow's answer; empty where they are not known."""
    record = records.of(flow)
    return speed(record.numbers) if record is not None and record.numbers is not None else ""


def is_conversation(snapshot: Snapshot) -> bool:
    """Return whether a model is asked to say something."""
    return snapshot.is_chat or snapshot.endpoint in ("chat", "generate")


def model_name(snapshot: Snapshot) -> str:
    """Return the model's name, as short as it is clear: without publisher or registry, and without `:latest`."""
    name = snapshot.record.model
    if not name and snapshot.client_body[:1].lstrip() == b"{" and len(snapshot.client_body) <= PARSED_BYTES:
        name = _request(snapshot).model
    return jsontext.one_line(name.removesuffix(":latest").rpartition("/")[2] or name, NAME_CHARACTERS)


def _request(snapshot: Snapshot) -> conversation.ParsedRequest:
    body = snapshot.client_body
    return conversation.read_request(body if len(body) <= PARSED_BYTES else b"", snapshot.client_path)


def _small_json(body: bytes | None) -> Any:
    return jsontext.read(body).value if body and len(body) <= PARSED_BYTES else None


def _done_reason(snapshot: Snapshot) -> str:
    return snapshot.record.numbers.done_reason if snapshot.record.numbers else ""


def _facts(snapshot: Snapshot) -> list[str]:
    if has_failed(snapshot) and not is_broken(snapshot) and not _found_nothing(snapshot):
        return []
    if snapshot.is_streaming and snapshot.is_chat:
        # While it comes, the line is made anew each second: a stream of events is not parsed for it.
        return []
    numbers = snapshot.record.numbers
    if numbers is not None and (numbers.answer_tokens or numbers.first_token):
        return _speed(snapshot, numbers)
    facts_of = _FACTS.get(snapshot.endpoint)
    if facts_of is not None:
        return facts_of(snapshot)
    return _list(snapshot)


def _speed(snapshot: Snapshot, numbers: Numbers) -> list[str]:
    tokens = f"{_count(numbers.prompt_tokens)} + {_count(numbers.answer_tokens)} tokens"
    known = (numbers.prompt_tokens or numbers.answer_tokens) and not has_failed(snapshot)
    return [
        speed(numbers),
        f"first token {duration(numbers.first_token)}" if numbers.first_token else "",
        tokens if known else "",
    ]


def _count(tokens: int) -> str:
    return f"{tokens:,}" if tokens else "?"


def _chat(snapshot: Snapshot) -> list[str]:
    """Return what a request without a prompt did: Ollama loads or unloads the model for it."""
    value = _small_json(snapshot.response)
    reason = value.get("done_reason") if isinstance(value, dict) else None
    return [{"load": "loaded", "unload": "unloaded"}.get(str(reason), "")]


def _embeddings(snapshot: Snapshot) -> list[str]:
    request = _request(snapshot)
    count = len(request.texts) or len(request.messages)
    beginning = (snapshot.response or b"")[:PARSED_BYTES]
    found = _VECTOR.search(beginning)
    values = found[1].count(b",") + 1 if found and found[1].strip() else 0
    if encoded := _BASE64_VECTOR.search(beginning):
        values = len(encoded[1]) * 3 // 4 // response_data.FLOAT_BYTES
    return [
        f"{count:,} {plural(count, 'text')}" if count else "",
        f"{values:,} dimensions" if values else "",
        model_name(snapshot),
    ]


def _list(snapshot: Snapshot) -> list[str]:
    value = _small_json(snapshot.response)
    entries = jsontext.models(value)
    if entries is not None:
        return [f"{len(entries)} {plural(len(entries), 'model')}"]
    # The status of a download, or of the bridge (/health).
    return [jsontext.text_at(value, "status")]


def _description(snapshot: Snapshot) -> list[str]:
    value = _small_json(snapshot.response)
    can = value.get("capabilities") if isinstance(value, dict) else None
    return [" ".join(map(str, can))] if isinstance(can, list) else []


def _version(snapshot: Snapshot) -> list[str]:
    return [jsontext.text_at(_small_json(snapshot.response), "version")]


def _progress(snapshot: Snapshot) -> list[str]:
    """Return the status in the last line."""
    lines = (snapshot.response or b"")[-PARSED_BYTES:].rstrip().rpartition(b"\n")
    return [jsontext.text_at(jsontext.read(lines[2]).value, "status")]


def _copy(snapshot: Snapshot) -> list[str]:
    fields = _request(snapshot).fields
    return [f"{fields.get('source', '?')} -> {fields.get('destination', '?')}"]


def _blob(snapshot: Snapshot) -> list[str]:
    digest = snapshot.client_path.rpartition("/")[2][:19]
    length = snapshot.record.request_size
    return ["not there" if _found_nothing(snapshot) else "", digest, size(length) if length else ""]


# Endpoint -> what is worth showing of it; of all others, the number of models in a list.
_FACTS: Mapping[str, Callable[[Snapshot], list[str]]] = {
    "blobs": _blob,
    "chat": _chat,
    "copy": _copy,
    "create": _progress,
    "embed": _embeddings,
    "embeddings": _embeddings,
    "generate": _chat,
    "pull": _progress,
    "push": _progress,
    "show": _description,
    "v1/embeddings": _embeddings,
    "version": _version,
}


def _read_answer(snapshot: Snapshot) -> None:
    """Fill in the first words of an answer that was passed through, of its beginning."""
    answer = answers.read_answer((snapshot.response or b"")[:ANSWER_BYTES], snapshot.content_type)
    words = first_words.of_answer([answer.text], [call.name for call in answer.tool_calls], bool(answer.thinking))
    snapshot.record.answer = words.text
    if words.signs not in snapshot.record.signs:
        # An answer of thoughts alone, as far as it is read, has no words by which it is known that it was read.
        snapshot.record.signs = f"{snapshot.record.signs} {words.signs}".strip()


def _read_prompt(snapshot: Snapshot) -> None:
    """Fill in the first words of a request that became no call, or not yet, or that an old file has."""
    body = snapshot.client_body
    value = _small_json(body) if body[:1] == b"{" else None
    if isinstance(value, dict):
        words = first_words.of_members(value.get)
        snapshot.record.prompt, snapshot.record.signs = words.text, words.signs


def label(flow: http.HTTPFlow, record: Record | None = None) -> None:
    """Set a flow's comment and mark, unless the user has set others. `record` is what its metadata holds."""
    record = record or records.of(flow)
    if record is None or not record.is_known:
        return
    snapshot = snapshots.for_summary(flow, record)
    if snapshot.is_chat and record.kind == "relay" and record.numbers is not None and not record.answer:
        _read_answer(snapshot)
        record.save(flow.metadata)
    is_told = bool(record.state or record.numbers is not None or has_failed(snapshot))
    if is_told and is_conversation(snapshot) and not (record.prompt or record.signs):
        _read_prompt(snapshot)
        record.save(flow.metadata)
    for name, text in (("comment", comment(snapshot)), ("marked", mark(snapshot))):
        if getattr(flow, name) in ("", flow.metadata.get(f"{PREFIX}{name}")):
            setattr(flow, name, text)
            flow.metadata[f"{PREFIX}{name}"] = text
