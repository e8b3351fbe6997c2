"""Flows for the calls that the bridge itself makes to LM Studio: the model list, loads, downloads."""

from __future__ import annotations

import re

from mitmproxy import connection, http
from mitmproxy.flow import Error

from ..lmstudio.client import ClientCall
from ..outcomes import header_fields
from .record import Numbers, Record, local_time

# Pattern of method and path -> what the call is for; the first that matches is taken.
PURPOSES: tuple[tuple[str, str], ...] = (
    (r"GET .*/models", "model list"),
    (r"POST .*/models/load", "load"),
    (r"POST .*/models/unload", "unload"),
    (r"POST .*/models/download", "download"),
    (r"GET .*/models/download/status/.*", "download progress"),
    (r"POST .*", "call asked again"),
)
_PURPOSES = tuple((re.compile(pattern), purpose) for pattern, purpose in PURPOSES)


def purpose_of(method: str, path: str) -> str:
    """Return what a call is for."""
    return next((purpose for pattern, purpose in _PURPOSES if pattern.fullmatch(f"{method} {path}")), "call")


def to_flow(call: ClientCall, limit: int) -> http.HTTPFlow:
    """Return a flow for a call that has ended, with at most `limit` bytes of each body, its secrets masked."""
    request = http.Request.make(call.method, call.url)
    request.headers = http.Headers(header_fields(call.request_headers))
    request.raw_content = call.request_body[:limit]
    request.timestamp_start = request.timestamp_end = call.started
    client = connection.Client(peername=("127.0.0.1", 0), sockname=("127.0.0.1", 0), timestamp_start=call.started)
    server = connection.Server(address=(request.host, request.port))
    flow = http.HTTPFlow(client, server)
    flow.request = request
    path = request.path.partition("?")[0]
    record = Record(
        kind="own",
        method=call.method,
        path=path,
        at=local_time(call.started),
        purpose=call.purpose or purpose_of(call.method, path),
        status=call.status or 0,
        error=call.error or "",
        limit=limit,
        call_size=len(call.request_body) if len(call.request_body) > limit else 0,
        numbers=Numbers(total=round((call.ended - call.started) * 1e9)),
    )
    if call.status is not None:
        flow.response = http.Response.make(call.status)
        flow.response.headers = http.Headers(header_fields(call.response_headers))
        flow.response.raw_content = call.response_body[:limit]
        flow.response.timestamp_start = flow.response.timestamp_end = call.ended
        record.response_size = len(call.response_body)
    else:
        # The caller logs the cause: here it would appear twice.
        flow.error = Error("no answer", call.ended)
    record.save(flow.metadata)
    return flow
