"""Models that are neither for chats nor for embeddings: shown as what they are, and never offered for chats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import HI, Proxy

from ollama_lmstudio.sim import Sim, SimModel, SimThread, decider

DECIDER = "nimble-4b"
SEEING_DECIDER = "nimble-vl"
SPEAKER = "phonon"


@pytest.fixture(scope="module", params=["0.4.25", "0.3.39"], ids=["v1", "v0"])
def sim(request: pytest.FixtureRequest) -> Iterator[Sim]:
    models = [
        decider(DECIDER),
        decider(SEEING_DECIDER, vision=True),
        SimModel(SPEAKER, type="speech", capabilities_known=False),
        SimModel("plain", tools=False, loaded=True),
    ]
    with SimThread(models=models, version=request.param) as sim:
        yield sim


@pytest.fixture(scope="module")
def client(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    state: Path = tmp_path_factory.mktemp("state")
    with Proxy(sim.url, state_dir=state) as proxy, proxy.client() as client:
        yield client


def capabilities(client: httpx.Client) -> dict[str, list[str]]:
    tags: list[dict[str, Any]] = client.get("/api/tags").raise_for_status().json()["models"]
    shown = {tag["name"]: client.post("/api/show", json={"model": tag["name"]}).json()["capabilities"] for tag in tags}
    assert {tag["name"]: tag["capabilities"] for tag in tags} == shown
    return {name.removesuffix(":latest"): words for name, words in shown.items()}


def test_they_are_shown_as_what_they_are(client: httpx.Client, sim: Sim) -> None:
    found = capabilities(client)
    assert found[DECIDER] == ["decision"]
    assert found[SPEAKER] == ["speech"]
    assert "completion" in found["plain"]
    # The older list does not tell which of them see images.
    assert found[SEEING_DECIDER] == (["decision", "vision"] if sim.version.has("api_v1") else ["decision"])
    info = client.post("/api/show", json={"model": DECIDER}).json()["model_info"]
    assert info["lmstudio.type"] == "decision"
    assert not [key for key in info if key.endswith("context_length")]


@pytest.mark.parametrize("model", [DECIDER, SPEAKER])
def test_they_take_no_chat(client: httpx.Client, sim: Sim, model: str) -> None:
    sim.clear()
    for path, body, word in (
        ("/api/chat", {"messages": HI}, "chat"),
        ("/api/chat", {}, "chat"),
        ("/api/generate", {"prompt": "hi"}, "generate"),
        ("/api/generate", {"prompt": "hi", "raw": True}, "generate"),
    ):
        response = client.post(path, json={"model": model} | body)
        assert (response.status_code, response.json()["error"]) == (400, f'"{model}" does not support {word}')
    assert not [request for request in sim.requests if request.method == "POST"]


def test_a_decision_model_is_loaded_and_unloaded_by_name(client: httpx.Client, sim: Sim) -> None:
    instance = sim.load(DECIDER)
    running = {entry["name"]: entry for entry in client.get("/api/ps").json()["models"]}
    assert running[f"{DECIDER}:latest"]["context_length"] == instance.context_length
    if sim.version.has("api_v1"):
        client.post("/api/generate", json={"model": DECIDER, "keep_alive": 0}).raise_for_status()
        assert DECIDER not in [instance.id for instance in sim.instances]
