"""What the user interfaces show: mitmweb's and the console's list of flows, and changes in it."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from typing import Any

from mitmproxy import contentviews, ctx, hooks, http

try:
    from mitmproxy.proxy.layers import http as http_layers
except ImportError:  # pragma: no cover - a mitmproxy to come
    http_layers = None  # type: ignore[assignment]


def is_shown() -> bool:
    """Whether there is a list of flows, as in mitmweb and the console. Without it, progress is not shown."""
    return ctx.master.addons.get("view") is not None


def page_failure() -> OSError | None:
    """Return why mitmweb will not be able to serve its page, before it tries to; None where it will, or does already.

    Without it, a port that is taken ends mitmweb with a traceback.
    """
    if "web_port" not in ctx.options or getattr(ctx.master.addons.get("proxyserver"), "is_running", True):
        return None
    try:
        found = socket.getaddrinfo(
            ctx.options.web_host or None, ctx.options.web_port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
        )
    except OSError as e:
        return e
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as sock:
                if sys.platform != "win32":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
        except OSError as e:
            # Of several addresses, tornado leaves out those that this machine does not have.
            if len(found) == 1 or e.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return e
    return None


def watch_list(cleared: Callable[[], None]) -> None:
    """Call `cleared` when the list has been cleared.

    Without it, a flow that was intercepted when the user cleared the list waits for ever: nothing can resume it.
    """
    signal = getattr(ctx.master.addons.get("view"), "sig_store_refresh", None)
    if signal is not None:
        signal.connect(cleared)


def is_listed(flow: http.HTTPFlow) -> bool:
    """Whether a flow is in the list."""
    return ctx.master.addons.get("view").get_by_id(flow.id) is not None


async def show_change(flow: http.HTTPFlow) -> None:
    """Make the interfaces show a flow's changes."""
    await ctx.master.addons.trigger_event(hooks.UpdateHook([flow]))


async def show_flow(flow: http.HTTPFlow) -> None:
    """Add a flow that has ended to the list, mitmdump's output and a saved file, as if mitmproxy had handled it.

    Without it, the addon's own calls to LM Studio are not shown.
    """
    for event in (http_layers.HttpRequestHeadersHook, _ended_hook(flow)):
        await ctx.master.addons.handle_lifecycle(event(flow))
        # An intercept filter may match, but nobody waits for this flow.
        flow.resume()


def hides_log() -> bool:
    """Whether the user interface covers the terminal: what is logged at the very end is then never seen.

    Without it, the console ends without saying why.
    """
    return bool(getattr(ctx.master.addons.get("errorcheck"), "repeat_errors_on_stderr", False))


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
