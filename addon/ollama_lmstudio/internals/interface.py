"""What the user interfaces, the log and a saved file are to show, without anybody waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy import contentviews, ctx, hooks, http

try:
    from mitmproxy.proxy.layers import http as http_layers
except ImportError:  # pragma: no cover - a mitmproxy to come
    http_layers = None  # type: ignore[assignment]


def is_shown() -> bool:
    """Whether there is a list of flows that somebody may look at."""
    return ctx.master.addons.get("view") is not None


def watch_list(cleared: Callable[[], None]) -> None:
    """Tell when flows were taken out of the list all at once."""
    signal = getattr(ctx.master.addons.get("view"), "sig_store_refresh", None)
    if signal is not None:
        signal.connect(cleared)


def is_listed(flow: http.HTTPFlow) -> bool:
    """Whether a flow is in the list."""
    return ctx.master.addons.get("view").get_by_id(flow.id) is not None


async def show_change(flow: http.HTTPFlow) -> None:
    """Show what has changed in a flow."""
    await ctx.master.addons.trigger_event(hooks.UpdateHook([flow]))


async def show_flow(flow: http.HTTPFlow) -> None:
    """Show a flow that has ended."""
    for event in (http_layers.HttpRequestHeadersHook, _ended_hook(flow)):
        await ctx.master.addons.handle_lifecycle(event(flow))
        flow.resume()


def _ended_hook(flow: http.HTTPFlow) -> Any:
    return http_layers.HttpErrorHook if flow.error else http_layers.HttpResponseHook


def remove_view(name: str) -> None:
    """Remove a contentview, if there is one of that name.

    mitmproxy 12 has no function that removes a view. Without its registry's table, a view that was removed stays in the
    menu until mitmproxy ends; adding one of the same name replaces it.
    """
    if hasattr(contentviews, "registry"):
        getattr(contentviews.registry, "_by_name", {}).pop(name.lower(), None)
        return
    for view in [view for view in getattr(contentviews, "views", ()) if view.name.lower() == name.lower()]:
        contentviews.remove(view)


def is_serving() -> bool:
    """Return whether mitmproxy listens on any port; without its list of servers, the doctor says that it does not."""
    servers = getattr(ctx.master.addons.get("proxyserver"), "servers", ())
    return any(server.is_running for server in servers)
