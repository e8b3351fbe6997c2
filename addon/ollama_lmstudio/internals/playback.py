"""The recording that mitmproxy answers from (its option server_replay).

Without it, a replay needs an LM Studio that knows the model: mitmproxy looks for the call into which a request has been
translated.
"""

from __future__ import annotations

from typing import Any

from mitmproxy import ctx, http


def recorded_flows() -> list[http.HTTPFlow]:
    """Return the flows of `server_replay` that have not been used yet."""
    return [flow for flows in _recording().values() for flow in flows if isinstance(flow, http.HTTPFlow)]


def prefer_recorded(flow: http.HTTPFlow) -> None:
    """Make a flow the first of those with the same request, so that its response is the one that is used."""
    for flows in _recording().values():
        if flow in flows:
            flows.insert(0, flows.pop(flows.index(flow)))


def _recording() -> dict[Any, list[Any]]:
    flowmap = getattr(ctx.master.addons.get("serverplayback"), "flowmap", None)
    return flowmap if isinstance(flowmap, dict) else {}
