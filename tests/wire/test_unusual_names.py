"""Models whose keys are no names in Ollama's grammar: what is listed can be used under the name that is listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.wire.conftest import HI, Proxy

from ollama_lmstudio.sim import Sim, SimModel, SimThread, embedder

CYRILLIC = "ольга/модель-7b"
EMBEDDER = "text-embedding-été"
KEYS = (CYRILLIC, "cafe\u0301@q4_k_m", "z.ai/glm-4.6", "my model (copy)", "-draft", "long-" * 20)


@pytest.fixture(scope="module")
def sim() -> Iterator[Sim]:
    with SimThread(models=[*map(SimModel, KEYS), embedder(EMBEDDER)]) as sim:
        yield sim


@pytest.fixture(scope="module")
def client(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    state: Path = tmp_path_factory.mktemp("state")
    with Proxy(sim.url, state_dir=state) as proxy, proxy.client() as client:
        yield client


def listed(client: httpx.Client) -> dict[str, str]:
    """Return the names of /api/tags by key."""
    names = [model["name"] for model in client.get("/api/tags").raise_for_status().json()["models"]]
    return dict(zip((*KEYS, EMBEDDER), names, strict=False))


def asked(sim: Sim, path: str) -> str:
    """Return the model that LM Studio was asked for last."""
    model: str = next(call.json["model"] for call in reversed(sim.requests) if call.path == path)
    return model


def ask(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(path, json={"stream": False, **body}).raise_for_status().json()
    return answer


@pytest.mark.parametrize("key", KEYS)
def test_a_model_of_chats(key: str, client: httpx.Client, sim: Sim) -> None:
    name = listed(client)[key]
    for path, body in (
        ("/api/chat", {"messages": HI}),
        ("/api/generate", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": HI}),
    ):
        answer = ask(client, path, model=name, **body)
        assert asked(sim, "/v1/chat/completions") == key
        assert answer["model"] == (key if path.startswith("/v1/") else name)
    assert ask(client, "/api/show", model=name)["model_info"]["lmstudio.key"] == key
    assert [model["name"] for model in client.get("/api/ps").json()["models"]] == [name]
    assert ask(client, "/api/chat", model=name, keep_alive=0)["done_reason"] == "unload"
    assert client.get("/api/ps").json()["models"] == []
    assert ask(client, "/api/pull", model=name) == {"status": "success"}
    assert ask(client, "/api/push", model=name) == {"status": "success"}
    if "/" not in name:
        assert client.get(f"/v1/models/{quote(name)}").raise_for_status().json()["id"] == name
    refused = client.request("DELETE", "/api/delete", json={"model": name})
    assert (refused.status_code, key in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize("path", ["/api/copy", "/api/create"])
def test_an_alias_of_it(path: str, client: httpx.Client, sim: Sim) -> None:
    name = listed(client)[CYRILLIC]
    if path == "/api/copy":
        client.post(path, json={"source": name, "destination": "mine"}).raise_for_status()
    else:
        ask(client, path, **{"model": "mine", "from": name})
    ask(client, "/api/chat", model="mine", messages=HI)
    assert asked(sim, "/v1/chat/completions") == CYRILLIC
    client.request("DELETE", "/api/delete", json={"model": "mine"}).raise_for_status()


def test_a_model_of_embeddings(client: httpx.Client, sim: Sim) -> None:
    name = listed(client)[EMBEDDER]
    for path, body in (
        ("/api/embed", {"input": "hi"}),
        ("/api/embeddings", {"prompt": "hi"}),
        ("/v1/embeddings", {"input": "hi"}),
    ):
        ask(client, path, model=name, **body)
        assert asked(sim, "/v1/embeddings") == EMBEDDER


@pytest.mark.parametrize(
    ("name", "key"),
    [("МОДЕЛЬ-7B", CYRILLIC), ("ольга/модель-7b", CYRILLIC), ("caf\u00e9:q4_k_m", "cafe\u0301@q4_k_m")],
    ids=["without publisher, in capitals", "without tag", "with one character for two"],
)
def test_another_way_to_write_it(name: str, key: str, client: httpx.Client, sim: Sim) -> None:
    ask(client, "/api/chat", model=name, messages=HI)
    assert asked(sim, "/v1/chat/completions") == key


@pytest.mark.parametrize("name", ["модель", "модель-7", "my model", "-draft:", "http://-draft"])
def test_no_other_model_is_meant(name: str, client: httpx.Client) -> None:
    answer = client.post("/api/chat", json={"model": name, "messages": HI})
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid model name"})
