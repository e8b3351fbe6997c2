"""Requests as real clients sent them, each over a real socket: what comes back is good, and what reaches LM Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.golden.clients import ClientRequest, client_requests
from tests.wire.conftest import Proxy, RawAnswer

from ollama_lmstudio.sim import Reasoning, Recorded, Sim, SimModel, SimThread, embedder

REQUESTS = client_requests()
SELECTED: list[ClientRequest] = []

QWEN = "qwen/qwen3-4b"
MODELS = (
    SimModel(QWEN, reasoning=Reasoning()),
    SimModel("zz-4b"),
    *(SimModel(name) for name in ("ll", "li", "lc", "hs", "ag", "sk", "lcjs", "ai2")),
    *(SimModel(name, vision=True) for name in ("llimg", "ai2img")),
    *(embedder(name) for name in ("m", "nomic", "text-embedding-nomic-embed-text-v1.5")),
)
# These names are made and deleted.
ALIASES = ("a", "q", "x")

# What a real Ollama refuses, too: by path and model, the status and the error.
REFUSED: Mapping[tuple[str, str], tuple[int, str]] = {
    ("/api/chat", "nope"): (404, "model 'nope' not found"),
    ("/api/pull", "nope"): (200, "pull model manifest: file does not exist"),
    ("/api/embed", "q"): (400, f'Failed to load model "{QWEN}". Error: Model is not embedding.'),
    # The AI SDK sends the bytes of an image as an object, which Ollama does not read at all; these are half an image.
    ("/api/chat", "AI2img"): (400, "Failed to load image or audio file"),
}


@pytest.fixture(scope="module")
def sim() -> Iterator[Sim]:
    with SimThread(models=list(MODELS)) as sim:
        yield sim


@pytest.fixture(scope="module")
def proxy(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(sim.url, state_dir=tmp_path_factory.mktemp("state")) as proxy:
        proxy.wait_for_log(r"\(\d+ models\)")
        yield proxy


@pytest.fixture
def answer(request: pytest.FixtureRequest, proxy: Proxy, sim: Sim) -> RawAnswer:
    """The answer to the request of a test; the strict reader has read it."""
    asked: ClientRequest = request.getfixturevalue("asked")
    with proxy.client() as client:
        for name in ALIASES:
            client.post("/api/create", json={"model": name, "from": QWEN, "stream": False}).raise_for_status()
        client.get("/api/tags").raise_for_status()
    sim.clear()
    return proxy.raw(asked.raw)


def select(*paths: str) -> pytest.MarkDecorator:
    """Run a test with the requests to these paths, refused ones excepted."""
    chosen = [asked for asked in REQUESTS if asked.path.startswith(paths) and refusal(asked) is None]
    SELECTED.extend(chosen)
    return pytest.mark.parametrize("asked", chosen, ids=str)


def model_of(asked: ClientRequest) -> str:
    return str((asked.json or {}).get("model") or (asked.json or {}).get("name"))


def refusal(asked: ClientRequest) -> tuple[int, str] | None:
    return REFUSED.get((asked.path, model_of(asked)))


def parts(answer: RawAnswer) -> list[Any]:
    """Give the objects of an answer, of which there is one unless it streams."""
    assert answer.status == 200, answer.body
    return answer.lines if answer.header("content-type") == "application/x-ndjson" else [answer.json]


def reached(sim: Sim) -> list[Recorded]:
    """Give what LM Studio was asked to do; it refused none of it."""
    calls = [request for request in sim.requests if request.method == "POST"]
    assert [request.status for request in calls] == [200] * len(calls)
    return calls


@select("/api/chat", "/v1/chat/completions")
def test_chat(asked: ClientRequest, answer: RawAnswer, sim: Sim) -> None:
    messages = [message(part) for part in parts(answer)]
    text = "".join(part.get("content") or "" for part in messages)
    calls = [call["function"] for part in messages for call in part.get("tool_calls") or []]
    names = [call["name"] for call in calls]
    offered = [tool["function"]["name"] for tool in asked.json.get("tools") or []]
    last = asked.json["messages"][-1]
    if offered and last["role"] != "tool":
        assert names == offered[:1]
        required = asked.json["tools"][0]["function"]["parameters"].get("required", [])
        assert set(required) <= calls[0]["arguments"].keys()
    else:
        assert text
        assert names == []
    if last["role"] == "tool":
        assert last["content"] in text
    elif last.get("images"):
        assert "I see 1 image" in text
    if wanted := schema(asked.json):
        assert set(wanted.get("required", ())) <= json.loads(text).keys()
    if asked.json.get("think"):
        assert any(part.get("thinking") for part in messages)
    (call,) = reached(sim)
    assert call.path == "/v1/chat/completions"
    assert len(call.json["messages"]) == len(asked.json["messages"])
    assert bool(call.json.get("tools")) == bool(offered)
    for name in ("options", "think", "num_ctx", "keep_alive", "format", "images"):
        assert name not in call.json


def message(part: Mapping[str, Any]) -> dict[str, Any]:
    """Give the message of a line, or of OpenAI's answer."""
    found: dict[str, Any] = part["choices"][0]["message"] if "choices" in part else part["message"]
    return found


def schema(body: Mapping[str, Any]) -> dict[str, Any]:
    """Give the schema that a request wants an answer of."""
    wanted = body.get("format") or (body.get("response_format") or {}).get("type")
    if isinstance(wanted, dict):
        return wanted
    return {"type": "object"} if wanted else {}


@select("/api/generate")
def test_generate(asked: ClientRequest, answer: RawAnswer, sim: Sim) -> None:
    assert "".join(part["response"] for part in parts(answer))
    (call,) = reached(sim)
    assert asked.json["prompt"] in call.body.decode() or asked.json["prompt"] == call.json["messages"][-1]["content"]


@select("/api/embed")
def test_embed(asked: ClientRequest, answer: RawAnswer, sim: Sim) -> None:
    (told,) = parts(answer)
    texts = asked.json.get("input", asked.json.get("prompt"))
    texts = [texts] if isinstance(texts, str) else texts
    vectors = told["embeddings"] if "embeddings" in told else [told["embedding"]]
    assert [len(vector) for vector in vectors] == [768] * len(texts)
    (call,) = reached(sim)
    assert (call.path, call.json["input"]) == ("/v1/embeddings", texts)


@select("/api/tags", "/api/ps", "/v1/models")
def test_lists(asked: ClientRequest, answer: RawAnswer) -> None:
    (told,) = parts(answer)
    if asked.path != "/api/ps":
        assert len(told.get("models") or told["data"]) == len(MODELS) + len(ALIASES)


@select("/api/show")
def test_show(asked: ClientRequest, answer: RawAnswer, sim: Sim) -> None:
    (told,) = parts(answer)
    assert told["capabilities"]
    assert any(key.endswith(".context_length") for key in told["model_info"])
    assert reached(sim) == []


@select("/api/version")
def test_version(asked: ClientRequest, answer: RawAnswer) -> None:
    assert list(parts(answer)[0]) == ["version"]


@select("/api/pull", "/api/delete", "/api/copy", "/api/blobs/")
def test_management(asked: ClientRequest, answer: RawAnswer) -> None:
    if asked.path == "/api/pull":
        assert parts(answer)[-1] == {"status": "success"}
    else:
        assert (answer.status, answer.body) == (201 if "blobs" in asked.path else 200, b"")


@pytest.mark.parametrize("asked", [asked for asked in REQUESTS if refusal(asked)], ids=str)
def test_what_ollama_refuses_too(asked: ClientRequest, answer: RawAnswer) -> None:
    status, error = refusal(asked) or (0, "")
    assert answer.status == status
    told = answer.lines[-1] if status == 200 else answer.json
    assert told == {"error": error}


def test_every_request_is_tested() -> None:
    refused = [asked for asked in REQUESTS if refusal(asked)]
    assert sorted(asked.number for asked in SELECTED + refused) == list(range(1, len(REQUESTS) + 1))
    assert {(asked.path, model_of(asked)) for asked in refused} == set(REFUSED)
