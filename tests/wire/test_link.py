"""LM Studio with linked devices, in the way of LM Link: keys that several devices have, and devices that go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.wire.conftest import HI, SCRIPT, Proxy, StartProxy, content_of, ndjson

from ollama_lmstudio.sim import Prompt, Sim, SimModel, SimThread, Step, content, embedder, wait
from ollama_lmstudio.sim.faults import Loss

RIG = "rig"
BOTH, REMOTE, SLOW, HERE, OTHER = "qwen3-8b", "qwen3-235b", "glm-5", "plain", "plain-too"
EMBEDDER = "text-embedding-remote"
MODELS = [
    SimModel(HERE),
    SimModel(OTHER),
    SimModel(BOTH, max_context_length=8192),
    SimModel(BOTH, device=RIG, quantization="Q8_0", size_bytes=8_000_000_000),
    SimModel(REMOTE, device=RIG),
    SimModel(SLOW, device=RIG, load_seconds=3),
    embedder(EMBEDDER, device=RIG),
]
UNLOAD = "/api/v1/models/unload"


def name_of_device(prompt: Prompt, model: SimModel) -> Iterable[Step]:
    return [content(f"{model.device or 'here'} {model.quantization}")]


@pytest.fixture(scope="module")
def linked() -> Iterator[Sim]:
    with SimThread(MODELS, generator=name_of_device) as sim:
        yield sim
        assert not sim.failures


@pytest.fixture(scope="module")
def bridge(linked: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(linked.url, state_dir=tmp_path_factory.mktemp("state")) as proxy:
        yield proxy


@pytest.fixture
def sim(linked: Sim) -> Iterator[Sim]:
    """LM Studio with its linked device, nothing loaded."""
    yield linked
    linked.connect(RIG)
    linked.scripts.clear()
    linked.set(preferred_device=None, lists_each_device=True)
    for instance in linked.instances:
        linked.unload(instance.id)


@pytest.fixture
def client(bridge: Proxy, sim: Sim) -> Iterator[httpx.Client]:
    with bridge.client() as client:
        # What is loaded is always looked up, and the list is kept.
        client.get("/api/ps").raise_for_status()
        sim.clear()
        yield client


def chat(client: httpx.Client, model: str, **more: Any) -> httpx.Response:
    return client.post("/api/chat", json={"model": model, "messages": HI, "stream": False, **more})


def said(client: httpx.Client, model: str) -> Any:
    answer = chat(client, model)
    assert answer.status_code == 200, answer.text
    return answer.json()["message"]["content"]


def unloaded(sim: Sim) -> list[str]:
    return [json.loads(request.body)["instance_id"] for request in sim.requests if request.path == UNLOAD]


# A key that two devices have


@pytest.mark.parametrize("each", [True, False], ids=["each", "once"])
def test_a_key_of_two_devices_is_one_model(client: httpx.Client, sim: Sim, each: bool) -> None:
    sim.set(lists_each_device=each)
    sim.load(BOTH, context_length=8192)
    sim.load(BOTH, context_length=4096, device=RIG)
    for path in ("/api/ps", "/api/tags"):
        models = client.get(path).json()["models"]
        assert [model["name"] for model in models].count(f"{BOTH}:latest") == 1
    (loaded,) = client.get("/api/ps").json()["models"]
    # Of those with the same id either may answer, if LM Studio tells of both.
    assert loaded["context_length"] == (4096 if each else 8192)
    shown = client.post("/api/show", json={"model": BOTH, "verbose": True}).json()
    assert shown["model_info"]["lmstudio.instances"] == [BOTH] * (2 if each else 1)
    assert said(client, BOTH) == "here Q4_K_M"
    sim.set(preferred_device=RIG)
    assert said(client, BOTH) == f"{RIG} Q8_0"


def test_the_entry_is_that_of_the_device_that_answers(client: httpx.Client, sim: Sim) -> None:
    assert client.post("/api/show", json={"model": BOTH}).json()["details"]["quantization_level"] == "Q4_K_M"
    sim.load(BOTH, device=RIG)
    (loaded,) = client.get("/api/ps").json()["models"]
    assert (loaded["size"], loaded["details"]["quantization_level"]) == (8_000_000_000, "Q8_0")
    assert said(client, BOTH) == f"{RIG} Q8_0"


def test_each_quantization_is_a_tag(client: httpx.Client, sim: Sim) -> None:
    for number in range(2):
        assert said(client, f"{BOTH}:q8_0") == f"{RIG} Q8_0", number
        assert said(client, f"{BOTH}:q4_k_m") == "here Q4_K_M", number


@pytest.mark.parametrize("ids", [[BOTH, BOTH], [BOTH, "mine"], ["mine", "yours"]], ids=" ".join)
def test_the_model_that_answers_is_known_under_every_id(client: httpx.Client, sim: Sim, ids: list[str]) -> None:
    sim.load(BOTH, instance_id=ids[0])
    sim.load(BOTH, instance_id=ids[1], device=RIG)
    for device, name in (("", "here Q4_K_M"), (RIG, f"{RIG} Q8_0")):
        sim.set(preferred_device=device)
        assert said(client, BOTH) == name
        assert client.post("/v1/chat/completions", json={"model": BOTH, "messages": HI}).status_code == 200


@pytest.mark.parametrize("ids", [[BOTH, BOTH], [BOTH, f"{BOTH}:2"], ["mine", BOTH]], ids=" ".join)
def test_an_unload_is_for_each_instance_of_the_model_and_no_other(
    client: httpx.Client, sim: Sim, ids: list[str]
) -> None:
    sim.load(HERE)
    sim.load(BOTH, instance_id=ids[0])
    sim.load(BOTH, instance_id=ids[1], device=RIG)
    sim.load(REMOTE, device=RIG)
    answer = client.post("/api/generate", json={"model": BOTH, "keep_alive": 0})
    assert (answer.status_code, answer.json()["done_reason"]) == (200, "unload")
    assert sorted(unloaded(sim)) == sorted(ids)
    assert [instance.id for instance in sim.instances] == [HERE, REMOTE]
    assert {model["name"] for model in client.get("/api/ps").json()["models"]} == {f"{HERE}:latest", f"{REMOTE}:latest"}


def test_an_id_that_two_models_have_unloads_neither(client: httpx.Client, sim: Sim) -> None:
    sim.load(HERE, instance_id="mine")
    sim.load(REMOTE, instance_id="mine", device=RIG)
    answer = client.post("/api/generate", json={"model": REMOTE, "keep_alive": 0})
    assert answer.status_code == 409, answer.text
    assert all(word in answer.json()["error"] for word in ("mine", HERE, REMOTE))
    assert len(sim.instances) == 2


def test_keep_alive_ends_what_lm_studio_would_keep_for_ever(client: httpx.Client, sim: Sim, bridge: Proxy) -> None:
    assert chat(client, REMOTE, keep_alive=1).status_code == 200
    assert [(instance.id, instance.ttl) for instance in sim.instances] == [(REMOTE, None)]
    bridge.wait_for(lambda: not sim.instances)
    assert unloaded(sim) == [REMOTE]


def test_a_load_on_another_device_is_waited_for(client: httpx.Client, sim: Sim) -> None:
    lines = ndjson(client.post("/api/chat", json={"model": SLOW, "messages": HI}))
    assert content_of(lines) == f"{RIG} Q4_K_M"
    assert lines[-1]["load_duration"] > 2e9
    assert [request.path for request in sim.requests if request.method == "POST"] == ["/v1/chat/completions"]


# A device that goes

QUESTIONS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HI},
    "/api/generate": {"prompt": "hi"},
    "/api/embed": {"input": "hi"},
    "/v1/chat/completions": {"messages": HI},
    "/v1/embeddings": {"input": "hi"},
}


def ask(client: httpx.Client, path: str, **more: Any) -> httpx.Response:
    model = EMBEDDER if "embed" in path else REMOTE
    return client.post(path, json={"model": model, **QUESTIONS[path], **more})


@pytest.mark.parametrize("loaded", [[], [HERE], [HERE, OTHER]], ids=["nothing", "one", "two"])
@pytest.mark.parametrize("path", QUESTIONS)
def test_a_model_that_has_gone_with_its_device_is_not_found(
    client: httpx.Client, sim: Sim, path: str, loaded: list[str]
) -> None:
    for key in loaded:
        sim.load(key)
    sim.disconnect(RIG)
    answer = ask(client, path)
    if path.startswith("/v1/") and answer.status_code == 400:
        assert "Invalid model identifier" in answer.text
    else:
        assert answer.status_code == 404, answer.text
        assert "not found" in answer.text
    assert not [request for request in sim.requests if request.path == "/api/v1/models/load"]
    assert len(sim.instances) == len(loaded)


@pytest.mark.parametrize("path", QUESTIONS)
def test_a_device_whose_loss_lm_studio_has_not_noticed(client: httpx.Client, sim: Sim, path: str) -> None:
    sim.disconnect(RIG, listed=True)
    answer = ask(client, path)
    assert answer.status_code == 503, answer.text
    assert "LM Link" in answer.text
    assert "lms link status" in answer.text


@pytest.mark.parametrize("num_ctx", ["load", "grow"])
def test_an_explicit_load_whose_device_is_lost(sim: Sim, start_proxy: StartProxy, num_ctx: str) -> None:
    with start_proxy(sim.url, options={"num_ctx": num_ctx}).client() as client:
        sim.disconnect(RIG, listed=True)
        answer = chat(client, REMOTE, options={"num_ctx": 4096})
        assert answer.status_code == 503, answer.text
        assert "lms link status" in answer.text
        sim.connect(RIG)
        assert said(client, REMOTE) == f"{RIG} Q4_K_M"


def test_another_device_answers_for_the_one_that_goes_before_its_first_token(client: httpx.Client, sim: Sim) -> None:
    sim.load(BOTH, device=RIG)
    began, never = threading.Event(), threading.Event()

    def steps(prompt: Prompt) -> Iterable[Step]:
        began.set()
        yield wait(never)

    sim.script(steps, times=1)

    def lose() -> None:
        assert began.wait(20)
        sim.disconnect(RIG)

    thread = threading.Thread(target=lose)
    thread.start()
    lines = ndjson(client.post("/api/chat", json={"model": BOTH, "messages": HI}))
    thread.join()
    assert content_of(lines) == "here Q4_K_M"


def stream(client: httpx.Client, sim: Sim, path: str, how: Loss) -> tuple[list[str], bool]:
    """Lose the device after the first token; return the lines, and whether the body has ended as it should."""
    never = threading.Event()
    sim.script(lambda prompt: [content("one"), wait(never)], times=1)
    lines: list[str] = []
    whole = True
    with client.stream("POST", path, json={"model": REMOTE, "stream": True, **QUESTIONS[path]}) as answer:
        assert answer.status_code == 200
        try:
            for line in answer.iter_lines():
                if not lines:
                    sim.disconnect(RIG, how=how)
                lines.append(line)
        except httpx.RemoteProtocolError:
            whole = False
    return [line for line in lines if line], whole


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("how", ["error", "end", "fin", "rst"])
def test_a_device_that_goes_in_mid_stream(client: httpx.Client, sim: Sim, path: str, how: Loss) -> None:
    lines, whole = stream(client, sim, path, how)
    assert whole
    first, last = map(json.loads, lines)
    assert "one" in json.dumps(first)
    assert list(last) == ["error"]
    if how == "error":
        assert "LM Link connection" in last["error"]
        assert "lms link status" in last["error"]
    else:
        assert "before its answer was finished" in last["error"]
    # The model is gone, and says so; with its device it is back.
    assert chat(client, REMOTE).status_code == 404
    sim.connect(RIG)
    bridge_knows = time.monotonic() + 20
    while chat(client, REMOTE).status_code != 200:
        assert time.monotonic() < bridge_knows
        time.sleep(0.1)


@pytest.fixture
def impatient(linked: Sim, tmp_path: Path) -> Iterator[Proxy]:
    """A bridge that looks often whether models are lost."""
    script = tmp_path / "ollama.py"
    source = SCRIPT.read_text(encoding="utf-8").partition("from __future__ import annotations")[2]
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(SCRIPT.parent)!r})\n{source}\n"
        "from ollama_lmstudio.exchanges import lost_models\nlost_models.LOOK_SECONDS = 0.1\n",
        encoding="utf-8",
    )
    with Proxy(linked.url, state_dir=tmp_path, script=script) as proxy:
        yield proxy


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions"])
def test_a_device_that_is_switched_off_in_mid_stream(sim: Sim, impatient: Proxy, path: str) -> None:
    """LM Studio says nothing."""
    with impatient.client() as client:
        lines, whole = stream(client, sim, path, "hang")
    assert whole
    assert "lms link status" in lines[-1]
    assert REMOTE in lines[-1]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_device_that_is_switched_off_before_an_answer_in_one_piece(sim: Sim, impatient: Proxy, path: str) -> None:
    began, never = threading.Event(), threading.Event()

    def steps(prompt: Prompt) -> Iterable[Step]:
        began.set()
        yield content("one")
        yield wait(never)

    def lose() -> None:
        assert began.wait(20)
        sim.disconnect(RIG, how="hang")

    sim.script(steps, times=1)
    thread = threading.Thread(target=lose)
    thread.start()
    with impatient.client() as client:
        answer = ask(client, path, stream=False)
    thread.join()
    assert answer.status_code == 503
    assert "lms link status" in answer.text


def test_who_says_nothing_but_is_there_is_waited_for(sim: Sim, impatient: Proxy) -> None:
    go_on = threading.Event()
    sim.script(lambda prompt: [content("one"), wait(go_on), content("two")], times=1)
    with impatient.client() as client:
        client.get("/api/ps").raise_for_status()
        sim.clear()
        with client.stream("POST", "/api/chat", json={"model": REMOTE, "messages": HI}) as answer:
            lines = answer.iter_lines()
            assert "one" in next(lines)
            # It has looked at the list some times.
            impatient.wait_for(lambda: len([request for request in sim.requests if request.method == "GET"]) > 5)
            go_on.set()
            assert json.loads([*lines][-1])["done"]


def test_a_device_that_goes_in_mid_stream_on_v1(client: httpx.Client, sim: Sim) -> None:
    lines, whole = stream(client, sim, "/v1/chat/completions", "error")
    assert whole
    assert "event: error" in lines
    assert "LM Link connection" in lines[-1]


def test_an_unload_after_the_device_has_gone_is_no_error(client: httpx.Client, sim: Sim) -> None:
    sim.load(REMOTE, device=RIG)
    sim.load(BOTH)
    sim.load(BOTH, device=RIG)
    client.get("/api/ps")
    sim.disconnect(RIG)
    for model in (REMOTE, BOTH):
        answer = client.post("/api/generate", json={"model": model, "keep_alive": 0})
        assert (answer.status_code, answer.json()["done_reason"]) == (200, "unload")
    assert unloaded(sim) == [BOTH]
