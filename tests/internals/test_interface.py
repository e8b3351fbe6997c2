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
    asyncio.run(interface.show_flow(flow))
    told = [type(call.args[0]).__name__ for call in master.addons.handle_lifecycle.await_args_list]
    assert told == ["HttpRequestHeadersHook", "HttpErrorHook" if failed else "HttpResponseHook"]
    assert not flow.intercepted


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
