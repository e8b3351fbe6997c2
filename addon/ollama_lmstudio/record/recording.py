"""Responses from recorded flows (mitmproxy's `server_replay`), also without an LM Studio to list its models.

mitmproxy finds a recorded response by the flow's request, which is the call to LM Studio. So the client's request is
looked up in the records, and becomes the call of the flow that has it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mitmproxy import http

from ..outcomes import Request
from . import record
from .record import Record


def find(flows: list[http.HTTPFlow], incoming: Request) -> tuple[http.HTTPFlow, Record] | None:
    """Return a recorded flow with the same client's request, and its record; None if there is none.

    Requests are the same if their JSON is, in any order of keys. Responses that failed, were cut or had not ended when
    they were saved are left out.
    """
    wanted = _Body(incoming.body)
    for flow in flows:
        if not flow.response or flow.response.raw_content is None or flow.error:
            continue
        kept = record.of(flow)
        if (
            kept is None
            or kept.numbers is None
            or (kept.method, kept.path, kept.query) != (incoming.method, incoming.path, incoming.query)
        ):
            continue
        cut = kept.is_cut(kept.request_size, len(kept.request))
        cut = cut or kept.is_cut(kept.response_size, len(flow.response.raw_content))
        if not cut and wanted.is_same(kept.request):
            return flow, kept
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
        return _parsed(self.body)

    def is_same(self, other: bytes) -> bool:
        return self.body == other or (self._value is not None and self._value == _parsed(other))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
