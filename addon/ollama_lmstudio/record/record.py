"""What a flow keeps of both sides, besides its own request and response.

It is in the flow's metadata, as plain values, so that it outlives a saved file and filters (`~meta`) find it. The
flow's request is the call to LM Studio as it was sent, its response the answer as the client got it; the client's own
request and LM Studio's own answer are here.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from mitmproxy import http

from ..unicode import well_formed

Fields = tuple[tuple[str, str], ...]

Kind = Literal["call", "relay", "served", "answer", "own", ""]
"""What became of a request: a call to LM Studio that is translated; sent on to LM Studio as it is; answered here over
time (pull, push, blobs); answered here at once. `own` is a call that nobody asked for: the model list, a load."""

PREFIX = "ollama_"
MEASURABLE_NS = 100_000
"""A shorter generation was read at once, so that nothing can be told of its speed."""
MEASURABLE_TOKENS = 2
"""A generation is the time from its first token to its last."""


@dataclass(slots=True)
class Numbers:
    """What an answer took: durations in ns, counts in tokens; 0 is not known.

    `first_token` is from the client's request to the first token.
    """

    total: int = 0
    load: int = 0
    first_token: int = 0
    generation: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    done_reason: str = ""

    @property
    def tokens_per_second(self) -> float:
        """How fast the answer came; 0 where that cannot be told, as when all of it came at once."""
        if self.generation < MEASURABLE_NS or self.answer_tokens < MEASURABLE_TOKENS:
            return 0.0
        return self.answer_tokens / (self.generation / 1e9)


@dataclass(slots=True)
class Record:
    """Both sides of one exchange. Bodies are cut at the option `max_kept_size`; the sizes are of the whole."""

    kind: Kind = ""
    method: str = ""
    path: str = ""
    """The client's path, without its query."""
    query: str = ""
    model: str = ""
    """What the client called the model."""
    headers: Fields = ()
    """The client's, without secrets."""
    request: bytes = b""
    """The client's body as it came."""
    request_size: int = 0
    call_size: int = 0
    """The size of the body that was sent, if the flow does not hold all of it any more."""
    upstream_model: str = ""
    """What LM Studio calls the model."""
    dropped: tuple[str, ...] = ()
    """What the client asked for and LM Studio has nothing for."""
    status: int = 0
    """LM Studio's; 0 if it did not answer."""
    upstream_headers: Fields = ()
    upstream: bytes = b""
    """LM Studio's body as it came; empty where the client got the same."""
    upstream_size: int = 0
    response_size: int = 0
    """The size of the body that the client got."""
    limit: int = 0
    """The option `max_kept_size` at the time: how many bytes of each body were kept."""
    numbers: Numbers | None = None
    error: str = ""
    purpose: str = ""
    """What a call of our own is for."""

    def is_cut(self, whole: int, kept: int) -> bool:
        """Whether a body of a size is not kept whole. A body below the limit was edited by the user."""
        return self.limit <= kept < whole

    def forget_answer(self) -> None:
        """Clear all that came back, before the request is sent again."""
        self.status = self.upstream_size = self.response_size = 0
        self.upstream_headers, self.upstream = (), b""
        self.numbers, self.error = None, ""

    def save(self, metadata: MutableMapping[Any, Any]) -> None:
        """Write what is known into a flow's metadata, as text that can be saved."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Numbers):
                value = {number.name: getattr(value, number.name) for number in fields(value)}
            if value:
                metadata[PREFIX + field.name] = _savable(value)
            else:
                metadata.pop(PREFIX + field.name, None)

    @classmethod
    def load(cls, metadata: MutableMapping[Any, Any]) -> Record:
        """Read what a flow's metadata has; a file may hold anything."""
        record = cls()
        for field in fields(cls):
            value = metadata.get(PREFIX + field.name)
            if field.name == "numbers":
                record.numbers = _numbers(value)
            elif field.name in ("headers", "upstream_headers"):
                setattr(record, field.name, _pairs(value))
            elif field.name == "dropped":
                record.dropped = tuple(str(name) for name in value) if isinstance(value, (list, tuple)) else ()
            elif isinstance(value, type(getattr(record, field.name))):
                setattr(record, field.name, value)
        return record


def _savable(value: Any) -> Any:
    """Return a value whose text can be encoded as UTF-8: what clients send may hold lone surrogates."""
    if isinstance(value, str):
        return well_formed(value)
    return tuple(map(_savable, value)) if isinstance(value, tuple) else value


def _numbers(value: object) -> Numbers | None:
    if not isinstance(value, dict):
        return None
    numbers = Numbers()
    for field in fields(Numbers):
        given = value.get(field.name)
        if isinstance(given, type(getattr(numbers, field.name))):
            setattr(numbers, field.name, given)
    return numbers


def _pairs(value: object) -> Fields:
    pairs = []
    for item in value if isinstance(value, (list, tuple)) else ():
        match item:
            case [name, field]:
                pairs.append((str(name), str(field)))
    return tuple(pairs)


def of(flow: http.HTTPFlow) -> Record | None:
    """Return the record of a flow; None for a flow that has none."""
    record = Record.load(flow.metadata)
    return record if record.kind or record.path else None
