"""Responses from recorded flows (mitmproxy's `server_replay`), also without an LM Studio to list its models.

mitmproxy finds a recorded response by the flow's request, which is the call to LM Studio. So the client's request is
looked up in the records, and becomes the call of the flow that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mitmproxy import http

from .. import tolerant_json
from ..outcomes import Request
from . import record
from .record import Record


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """A recorded flow that answers a request, and its record."""

    flow: http.HTTPFlow
    record: Record


def find(flows: list[http.HTTPFlow], request: Request) -> RecordedAnswer | None:
    """Return the recorded answer to the same client's request; None if there is none.

    Requests are the same if their JSON is, in any order of keys. Responses that failed, were cut or had not ended when
    they were saved are left out.
    """
    wanted = _Body(request.body)
    for flow in flows:
        if not flow.response or flow.response.raw_content is None or flow.error:
            continue
        kept = record.of(flow)
        if (
            kept is None
            or kept.numbers is None
            or (kept.method, kept.path, kept.query) != (request.method, request.path, request.query)
        ):
            continue
        cut = kept.is_cut(kept.request_size, len(kept.request))
        cut = cut or kept.is_cut(kept.response_size, len(flow.response.raw_content))
        if not cut and wanted.is_same(kept.request):
            return RecordedAnswer(flow, kept)
    return None


def become(flow: http.HTTPFlow, recorded: http.HTTPFlow) -> None:
    """Replace a flow's request by the recorded one."""
    request, then = flow.request, recorded.request
    request.method, request.scheme, request.host, request.port = then.method, then.scheme, then.host, then.port
    request.path, request.headers, request.raw_content = then.path, then.headers.copy(), then.raw_content


@dataclass
class _Body:
    body: bytes

    @cached_property
    def _value(self) -> Any:
        # Parsed when there is a body to compare with: this runs for every request, also without any recording.
        return tolerant_json.loads(self.body)

    def is_same(self, other: bytes) -> bool:
        return self.body == other or (self._value is not None and self._value == tolerant_json.loads(other))
