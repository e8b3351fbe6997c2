"""A bridge in front of Olla, in front of two LM Studios: what works through it, and what is lost is not claimed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ruamel.yaml
from tests.balancers.olla import CONFIGURATION, Olla, real_olla, small_olla
from tests.strict.reader import marked
from tests.wire.conftest import HI, ROOT, Proxy, content_of, free_port, http_client, ndjson, post_bytes, sim_thread_at

from ollama_lmstudio import bundled
from ollama_lmstudio.sim import Sim, SimModel, embedder, sleep, wait, words

ONE, TWO, BOTH, COLD = "llama-3.2-3b-instruct", "openai/gpt-oss-20b", "qwen3-8b", "qwen3-235b"
EMBEDS_ONE, EMBEDS_TWO = "text-embedding-one", "text-embedding-two"
# Longer than Olla waits for a head by default.
COLD_SECONDS = {"real": 40.0, "small": 2.0}
LONGER = 120
UNLOAD, DOWNLOAD = "/api/v1/models/unload", "/api/v1/models/download"


def on_disk(kind: str) -> tuple[list[SimModel], list[SimModel]]:
    one = [SimModel(ONE), SimModel(BOTH), embedder(EMBEDS_ONE)]
    two = [SimModel(TWO), SimModel(BOTH), embedder(EMBEDS_TWO), SimModel(COLD, load_seconds=COLD_SECONDS[kind])]
    return one, two


def wait_for_lists(olla: Olla, kind: str) -> None:
    keys = {model.key for models in on_disk(kind) for model in models}
    end = time.monotonic() + LONGER
    while not olla.lists(*keys):
        assert time.monotonic() < end
        time.sleep(0.1)


@dataclass
class Setup:
    """Two LM Studios, Olla and a bridge."""

    kind: str
    one: Sim
    two: Sim
    olla: Olla
    bridge: Proxy

    def asked(self, sim: Sim) -> list[str]:
        """The models that a machine was asked for."""
        return [json.loads(r.body)["model"] for r in sim.requests if r.method == "POST" and r.path.startswith("/v1/")]

    def posted(self, path: str) -> list[Any]:
        return [json.loads(r.body) for sim in (self.one, self.two) for r in sim.requests if r.path == path]


@contextmanager
def set_up(kind: str, folder: Path, **settings: Any) -> Iterator[Setup]:
    run: Callable[..., Any] = {"real": real_olla, "small": small_olla}[kind]
    with ExitStack() as stack:
        one, two = (stack.enter_context(sim_thread_at(free_port(), models)) for models in on_disk(kind))
        olla = stack.enter_context(run(folder, [one.url, two.url], **settings))
        wait_for_lists(olla, kind)
        bridge = stack.enter_context(Proxy(olla.url, state_dir=folder / "state"))
        bridge.wait_for_log(r"\(\d+ models\)")
        yield Setup(kind, one, two, olla, bridge)


@pytest.fixture(scope="module", params=["real", "small"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with set_up(request.param, tmp_path_factory.mktemp("olla")) as setup:
        yield setup


@pytest.fixture
def setup(shared: Setup) -> Iterator[Setup]:
    for sim in (shared.one, shared.two):
        sim.clear()
    yield shared
    for sim in (shared.one, shared.two):
        sim.scripts.clear()
        for instance in sim.instances:
            sim.unload(instance.id)
        assert not sim.failures


@pytest.fixture
def client(setup: Setup) -> Iterator[httpx.Client]:
    with setup.bridge.client(timeout=LONGER) as client:
        yield client


def chat(client: httpx.Client, model: str, **more: Any) -> httpx.Response:
    return client.post("/api/chat", json={"model": model, "messages": HI, "stream": False, **more})


# The file


def test_the_ready_configuration_raises_ollas_limits_and_is_no_configuration_of_the_bridge() -> None:
    text = CONFIGURATION.read_text()
    given: Any = ruamel.yaml.YAML(typ="safe", pure=True).load(text)
    limits = given["server"]["rate_limits"]
    assert (limits["per_ip_requests_per_minute"], limits["global_requests_per_minute"]) == (0, 0), "none"
    assert given["server"]["request_limits"]["max_body_size"] > 100 << 20
    minutes = {key: given["proxy"][key] for key in ("response_header_timeout", "read_timeout", "response_timeout")}
    assert minutes == {"response_header_timeout": "30m", "read_timeout": "30m", "response_timeout": "24h"}
    machines = given["discovery"]["static"]["endpoints"]
    assert [machine["type"] for machine in machines] == ["lm-studio"] * 2
    assert given["model_registry"]["routing_strategy"]["type"] == "strict"
    assert f"--config {CONFIGURATION.relative_to(ROOT)}" in text
    assert CONFIGURATION not in bundled.configurations().values()
    assert str(CONFIGURATION.relative_to(ROOT)) in (ROOT / "README.md").read_text(encoding="utf-8")


# What works


def test_both_lists_are_one(setup: Setup, client: httpx.Client) -> None:
    entries = {entry["name"]: entry for entry in client.get("/api/tags").json()["models"]}
    keys = [model.key for models in on_disk(setup.kind) for model in models]
    assert sorted(entries) == sorted({f"{key}:latest" for key in keys})
    assert entries[f"{EMBEDS_TWO}:latest"]["capabilities"] == ["embedding"]
    assert {entry["size"] for entry in entries.values()} == {0}, "not told, and not made up"
    # Passed on, without what the strict reader knows LM Studio's answers by.
    with http_client(base_url=setup.bridge.url) as plain:
        assert sorted(row["id"] for row in plain.get("/v1/models").json()["data"]) == sorted(set(keys))


def test_fifty_requests_go_to_the_machine_that_has_the_model(setup: Setup, client: httpx.Client) -> None:
    def ask(number: int) -> str:
        embeds, model = [(EMBEDS_ONE, ONE), (EMBEDS_TWO, TWO)][number % 2]
        match number % 5:
            case 0:
                answer = chat(client, model)
            case 1:
                lines = ndjson(client.post("/api/chat", json={"model": model, "messages": HI}))
                assert lines[-1]["done"]
                return content_of(lines)
            case 2:
                answer = client.post("/api/generate", json={"model": model, "prompt": "hi", "stream": False})
            case 3:
                answer = client.post("/api/embed", json={"model": embeds, "input": ["one", "two"]})
            case _:
                answer = client.post("/v1/chat/completions", json={"model": model, "messages": HI})
        assert answer.status_code == 200, answer.text
        return answer.text

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(50)))
    assert set(setup.asked(setup.one)) == {ONE, EMBEDS_ONE}
    assert set(setup.asked(setup.two)) == {TWO, EMBEDS_TWO}
    assert len(setup.asked(setup.one)) == len(setup.asked(setup.two)) == 25


def test_a_model_of_both_is_answered_by_either(setup: Setup, client: httpx.Client) -> None:
    for _ in range(6):
        assert chat(client, BOTH).json()["message"]["content"]
    assert len(setup.asked(setup.one)) + len(setup.asked(setup.two)) == 6


def test_a_client_that_leaves_frees_the_machine(setup: Setup, client: httpx.Client) -> None:
    setup.two.script([words("one two"), wait(threading.Event())])
    body = {"model": TWO, "messages": HI}
    with marked(cut=True), client.stream("POST", "/api/chat", json=body) as answer:
        assert next(answer.iter_lines())
        assert setup.two.active
    setup.bridge.wait_for(lambda: not setup.two.active)


def test_a_cold_load_is_waited_for(setup: Setup, client: httpx.Client) -> None:
    began = time.monotonic()
    lines = ndjson(client.post("/api/chat", json={"model": COLD, "messages": HI}))
    assert time.monotonic() - began >= COLD_SECONDS[setup.kind]
    assert lines[-1]["done_reason"] == "stop"
    assert setup.asked(setup.two) == [COLD]


def test_the_doctor_knows_where_it_is(setup: Setup, tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "ollama-lmstudio-proxy"
    arguments = ["--doctor", "--lmstudio-url", setup.olla.url, "--listen", f"127.0.0.1:{free_port()}"]
    arguments += ["--state-dir", str(tmp_path)]
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=LONGER, check=False)
    assert done.returncode == 0, done.stdout
    assert f"answers at {setup.olla.url}" in done.stdout
    assert "such as Olla" in done.stdout
    assert "it tells neither sizes nor what is loaded" in done.stdout
    assert "no model is loaded" not in done.stdout


# What is lost


def test_what_is_loaded_is_not_known_and_not_claimed(setup: Setup, client: httpx.Client) -> None:
    assert chat(client, TWO).status_code == 200
    assert client.get("/api/ps").json() == {"models": []}
    shown = client.post("/api/show", json={"model": TWO}).json()
    assert shown["details"]["quantization_level"] == shown["details"]["parameter_size"] == "unknown"
    info = shown["model_info"]
    assert not [key for key in info if key in ("lmstudio.loaded", "lmstudio.bits_per_weight", "lmstudio.max_context")]
    assert not [key for key in info if key.endswith("context_length")]


def test_an_unload_is_told_only_if_an_lm_studio_says_so(setup: Setup, client: httpx.Client) -> None:
    assert chat(client, TWO).status_code == 200
    setup.two.clear()
    for _ in range(6):
        answer = client.post("/api/generate", json={"model": TWO, "keep_alive": 0})
        is_loaded = bool(setup.two.instances)
        if answer.status_code == 200:
            assert answer.json()["done_reason"] == "unload"
            assert not is_loaded
            break
        assert answer.status_code == 502
        assert "may still be loaded" in answer.json()["error"]
    # It is loaded no more, which the machines do not agree about.
    answer = client.post("/api/generate", json={"model": ONE, "keep_alive": 0})
    assert (answer.status_code, "may still be loaded" in answer.text) == (502, True)
    assert {body["instance_id"] for body in setup.posted(UNLOAD)} == {TWO, ONE}


def test_a_keep_alive_is_left_to_the_machine(setup: Setup, client: httpx.Client) -> None:
    assert chat(client, ONE, keep_alive=1).status_code == 200
    (call,) = [r for r in setup.one.requests if r.path == "/v1/chat/completions"]
    assert json.loads(call.body)["ttl"] == 1
    setup.bridge.wait_for(lambda: not setup.one.instances)
    time.sleep(1.5)
    assert setup.posted(UNLOAD) == []


def test_an_option_for_loads_loads_nothing_on_whatever_machine(tmp_path: Path) -> None:
    with ExitStack() as stack:
        setup = stack.enter_context(set_up("small", tmp_path))
        options = {"num_ctx": "grow", "context_length": "4096"}
        bridge = stack.enter_context(Proxy(setup.olla.url, state_dir=tmp_path / "state", options=options))
        with bridge.client() as client:
            assert chat(client, TWO, options={"num_ctx": 8192}).status_code == 200
    assert setup.posted("/api/v1/models/load") == []


def test_nothing_is_downloaded_on_whatever_machine(setup: Setup, client: httpx.Client) -> None:
    *_, last = ndjson(client.post("/api/pull", json={"model": "ibm/granite-4-micro"}))
    assert "nothing is downloaded through" in last["error"]
    assert setup.olla.url in last["error"]
    assert "lms get" in last["error"]
    *_, last = ndjson(client.post("/api/pull", json={"model": TWO}))
    assert last == {"status": "success"}, "it is there already"
    assert setup.posted(DOWNLOAD) == []


# A machine that goes


@pytest.mark.parametrize("kind", ["real", "small"])
def test_a_machine_dies_in_mid_stream_and_comes_back(kind: str, tmp_path: Path) -> None:
    run: Callable[..., Any] = {"real": real_olla, "small": small_olla}[kind]
    one_has, two_has = on_disk(kind)
    port = free_port()
    with ExitStack() as stack:
        one = stack.enter_context(sim_thread_at(free_port(), one_has))
        machine = ExitStack()
        two = machine.enter_context(sim_thread_at(port, two_has))
        olla = stack.enter_context(run(tmp_path, [one.url, two.url]))
        wait_for_lists(olla, kind)
        bridge = stack.enter_context(Proxy(olla.url, state_dir=tmp_path / "state"))
        client = stack.enter_context(bridge.client(timeout=LONGER))
        bridge.wait_for(lambda: client.get("/api/tags").status_code == 200)

        two.script([words("one two"), sleep(LONGER)])
        lines: list[dict[str, Any]] = []
        with client.stream("POST", "/api/chat", json={"model": TWO, "messages": HI}) as answer:
            for line in answer.iter_lines():
                if not lines:
                    machine.close()
                lines.append(json.loads(line))
        assert list(lines[-1]) == ["error"], "never an end that looks like one"
        assert "before its answer was finished" in lines[-1]["error"]

        # The other's models, and what both have, go on; what only the dead one has is an error with a status.
        for model in (ONE, BOTH):
            bridge.wait_for(lambda model=model: chat(client, model).status_code == 200)  # type: ignore[misc]
        gone = chat(client, TWO)
        assert gone.status_code in (404, 502, 503)
        assert "model_" not in gone.json()["error"], "words that say something"
        machine.enter_context(sim_thread_at(port, two_has))
        stack.push(machine)
        bridge.wait_for(lambda: chat(client, TWO).status_code == 200)


def test_a_load_that_is_longer_than_olla_waits_is_an_error(tmp_path: Path) -> None:
    with set_up("small", tmp_path, header_seconds=0.5) as setup, setup.bridge.client() as client:
        answer = chat(client, COLD)
        assert answer.status_code == 502
        assert "timeout awaiting response headers" in answer.json()["error"]


def test_a_limit_says_whose_it_is(tmp_path: Path) -> None:
    with set_up("small", tmp_path, most_requests=1, most_bytes=1000) as setup, setup.bridge.client() as client:
        assert "too large" in chat(client, ONE, messages=[{"role": "user", "content": "x" * 2000}]).text
        answer = chat(client, ONE)
        assert answer.status_code == 429
        assert "raise its limit" in answer.json()["error"]
        assert client.get("/api/tags").status_code == 200


def test_an_answer_whose_length_a_proxy_has_dropped_has_one(tmp_path: Path) -> None:
    with set_up("small", tmp_path, keeps_lengths=False) as setup:
        answer = setup.bridge.raw(post_bytes("/v1/chat/completions", {"model": ONE, "messages": HI}))
        assert answer.json["choices"], "as long as its Content-Length says"
        assert not answer.closed


def test_a_model_that_a_machine_has_no_more_is_not_found(tmp_path: Path) -> None:
    with set_up("small", tmp_path) as setup, setup.bridge.client() as client:
        setup.two.delete(TWO)
        setup.bridge.wait_for(lambda: setup.olla.lists(ONE, BOTH, COLD, EMBEDS_ONE, EMBEDS_TWO))
        answer = chat(client, TWO)
        assert (answer.status_code, answer.json()) == (404, {"error": f"model '{TWO}' not found"})
