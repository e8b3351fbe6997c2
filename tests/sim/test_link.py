"""LM Link: models of linked devices are listed and used as if they were here, until their device goes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from ollama_lmstudio.sim import Prompt, Sim, SimModel, SimThread, Step, content, embedder, wait
from ollama_lmstudio.sim.__main__ import make_sim, parse_arguments
from ollama_lmstudio.sim.faults import Loss
from ollama_lmstudio.sim.state import LINK_LOST

from .conftest import CHAT, Connect, events, user
from .test_lifecycle import until

BOTH, REMOTE = "qwen3-8b", "qwen3-235b"
DEVICE = "rig"
MODELS = [
    SimModel("plain"),
    SimModel(BOTH),
    SimModel(BOTH, device=DEVICE, quantization="Q8_0", size_bytes=8_000_000_000),
    SimModel(REMOTE, device=DEVICE, load_seconds=0.2),
    embedder(device=DEVICE),
]


def name_of_device(prompt: Prompt, model: SimModel) -> Iterable[Step]:
    return [content(f"{model.device or 'here'} {model.quantization}")]


def linked(**settings: Any) -> SimThread:
    return SimThread(MODELS, generator=name_of_device, **settings)


def rows(sim: Sim, path: str = "/api/v1/models") -> list[Any]:
    body = httpx.get(sim.url + path, trust_env=False).json()
    found: list[Any] = body.get("models") or body["data"]
    return found


def who_answers(connect: Connect, sim: Sim, model: str) -> Any:
    reply = connect(sim).call("POST", CHAT, {**user(), "model": model})
    return reply.json["choices"][0]["message"]["content"] if reply.status == 200 else reply.json["error"]["message"]


@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v0/models", "/v1/models"])
def test_a_key_is_listed_for_each_device_that_has_it_or_once(path: str) -> None:
    with linked() as sim:
        key = "key" if "v1/models" in path and "api" in path else "id"
        assert [row[key] for row in rows(sim, path)] == [model.key for model in MODELS]
        sim.set(lists_each_device=False)
        assert [row[key] for row in rows(sim, path)] == list(dict.fromkeys(model.key for model in MODELS))


def test_each_device_names_its_instances_itself() -> None:
    with linked() as sim:
        sim.load(BOTH)
        sim.load(BOTH, device=DEVICE)
        sim.load(BOTH, device=DEVICE)
        assert [
            [instance["id"] for instance in row["loaded_instances"]] for row in rows(sim) if row["key"] == BOTH
        ] == [
            [BOTH],
            [BOTH, f"{BOTH}:2"],
        ]


def test_who_answers_to_a_key_that_two_devices_have(connect: Connect) -> None:
    with linked() as sim:
        sim.load(BOTH, device=DEVICE)
        assert who_answers(connect, sim, BOTH) == f"{DEVICE} Q8_0", "it is loaded there"
        sim.load(BOTH)
        assert who_answers(connect, sim, BOTH) == "here Q4_K_M"
        sim.set(preferred_device=DEVICE)
        assert who_answers(connect, sim, BOTH) == f"{DEVICE} Q8_0"
        sim.set(preferred_device="")
        assert who_answers(connect, sim, BOTH) == "here Q4_K_M"
        assert who_answers(connect, sim, f"{BOTH}@q8_0") == f"{DEVICE} Q8_0"


def test_what_was_loaded_on_another_device_is_not_evicted_and_evicts_nothing(connect: Connect) -> None:
    with linked() as sim:
        for model in ("plain", REMOTE, BOTH):
            who_answers(connect, sim, model)
        assert [(instance.id, instance.ttl is None) for instance in sim.instances] == [(REMOTE, True), (BOTH, False)]


def test_an_unload_is_for_the_preferred_device_first(connect: Connect) -> None:
    with linked(preferred_device=DEVICE) as sim:
        sim.load(BOTH)
        sim.load(BOTH, device=DEVICE)
        for left in ([""], []):
            assert connect(sim).call("POST", "/api/v1/models/unload", {"instance_id": BOTH}).status == 200
            assert [instance.model.device for instance in sim.instances] == left
        assert connect(sim).call("POST", "/api/v1/models/unload", {"instance_id": BOTH}).status == 404


def test_a_device_that_goes_takes_its_models_along_and_brings_them_back(connect: Connect) -> None:
    with linked() as sim:
        sim.load(REMOTE, device=DEVICE)
        sim.load("plain")
        sim.disconnect(DEVICE)
        assert [row["key"] for row in rows(sim)] == ["plain", BOTH]
        assert who_answers(connect, sim, REMOTE) == "here Q4_K_M", "the only one that is loaded"
        sim.load(BOTH)
        assert who_answers(connect, sim, REMOTE).startswith(f'Invalid model identifier "{REMOTE}"')
        sim.connect(DEVICE)
        assert who_answers(connect, sim, REMOTE) == f"{DEVICE} Q4_K_M"


def test_a_device_whose_loss_was_not_noticed_is_listed_and_cannot_load(connect: Connect) -> None:
    with linked() as sim:
        sim.load(REMOTE, device=DEVICE)
        sim.disconnect(DEVICE, listed=True)
        assert [row["loaded_instances"] for row in rows(sim) if row["key"] == REMOTE] == [[]]
        assert who_answers(connect, sim, REMOTE) == f'Failed to load model "{REMOTE}". Error: {LINK_LOST}'


@pytest.mark.parametrize("how", ["error", "end", "fin", "rst", "hang"])
def test_a_device_that_goes_in_mid_stream(connect: Connect, how: Loss) -> None:
    with linked() as sim:
        came, never = threading.Event(), threading.Event()

        def steps(prompt: Prompt) -> Iterable[Step]:
            yield content("one")
            came.set()
            yield wait(never)

        sim.script(steps)
        wire = connect(sim, timeout=1)
        wire.send("POST", CHAT, {**user(stream=True), "model": REMOTE})
        assert wire.head()[0] == 200
        assert came.wait(5)
        assert events(wire.chunk())[0]["choices"][0]["delta"]["content"] == "one"
        sim.disconnect(DEVICE, how=how)
        if how == "error":
            assert LINK_LOST.encode() in wire.chunk()
        if how in ("error", "end"):
            assert wire.chunk() == b""
        elif how == "hang":
            with pytest.raises(TimeoutError):
                wire.chunk()
        else:
            with pytest.raises((EOFError, ConnectionResetError)):
                wire.chunk()


def test_a_load_whose_device_goes_fails_at_once(connect: Connect) -> None:
    with SimThread([replace(MODELS[3], load_seconds=60)]) as sim:
        wire = connect(sim)
        wire.send("POST", CHAT, {**user(), "model": REMOTE})
        until(lambda: sim.state.loading)
        sim.disconnect(DEVICE)
        reply = wire.reply()
        assert reply.status == 400
        assert LINK_LOST in reply.json["error"]["message"]


def test_the_command_line_has_linked_devices() -> None:
    sim = make_sim(parse_arguments(["--linked", "rig", "--linked", "laptop"]))
    keys = [model.key for model in sim.state.on_disk()]
    assert len(keys) == 3 * len(set(keys))
    assert {model.device for model in sim.state.on_disk()} == {"", "rig", "laptop"}
    assert [instance.model.device for instance in sim.instances] == ["rig"] * len(set(keys)) + ["laptop"] * len(
        set(keys)
    )
