"""Ask again, with another model or other options: a new flow with a client's request, to be replayed.

It holds the client's own request, which is decided like a fresh one, and what its answer is compared with.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mitmproxy import connection, http
from mitmproxy.exceptions import CommandError
from mitmproxy.flow import Flow

from .. import tolerant_json
from ..options import Upstream
from ..outcomes import header_fields
from ..record.record import Record
from ..record.statistics import ENDPOINTS
from ..translate import compact_json
from ..units import size
from . import compare, jsontext
from . import snapshot as snapshots
from .compare import Change
from .snapshot import Snapshot

# The fields of Ollama's requests. Every other name is one of `options`, as in a Modelfile.
FIELDS = frozenset(
    {
        "dimensions",
        "format",
        "keep_alive",
        "logprobs",
        "model",
        "options",
        "prompt",
        "raw",
        "stream",
        "suffix",
        "system",
        "template",
        "think",
        "tools",
        "top_logprobs",
        "truncate",
    }
)
_OPTIONS = "options"
_OLLAMA_PREFIX = "/api/"
# Headers of the body as it came, and of the connection on which it came.
_NOT_REPEATED = frozenset(
    {"connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "transfer-encoding"}
)


ASKS_NO_MODEL = "it asks no model"


class NotRepeatable(ValueError):  # noqa: N818
    """A request cannot be asked again; the message says why."""


def parse_change(text: str) -> tuple[str, Any]:
    """Return the name and value of `name=value`, JSON where it is JSON; raise ValueError for anything else."""
    name, equals, value = text.partition("=")
    if not name.strip() or not equals:
        raise ValueError(f"{text!r} should be NAME=VALUE, such as model=qwen3 or temperature=0.2")
    try:
        return name.strip(), json.loads(value)
    except (ValueError, RecursionError):
        return name.strip(), value


def flow_again(flow: http.HTTPFlow, changes: Sequence[tuple[str, Any]], upstream: Upstream) -> http.HTTPFlow:
    """Return a flow that asks again what another one asked, with changes, and compares the answers.

    A value of None takes a field or an option away. Raises NotRepeatable.
    """
    snapshot = snapshots.of(flow)
    if snapshot is None or snapshot.client_path.rpartition("/")[2] not in ENDPOINTS or snapshot.is_internal:
        raise NotRepeatable(ASKS_NO_MODEL)
    body = _read(snapshot)
    is_ollama = snapshot.client_path.startswith(_OLLAMA_PREFIX) and not snapshot.is_chat
    made = [_change(body, name, value, has_options=is_ollama) for name, value in changes]
    before = snapshot.record
    record = Record(
        method=snapshot.client_method,
        path=snapshot.client_path,
        query=before.query,
        headers=tuple(field for field in before.headers if field[0].lower() not in _NOT_REPEATED),
        model=jsontext.text_at(body, "model") or before.model,
        request=compact_json.dumps(body) if made else snapshot.client_body,
        limit=before.limit,
        conversation=before.conversation,
        repeats=flow.id,
        original=compare.original_of(snapshot, made),
    )
    record.request_size = len(record.request)
    return _flow_of(record, snapshot.client_target, flow.client_conn, upstream)


def _flow_of(record: Record, target: str, client: connection.Client, upstream: Upstream) -> http.HTTPFlow:
    flow = http.HTTPFlow(client.copy(), connection.Server(address=(upstream.host, upstream.port)))
    headers = http.Headers(header_fields((("Host", upstream.authority), *record.headers)))
    flow.request = http.Request.make(record.method, upstream.origin, record.request, headers)
    flow.request.path = target
    record.save(flow.metadata)
    return flow


def _read(snapshot: Snapshot) -> dict[str, Any]:
    """Return the body of a client's request."""
    record, body = snapshot.record, snapshot.client_body
    if record.is_cut(record.request_size, len(body)):
        kept = f"only {size(len(body))} of its {size(record.request_size)} are kept"
        raise NotRepeatable(f"{kept}: a larger max_kept_size keeps all of the next ones")
    value = tolerant_json.loads(body)
    if not isinstance(value, dict):
        raise NotRepeatable("its body is no JSON object")
    return value


def _change(body: dict[str, Any], name: str, value: Any, *, has_options: bool) -> Change:
    """Change a body: a field, or an option of Ollama's, which may also be called `options.NAME`."""
    prefix, dot, option = name.partition(".")
    is_named = has_options and dot != "" and prefix.lower() == _OPTIONS
    if not is_named and (not has_options or name.lower() in FIELDS or _key(body, name) in body):
        return _put(body, name, value)
    key = _key(body, _OPTIONS)
    options = body.get(key)
    changed = dict(options) if isinstance(options, dict) else {}
    change = _put(changed, option if is_named else name, value)
    if changed or key in body:
        body[key] = changed
    return change


def _put(fields: dict[str, Any], name: str, value: Any) -> Change:
    key = _key(fields, name)
    before = fields.get(key)
    if value is None:
        fields.pop(key, None)
    else:
        fields[key] = value
    return Change(key, _text(before), _text(value))


def _key(fields: dict[str, Any], name: str) -> str:
    """Return the key that stands for a name: Go's encoding/json, and so Ollama, matches names in any case."""
    return next((key for key in fields if key.lower() == name.lower()), name)


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else jsontext.compact(value)


def all_again(
    flows: Sequence[Flow], changes: Sequence[str], upstream: Upstream
) -> tuple[list[http.HTTPFlow], Counter[str]]:
    """Return the flows that ask again, and why others cannot; raise CommandError if none can, or a change is wrong."""
    made: list[http.HTTPFlow] = []
    left_out: Counter[str] = Counter()
    try:
        parsed = [parse_change(text) for text in changes]
    except ValueError as e:
        raise CommandError(str(e)) from None
    for flow in flows:
        try:
            if not isinstance(flow, http.HTTPFlow):
                raise NotRepeatable(ASKS_NO_MODEL)
            made.append(flow_again(flow, parsed, upstream))
        except NotRepeatable as e:
            left_out[str(e)] += 1
    if not made:
        reasons = ", ".join(left_out) or "there is no such flow"
        raise CommandError(f"nothing can be asked again: {reasons}")
    return made, left_out
