"""What exchanges share: settings that change while they go on, and connections that were idle."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from mitmproxy import http
from tests.exchanges.conftest import flow_of

from ollama_lmstudio.exchanges import bridge as bridges
from ollama_lmstudio.exchanges.bridge import IDLE_SECONDS, Bridge, IdleConnections
from ollama_lmstudio.internals import connections
from ollama_lmstudio.lmstudio.catalog import Model
from ollama_lmstudio.options import StateDirs
from ollama_lmstudio.state import files, uses
from ollama_lmstudio.state.aliases import LOCK_NAME, Alias, AliasStore


def test_other_settings_disturb_nothing(bridge: Bridge, tmp_path: Path) -> None:
    services = bridge.services
    client, aliases, lifetimes = services.client, services.aliases, services.lifetimes
    settings = replace(services.settings, model_resolution_cache_ttl_seconds=7, api_key="key")
    bridge.configure(settings, bridge.upstream, insecure=False)
    assert bridge.services is services
    assert (services.client, services.aliases, services.lifetimes) == (client, aliases, lifetimes)
    assert (services.settings, services.catalog.ttl_seconds, bridge.gate.api_key) == (settings, 7, "key")
    bridge.configure(
        replace(settings, state_dir=StateDirs(tmp_path / "other", tmp_path)), bridge.upstream, insecure=False
    )
    assert services.aliases.directory == tmp_path / "other"


def test_what_is_used_and_downloaded_is_told_where_the_state_is_kept_from_now_on(
    bridge: Bridge, tmp_path: Path
) -> None:
    services, model = bridge.services, Model("one")

    def told_in(directory: Path) -> list[str]:
        return [path.read_text(encoding="utf-8") for path in uses.directory_in(directory).glob(f"{uses.PREFIX}*")]

    async def scenario() -> None:
        services.lifetimes.acquire(model, None)
        services.downloads.begun("model", None, "job")
        await asyncio.sleep(0)
        before = services.settings.state_dir.cache
        assert '"one": [true' in told_in(before)[0]
        settings = replace(services.settings, state_dir=StateDirs(tmp_path / "other", tmp_path / "other"))
        bridge.configure(settings, bridge.upstream, insecure=False)
        assert services.downloads.get("model", None) == "job"
        await asyncio.sleep(0)
        assert told_in(before) == []
        assert '"one": [true' in told_in(tmp_path / "other")[0]
        services.lifetimes.release(model)
        services.lifetimes.stop()

    asyncio.run(scenario())


def test_metrics_need_their_library(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    services = bridge.services
    settings = replace(services.settings, metrics="local")
    monkeypatch.delitem(sys.modules, "ollama_lmstudio.record.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(
        ValueError, match=r"^metrics: .* prometheus_client, is not installed: pip install prometheus-client"
    ):
        bridge.configure(settings, bridge.upstream, insecure=False)
    assert (bridge.metrics, services.metrics, services.settings.metrics) == (None, None, "off")


def test_metrics_are_switched_on_and_off(bridge: Bridge) -> None:
    pytest.importorskip("prometheus_client", reason="the library of the extra `metrics` is not installed")
    off = bridge.services.settings
    on = replace(off, metrics="local")
    bridge.configure(on, bridge.upstream, insecure=False)
    counted = bridge.metrics
    assert counted is bridge.services.metrics is not None
    # Other settings leave what has been counted.
    bridge.configure(replace(on, lmstudio_token="other"), bridge.upstream, insecure=False)
    assert bridge.metrics is bridge.services.metrics is counted
    bridge.configure(off, bridge.upstream, insecure=False)
    assert vars(bridge)["metrics"] is bridge.services.metrics is None


@pytest.mark.parametrize("change", ["url", "token", "insecure"])
def test_another_lm_studio_gets_services_of_its_own(bridge: Bridge, change: str) -> None:
    before = bridge.services
    settings, upstream = before.settings, bridge.upstream
    if change == "url":
        upstream = replace(upstream, port=4321)
    elif change == "token":
        settings = replace(settings, lmstudio_token="other")
    bridge.configure(settings, upstream, insecure=change == "insecure")
    assert bridge.services is not before
    assert before.client._closed
    assert bridge.services.client.url == str(upstream)


@pytest.mark.parametrize(("later", "dropped"), [(IDLE_SECONDS - 1, False), (IDLE_SECONDS + 1, True)])
def test_a_connection_that_lm_studio_may_be_closing_is_not_used(
    monkeypatch: pytest.MonkeyPatch, later: float, dropped: bool
) -> None:
    found: list[http.HTTPFlow] = []

    async def drop(flow: http.HTTPFlow) -> None:
        found.append(flow)

    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(bridges, "time", SimpleNamespace(monotonic=lambda: now.value))
    monkeypatch.setattr(connections, "drop_idle", drop)
    idle, flow = IdleConnections(), flow_of()
    idle.left_by(flow)
    now.value += later
    asyncio.run(idle.drop_old(flow))
    asyncio.run(idle.drop_old(flow))
    assert found == [flow] * dropped


def test_a_client_that_is_gone_leaves_no_trace() -> None:
    idle, flow = IdleConnections(), flow_of()
    idle.left_by(flow)
    idle.forget(flow.client_conn.id)
    assert not idle._since
    flow.client_conn.state = type(flow.client_conn.state).CLOSED
    idle.left_by(flow)
    assert not idle._since


def test_requests_are_answered_while_another_process_moves_the_aliases(
    bridge: Bridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The start is no longer than LOCK_SECONDS, however long a lock is held, and nothing is lost."""
    monkeypatch.setattr(bridges, "LOCK_SECONDS", 0.01)
    alias = Alias("mine", "target", 1, 2)
    AliasStore(tmp_path / "former").change(lambda kept: kept.update(mine=alias))
    dirs = StateDirs(tmp_path / "data", tmp_path / "cache", (tmp_path / "former",))
    bridge.configure(replace(bridge.services.settings, state_dir=dirs), bridge.upstream, insecure=False)
    store = bridge.services.aliases

    async def scenario() -> None:
        with files.locked(tmp_path / "former" / LOCK_NAME):
            bridge.take_over_aliases()
            assert store.all() == {}
            await asyncio.sleep(0.1)
        assert len(caplog.messages) == 1
        assert "are not used yet: another process holds the lock" in caplog.text
        async with asyncio.timeout(10):
            await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        assert store.all() == {"mine": alias}

    asyncio.run(scenario())
