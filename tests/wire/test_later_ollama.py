"""What Ollama has learnt since 0.33, as far as LM Studio can serve it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from tests.wire.conftest import CHAT, EMBEDDER, GPT_OSS, HI, THINKING, StartProxy, ndjson

from ollama_lmstudio.sim import LEVELS_REASONING, Sim, SimModel, SimThread


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


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        (THINKING, {"values": [False, True], "default": True}),
        (GPT_OSS, {"values": ["low", "medium", "high"], "default": "low"}),
        (CHAT, None),
    ],
)
def test_show_tells_what_think_can_be(client: httpx.Client, model: str, thinking: object) -> None:
    assert client.post("/api/show", json={"model": model}).json().get("thinking") == thinking


def test_each_value_that_is_shown_is_taken_and_any_other_means_the_default(start_proxy: StartProxy) -> None:
    models = [SimModel("qwen3.8", reasoning=LEVELS_REASONING), SimModel("plain")]
    with SimThread(models=models) as sim, start_proxy(sim.url).client() as client:

        def effort(think: object, path: str = "/api/chat") -> object:
            body = {"messages": HI} if path == "/api/chat" else {"prompt": "hi"}
            client.post(path, json={"model": "qwen3.8", "think": think, "stream": False} | body).raise_for_status()
            return sim.requests[-1].json.get("reasoning_effort")

        shown = client.post("/api/show", json={"model": "qwen3.8"}).json()["thinking"]
        assert shown == {"values": [False, "low", "medium", "xhigh", True], "default": "xhigh"}
        assert [effort(think) for think in shown["values"]] == ["none", "low", "medium", "xhigh", None]
        assert [effort(think) for think in ("huge", "", None)] == [None, None, None]
        assert effort("xhigh", "/api/generate") == "xhigh"
        # Of this one LM Studio tells no words.
        refused = client.post("/api/chat", json={"model": "plain", "messages": HI, "think": "huge"})
        assert (refused.status_code, refused.json()["error"][:27]) == (400, 'invalid think value: "huge"')


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"text": "one"}, ["one"]),
        ([{"text": "one"}, "two", {"text": "", "image": None}], ["one", "two", ""]),
    ],
)
def test_embed_takes_texts_as_objects(client: httpx.Client, sim: Sim, given: Any, texts: list[str]) -> None:
    answer = client.post("/api/embed", json={"model": EMBEDDER, "input": given}).json()
    assert sim.requests[-1].json["input"] == texts
    assert (
        answer["embeddings"] == client.post("/api/embed", json={"model": EMBEDDER, "input": texts}).json()["embeddings"]
    )


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"image": "aGk="}, "LM Studio embeds texts only: the input has image"),
        (["one", {"text": "two", "audio": "aGk=", "video": "x"}], "LM Studio embeds texts only: .* audio and video"),
        ({}, "invalid input type"),
        ({"text": 5}, "invalid input type"),
        ([{"text": "one"}, 5], "invalid input type"),
        ([["one"]], "invalid input type"),
        (5, "invalid input type"),
    ],
)
def test_embed_refuses_what_is_no_text(client: httpx.Client, sim: Sim, given: Any, error: str) -> None:
    answer = client.post("/api/embed", json={"model": EMBEDDER, "input": given})
    assert answer.status_code == 400
    assert re.fullmatch(error, answer.json()["error"])
    assert sim.requests == []
