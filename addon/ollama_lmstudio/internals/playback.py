"""The recording that mitmproxy answers from."""

from __future__ import annotations

from typing import Any

from mitmproxy import ctx, http


def recorded_flows() -> list[http.HTTPFlow]:
    """Give the flows of `server_replay` that were not used yet."""
    return [flow for flows in _recording().values() for flow in flows if isinstance(flow, http.HTTPFlow)]


def prefer_recorded(flow: http.HTTPFlow) -> None:
    """Let this flow be the one that answers, of those that sent the same call."""
    for flows in _recording().values():
        if flow in flows:
            flows.insert(0, flows.pop(flows.index(flow)))


def _recording() -> dict[Any, list[Any]]:
    flowmap = getattr(ctx.master.addons.get("serverplayback"), "flowmap", None)
    return flowmap if isinstance(flowmap, dict) else {}
