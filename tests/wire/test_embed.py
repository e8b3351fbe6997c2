"""Embeddings through a real mitmdump, asserting on both sides."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest
from tests.wire.conftest import CHAT, EMBEDDER, UNSCALED_EMBEDDER

from ollama_lmstudio.sim import Sim, SimModel
from ollama_lmstudio.sim.generate import embedding

UNSCALED = SimModel(UNSCALED_EMBEDDER, type="embedding", unit_norm=False, dimensions=16)


def embed(client: httpx.Client, text: Any = "hello", **body: Any) -> httpx.Response:
    """Ask for embeddings."""
    return client.post("/api/embed", json={"model": EMBEDDER, "input": text} | body)


def vectors(response: httpx.Response) -> list[list[float]]:
    """Give the vectors of an answer."""
    assert response.status_code == 200, response.text
    found: list[list[float]] = response.json()["embeddings"]
    return found


def test_one_text(client: httpx.Client, sim: Sim) -> None:
    response = embed(client)
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    answer = response.json()
    assert list(answer) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
    assert answer["model"] == EMBEDDER
    assert answer["total_duration"] >= answer["load_duration"] > 0
    assert answer["prompt_eval_count"] >= 1
    (vector,) = answer["embeddings"]
    assert len(vector) == 768
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)
    assert [(request.path, request.json) for request in sim.requests] == [
        ("/v1/embeddings", {"model": EMBEDDER, "input": ["hello"]})
    ]


def test_several_texts_keep_their_order(client: httpx.Client) -> None:
    texts = ["red", "green", "blue"]
    together = vectors(embed(client, texts))
    assert together == [vectors(embed(client, text))[0] for text in texts]
    assert embed(client, texts).json()["prompt_eval_count"] >= 3


def test_the_order_is_that_of_the_indexes(client: httpx.Client, sim: Sim) -> None:
    data = [{"object": "embedding", "index": index, "embedding": [float(index), 1.0]} for index in (2, 0, 1)]
    sim.fault(pre_error=(200, "application/json", json.dumps({"object": "list", "data": data})))
    ratios = [first / second for first, second in vectors(embed(client, ["a", "b", "c"]))]
    assert ratios == pytest.approx([0, 1, 2], abs=1e-5)


@pytest.mark.parametrize("data", [[], [{"index": 0, "embedding": "AAAA"}], "none"])
def test_vectors_that_are_missing(client: httpx.Client, sim: Sim, data: Any) -> None:
    sim.fault(pre_error=(200, "application/json", json.dumps({"object": "list", "data": data})))
    response = embed(client)
    assert response.status_code == 502
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize("nothing", ["", [], None])
def test_no_text_loads_the_model(client: httpx.Client, sim: Sim, nothing: Any) -> None:
    assert embed(client, nothing).json() == {"model": EMBEDDER, "embeddings": []}
    assert [(instance.id, instance.jit) for instance in sim.instances] == [(EMBEDDER, True)]
    # LM Studio loads it for a word of its own.
    assert [request.json for request in sim.requests if request.json] == [{"model": EMBEDDER, "input": "hi"}]


def test_an_empty_text_in_a_list_is_a_text(client: httpx.Client, sim: Sim) -> None:
    assert len(vectors(embed(client, [""]))) == 1
    assert sim.requests[0].json["input"] == [""]


def test_vectors_are_scaled_to_length_one(client: httpx.Client) -> None:
    (vector,) = vectors(embed(client, model=UNSCALED_EMBEDDER))
    expected = embedding("hello", UNSCALED, 8)
    length = math.hypot(*expected)
    assert length > 2
    assert vector == pytest.approx([number / length for number in expected], abs=1e-6)


@pytest.mark.parametrize(("dimensions", "kept"), [(4, 4), (0, 16), (-1, 16), (16, 16), (100, 16)])
def test_dimensions_cut_and_scale_again(client: httpx.Client, dimensions: int, kept: int) -> None:
    (vector,) = vectors(embed(client, model=UNSCALED_EMBEDDER, dimensions=dimensions))
    expected = embedding("hello", UNSCALED, 8)[:kept]
    length = math.hypot(*expected)
    assert vector == pytest.approx([number / length for number in expected], abs=1e-6)


def test_a_text_that_is_too_long(client: httpx.Client, sim: Sim) -> None:
    text = "word " * 9
    assert len(vectors(embed(client, text, model=UNSCALED_EMBEDDER))) == 1
    sim.clear()
    response = embed(client, ["short", text], model=UNSCALED_EMBEDDER, truncate=False)
    assert response.status_code == 400
    assert response.json() == {"error": "the input length exceeds the context length"}
    assert not any(request.path == "/v1/embeddings" for request in sim.requests)
    assert len(vectors(embed(client, "word " * 8, model=UNSCALED_EMBEDDER, truncate=False))) == 1


def test_a_text_that_is_too_long_for_num_ctx(client: httpx.Client, sim: Sim) -> None:
    """Also where an alias has it, as every option."""
    response = embed(client, "five words are too many", truncate=False, options={"num_ctx": 4})
    assert (response.status_code, response.json()) == (400, {"error": "the input length exceeds the context length"})
    assert not any(request.path == "/v1/embeddings" for request in sim.requests)
    assert len(vectors(embed(client, "these four words fit", truncate=False, options={"num_ctx": 4}))) == 1
    assert len(vectors(embed(client, "five words are too many", options={"num_ctx": 4}))) == 1
    client.post("/api/create", json={"model": "short", "from": EMBEDDER, "parameters": {"num_ctx": 4}})
    refused = embed(client, "five words are too many", model="short", truncate=False)
    client.request("DELETE", "/api/delete", json={"model": "short"}).raise_for_status()
    assert refused.status_code == 400


@pytest.mark.parametrize(("counted", "told"), [(9, 9), (0, 2)])
def test_the_count_of_tokens_is_lmstudios_if_it_has_one(
    client: httpx.Client, sim: Sim, counted: int, told: int
) -> None:
    data = [{"object": "embedding", "embedding": [3, 4], "index": 0}]
    usage = {"prompt_tokens": counted, "total_tokens": counted}
    body = json.dumps({"object": "list", "data": data, "model": EMBEDDER, "usage": usage})
    sim.fault(pre_error=(200, "application/json", body))
    assert embed(client, "two words").json()["prompt_eval_count"] == told


def test_the_older_endpoint_gives_the_vector_as_it_is(client: httpx.Client) -> None:
    response = client.post("/api/embeddings", json={"model": UNSCALED_EMBEDDER, "prompt": "hello"})
    assert response.json() == {"embedding": embedding("hello", UNSCALED, 8)}
    response = client.post("/api/embeddings", json={"model": UNSCALED_EMBEDDER, "prompt": ""})
    assert response.json() == {"embedding": []}


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings"])
def test_keep_alive(client: httpx.Client, sim: Sim, path: str) -> None:
    body = {"model": EMBEDDER, "input": "hello", "prompt": "hello", "keep_alive": "10m", "options": None}
    assert client.post(path, json=body).status_code == 200
    assert [instance.ttl for instance in sim.instances] == [600]


def test_a_model_that_is_no_embedder(client: httpx.Client) -> None:
    response = embed(client, model=CHAT)
    assert response.status_code == 400
    assert "Model is not embedding" in response.json()["error"]
    response = client.post("/api/embeddings", json={"model": CHAT, "prompt": "hello"})
    assert response.status_code == 500
    assert "Model is not embedding" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/embed", {"input": 5}, 400, "invalid input type"),
        ("/api/embed", {"input": [1, 2]}, 400, "invalid input type"),
        ("/api/embed", {"input": ["a", None], "model": "nosuch"}, 400, "invalid input type"),
        ("/api/embed", {"model": ""}, 404, "model '' not found"),
        ("/api/embed", {"model": "nosuch"}, 404, 'model "nosuch" not found, try pulling it first'),
        ("/api/embeddings", {"model": ""}, 400, "model is required"),
        ("/api/embeddings", {"model": "nosuch"}, 404, 'model "nosuch" not found, try pulling it first'),
    ],
)
def test_what_ollama_refuses(client: httpx.Client, path: str, body: dict[str, Any], status: int, error: str) -> None:
    response = client.post(path, json={"model": EMBEDDER, "input": "x", "prompt": "x"} | body)
    assert (response.status_code, response.json()) == (status, {"error": error})


@pytest.mark.parametrize(("path", "status"), [("/api/embed", 422), ("/api/embeddings", 500)])
def test_an_error_of_the_engine(client: httpx.Client, sim: Sim, path: str, status: int) -> None:
    sim.fault(pre_error=(422, "application/json", '{"error":"engine gone"}'))
    response = client.post(path, json={"model": EMBEDDER, "input": "x", "prompt": "x"})
    assert (response.status_code, response.json()) == (status, {"error": "engine gone"})
