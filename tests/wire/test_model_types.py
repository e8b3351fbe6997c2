"""Models that are neither for chats nor for embeddings: shown as what they are, and never offered for chats."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import HI, Proxy

from ollama_lmstudio.sim import Recorded, Sim, SimModel, SimThread, decider

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


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
QUESTIONS = {
    "route": {"type": "choice", "instructions": "Which desk?", "criteria": {"billing": "money", "sales": None}},
    "urgent": {"type": "noul", "instructions": "Is it urgent?"},
}


def ask(client: httpx.Client, model: str = DECIDER, **body: Any) -> httpx.Response:
    return client.post("/v1/systemone", json={"model": model, "state": "Refund me.", "questions": QUESTIONS} | body)


def asked(sim: Sim) -> list[Recorded]:
    return [request for request in sim.requests if request.path == "/v1/systemone"]


NEW = pytest.mark.parametrize("sim", ["0.4.25"], indirect=True, ids=["v1"])


@pytest.fixture
def deciding(sim: Sim) -> Sim:
    """An LM Studio that has decision models' own path, with none of them loaded."""
    for instance in sim.instances:
        sim.unload(instance.id)
    sim.clear()
    return sim


@NEW
def test_a_decision_model_is_asked(client: httpx.Client, deciding: Sim) -> None:
    client.get("/api/tags")
    answer = ask(client, f"{DECIDER}:latest", state={"text": "Refund me.", "n": 1})
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["model", "answers", "usage"]
    assert body["model"] == f"{DECIDER}:latest"
    assert body["answers"]["route"]["choice"] == "billing"
    (request,) = asked(deciding)
    assert request.json == {"model": DECIDER, "state": {"text": "Refund me.", "n": 1}, "questions": QUESTIONS}
    # It was loaded for it, which LM Studio does not do on demand; the next call needs nothing else.
    assert [instance.id for instance in deciding.instances] == [DECIDER]
    client.get("/api/tags")
    deciding.clear()
    assert ask(client).status_code == 200
    assert [request.path for request in deciding.requests] == ["/v1/systemone"]


@NEW
def test_images_are_data_urls(client: httpx.Client, deciding: Sim) -> None:
    image = base64.b64encode(PNG).decode()
    assert ask(client, SEEING_DECIDER, images=[image], later="kept").status_code == 200
    (request,) = asked(deciding)
    assert request.json["images"] == [f"data:image/png;base64,{image}"]
    assert request.json["later"] == "kept"
    refused = ask(client, SEEING_DECIDER, images=["data:image/png;base64,xx"])
    assert (refused.status_code, refused.json()) == (400, {"error": "illegal base64 data at input byte 4"})


@NEW
def test_keep_alive_is_the_bridges(client: httpx.Client, deciding: Sim) -> None:
    assert ask(client, keep_alive=0).status_code == 200
    assert "keep_alive" not in asked(deciding)[-1].json
    end = time.monotonic() + 10
    while deciding.instances and time.monotonic() < end:
        time.sleep(0.05)
    assert not deciding.instances


@NEW
def test_a_model_that_has_gone_is_loaded_again(client: httpx.Client, deciding: Sim) -> None:
    """LM Studio loads none of these on demand, and the list may say what was so a while ago."""
    assert ask(client).status_code == 200
    client.get("/api/tags").raise_for_status()
    deciding.unload(DECIDER)
    assert ask(client).status_code == 200


@NEW
@pytest.mark.parametrize(
    ("model", "body", "status", "error"),
    [
        ("", {}, 400, "model is required"),
        (" ", {}, 400, "model is required"),
        ("nosuch", {}, 404, 'model "nosuch" not found, try pulling it first'),
        ("plain", {}, 400, '"plain" does not support decision'),
        (SPEAKER, {}, 400, f'"{SPEAKER}" does not support decision'),
        ("nimble:cloud", {}, 403, "ollama cloud is disabled: remote model is unavailable"),
        (DECIDER, {"questions": {}}, 400, "'questions' must be an object with at least one question."),
    ],
)
def test_errors_are_in_ollamas_shape(
    client: httpx.Client, deciding: Sim, model: str, body: dict[str, Any], status: int, error: str
) -> None:
    answer = ask(client, model, **body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert bool(asked(deciding)) is (model == DECIDER)


def test_an_lmstudio_without_that_path_is_told(client: httpx.Client, sim: Sim) -> None:
    if sim.version.has("systemone"):
        sim.fault(path="/v1/systemone", times=1, pre_error=(200, "application/json", UNKNOWN_ROUTE))
    else:
        sim.load(DECIDER)
        client.get("/api/tags")
    answer = ask(client)
    assert answer.status_code == 404
    assert "This LM Studio does not have POST /v1/systemone; a newer version may." in answer.json()["error"]


UNKNOWN_ROUTE = '{"error":"Unexpected endpoint or method. (POST /v1/systemone)"}'
