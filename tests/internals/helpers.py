"""Parts of mitmproxy to stand in for the real ones."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from mitmproxy import ctx
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy import context as proxy_context
from mitmproxy.test import tflow

from ollama_lmstudio.internals import connections


def master_with(monkeypatch: pytest.MonkeyPatch, **addons: Any) -> Mock:
    """Make these mitmproxy's addons."""
    master = Mock()
    master.addons.get = addons.get
    master.addons.trigger_event = AsyncMock()
    master.addons.handle_lifecycle = AsyncMock()
    monkeypatch.setattr(ctx, "master", master, raising=False)
    return master


def live_context() -> proxy_context.Context:
    """Return the context of a new connection."""
    return proxy_context.Context(tflow.tclient_conn(), Options())


def connect(monkeypatch: pytest.MonkeyPatch, client: Client, handler: Any) -> None:
    """Make a handler that of a client's connection."""
    monkeypatch.setattr(connections, "by_id", lambda: {client.id: handler})
