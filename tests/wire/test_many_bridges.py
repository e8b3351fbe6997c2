"""Bridges that share a state directory: what belongs to one that goes, another one ends or goes on with."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.strict.reader import marked
from tests.wire.conftest import HI, START_SECONDS, Proxy, needs_sigterm, post_bytes

from ollama_lmstudio.exchanges.loopback import STOPPED
from ollama_lmstudio.sim import Sim, SimDownload, SimModel, SimThread, content, wait

MODEL, SLOW, PULLED = "one", "two", "slow/model"
REFUSAL = (400, "application/json", '{"error": {"message": "This download is already in progress"}}')


@pytest.fixture
def lmstudio() -> Iterator[Sim]:
    # Nothing is loaded on demand: what is loaded stays until a bridge unloads it.
    with SimThread(
        [SimModel(MODEL), SimModel(SLOW, load_seconds=1)], downloads=[SimDownload(PULLED, seconds=4)], jit=False
    ) as sim:
        yield sim


@pytest.fixture
def bridges(lmstudio: Sim, tmp_path: Path) -> Iterator[list[Proxy]]:
    started = [Proxy(lmstudio.url, state_dir=tmp_path, options={"drain_seconds": "0"}).start() for _ in range(2)]
    yield started
    for bridge in started:
        bridge.process.kill()
        bridge.process.wait(START_SECONDS)


def chat(bridge: Proxy, **fields: Any) -> None:
    with bridge.client() as client:
        answer = client.post("/api/chat", json={"model": MODEL, "messages": HI, "stream": False, **fields})
        assert answer.status_code == 200, answer.text


def test_a_killed_bridge_leaves_no_model_behind(bridges: list[Proxy], lmstudio: Sim) -> None:
    chat(bridges[0], keep_alive="2s")
    assert [instance.ttl for instance in lmstudio.instances] == [None]
    with bridges[1].client() as client:
        assert "expires_at" in client.get("/api/ps").json()["models"][0]
        assert client.get("/api/ps").json()["models"][0]["expires_at"] < "2100"
    bridges[0].process.kill()
    bridges[1].wait_for(lambda: not lmstudio.instances)
    assert "another bridge has ended that was to unload one" in bridges[1].log


def test_the_next_start_unloads_what_the_last_end_has_left(lmstudio: Sim, tmp_path: Path) -> None:
    with Proxy(lmstudio.url, state_dir=tmp_path) as first:
        chat(first, keep_alive="2s")
    if sys.platform != "win32":  # where it is killed, and tells nothing
        assert "stays loaded" in first.log
    assert lmstudio.instances
    with Proxy(lmstudio.url, state_dir=tmp_path) as second:
        second.wait_for(lambda: not lmstudio.instances)


def test_unloading_by_way_of_one_does_not_cut_off_the_answer_of_another(bridges: list[Proxy], lmstudio: Sim) -> None:
    go_on = threading.Event()
    chat(bridges[0])
    lmstudio.script([content("a"), wait(go_on), content("b")], times=1)
    with (
        bridges[0].client() as client,
        client.stream("POST", "/api/chat", json={"model": MODEL, "messages": HI}) as got,
    ):
        lines = map(json.loads, got.iter_lines())
        assert next(lines)["message"]["content"] == "a"
        chat(bridges[1], keep_alive=0)
        with bridges[1].client() as other:
            assert other.post("/api/generate", json={"model": MODEL, "keep_alive": 0}).json()["done_reason"] == "unload"
        # It looks once a second whether the other one still uses it.
        assert not threading.Event().wait(2.5)
        assert lmstudio.instances
        go_on.set()
        assert [line["message"]["content"] for line in lines][:1] == ["b"]
    bridges[1].wait_for(lambda: not lmstudio.instances)


def test_bridges_that_load_a_model_at_the_same_time_load_it_once(bridges: list[Proxy], lmstudio: Sim) -> None:
    """LM Studio would make an instance for each, in as much memory."""
    threads = [threading.Thread(target=chat, args=(bridge,), kwargs={"model": SLOW}) for bridge in bridges * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [instance.id for instance in lmstudio.instances] == [SLOW]


def test_a_bridge_that_is_killed_while_it_loads_is_in_nobodys_way(bridges: list[Proxy], lmstudio: Sim) -> None:
    with marked(cut=True), bridges[0].connect() as sock:
        sock.sendall(post_bytes("/api/chat", {"model": SLOW, "messages": HI}))
        bridges[0].wait_for(lambda: any(request.path == "/api/v1/models/load" for request in lmstudio.requests))
        bridges[0].process.kill()
        with suppress(ConnectionResetError):  # as Windows tells of it
            assert not sock.recv(1)
    chat(bridges[1], model=SLOW)


@pytest.mark.parametrize("is_killed", [True, pytest.param(False, marks=needs_sigterm)], ids=["killed", "told to end"])
def test_a_download_whose_bridge_goes_is_followed_by_another(
    bridges: list[Proxy], lmstudio: Sim, is_killed: bool
) -> None:
    """LM Studio goes on with it, and does not tell its id again."""
    data = b""
    with marked(cut=is_killed), bridges[0].connect() as sock:
        sock.sendall(post_bytes("/api/pull", {"model": PULLED}))
        while b"completed" not in data:
            data += sock.recv(65536)
        if is_killed:
            bridges[0].process.kill()
        else:
            bridges[0].process.send_signal(signal.SIGTERM)
        with suppress(ConnectionResetError):
            while received := sock.recv(65536):
                data += received
    told = json.dumps(STOPPED).encode() in data
    assert told is not is_killed, "a stream of one that was told to end says why"
    lmstudio.fault(path="/api/v1/models/download", times=1, pre_error=REFUSAL)
    with bridges[1].client(timeout=START_SECONDS) as client:
        lines = client.post("/api/pull", json={"model": PULLED}).text.splitlines()
    assert json.loads(lines[-1]) == {"status": "success"}
    assert any("completed" in line for line in lines)
