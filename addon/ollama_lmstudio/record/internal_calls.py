"""The calls that the bridge makes on its own, as flows: the model list, loads, downloads."""

from __future__ import annotations

import re

from mitmproxy import connection, http
from mitmproxy.flow import Error

from ..exchanges import responses
from ..lmstudio.client import ClientCall
from .record import Numbers, Record

# A pattern of method and path -> what the call is for.
PURPOSES: tuple[tuple[str, str], ...] = (
    (r"GET .*/models", "model list"),
    (r"POST .*/models/load", "load"),
    (r"POST .*/models/unload", "unload"),
    (r"POST .*/models/download", "download"),
    (r"GET .*/models/download/status/.*", "download progress"),
    (r"POST .*", "call asked again, after a load"),
)
_PURPOSES = tuple((re.compile(pattern), purpose) for pattern, purpose in PURPOSES)


def purpose_of(method: str, path: str) -> str:
    """Say what a call is for."""
    return next((purpose for pattern, purpose in _PURPOSES if pattern.fullmatch(f"{method} {path}")), "call")


def to_flow(exchange: ClientCall, limit: int) -> http.HTTPFlow:
    """Make a flow of a call that has ended, with so many bytes of each body; its secrets are masked already."""
    request = http.Request.make(exchange.method, exchange.url)
    request.headers = http.Headers(responses.fields(exchange.request_headers))
    request.raw_content = exchange.request_body[:limit]
    request.timestamp_start = request.timestamp_end = exchange.started
    client = connection.Client(peername=("127.0.0.1", 0), sockname=("127.0.0.1", 0), timestamp_start=exchange.started)
    server = connection.Server(address=(request.host, request.port))
    flow = http.HTTPFlow(client, server)
    flow.request = request
    path = request.path.partition("?")[0]
    record = Record(
        kind="own",
        method=exchange.method,
        path=path,
        purpose=purpose_of(exchange.method, path),
        status=exchange.status or 0,
        error=exchange.error or "",
        limit=limit,
        call_size=len(exchange.request_body) if len(exchange.request_body) > limit else 0,
        numbers=Numbers(total=round((exchange.ended - exchange.started) * 1e9)),
    )
    if exchange.status is not None:
        flow.response = http.Response.make(exchange.status)
        flow.response.headers = http.Headers(responses.fields(exchange.response_headers))
        flow.response.raw_content = exchange.response_body[:limit]
        flow.response.timestamp_start = flow.response.timestamp_end = exchange.ended
        record.response_size = len(exchange.response_body)
    else:
        # Whoever made the call says more, once.
        flow.error = Error("no answer", exchange.ended)
    record.save(flow.metadata)
    return flow
