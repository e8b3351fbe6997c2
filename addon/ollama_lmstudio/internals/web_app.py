"""mitmweb's Tornado application: handlers of ours in it, and what happens to its list of flows.

Handlers that are added where mitmweb's own are have all that guards those: on mitmproxy 12 its login, on 11 its check
of the Host header, on both its check of cross-site requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from mitmproxy import ctx, http
from mitmproxy.flow import Flow
from mitmproxy.tools.web import app as web
from tornado.routing import ReversibleRuleRouter, Rule
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from . import interface

Routes = list[Any]
"""Patterns of paths, with their handlers and what those are made with."""

RequestHandler: Any = web.RequestHandler
"""mitmweb's handlers, which ask for its login. Without it, anybody could read everything."""

# mitmproxy 11 has no login.
_Login: Any = getattr(web, "AuthRequestHandler", object)


class Socket(WebSocketHandler, _Login):  # type: ignore[misc]
    """A WebSocket that asks for mitmweb's login, as its own one does."""


class ListChanges(Protocol):
    """What is told of changes in mitmweb's list of flows."""

    def changed(self, flow: http.HTTPFlow) -> None:
        """Take note of a flow that is new in the list, or another one now."""

    def removed(self, flow: http.HTTPFlow) -> None:
        """Take note of a flow that has left the list."""

    def reset(self) -> None:
        """Take note that the list is another one."""


def application() -> Application | None:
    """Return mitmweb's application; None in any other tool. Without it, there is no page."""
    app = getattr(getattr(ctx, "master", None), "app", None)
    return app if isinstance(app, Application) else None


def add_routes(routes: Routes) -> bool:
    """Add handlers beside that of mitmweb's own page; return whether that could be done."""
    router = _router_of_page()
    if router is None:
        return False
    router.add_rules(routes)
    return True


def remove_routes(prefix: str) -> None:
    """Remove the handlers whose path begins like this, also those of a former version of the script."""
    router = _router_of_page()
    if router is not None:
        router.rules[:] = [rule for rule in router.rules if not _pattern(rule).startswith(prefix)]


def _router_of_page() -> ReversibleRuleRouter | None:
    """Return the router that has mitmweb's page at `/`: on mitmproxy 11, one that only some Host headers lead to."""
    app = application()
    for router in _routers(app.default_router) if app is not None else ():
        if any(_pattern(rule) == "/$" for rule in router.rules):
            return router
    return None


def _routers(router: ReversibleRuleRouter) -> Iterator[ReversibleRuleRouter]:
    yield router
    for rule in router.rules:
        if isinstance(rule.target, ReversibleRuleRouter):
            yield from _routers(rule.target)


def _pattern(rule: Rule) -> str:
    return getattr(getattr(rule.matcher, "regex", None), "pattern", "")


def page_url(path: str) -> str:
    """Return the address of a page below mitmweb's own, with the token that lets its first reader in."""
    token = getattr(ctx.master, "web_url", "").partition("?")[2]
    return f"{interface.web_url()}{path}{f'?{token}' if token else ''}"


def shown_flows() -> list[http.HTTPFlow]:
    """Return the flows in mitmweb's list, the oldest first; those that its own filter hides are left out."""
    view = ctx.master.addons.get("view")
    return [flow for flow in (view or ()) if isinstance(flow, http.HTTPFlow)]


def shown_flow(flow_id: str) -> http.HTTPFlow | None:
    """Return a flow of mitmweb's list, also one that its filter hides; None if it is not there."""
    flow = ctx.master.addons.get("view").get_by_id(flow_id)
    return flow if isinstance(flow, http.HTTPFlow) else None


def _tell(tell: Callable[[http.HTTPFlow], None], flow: Flow) -> None:
    if isinstance(flow, http.HTTPFlow):
        tell(flow)


class ListWatch:
    """Tells of changes in mitmweb's list. mitmproxy has hooks for flows, but none for what becomes of its list."""

    def __init__(self, told: ListChanges) -> None:
        # mitmproxy keeps weak references to these.
        self._receivers: dict[str, Callable[..., None]] = {
            "sig_view_add": lambda flow: _tell(told.changed, flow),
            "sig_view_update": lambda flow: _tell(told.changed, flow),
            "sig_view_remove": lambda flow, index: _tell(told.removed, flow),
            "sig_view_refresh": lambda: told.reset(),
        }

    def install(self) -> None:
        """Begin to tell."""
        view = ctx.master.addons.get("view")
        for name, receiver in self._receivers.items():
            getattr(view, name).connect(receiver)

    def remove(self) -> None:
        """Tell no more: a signal forgets who is not there any longer."""
        self._receivers.clear()
