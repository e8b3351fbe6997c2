"""What the user interfaces show."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import contentviews, ctx
from mitmproxy.addons import errorcheck
from mitmproxy.test import tflow
from tests.internals.helpers import master_with

from ollama_lmstudio.internals import interface


@pytest.mark.parametrize("failed", [True, False])
def test_a_flow_is_shown_and_paused_by_nobody(failed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    master = master_with(monkeypatch)
    flow = tflow.tflow(resp=not failed, err=failed)

    async def stop(event: Any) -> None:
        flow.intercept()

    master.addons.handle_lifecycle.side_effect = stop

    async def show() -> None:
        await interface.show_begin(flow)
        await interface.show_end(flow)

    asyncio.run(show())
    told = [type(call.args[0]).__name__ for call in master.addons.handle_lifecycle.await_args_list]
    assert told == ["HttpRequestHeadersHook", "HttpErrorHook" if failed else "HttpResponseHook"]
    assert not flow.intercepted


@pytest.mark.parametrize("failed", [True, False])
def test_the_end_of_a_flow_is_shown_as_the_process_ends(failed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = tflow.tflow(resp=not failed, err=failed)
    ended: list[tuple[str, Any]] = []
    save = SimpleNamespace(**{"error" if failed else "response": lambda flow: ended.append(("save", flow))})
    master_with(monkeypatch, save=save, dumper=SimpleNamespace())
    interface.show_end_now(flow)
    assert ended == [("save", flow)]


def test_the_console_hides_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for repeats in (True, False):
        check = errorcheck.ErrorCheck(repeat_errors_on_stderr=repeats)
        check.finish()
        master_with(monkeypatch, errorcheck=check)
        assert interface.hides_log() is repeats
    for addons in ({}, {"errorcheck": SimpleNamespace()}):
        master_with(monkeypatch, **addons)
        assert not interface.hides_log()


def test_a_view_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = contentviews
    if hasattr(contentviews, "registry"):
        registry = type(api.registry)()
        monkeypatch.setattr(api, "registry", registry)
        registry.register(SimpleNamespace(name="Some View"))
        interface.remove_view("Some View")
        assert list(registry) == []
    else:
        views = [SimpleNamespace(name="Some View")]
        monkeypatch.setattr(api, "views", views)
        interface.remove_view("Some View")
        assert views == []
    interface.remove_view("Some View")


def test_what_is_shown_is_rendered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console renders what it shows anew when mitmproxy tells it that there is another view."""
    api: Any = contentviews
    told = []

    def rendered(view: object) -> None:
        told.append(view)

    signal = api.registry.on_change if hasattr(api, "registry") else api.on_add
    signal.connect(rendered)
    interface.render_anew()
    assert told == [None]
    monkeypatch.setattr(interface, "contentviews", SimpleNamespace())
    interface.render_anew()


def test_views_come_first_in_the_menu(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = contentviews
    names = ["Raw", "Two", "Hex", "One"]
    if hasattr(contentviews, "registry"):
        registry = type(api.registry)()
        monkeypatch.setattr(api, "registry", registry)
        for name in names:
            registry.register(SimpleNamespace(name=name))
        # Twice, as after a reload of the script; a view that is gone is no more in the menu.
        interface.put_views_first(["One", "Two"])
        interface.put_views_first(["One", "Two", "Three"])
        assert registry.available_views() == ["auto", "one", "two", "hex", "raw"]
        interface.remove_view("One")
        assert registry.available_views() == ["auto", "two", "hex", "raw"]
        interface.keep_views_in_order()
        assert "available_views" not in vars(registry)
    else:
        views = [SimpleNamespace(name=name) for name in ["Auto", *names]]
        monkeypatch.setattr(api, "views", views)
        interface.put_views_first(["One", "Two", "Three"])
        assert [view.name for view in views] == ["Auto", "One", "Two", "Raw", "Hex"]


class Keymap:
    """The console's keys; importing its own imports what warns (tests/browser has the real one)."""

    def __init__(self) -> None:
        self.bound: dict[tuple[str, str], tuple[str, str]] = {}

    def get(self, context: str, key: str) -> tuple[str, str] | None:
        return self.bound.get((context, key))

    def add(self, key: str, command: str, contexts: list[str], help_: str) -> None:
        self.bound |= {(context, key): (command, help_) for context in contexts}


def test_a_key_is_bound_unless_it_has_a_use(monkeypatch: pytest.MonkeyPatch) -> None:
    master = master_with(monkeypatch)
    master.keymap = None
    interface.bind_key("flowview", "o", "ollama.view", "Show the other side")
    master.keymap = Keymap()
    interface.bind_key("flowview", "o", "ollama.view", "Show the other side")
    interface.bind_key("flowview", "o", "something.else", "")
    assert master.keymap.bound == {("flowview", "o"): ("ollama.view", "Show the other side")}


def test_a_page_that_has_no_port_is_known_before_mitmweb_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    class Given(dict[str, Any]):
        __getattr__ = dict.__getitem__

    starting, running = SimpleNamespace(is_running=False), SimpleNamespace(is_running=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        page = Given(web_port=port, web_host="127.0.0.1")
        for options, proxyserver, is_failing in (
            (page, starting, True),
            (page, running, False),
            (page, None, False),
            (Given(), starting, False),
        ):
            master_with(monkeypatch, proxyserver=proxyserver)
            monkeypatch.setattr(ctx, "options", options, raising=False)
            assert (interface.page_failure() is not None) is is_failing
    master_with(monkeypatch, proxyserver=starting)
    monkeypatch.setattr(ctx, "options", page, raising=False)
    assert interface.page_failure() is None
    with socket.create_server(("127.0.0.1", port)):
        pass
