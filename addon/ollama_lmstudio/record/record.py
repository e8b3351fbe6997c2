"""The Record: what a flow keeps of both sides of its exchange, beside its own request and response.

The flow's request is the call to LM Studio, as it was sent, and its response is what the client got. The Record has the
other two: the client's request and LM Studio's response. It is stored in the flow's metadata, as plain values, so that
it is saved with the flow and filters (`~meta`) find it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from mitmproxy import http
from mitmproxy.flow import Error

from ..outcomes import THINKING
from ..unicode import well_formed
from .redaction import without_secrets

if TYPE_CHECKING:
    from ..internals.interception import Bodies

Fields = tuple[tuple[str, str], ...]

Kind = Literal["call", "relay", "served", "answer", "own", "report", ""]
"""How a request was handled: translated into a call to LM Studio; passed through to LM Studio; served by the loopback
service (pull, push, blobs); answered by the bridge. `own` is an internal call: the model list, a load; `report`
what a command has to say. Saved files hold these words."""

PREFIX = "ollama_"
"""Of the keys in a flow's metadata."""
UNFINISHED = b" \n"
"""Ends a body that is shown while it comes, and is no part of it. mitmproxy's tools render a body again when its bytes
are others: so they do when it has ended, whatever they have shown before."""
LEFT = ("Client disconnected", Error.KILLED_MESSAGE)
"""How mitmproxy calls the end of a flow whose client has left, or that the user has killed: nothing has failed then."""
MEASURABLE = 100_000
"""A shorter generation, in ns, came in one read: its duration says nothing about the model's speed."""
_NS_PER_SECOND = 1e9
# The duration begins with the first token: with one, it is what the model has taken to end its answer.
_MIN_TOKENS = 2


@dataclass(slots=True)
class Numbers:
    """The metrics of an answer: durations in ns, counts in tokens; 0 is not known.

    `first_token` is the time from the client's request to the first token.
    """

    total: int = 0
    load: int = 0
    first_token: int = 0
    generation: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    done_reason: str = ""
    is_load_rough: bool = False
    """Whether the model may have been loaded on demand, which LM Studio does not tell: it is looked at now and then."""
    reading: int = 0
    """How long LM Studio took from the call, or the load, to the first token."""
    read_tokens: int = 0
    """The tokens of the prompt that were not in LM Studio's cache."""
    pause: int = 0
    """The longest time for which nothing came of a stream that had begun."""
    pause_after: int = 0
    """When that began, from the client's request on."""
    pause_events: int = 0
    """How many events had come by then."""

    @property
    def tokens_per_second(self) -> float:
        """The speed of the answer; 0 where it was not measured, as when all of it came at once."""
        if self.generation < MEASURABLE or self.answer_tokens < _MIN_TOKENS:
            return 0.0
        return self.answer_tokens / (self.generation / _NS_PER_SECOND)


@dataclass(slots=True)
class Record:
    """Both sides of one exchange. Bodies are cut at the option `max_kept_size`; the sizes are of the whole."""

    kind: Kind = ""
    at: str = ""
    """When the request came, in local time: `2026-11-28 16:49:26`. Filters have no other time."""
    method: str = ""
    path: str = ""
    """The path of the client's request, without its query."""
    query: str = ""
    model: str = ""
    """The model's name in the client's request."""
    key: str = ""
    """The name of the key that the client has sent; empty if that has none."""
    headers: Fields = ()
    """The headers of the client's request, without secrets."""
    request: bytes = b""
    """The body of the client's request, as it came."""
    request_size: int = 0
    call_size: int = 0
    """The size of the body that was sent to LM Studio, if the flow does not hold all of it any more."""
    upstream_model: str = ""
    """LM Studio's name of the model."""
    dropped: tuple[str, ...] = ()
    """The client's options and fields that LM Studio does not support."""
    status: int = 0
    """The status of LM Studio's response; 0 if there is none."""
    upstream_headers: Fields = ()
    upstream: bytes = b""
    """The body of LM Studio's response, as it came; empty where the client got the same."""
    upstream_size: int = 0
    response_size: int = 0
    """The size of the body that the client got."""
    limit: int = 0
    """At most so many bytes of each body are kept."""
    arrivals: bytes = b""
    """When the body of LM Studio's stream came: see `arrivals.py`."""
    context_length: int = 0
    """How many tokens the model was loaded for; 0 is not known."""
    numbers: Numbers | None = None
    error: str = ""
    purpose: str = ""
    """What an internal call is for."""
    prompt: str = ""
    """The first words of what the client asked, on one line."""
    answer: str = ""
    """The first words of the answer, on one line."""
    signs: str = ""
    """What else the exchange holds: `[2 images] [tools] [thinking]`."""
    state: str = ""
    """What the exchange waits for or how far it is, while it runs; empty when it has ended."""
    conversation: str = ""
    """The id of the conversation that the request belongs to."""
    repeats: str = ""
    """The id of the flow whose request this one asks again."""
    original: str = ""
    """What is compared of that flow's answer, as JSON."""

    edited_from: bytes = b""
    """The body of the client's request before the user edited it; empty if that did not happen."""
    call_edited_from: bytes = b""
    """The same of the call to LM Studio."""
    answer_edited_from: bytes = b""
    """The same of the answer."""

    @property
    def is_known(self) -> bool:
        """Whether it is the record of anything: a flow that did not pass through the bridge has an empty one."""
        return bool(self.kind or self.path)

    def is_cut(self, whole: int, kept: int) -> bool:
        """Return whether a body was cut; one that is shorter than the limit has been edited by the user."""
        return self.limit <= kept < whole

    def keep_edited(self, before: Bodies, after: Bodies) -> None:
        """Keep what the user, who has stopped a flow, has edited: the client's request, the call, or the answer."""
        if before.request != after.request:
            body = without_secrets(before.request)[: self.limit]
            if self.kind:
                self.call_edited_from = self.call_edited_from or body
            else:
                self.edited_from = body
        if before.response and before.response != after.response:
            self.answer_edited_from = self.answer_edited_from or before.response[: self.limit]

    def forget_answer(self) -> None:
        """Remove what is known of the response: the request is sent again."""
        self.status = self.upstream_size = self.response_size = 0
        self.upstream_headers, self.upstream, self.arrivals = (), b"", b""
        self.context_length = 0
        self.numbers, self.error = None, ""
        self.answer = self.state = ""
        self.answer_edited_from = b""
        self.signs = self.signs.removesuffix(THINKING).rstrip()

    def save(self, metadata: MutableMapping[Any, Any]) -> None:
        """Write all that is known into a flow's metadata, as values that mitmproxy can save."""
        for name, key in _KEYS.items():
            value = getattr(self, name)
            if not value:
                metadata.pop(key, None)
            elif metadata.get(key) is not value:
                metadata[key] = _savable(value)

    @classmethod
    def load(cls, metadata: MutableMapping[Any, Any]) -> Record:
        """Return the record in a flow's metadata; values of a wrong type, which a file may have, are left out."""
        record = cls()
        for field, key in _KEYS.items():
            value = metadata.get(key)
            if field == "numbers":
                record.numbers = numbers_of(value)
            elif field in ("headers", "upstream_headers"):
                setattr(record, field, _pairs(value))
            elif field == "dropped":
                record.dropped = tuple(str(name) for name in value) if isinstance(value, (list, tuple)) else ()
            elif isinstance(value, type(getattr(record, field))):
                setattr(record, field, value)
        return record


# A record is saved several times in each exchange.
_KEYS = {field.name: PREFIX + field.name for field in fields(Record)}
_NUMBERS = tuple(field.name for field in fields(Numbers))


def local_time(timestamp: float) -> str:
    """Return a time as `Record.at` has it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def _savable(value: Any) -> Any:
    """Return a value that mitmproxy can save, whose text can be encoded as UTF-8: clients may send lone surrogates.

    It is the value itself where that is possible, so that it need not be written again.
    """
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, Numbers):
        return {name: getattr(value, name) for name in _NUMBERS}
    # Names, or headers: pairs of texts.
    if isinstance(value, tuple) and not "".join(map("".join, value)).isascii():
        return tuple(map(_savable, value))
    return value


def numbers_of(value: object) -> Numbers | None:
    """Return the numbers that were saved; None for anything else, and without values of a wrong type."""
    if not isinstance(value, dict):
        return None
    numbers = Numbers()
    for name in _NUMBERS:
        given = value.get(name)
        if type(given) is type(getattr(numbers, name)):
            setattr(numbers, name, given)
    return numbers


def _pairs(value: object) -> Fields:
    items: Iterable[Any] = value if isinstance(value, (list, tuple)) else ()
    pairs = []
    for item in items:
        match item:
            case [name, text]:
                pairs.append((str(name), str(text)))
    return tuple(pairs)


def of(flow: http.HTTPFlow) -> Record | None:
    """Return the record of a flow; None for a flow that did not pass through the bridge."""
    record = Record.load(flow.metadata)
    return record if record.is_known else None
