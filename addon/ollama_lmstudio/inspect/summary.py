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
from . import jsontext, listings
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


def comment(exchange: Snapshot) -> str:
    """Sum an exchange up: `chat llama3.2: 42 tok/s, first token 310 ms, 512 + 87 tokens`."""
    failed = has_failed(exchange)
    facts = [fact for fact in _facts(exchange) if fact] if not failed or is_broken(exchange) else []
    if failed:
        what = f"{exchange.status}" if exchange.status >= 400 else "then" if facts else ""
        message = jsontext.one_line(failure(exchange), MESSAGE_CHARACTERS)
        # Ollama's text for what it does not have begins with the status.
        facts.append(message if what and message.startswith(f"{what} ") else f"{what} {message}".strip())
    elif is_cut_off(exchange):
        facts.append("cut off: length")
    if exchange.own and exchange.took:
        facts.append(duration(exchange.took))
    if exchange.replayed:
        facts.append("replay")
    subject = (
        exchange.record.purpose or "own call" if exchange.own else f"{exchange.endpoint} {_name(exchange)}".strip()
    )
    text = ", ".join(facts)
    return well_formed(jsontext.one_line(f"{subject}: {text}" if text else subject, COMMENT_CHARACTERS))


def has_failed(exchange: Snapshot) -> bool:
    """Whether something went wrong."""
    return bool(exchange.error) or exchange.status >= 400


def failure(exchange: Snapshot) -> str:
    """Say what went wrong, as far as anybody told."""
    if exchange.error or not exchange.response:
        return exchange.error or exchange.reason
    value = _small_json(exchange.response)
    if isinstance(value, dict):
        return peel(value).message
    return exchange.response[:PARSED_BYTES].decode("utf-8", "replace")


def is_broken(exchange: Snapshot) -> bool:
    """Whether an answer had begun when it failed."""
    return bool(exchange.error) and 0 < exchange.status < 400


def is_cut_off(exchange: Snapshot) -> bool:
    """Whether the model had more to say."""
    return _done_reason(exchange) in CUT_OFF


def is_error(exchange: Snapshot) -> bool:
    """Whether there is no answer. That a HEAD finds nothing is an answer, too."""
    found_nothing = exchange.asked_method == "HEAD" and exchange.status == HTTPStatus.NOT_FOUND
    return has_failed(exchange) and not is_broken(exchange) and not found_nothing


# The mark of an exchange in mitmproxy's list: the first that holds.
MARKS: Sequence[tuple[Callable[[Snapshot], bool], str]] = (
    (lambda exchange: exchange.own, ":gear:"),
    (is_error, ":x:"),
    (lambda exchange: is_broken(exchange) or is_cut_off(exchange), ":scissors:"),
    (lambda exchange: exchange.replayed, ":repeat:"),
)


def mark(exchange: Snapshot) -> str:
    """Give the name of an emoji that mitmproxy knows; empty for what needs no mark."""
    return next((emoji for holds, emoji in MARKS if holds(exchange)), "")


def _name(exchange: Snapshot) -> str:
    name = exchange.record.model
    if not name and exchange.asked_body[:1].lstrip() == b"{" and len(exchange.asked_body) <= PARSED_BYTES:
        name = _request(exchange).model
    return jsontext.one_line(name.removesuffix(":latest"), NAME_CHARACTERS)


def _request(exchange: Snapshot) -> ParsedRequest:
    body = exchange.asked_body
    return read_request(body if len(body) <= PARSED_BYTES else b"", exchange.asked_path)


def _small_json(body: bytes | None) -> Any:
    return jsontext.read(body).value if body and len(body) <= PARSED_BYTES else None


def _done_reason(exchange: Snapshot) -> str:
    return exchange.record.numbers.done_reason if exchange.record.numbers else ""


def _facts(exchange: Snapshot) -> list[str]:
    numbers = exchange.record.numbers
    if numbers is not None and (numbers.answer_tokens or numbers.first_token):
        return _speed(numbers)
    tell = _TELL.get(exchange.endpoint)
    if tell is not None:
        return tell(exchange)
    return _tell_list(exchange)


def _speed(numbers: Numbers) -> list[str]:
    tokens = f"{numbers.prompt_tokens or '?'} + {numbers.answer_tokens or '?'} tokens"
    known = numbers.prompt_tokens or numbers.answer_tokens
    return [
        speed(numbers),
        f"first token {duration(numbers.first_token)}" if numbers.first_token else "",
        tokens if known else "",
    ]


def _tell_chat(exchange: Snapshot) -> list[str]:
    """Tell of a request without a prompt, which loads or unloads; of an answer without numbers there is nothing to."""
    value = _small_json(exchange.response)
    reason = value.get("done_reason") if isinstance(value, dict) else None
    return [{"load": "loaded", "unload": "unloaded"}.get(str(reason), "")]


def _tell_embeddings(exchange: Snapshot) -> list[str]:
    request = _request(exchange)
    count = len(request.texts) or len(request.messages)
    found = _VECTOR.search((exchange.response or b"")[:PARSED_BYTES])
    values = found[1].count(b",") + 1 if found and found[1].strip() else 0
    return [f"{count} {plural(count, 'text')}" if count else "", f"{values} dimensions" if values else ""]


def _tell_list(exchange: Snapshot) -> list[str]:
    value = _small_json(exchange.response)
    entries = listings.models(value)
    if entries is not None:
        return [f"{len(entries)} {plural(len(entries), 'model')}"]
    # The state of a download, or of a server.
    return [jsontext.text_at(value, "status")]


def _tell_description(exchange: Snapshot) -> list[str]:
    value = _small_json(exchange.response)
    can = value.get("capabilities") if isinstance(value, dict) else None
    return [" ".join(map(str, can))] if isinstance(can, list) else []


def _tell_version(exchange: Snapshot) -> list[str]:
    return [jsontext.text_at(_small_json(exchange.response), "version")]


def _tell_progress(exchange: Snapshot) -> list[str]:
    """Tell the last state; the last line is enough for that."""
    lines = (exchange.response or b"")[-PARSED_BYTES:].rstrip().rpartition(b"\n")
    return [jsontext.text_at(jsontext.read(lines[2]).value, "status")]


def _tell_copy(exchange: Snapshot) -> list[str]:
    fields = _request(exchange).fields
    return [f"{fields.get('source', '?')} -> {fields.get('destination', '?')}"]


def _tell_blob(exchange: Snapshot) -> list[str]:
    digest = exchange.asked_path.rpartition("/")[2][:19]
    length = exchange.record.request_size
    return [f"{digest}, {size(length)}" if length else digest]


# What there is to tell of each endpoint; of all others, the number of models in a list.
_TELL: Mapping[str, Callable[[Snapshot], list[str]]] = {
    "blobs": _tell_blob,
    "chat": _tell_chat,
    "copy": _tell_copy,
    "create": _tell_progress,
    "embed": _tell_embeddings,
    "embeddings": _tell_embeddings,
    "generate": _tell_chat,
    "pull": _tell_progress,
    "push": _tell_progress,
    "show": _tell_description,
    "v1/embeddings": _tell_embeddings,
    "version": _tell_version,
}


def label(flow: http.HTTPFlow) -> None:
    """Set a flow's comment and mark, unless the user gave it others."""
    exchange = snapshots.of(flow)
    if exchange is None:
        return
    for name, text in (("comment", comment(exchange)), ("marked", mark(exchange))):
        if getattr(flow, name) in ("", flow.metadata.get(f"{PREFIX}{name}")):
            setattr(flow, name, text)
            flow.metadata[f"{PREFIX}{name}"] = text
