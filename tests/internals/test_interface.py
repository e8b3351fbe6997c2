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

from ollama_lmstudio.inspect import views
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


def test_views_are_removed() -> None:
    before = set(contentviews_by_name())
    views.install()
    added = set(contentviews_by_name()) - before
    assert added == {side.name.lower() for side in views.SIDES}
    interface.remove_views(added)
    assert set(contentviews_by_name()) == before
    interface.remove_views(added)


def contentviews_by_name() -> list[str]:
    """The names of mitmproxy's views, in lower case."""
    if hasattr(contentviews, "registry"):
        return list(contentviews.registry._by_name)
    return [view.name.lower() for view in contentviews.views]


def test_the_console_hides_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    for repeats in (True, False):
        check = errorcheck.ErrorCheck(repeat_errors_on_stderr=repeats)
        check.finish()
        master_with(monkeypatch, errorcheck=check)
        assert interface.hides_log() is repeats
    for addons in ({}, {"errorcheck": SimpleNamespace()}):
        master_with(monkeypatch, **addons)
        assert not interface.hides_log()
