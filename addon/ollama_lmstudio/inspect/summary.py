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
from ..record.record import PREFIX, Numbers, Record
from ..unicode import well_formed
from ..units import plural, size
from . import conversation, jsontext, response_data
from . import snapshot as snapshots
from .quantities import duration, speed
from .snapshot import Snapshot

# What fits on a line: of the whole comment, of the model's name in it, and of an error message.
COMMENT_CHARACTERS = 200
NAME_CHARACTERS = 60
MESSAGE_CHARACTERS = 120
# A longer body is not parsed for its summary: that would hold up the event loop.
PARSED_BYTES = 262_144

# The done, finish and stop reasons of an answer that reached a limit, as each API calls them.
CUT_OFF = ("length", "max_tokens", "max_output_tokens", "incomplete")

# The first embedding in a response, of Ollama or LM Studio, as far as the next bracket.
_VECTOR = re.compile(rb'"embeddings?"\s*:\s*\[\s*\[?([^\]\[]*)\]')
# The same in base64, of 32 bit floats: three bytes for four letters, without the padding.
_BASE64_VECTOR = re.compile(rb'"embedding"\s*:\s*"([A-Za-z0-9+/]+)')


def comment(snapshot: Snapshot) -> str:
    """Return a summary of an exchange: `chat llama3.2: 42 tok/s, first token 310 ms, 512 + 87 tokens`."""
    failed = has_failed(snapshot)
    facts = [fact for fact in _facts(snapshot) if fact] if not failed or is_broken(snapshot) else []
    if failed:
        what = f"{snapshot.status}" if snapshot.status >= HTTPStatus.BAD_REQUEST else "then" if facts else ""
        message = jsontext.one_line(failure(snapshot), MESSAGE_CHARACTERS)
        # Ollama's message for an unknown path, `404 page not found`, begins with the status itself.
        facts.append(message if what and message.startswith(f"{what} ") else f"{what} {message}".strip())
    elif is_cut_off(snapshot):
        facts.append("cut off: length")
    if snapshot.is_internal and snapshot.duration:
        facts.append(duration(snapshot.duration))
    if snapshot.replayed:
        facts.append("replay")
    if snapshot.is_internal:
        subject = f"(bridge) {snapshot.record.purpose or 'own call'}"
    else:
        subject = f"{snapshot.endpoint} {_name(snapshot)}".strip()
    text = ", ".join(facts)
    line = f"{snapshot.record.state}, {subject}" if snapshot.record.state else f"{subject}: {text}" if text else subject
    return well_formed(jsontext.one_line(line, COMMENT_CHARACTERS))


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


def is_error(snapshot: Snapshot) -> bool:
    """Return whether the request failed. A HEAD request that gets a 404 asked whether something exists: no failure."""
    found_nothing = snapshot.client_method == "HEAD" and snapshot.status == HTTPStatus.NOT_FOUND
    return has_failed(snapshot) and not is_broken(snapshot) and not found_nothing


# Predicate -> the mark in mitmproxy's list of flows; the first that holds is taken.
MARKS: Sequence[tuple[Callable[[Snapshot], bool], str]] = (
    (lambda snapshot: snapshot.is_internal, ":gear:"),
    (is_error, ":x:"),
    (lambda snapshot: is_broken(snapshot) or is_cut_off(snapshot), ":scissors:"),
    (lambda snapshot: snapshot.replayed, ":repeat:"),
)


def mark(snapshot: Snapshot) -> str:
    """Return the name of one of mitmproxy's emojis; empty for an exchange without a mark."""
    if snapshot.record.state and not snapshot.is_internal:
        return ""  # the status may be that of a call which is made once more
    return next((emoji for holds, emoji in MARKS if holds(snapshot)), "")


def _name(snapshot: Snapshot) -> str:
    name = snapshot.record.model
    if not name and snapshot.client_body[:1].lstrip() == b"{" and len(snapshot.client_body) <= PARSED_BYTES:
        name = _request(snapshot).model
    return jsontext.one_line(name.removesuffix(":latest"), NAME_CHARACTERS)


def _request(snapshot: Snapshot) -> conversation.ParsedRequest:
    body = snapshot.client_body
    return conversation.read_request(body if len(body) <= PARSED_BYTES else b"", snapshot.client_path)


def _small_json(body: bytes | None) -> Any:
    return jsontext.read(body).value if body and len(body) <= PARSED_BYTES else None


def _done_reason(snapshot: Snapshot) -> str:
    return snapshot.record.numbers.done_reason if snapshot.record.numbers else ""


def _facts(snapshot: Snapshot) -> list[str]:
    numbers = snapshot.record.numbers
    if numbers is not None and (numbers.answer_tokens or numbers.first_token):
        return _speed(numbers)
    facts_of = _FACTS.get(snapshot.endpoint)
    if facts_of is not None:
        return facts_of(snapshot)
    return _list(snapshot)


def _speed(numbers: Numbers) -> list[str]:
    tokens = f"{numbers.prompt_tokens or '?'} + {numbers.answer_tokens or '?'} tokens"
    known = numbers.prompt_tokens or numbers.answer_tokens
    return [
        speed(numbers),
        f"first token {duration(numbers.first_token)}" if numbers.first_token else "",
        tokens if known else "",
    ]


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
    return [f"{count} {plural(count, 'text')}" if count else "", f"{values} dimensions" if values else ""]


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
    return [f"{digest}, {size(length)}" if length else digest]


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


def label(flow: http.HTTPFlow, record: Record | None = None) -> None:
    """Set a flow's comment and mark, unless the user has set others. `record` is what its metadata holds."""
    record = record or records.of(flow)
    if record is None or not record.is_known:
        return
    snapshot = snapshots.for_summary(flow, record)
    for name, text in (("comment", comment(snapshot)), ("marked", mark(snapshot))):
        if getattr(flow, name) in ("", flow.metadata.get(f"{PREFIX}{name}")):
            setattr(flow, name, text)
            flow.metadata[f"{PREFIX}{name}"] = text
