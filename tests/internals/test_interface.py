"""What the user interfaces show."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import contentviews
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
