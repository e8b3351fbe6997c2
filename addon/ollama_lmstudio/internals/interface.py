"""What the user interfaces show: mitmweb's and the console's list of flows, and changes in it."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mitmproxy import contentviews, ctx, hooks, http
from mitmproxy.flow import Flow

try:
    from mitmproxy.proxy.layers import http as http_layers
except ImportError:  # pragma: no cover - a mitmproxy to come
    http_layers = None  # type: ignore[assignment]


def is_shown() -> bool:
    """Whether there is a list of flows, as in mitmweb and the console. Without it, progress is not shown."""
    return ctx.master.addons.get("view") is not None


def is_web() -> bool:
    """Whether flows are shown in mitmweb's page. Without it, a text's empty lines are not to be seen there."""
    return hasattr(getattr(ctx, "master", None), "app")


_pages: list[str] = []
"""Where the conversation page is, beside mitmweb's own; empty while there is none."""


def set_page(path: str) -> None:
    """Tell where the conversation page is from now on; an empty path for nowhere."""
    _pages[:] = [path] if path else []


def page() -> str:
    """Return the path of the conversation page; an empty string where there is none."""
    return _pages[0] if _pages else ""


def web_url() -> str:
    """Return the address of mitmweb's page, without the token that lets its first reader in."""
    host = ctx.options.web_host or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{ctx.options.web_port}"


def page_address(flow: http.HTTPFlow) -> str:
    """Return the address of a flow on the conversation page; an empty string where there is no such page."""
    return f"{web_url()}{page()}#{flow.id}" if page() else ""


def is_console() -> bool:
    """Whether flows are shown in the console. Without it, a tab is a question mark there."""
    return hasattr(getattr(ctx, "master", None), "keymap")


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


def listed_flows() -> list[Flow]:
    """Return all flows in the list, also those that a filter hides; none where there is no list."""
    if not is_shown():
        return []
    found: list[Flow] = ctx.master.commands.call("view.flows.resolve", "@all")
    return found


def remove_oldest(most: int) -> int:
    """Remove the oldest flows that have ended, where the list holds more; return how many were removed.

    Without it, the list of mitmweb grows until the process has no memory left: mitmproxy has no limit for it.
    """
    count = getattr(ctx.master.addons.get("view"), "store_count", None)
    if count is None or count() <= most:
        return 0
    flows = listed_flows()
    ended = [flow for flow in flows[: len(flows) - most] if _has_ended(flow)]
    ctx.master.commands.call("view.flows.remove", ended)
    return len(ended)


def _has_ended(flow: Flow) -> bool:
    # The addon's own calls are never live.
    has_answer = flow.error is not None or getattr(flow, "response", None) is not None
    return has_answer and not (flow.live or flow.intercepted)


def show_lines(lines: list[str]) -> None:
    """Show lines in the console, as it shows the result of a command.

    Without it, what a command finds out later is only in the event log.
    """
    # No other interface has these widgets.
    from mitmproxy.tools.console import overlay

    master: Any = ctx.master
    master.overlay(overlay.DataViewerOverlay(master, lines), valign="top")


def is_listed(flow: http.HTTPFlow) -> bool:
    """Whether a flow is in the list."""
    return ctx.master.addons.get("view").get_by_id(flow.id) is not None


async def show_change(flow: http.HTTPFlow) -> None:
    """Make the interfaces show a flow's changes."""
    await ctx.master.addons.trigger_event(hooks.UpdateHook([flow]))


async def show_begin(flow: http.HTTPFlow) -> None:
    """Add a flow of the addon's own to the list, as if mitmproxy had received its request.

    Without it, the addon's own calls to LM Studio are not shown.
    """
    await _handle(http_layers.HttpRequestHeadersHook(flow), flow)


async def show_end(flow: http.HTTPFlow) -> None:
    """Show the end of such a flow: in the list, in mitmdump's output and in a file that is saved."""
    await _handle(_ended_hook(flow)(flow), flow)


async def show_flow(flow: http.HTTPFlow) -> None:
    """Show a flow of the addon's own that has ended."""
    await show_begin(flow)
    await show_end(flow)


async def _handle(event: hooks.Hook, flow: http.HTTPFlow) -> None:
    await ctx.master.addons.handle_lifecycle(event)
    # An intercept filter may match, but nobody waits for this flow.
    flow.resume()


def show_end_now(flow: http.HTTPFlow) -> None:
    """Show the end of such a flow where nothing can be waited for, as the process ends."""
    name = _ended_hook(flow).name
    for addon in ("view", "save", "dumper"):
        if (show := getattr(ctx.master.addons.get(addon), name, None)) is not None:
            show(flow)


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


def render_anew() -> None:
    """Make the console render what it shows anew, as it does when a contentview is added.

    It keeps what it has rendered by the bytes of the message: without this, the view of a request goes on to show what
    was known when it came, whatever has become of it.
    """
    signal = getattr(getattr(contentviews, "registry", None), "on_change", getattr(contentviews, "on_add", None))
    if signal is not None:
        signal.send(None)


def put_views_first(names: Sequence[str]) -> None:
    """Put contentviews at the beginning of the menus of mitmweb and the console, after the choice `auto`.

    Without it, they are somewhere among some twenty others: at the end, or by the alphabet.
    """
    wanted = [name.lower() for name in names]
    if hasattr(contentviews, "registry"):
        registry: Any = contentviews.registry

        def available_views() -> list[str]:
            auto, *others = type(registry).available_views(registry)
            first = [name for name in wanted if name in others]
            return [auto, *first, *(name for name in others if name not in first)]

        registry.available_views = available_views
        return
    views = getattr(contentviews, "views", [])
    # The first one is `auto`. Sorting keeps the order of all that are equal here.
    views[1:] = sorted(views[1:], key=lambda view: (*wanted, view.name.lower()).index(view.name.lower()))


def keep_views_in_order() -> None:
    """Undo `put_views_first`, where it is more than an order of the views that there are."""
    if hasattr(contentviews, "registry"):
        vars(contentviews.registry).pop("available_views", None)


def bind_key(context: str, key: str, command: str, description: str) -> None:
    """Bind a key of the console to a command, unless it has another use there. Without it, the command has no key."""
    keymap = getattr(ctx.master, "keymap", None)
    if keymap is not None and keymap.get(context, key) is None:
        keymap.add(key, command, [context], description)
