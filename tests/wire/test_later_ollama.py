"""What Ollama has learnt since 0.33, as far as LM Studio can serve it."""

from __future__ import annotations

import httpx
import pytest
from tests.wire.conftest import CHAT, HI, ndjson

from ollama_lmstudio.sim import Sim


@pytest.mark.parametrize("cached", [0, 18])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_cached_tokens_are_counted_where_lmstudio_counts_them(
    client: httpx.Client, sim: Sim, path: str, cached: int
) -> None:
    sim.set(cached_tokens=cached)
    body = {"model": CHAT} | ({"messages": HI} if path == "/api/chat" else {"prompt": "hi"})
    *_, streamed = ndjson(client.post(path, json=body))
    whole = client.post(path, json=body | {"stream": False}).json()
    for last in (streamed, whole):
        assert last["prompt_eval_cached_count"] == cached
        names = list(last)
        assert names.index("prompt_eval_cached_count") == names.index("prompt_eval_count") + 1
    sim.set(cached_tokens=None)
    assert "prompt_eval_cached_count" not in client.post(path, json=body | {"stream": False}).json()
