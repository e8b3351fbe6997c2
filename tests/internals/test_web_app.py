"""Handlers of ours in mitmweb's application, and what happens to its list."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx, flowfilter, http
from mitmproxy.addons.view import View
from mitmproxy.test import tflow
from mitmproxy.tools.web import app as mitmweb_app
from tornado.routing import ReversibleRuleRouter
from tornado.web import Application

from ollama_lmstudio.internals import web_app

# mitmproxy 11 has none.
LOGIN: Any = getattr(mitmweb_app, "AuthRequestHandler", None)


class Page(web_app.RequestHandler):  # type: ignore[misc]
    """A handler of ours."""


def patterns(router: ReversibleRuleRouter) -> list[str]:
    """Return the paths that lead somewhere, also in routers within it."""
    found: list[str] = []
    for rule in router.rules:
        if isinstance(rule.target, ReversibleRuleRouter):
            found += patterns(rule.target)
        else:
            found.append(rule.matcher.regex.pattern)  # type: ignore[attr-defined]
    return found


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Application:
    """mitmweb's own application."""
    auth = SimpleNamespace(is_valid_password=lambda password: False, auth_cookie_name=lambda: "auth")
    master: Any = SimpleNamespace(addons=SimpleNamespace(get=lambda name: auth), options=SimpleNamespace())
    app = mitmweb_app.Application(master, False)
    monkeypatch.setattr(ctx, "master", SimpleNamespace(app=app), raising=False)
    return app


def test_handlers_are_added_and_removed(app: Application) -> None:
    before = patterns(app.default_router)
    assert web_app.application() is app
    assert web_app.add_routes([(r"/ours", Page), (r"/ours/(?P<flow_id>[0-9a-f-]+)", Page)])
    ours = [pattern for pattern in patterns(app.default_router) if pattern not in before]
    assert ours == ["/ours$", "/ours/(?P<flow_id>[0-9a-f-]+)$"]
    web_app.remove_routes("/ours")
    web_app.remove_routes("/ours")
    assert patterns(app.default_router) == before


def test_they_are_where_mitmwebs_own_are(app: Application) -> None:
    """On mitmproxy 11, behind the check of the Host header."""
    web_app.add_routes([(r"/ours", Page)])
    router = web_app._router_of_page()
    assert router is not None
    assert {"/$", "/flows$", "/ours$"} <= {web_app._pattern(rule).replace("(?:\\.json)?", "") for rule in router.rules}


@pytest.mark.skipif(not LOGIN, reason="this mitmweb has no login")
def test_they_ask_for_the_login() -> None:
    assert issubclass(Page, LOGIN)
    assert issubclass(web_app.Socket, LOGIN)


@pytest.mark.parametrize("master", [SimpleNamespace(), SimpleNamespace(app=None), SimpleNamespace(app=Application())])
def test_without_mitmwebs_page_nothing_is_added(monkeypatch: pytest.MonkeyPatch, master: Any) -> None:
    monkeypatch.setattr(ctx, "master", master, raising=False)
    assert not web_app.add_routes([(r"/ours", Page)])
    web_app.remove_routes("/ours")


@pytest.mark.parametrize(
    ("web_url", "expected"),
    [
        ("http://localhost:9/?token=abc", "http://localhost:9/ollama/?token=abc"),
        ("http://localhost:9/", "http://localhost:9/ollama/"),
        ("", "http://localhost:9/ollama/"),
    ],
)
def test_the_address_of_a_page(monkeypatch: pytest.MonkeyPatch, web_url: str, expected: str) -> None:
    """With the token that lets its first reader in; mitmproxy 11 has none."""
    options = SimpleNamespace(web_host="localhost", web_port=9)
    monkeypatch.setattr(ctx, "master", SimpleNamespace(web_url=web_url), raising=False)
    monkeypatch.setattr(ctx, "options", options, raising=False)
    assert web_app.page_url("/ollama/") == expected


class Told:
    """What is told of the list."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def changed(self, flow: http.HTTPFlow) -> None:
        self.heard.append(("changed", flow.id))

    def removed(self, flow: http.HTTPFlow) -> None:
        self.heard.append(("removed", flow.id))

    def reset(self) -> None:
        self.heard.append(("reset", ""))

    def take(self) -> list[tuple[str, str]]:
        heard, self.heard = self.heard, []
        return heard


def test_what_becomes_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    view = View()
    monkeypatch.setattr(ctx, "master", SimpleNamespace(addons={"view": view}), raising=False)
    told = Told()
    watch = web_app.ListWatch(told)
    watch.install()
    gc.collect()
    first, second, other = tflow.tflow(resp=True), tflow.tflow(resp=True), tflow.ttcpflow()
    view.add([first, second, other])
    assert told.take() == [("changed", first.id), ("changed", second.id)]
    view.update([first])
    assert ("changed", first.id) in told.take()
    assert web_app.shown_flows() == [first, second]
    assert web_app.shown_flow(second.id) is second
    assert web_app.shown_flow(other.id) is None
    assert web_app.shown_flow("none") is None
    view.remove([first])
    assert ("removed", first.id) in told.take()
    view.set_filter(flowfilter.parse("~u nowhere"))
    assert ("reset", "") in told.take()
    assert web_app.shown_flows() == []
    # It can be looked at by its address all the same.
    assert web_app.shown_flow(second.id) is second
    view.clear()
    assert ("reset", "") in told.take()
    watch.remove()
    gc.collect()
    view.add([tflow.tflow()])
    assert told.take() == []
