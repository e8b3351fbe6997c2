"""The model that an answer of LM Studio names as its own, in the shape of each of its APIs.

For a model that it does not have, LM Studio answers with the one that is loaded, and says so nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import tolerant_json
from . import sse

# OpenAI's and Anthropic's answers name it as `model`, those of LM Studio's own API (/api/v1/chat) as
# `model_instance_id`; the first event of OpenAI's Responses holds it in `response`, that of Anthropic in `message`.
KEYS = ("model", "model_instance_id")
HOLDERS = ("response", "message")

# Embeddings hold nothing but numbers beside the name: megabytes of them are not parsed for it.
_VECTOR = re.compile(rb'"object"\s*:\s*"embedding"')
_MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')


def model_of(value: Mapping[str, Any]) -> str:
    """Return the model that an answer, or the first event of one, names; an empty string if it names none."""
    if isinstance(name := value.get("model"), str):
        return name
    holders = (value, *(value.get(holder) for holder in HOLDERS))
    named = (holder.get(key) for holder in holders if isinstance(holder, Mapping) for key in KEYS)
    return next((name for name in named if isinstance(name, str)), "")


def model_of_body(content_type: str, body: bytes) -> str:
    """Return the model that a whole body names, events or one object; an empty string if it names none."""
    if sse.is_event_stream(content_type):
        first = FirstEvent(max(len(body), 1))
        first.feed(body)
        return first.model
    if _VECTOR.search(body):
        found = _MODEL.search(body)
        return str(tolerant_json.loads(found[1]) or "") if found else ""
    value = tolerant_json.loads(body)
    return model_of(value) if isinstance(value, Mapping) else ""


class FirstEvent:
    """Read a stream of events up to the first one with data, bytes cut anywhere; what comes after it is not read."""

    def __init__(self, max_event_size: int) -> None:
        self._decoder = sse.Decoder(max_event_size)
        self.has_come = False
        self.model = ""
        """The model that the event names; empty if it names none."""

    def feed(self, data: bytes) -> None:
        """Read more bytes of the stream."""
        if self.has_come:
            return
        try:
            event = next((event for event in self._decoder.feed(data) if event.data.strip()), None)
        except sse.EventTooLargeError:
            self.has_come = True
            return
        if event is not None:
            self.has_come = True
            value = tolerant_json.loads(event.data)
            self.model = model_of(value) if isinstance(value, Mapping) else ""
