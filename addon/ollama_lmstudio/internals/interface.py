"""What the user interfaces, the log and a saved file are to show, without anybody waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mitmproxy import ctx, hooks, http

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


def hides_log() -> bool:
    """Whether the user interface covers the terminal: what is logged at the very end is then never seen.

    Without it, the console ends without saying why.
    """
    return bool(getattr(ctx.master.addons.get("errorcheck"), "repeat_errors_on_stderr", False))
