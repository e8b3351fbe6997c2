"""One line about an exchange, for the flow's comment, and a mark for the list. Made once, when the exchange has ended:
nothing here looks at single tokens, and of long bodies only at their begin or their end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from mitmproxy import http

from ..lmstudio.errors import peel
from ..record.record import PREFIX, Numbers
from ..unicode import well_formed
from ..units import plural, size
from . import jsontext, response_data
from . import snapshot as snapshots
from .conversation import ParsedRequest, read_request
from .render import duration, speed
from .snapshot import Snapshot

COMMENT_CHARACTERS = 200
NAME_CHARACTERS = 60
MESSAGE_CHARACTERS = 120
# A longer body is not parsed for its summary.
PARSED_BYTES = 262_144

# What the APIs call the end of an answer that had more to come.
CUT_OFF = ("length", "max_tokens", "max_output_tokens", "incomplete")

# The begin of the first embedding in an answer, Ollama's or LM Studio's.
_VECTOR = re.compile(rb'"embeddings?"\s*:\s*\[\s*\[?([^\]\[]*)\]')


def comment(snapshot: Snapshot) -> str:
    """Sum an exchange up: `chat llama3.2: 42 tok/s, first token 310 ms, 512 + 87 tokens`."""
    failed = has_failed(snapshot)
    facts = [fact for fact in _facts(snapshot) if fact] if not failed or is_broken(snapshot) else []
    if failed:
        what = f"{snapshot.status}" if snapshot.status >= 400 else "then" if facts else ""
        message = jsontext.one_line(failure(snapshot), MESSAGE_CHARACTERS)
        # Ollama's text for what it does not have begins with the status.
        facts.append(message if what and message.startswith(f"{what} ") else f"{what} {message}".strip())
    elif is_cut_off(snapshot):
        facts.append("cut off: length")
    if snapshot.is_internal and snapshot.took:
        facts.append(duration(snapshot.took))
    if snapshot.replayed:
        facts.append("replay")
    if snapshot.is_internal:
        subject = snapshot.record.purpose or "own call"
    else:
        subject = f"{snapshot.endpoint} {_name(snapshot)}".strip()
    text = ", ".join(facts)
    return well_formed(jsontext.one_line(f"{subject}: {text}" if text else subject, COMMENT_CHARACTERS))


def has_failed(snapshot: Snapshot) -> bool:
    """Whether something went wrong."""
    return bool(snapshot.error) or snapshot.status >= 400


def failure(snapshot: Snapshot) -> str:
    """Say what went wrong, as far as anybody told."""
    if snapshot.error or not snapshot.response:
        return snapshot.error or snapshot.reason
    value = _small_json(snapshot.response)
    if isinstance(value, dict):
        return peel(value).message
    return snapshot.response[:PARSED_BYTES].decode("utf-8", "replace")


def is_broken(snapshot: Snapshot) -> bool:
    """Whether an answer had begun when it failed."""
    return bool(snapshot.error) and 0 < snapshot.status < 400


def is_cut_off(snapshot: Snapshot) -> bool:
    """Whether the model had more to say."""
    return _done_reason(snapshot) in CUT_OFF


def is_error(snapshot: Snapshot) -> bool:
    """Whether there is no answer. That a HEAD finds nothing is an answer, too."""
    found_nothing = snapshot.client_method == "HEAD" and snapshot.status == HTTPStatus.NOT_FOUND
    return has_failed(snapshot) and not is_broken(snapshot) and not found_nothing


# The mark of an exchange in mitmproxy's list: the first that holds.
MARKS: Sequence[tuple[Callable[[Snapshot], bool], str]] = (
    (lambda snapshot: snapshot.is_internal, ":gear:"),
    (is_error, ":x:"),
    (lambda snapshot: is_broken(snapshot) or is_cut_off(snapshot), ":scissors:"),
    (lambda snapshot: snapshot.replayed, ":repeat:"),
)


def mark(snapshot: Snapshot) -> str:
    """Give the name of an emoji that mitmproxy knows; empty for what needs no mark."""
    return next((emoji for holds, emoji in MARKS if holds(snapshot)), "")


def _name(snapshot: Snapshot) -> str:
    name = snapshot.record.model
    if not name and snapshot.client_body[:1].lstrip() == b"{" and len(snapshot.client_body) <= PARSED_BYTES:
        name = _request(snapshot).model
    return jsontext.one_line(name.removesuffix(":latest"), NAME_CHARACTERS)


def _request(snapshot: Snapshot) -> ParsedRequest:
    body = snapshot.client_body
    return read_request(body if len(body) <= PARSED_BYTES else b"", snapshot.client_path)


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
    """Tell of a request without a prompt, which loads or unloads; of an answer without numbers there is nothing to."""
    value = _small_json(snapshot.response)
    reason = value.get("done_reason") if isinstance(value, dict) else None
    return [{"load": "loaded", "unload": "unloaded"}.get(str(reason), "")]


def _embeddings(snapshot: Snapshot) -> list[str]:
    request = _request(snapshot)
    count = len(request.texts) or len(request.messages)
    found = _VECTOR.search((snapshot.response or b"")[:PARSED_BYTES])
    values = found[1].count(b",") + 1 if found and found[1].strip() else 0
    return [f"{count} {plural(count, 'text')}" if count else "", f"{values} dimensions" if values else ""]


def _list(snapshot: Snapshot) -> list[str]:
    value = _small_json(snapshot.response)
    entries = response_data.models(value)
    if entries is not None:
        return [f"{len(entries)} {plural(len(entries), 'model')}"]
    # The state of a download, or of a server.
    return [jsontext.text_at(value, "status")]


def _description(snapshot: Snapshot) -> list[str]:
    value = _small_json(snapshot.response)
    can = value.get("capabilities") if isinstance(value, dict) else None
    return [" ".join(map(str, can))] if isinstance(can, list) else []


def _version(snapshot: Snapshot) -> list[str]:
    return [jsontext.text_at(_small_json(snapshot.response), "version")]


def _progress(snapshot: Snapshot) -> list[str]:
    """Tell the last state; the last line is enough for that."""
    lines = (snapshot.response or b"")[-PARSED_BYTES:].rstrip().rpartition(b"\n")
    return [jsontext.text_at(jsontext.read(lines[2]).value, "status")]


def _copy(snapshot: Snapshot) -> list[str]:
    fields = _request(snapshot).fields
    return [f"{fields.get('source', '?')} -> {fields.get('destination', '?')}"]


def _blob(snapshot: Snapshot) -> list[str]:
    digest = snapshot.client_path.rpartition("/")[2][:19]
    length = snapshot.record.request_size
    return [f"{digest}, {size(length)}" if length else digest]


# What there is to tell of each endpoint; of all others, the number of models in a list.
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


def label(flow: http.HTTPFlow) -> None:
    """Set a flow's comment and mark, unless the user gave it others."""
    snapshot = snapshots.of(flow)
    if snapshot is None:
        return
    for name, text in (("comment", comment(snapshot)), ("marked", mark(snapshot))):
        if getattr(flow, name) in ("", flow.metadata.get(f"{PREFIX}{name}")):
            setattr(flow, name, text)
            flow.metadata[f"{PREFIX}{name}"] = text
