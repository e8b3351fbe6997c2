"""All exchanges of one conversation, as one thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.flow import Flow

from ..record.record import PREFIX
from ..units import plural
from . import answers, jsontext
from . import snapshot as snapshots
from .conversation import ParsedMessage, read_request
from .quantities import duration, speed
from .sheet import Sheet
from .snapshot import Snapshot

_KEY = f"{PREFIX}conversation"
FILTER = "~meta 'ollama_conversation: {}'"

# Limits of what is shown. They bound the time that it takes, which holds up the event loop.
MAX_EXCHANGES = 200
# Each request has the whole conversation before it, all of which is parsed: so many bytes of all are.
MAX_BYTES = 20_000_000
TEXT_CHARACTERS = 5000
NAME_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Thread:
    """The exchanges of one conversation, the oldest first."""

    id: str
    flows: Sequence[http.HTTPFlow]

    @property
    def filter(self) -> str:
        """A filter that finds all of them."""
        return FILTER.format(self.id)

    @property
    def title(self) -> str:
        """Which conversation, and how many there are."""
        return f"{self.id}, {len(self.flows):,} {plural(len(self.flows), 'exchange')}"


def find(chosen: Iterable[Flow], everything: Iterable[Flow]) -> Thread | None:
    """Return the conversation that the newest of the chosen flows belongs to; None if none belongs to any."""
    ids = [id_ for flow in _oldest_first(chosen) if isinstance(id_ := flow.metadata.get(_KEY), str) and id_]
    if not ids:
        return None
    by_id = {flow.id: flow for flow in (*everything, *chosen) if flow.metadata.get(_KEY) == ids[-1]}
    return Thread(ids[-1], _oldest_first(by_id.values()))


def _oldest_first(flows: Iterable[Flow]) -> list[http.HTTPFlow]:
    found = (flow for flow in flows if isinstance(flow, http.HTTPFlow))
    return sorted(found, key=lambda flow: flow.request.timestamp_start or 0)


def lines(thread: Thread) -> list[str]:
    """Return who said what in a conversation, and of each answer its model and numbers."""
    sheet = Sheet()
    sheet.heading(f"Conversation {thread.title}, filter {thread.filter}")
    shown = newest(thread)
    left_out = len(thread.flows) - len(shown)
    if left_out:
        sheet.heading(f"{left_out:,} earlier {plural(left_out, 'exchange is', 'exchanges are')} left out")
    for at, snapshot in reversed(shown):
        _exchange(sheet, snapshot, at)
    return str(sheet).split("\n")


def newest(thread: Thread) -> list[tuple[float, Snapshot]]:
    """Return the exchanges that are shown, each with its time, the newest first: one at least."""
    shown: list[tuple[float, Snapshot]] = []
    left = MAX_BYTES
    for flow in reversed(thread.flows[-MAX_EXCHANGES:]):
        snapshot = snapshots.of(flow)
        if snapshot is not None:
            left -= len(snapshot.client_body)
            if shown and left < 0:
                break
            shown.append((flow.request.timestamp_start or 0.0, snapshot))
    return shown


def _exchange(sheet: Sheet, snapshot: Snapshot, at: float) -> None:
    sheet.heading(", ".join((time.strftime("%H:%M:%S", time.localtime(at)), *_facts(snapshot))))
    for message in new_messages(read_request(snapshot.client_body, snapshot.client_path).messages):
        _message(sheet, message)
    answer = answers.read_answer(snapshot.response or b"", snapshot.content_type)
    _message(sheet, ParsedMessage("assistant", answer.text, answer.thinking, (), answer.tool_calls))
    error = snapshot.error or answer.error
    if error:
        sheet.text("error", error, TEXT_CHARACTERS)
    elif snapshot.is_in_progress:
        sheet.value("answer", "still on its way")


def _facts(snapshot: Snapshot) -> list[str]:
    numbers = snapshot.record.numbers
    again = "asked again" if snapshot.record.repeats else ""
    facts = [again, jsontext.one_line(snapshot.record.model.removesuffix(":latest"), NAME_CHARACTERS)]
    if numbers is not None:
        tokens = f"{numbers.prompt_tokens:,} + {numbers.answer_tokens:,} tokens"
        facts += [
            speed(numbers),
            f"first token {duration(numbers.first_token)}" if numbers.first_token else "",
            tokens if numbers.answer_tokens else "",
        ]
    return [fact for fact in facts if fact]


def new_messages(messages: Sequence[ParsedMessage]) -> Sequence[ParsedMessage]:
    """Return the messages that this request has added: those after the last answer in it."""
    places = [place for place, message in enumerate(messages) if message.role == "assistant"]
    return messages[places[-1] + 1 :] if places else messages


def _message(sheet: Sheet, message: ParsedMessage) -> None:
    if message.thinking:
        sheet.text(f"{message.role} thinks", message.thinking, TEXT_CHARACTERS)
    text = "\n".join(part for part in (message.text, *map(str, message.attachments)) if part)
    if text:
        sheet.text(jsontext.one_line(message.role, NAME_CHARACTERS), text, TEXT_CHARACTERS)
    for call in message.tool_calls:
        sheet.text(f"{message.role} calls", str(call), TEXT_CHARACTERS)
