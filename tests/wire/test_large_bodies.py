"""mitmproxy's option stream_large_bodies, which would send large requests on before the addon sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.wire.conftest import NO_TOOLS, StartProxy, ndjson

from ollama_lmstudio.sim import Sim

LARGE = [{"role": "user", "content": "x" * 200_000}]


@pytest.mark.parametrize("limit", ["100k", "1"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
def test_a_large_request_is_translated_and_its_model_looked_up(
    sim: Sim, start_proxy: StartProxy, limit: str, chunked: bool
) -> None:
    sim.load(NO_TOOLS)
    proxy = start_proxy(sim.url, "--set", f"stream_large_bodies={limit}")
    proxy.wait_for_log(r"\(\d+ models\)")

    def body(model: str) -> bytes | Iterator[bytes]:
        data = json.dumps({"model": model, "messages": LARGE}).encode()
        return iter([data[:150_000], data[150_000:]]) if chunked else data

    with proxy.client() as client:
        lines = ndjson(client.post("/api/chat", content=body(NO_TOOLS)))
        assert lines[-1]["done"]
        assert {request.path for request in sim.requests if request.method == "POST"} == {"/v1/chat/completions"}
        sim.clear()
        for path in ("/v1/chat/completions", "/api/chat", "/api/generate"):
            answer = client.post(path, content=body("nope:7b"))
            assert answer.status_code == 404
        assert client.post("/api/nonsense", content=body("nope:7b")).status_code == 404
        assert [request.path for request in sim.requests if request.method == "POST"] == []
    assert proxy.log.count("stream_large_bodies has been switched off") == 1
