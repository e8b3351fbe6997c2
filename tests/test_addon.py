"""What the hooks do, where no client can tell."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import Any, cast

import pytest
from mitmproxy import http
from mitmproxy.test import tflow

from ollama_lmstudio.addon import Bridge
from ollama_lmstudio.exchanges import compression


def test_a_body_is_decompressed_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop = []
    decompress = compression.decompress

    def note(body: bytes, name: str) -> bytes | None:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return decompress(body, name)

    monkeypatch.setattr(compression, "decompress", note)
    request = http.Request.make("POST", "http://x/v1/chat/completions", headers=http.Headers(content_encoding="gzip"))
    request.raw_content = gzip.compress(b"{}")
    flow = tflow.tflow(req=request)
    asyncio.run(Bridge()._decode(flow, cast(Any, None)))
    assert (flow.request.raw_content, "content-encoding" in flow.request.headers) == (b"{}", False)
    assert on_loop == [False]
