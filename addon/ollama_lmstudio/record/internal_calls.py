"""Flows for the calls that the bridge itself makes to LM Studio: the model list, loads, downloads."""

from __future__ import annotations

import re

from mitmproxy import connection, http
from mitmproxy.flow import Error

from .. import tolerant_json
from ..lmstudio.client import HEALTH, LOAD_ON_DEMAND, ClientCall
from ..outcomes import header_fields
from ..progress import loading
from . import record as records
from .record import Numbers, Record, local_time

MODEL_LIST, LOAD, UNLOAD, DOWNLOAD, POLL = "model list", "load", "unload", "download", "download progress"
# Pattern of method and path -> what the call is for; the first that matches is taken.
PURPOSES: tuple[tuple[str, str], ...] = (
    (r"GET .*/models", MODEL_LIST),
    (r"POST .*/models/load", LOAD),
    (r"POST .*/models/unload", UNLOAD),
    (r"POST .*/models/download", DOWNLOAD),
    (r"GET .*/models/download/status/.*", POLL),
    (r"POST .*", "call asked again"),
)
_PURPOSES = tuple((re.compile(pattern), purpose) for pattern, purpose in PURPOSES)
CHANGES = frozenset({LOAD, LOAD_ON_DEMAND, UNLOAD})
"""The purposes of the calls that change what is loaded."""
POLLS = frozenset({POLL, HEALTH})
"""The purposes of the calls that are made again and again, and never shown."""
SHOWN_HOST = "(bridge)"
"""In the console's list, which has the host for all that tells whose request it is."""


def purpose_of(method: str, path: str) -> str:
    """Return what a call is for."""
    return next((purpose for pattern, purpose in _PURPOSES if pattern.fullmatch(f"{method} {path}")), "call")


def call_purpose(call: ClientCall) -> str:
    """Return what a call is for, by its own word or by its path."""
    path = call.url.partition("://")[2].partition("/")[2]
    return call.purpose or purpose_of(call.method, f"/{path}".partition("?")[0])


def waits_for(call: ClientCall) -> str:
    """Return what a call waits for while it runs: `loading qwen3-70b`."""
    purpose = call_purpose(call)
    body = tolerant_json.loads(call.request_body) if purpose in CHANGES else None
    model = (body.get("model") or body.get("instance_id")) if isinstance(body, dict) else None
    if not isinstance(model, str):
        return "waits for LM Studio"
    return loading(model).replace("loading", "unloading", 1) if purpose == UNLOAD else loading(model)


def begun(call: ClientCall, limit: int) -> http.HTTPFlow:
    """Return a flow for a call that has begun, with at most `limit` bytes of its body, its secrets masked."""
    request = http.Request.make(call.method, call.url)
    server = connection.Server(address=(request.host, request.port))
    # The Host header, which is what most of mitmproxy shows, is that of the call.
    request.host = SHOWN_HOST
    request.headers = http.Headers(header_fields(call.request_headers))
    request.raw_content = call.request_body[:limit]
    request.timestamp_start = request.timestamp_end = call.started
    client = connection.Client(peername=("127.0.0.1", 0), sockname=("127.0.0.1", 0), timestamp_start=call.started)
    flow = http.HTTPFlow(client, server)
    flow.request = request
    path = request.path.partition("?")[0]
    record = Record(
        kind="own",
        at=local_time(call.started),
        method=call.method,
        path=path,
        purpose=call_purpose(call),
        limit=limit,
        call_size=len(call.request_body) if len(call.request_body) > limit else 0,
    )
    record.save(flow.metadata)
    return flow


def complete(flow: http.HTTPFlow, call: ClientCall) -> None:
    """Complete the flow of a call that has ended."""
    record = records.Record.load(flow.metadata)
    record.state = ""
    record.status = call.status or 0
    record.error = call.error or ""
    record.numbers = Numbers(total=round((call.ended - call.started) * 1e9))
    if call.status is not None:
        flow.response = http.Response.make(call.status)
        flow.response.headers = http.Headers(header_fields(call.response_headers))
        flow.response.raw_content = call.response_body[: record.limit]
        flow.response.timestamp_start = flow.response.timestamp_end = call.ended
        record.response_size = len(call.response_body)
    else:
        # The caller logs the cause: here it would appear twice.
        flow.error = Error("no answer", call.ended)
    record.save(flow.metadata)
