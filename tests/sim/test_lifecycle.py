"""Loads on demand, slots, models that go away, clients that go away, start and stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from ollama_lmstudio.sim import Sim, SimModel, SimThread, content, sleep, wait
from ollama_lmstudio.sim.__main__ import make_sim, parse_arguments, serve
from ollama_lmstudio.sim.demo import PREAMBLE, demo_models, demo_sim

from .conftest import CHAT, Clock, Connect, Reply, events, user

MANY = ["x "] * 200


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def together(*calls: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def ask(connect: Connect, sim: Sim, model: str = "plain", **more: Any) -> Reply:
    return connect(sim).call("POST", CHAT, {**user(**more), "model": model})


# Loads on demand


def test_requests_for_a_model_wait_for_the_same_load(connect: Connect) -> None:
    with SimThread([SimModel("plain", load_seconds=0.3)]) as sim:
        started = time.monotonic()
        replies = together(*[lambda: ask(connect, sim)] * 3)
        assert [reply.status for reply in replies] == [200] * 3
        assert time.monotonic() - started > 0.3
        assert [instance.id for instance in sim.instances] == ["plain"]


def test_a_load_is_told_of_while_it_lasts(connect: Connect) -> None:
    with SimThread([SimModel("plain", load_seconds=0.3)]) as sim:
        wire, lists = connect(sim), connect(sim)
        wire.send("POST", CHAT, user())
        until(lambda: sim.active)
        until(lambda: lists.call("GET", "/api/v0/models").json["data"][0]["state"] == "loading")
        wire.reply()
        assert lists.call("GET", "/api/v0/models").json["data"][0]["state"] == "loaded"


def test_a_load_goes_on_without_the_client_that_asked(connect: Connect) -> None:
    with SimThread([SimModel("plain", load_seconds=0.2)]) as sim:
        wire = connect(sim)
        wire.send("POST", CHAT, user())
        until(lambda: sim.active)
        wire.close()
        until(lambda: sim.active == 0)
        assert sim.instances == []
        until(lambda: sim.instances)


def test_a_new_load_on_demand_evicts_the_old_but_nothing_loaded_explicitly(connect: Connect) -> None:
    with SimThread([SimModel(key) for key in "abc"]) as sim:
        sim.load("a")
        ask(connect, sim, "b")
        ask(connect, sim, "c")
        assert [(instance.id, instance.jit) for instance in sim.instances] == [("a", False), ("c", True)]
        sim.set(auto_evict=False)
        ask(connect, sim, "b")
        assert [instance.id for instance in sim.instances] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("ttl", "expected"), [(60, 60), (0.5, 0.5), (None, 3600), ("abc", 3600), (-5, 3600), (True, 3600)]
)
def test_the_ttl_of_a_request(sim: Sim, connect: Connect, ttl: Any, expected: float) -> None:
    ask(connect, sim, ttl=ttl)
    assert sim.instances[0].ttl == expected
    ask(connect, sim, ttl=5)
    assert sim.instances[0].ttl == expected, "a model that is loaded keeps its own"


def test_time_to_live_by_the_clock(connect: Connect, clock: Clock) -> None:
    with SimThread([SimModel("plain")], clock=clock) as sim:
        wire = connect(sim)

        def left() -> list[Any]:
            (row,) = wire.call("GET", "/api/v1/models").json["models"]
            return [instance["remaining_ttl_seconds"] for instance in row["loaded_instances"]]

        ask(connect, sim, ttl=100)
        clock.now = 60
        assert left() == [40]
        ask(connect, sim)
        assert left() == [100], "a use starts it anew"
        clock.now = 160
        assert left() == []


def test_loads_at_the_same_time_can_abort_each_other(connect: Connect) -> None:
    models = [SimModel("a", load_seconds=0.2), SimModel("b", load_seconds=0.2)]
    with SimThread(models, abort_concurrent_loads=True) as sim:
        first, second = together(lambda: ask(connect, sim, "a"), lambda: ask(connect, sim, "b"))
        for reply, name in ((first, "a"), (second, "b")):
            assert reply.status == 400
            assert reply.json["error"]["message"] == (
                f'Failed to load model "{name}". Error: Engine protocol startup was aborted'
            )
        assert ask(connect, sim, "a").status == 200


# Slots


def test_four_answers_at_a_time(connect: Connect) -> None:
    with SimThread([SimModel("plain", loaded=True)]) as sim:
        instance, go = sim.instances[0], threading.Event()
        sim.script([content("a"), wait(go), content("b")])
        wires = [connect(sim) for _ in range(4)]
        for wire in wires:
            wire.send("POST", CHAT, user(stream=True))
        for wire in wires:
            wire.head()
            assert b'"a"' in wire.chunk()
        fifth = connect(sim, timeout=0.2)
        fifth.send("POST", CHAT, user(stream=True))
        until(lambda: instance.busy == 5)
        with pytest.raises(TimeoutError):
            fifth.until(b'"a"')
        go.set()
        for wire in wires:
            assert wire.chunks()[-1] == b"data: [DONE]\n\n"
        fifth.sock.settimeout(5)
        assert b'"b"' in fifth.reply().body


def test_a_prompt_keeps_its_slot_when_its_client_goes(connect: Connect) -> None:
    with SimThread([SimModel("plain", loaded=True)]) as sim:
        instance = sim.instances[0]
        sim.fault(prefill=0.4, times=1)
        wire = connect(sim)
        wire.send("POST", CHAT, user())
        until(lambda: instance.busy)
        wire.close()
        until(lambda: sim.active == 0)
        assert instance.busy == 1
        until(lambda: instance.busy == 0)


def test_a_client_that_goes_while_it_waits_takes_no_slot(connect: Connect) -> None:
    with SimThread([SimModel("plain", loaded=True)]) as sim:
        instance = sim.instances[0]
        go = threading.Event()
        sim.script([content("a"), wait(go)])
        wires = [connect(sim) for _ in range(6)]
        for wire in wires:
            wire.send("POST", CHAT, user())
        until(lambda: instance.busy == 6)
        wires[5].close()
        until(lambda: instance.busy == 5)
        go.set()
        for wire in wires[:5]:
            assert wire.reply().status == 200
        assert instance.busy == 0


# Models that go away


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("unload", "Model unloaded."),
        ("crash", "The model has crashed without additional information. (Exit code: 6)"),
    ],
)
def test_an_answer_ends_with_its_model(sim: Sim, connect: Connect, verb: str, message: str) -> None:
    sim.load("plain")
    sim.script([content("a"), sleep(30), content("b")])
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    wire.chunk()
    whole = connect(sim)
    whole.send("POST", CHAT, user())
    until(lambda: sim.active == 2)
    time.sleep(0.05)
    getattr(sim, verb)("plain")
    assert (
        wire.chunk().decode() == f'event: error\ndata: {{"error":{{"message":"{message}"}},"message":"{message}"}}\n\n'
    )
    assert wire.chunk() == b""
    reply = whole.reply()
    assert (reply.status, reply.json) == (400, {"error": message})
    assert sim.instances == []


def test_unloading_what_is_not_loaded(sim: Sim) -> None:
    with pytest.raises(KeyError):
        sim.unload("plain")
    with pytest.raises(KeyError):
        sim.load("nobody")


def test_a_wedged_engine_works_again_after_a_new_load(sim: Sim, connect: Connect) -> None:
    sim.load("plain")
    sim.wedge("plain")
    for stream in (True, False):
        reply = ask(connect, sim, stream=stream)
        assert (reply.status, reply.json) == (
            400,
            {"error": "Engine protocol predict request failed: fetch failed"},
        )
    assert connect(sim).call("GET", "/api/v0/models").json["data"][0]["state"] == "loaded"
    sim.unload("plain")
    assert ask(connect, sim).status == 200
    embedder = sim.load("text-embedding-nomic-embed-text-v1.5")
    sim.wedge(embedder.id)
    assert connect(sim).call("POST", "/v1/embeddings", {"input": "x"}).status == 400


# Clients that go away


@pytest.mark.parametrize("goodbye", ["close", "shutdown", "reset"])
def test_a_client_that_goes_is_noticed_at_once(sim: Sim, connect: Connect, goodbye: str) -> None:
    sim.script([content(*MANY)])
    sim.set(token_delay=0.02)
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    wire.chunk()
    gone = time.monotonic()
    if goodbye == "shutdown":
        wire.sock.shutdown(socket.SHUT_WR)
    elif goodbye == "reset":
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        wire.close()
    else:
        wire.close()
    until(lambda: sim.active == 0)
    (record,) = sim.requests
    assert record.closed is not None
    assert record.closed >= gone
    # Its task ends a moment after its connection.
    until(lambda: sim.instances[0].busy == 0)


def test_a_client_that_goes_is_noticed_at_full_speed(sim: Sim, connect: Connect) -> None:
    sim.script([content(*(["x" * 1000] * 100_000))])
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    wire.close()
    until(lambda: sim.active == 0)
    assert sim.requests[0].closed is not None


def test_a_client_that_reads_slowly_holds_the_answer_back(sim: Sim, connect: Connect) -> None:
    sim.script([content(*(["x" * 10_000] * 3000))])
    wire = connect(sim)
    wire.send("POST", CHAT, user(stream=True))
    wire.head()
    time.sleep(0.3)
    assert sim.active == 1, "30 MB do not fit in the buffers"
    assert wire.chunks()[-1] == b"data: [DONE]\n\n"


def test_a_whole_reply_is_cancelled_too(sim: Sim, connect: Connect) -> None:
    sim.set(token_delay=0.05)
    sim.script([content(*MANY)])
    wire = connect(sim)
    wire.send("POST", CHAT, user())
    until(lambda: sim.instances and sim.instances[0].busy)
    wire.close()
    until(lambda: sim.active == 0)
    assert sim.requests[0].closed is not None


def test_an_answer_that_was_read_to_its_end_was_not_closed(sim: Sim, connect: Connect) -> None:
    wire = connect(sim)
    wire.call("POST", CHAT, user(stream=True))
    wire.close()
    until(lambda: sim.open_connections == 0)
    assert sim.requests[0].closed is None


def test_requests_at_the_same_time_are_counted(sim: Sim, connect: Connect) -> None:
    go = threading.Event()
    sim.script([content("a"), wait(go)])
    wires = [connect(sim) for _ in range(3)]
    for wire in wires:
        wire.send("POST", CHAT, user(stream=True))
    until(lambda: sim.active == 3)
    go.set()
    for wire in wires:
        wire.reply()
    assert (sim.active, sim.connections, sim.open_connections) == (0, 3, 3)


# Start and stop


def test_in_the_loop_of_the_test() -> None:
    async def scenario() -> None:
        async with Sim([SimModel("plain")]) as sim, httpx.AsyncClient(base_url=sim.url) as client:
            sim.load("plain")
            reply = await client.post(CHAT, json=user())
            assert reply.json()["choices"][0]["message"]["content"] == "You said: Hi"

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio's loop there has nothing to accept no more with")
def test_who_connects_while_it_stops_is_let_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that was accepted in the last moment is closed as the others, and not left for Python to find."""
    left: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: left.append(str(found.exc_value)))

    def connect_all_the_time(port: int, stopped: threading.Event) -> None:
        while not stopped.is_set():
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()

    for _ in range(3):
        stopped = threading.Event()
        with SimThread() as sim:
            client = threading.Thread(target=connect_all_the_time, args=(int(sim.url.rpartition(":")[2]), stopped))
            client.start()
            until(lambda sim=sim: sim.connections)  # type: ignore[misc]
        stopped.set()
        client.join()
    gc.collect()
    assert left == []
    # What is held by what is logged, Python does not find yet.
    assert not caplog.records


def test_stopping_leaves_nothing_behind(connect: Connect) -> None:
    async def scenario() -> None:
        sim = Sim([SimModel("plain"), SimModel("slow", load_seconds=60)])
        await sim.start()
        sim.script([content("a"), sleep(60)])
        loop = asyncio.get_running_loop()
        wires = [await loop.run_in_executor(None, connect, sim) for _ in range(4)]
        for wire, body in zip(wires, (user(stream=True), user(), {**user(), "model": "slow"}, None), strict=True):
            if body:
                wire.send("POST", CHAT, body)
        await loop.run_in_executor(None, until, lambda: sim.active == 3)
        await asyncio.sleep(0.05)
        await sim.stop()
        await sim.stop()
        assert sim.open_connections == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(record.closed is None for record in sim.requests)
        with pytest.raises(ConnectionRefusedError):
            connect(sim)

    asyncio.run(scenario())
    gc.collect()


def test_serving_on_a_socket_that_is_bound_already() -> None:
    async def scenario() -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sim = Sim()
        await sim.start(sock=sock)
        async with sim, httpx.AsyncClient() as client:
            assert sim.url == f"http://127.0.0.1:{sock.getsockname()[1]}"
            assert (await client.get(f"{sim.url}/lmstudio-greeting")).json() == {"lmstudio": True}

    asyncio.run(scenario())


def test_a_port_that_is_taken() -> None:
    async def scenario() -> None:
        async with Sim() as sim:
            with pytest.raises(OSError) as caught:  # noqa: PT011
                await Sim().start(port=int(sim.url.rpartition(":")[2]))
            assert caught.value.errno == errno.EADDRINUSE

    asyncio.run(scenario())


def test_the_thread_ends() -> None:
    before = threading.active_count()
    with SimThread() as sim:
        assert httpx.get(f"{sim.url}/lmstudio-greeting").status_code == 200
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{sim.url}/lmstudio-greeting")


def test_a_thread_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Sim) -> None:
        raise OSError("no")

    monkeypatch.setattr(Sim, "start", fail)
    with pytest.raises(OSError, match="no"), SimThread():
        pass


def test_settings_that_do_not_exist(sim: Sim) -> None:
    with pytest.raises(TypeError, match="no such setting: jitt"):
        sim.set(jitt=False)


def test_a_mistake_in_a_script_is_a_500_and_kept(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    with SimThread([SimModel("plain")]) as sim:
        sim.script(lambda prompt: [content("x"), 5])  # type: ignore[list-item]
        assert ask(connect, sim).status == 500
        assert [type(problem) for problem in sim.failures] == [TypeError]
        wire = connect(sim)
        wire.send("POST", CHAT, user(stream=True))
        wire.head()
        wire.chunk()
        with pytest.raises(EOFError):
            wire.chunk()
    assert "POST /v1/chat/completions" in caplog.text


# Demo and command line


def test_the_demo_says_what_it_is() -> None:
    async def scenario() -> None:
        sim = demo_sim()
        assert 0.02 < sim.settings.token_delay < 0.05
        sim.set(token_delay=0.0)
        async with sim, httpx.AsyncClient(base_url=sim.url) as client:
            for model in demo_models():
                if model.type == "llm":
                    reply = await client.post(CHAT, json={**user("Hello"), "model": model.key})
                    text = reply.json()["choices"][0]["message"]["content"]
                    assert text == "This is the built-in demo, not a language model. You said: Hello"
        assert text.startswith(PREAMBLE)

    asyncio.run(scenario())


def test_the_demo_has_models_of_each_kind() -> None:
    models = demo_models()
    assert len({model.key for model in models}) == len(models)
    assert all(0 < model.load_seconds <= 1 for model in models)
    assert any(model.vision for model in models)
    assert any(model.reasoning and not model.is_gpt_oss for model in models)
    assert any(model.is_gpt_oss for model in models)
    assert any(model.tools for model in models)
    assert any(model.type == "embedding" for model in models)


def test_what_the_command_line_means() -> None:
    plain = make_sim(parse_arguments([]))
    assert (plain.settings.token_delay, plain.state.jit, plain.settings.auth) == (0, True, None)
    assert {model.load_seconds for model in plain.state.on_disk()} == {0}
    arguments = ["--delay", "0.5", "--load-seconds", "2", "--no-jit", "--token", "a", "--token", "b", "--coalesce", "3"]
    sim = make_sim(parse_arguments(arguments))
    assert (sim.settings.token_delay, sim.state.jit, sim.settings.auth) == (0.5, False, ["a", "b"])
    assert {model.load_seconds for model in sim.state.on_disk()} == {2}
    assert sim.settings.coalesce == 3
    demo = make_sim(parse_arguments(["--demo"]))
    assert demo.settings.token_delay > 0
    assert {model.load_seconds for model in demo.state.on_disk()} == {0.5}


def test_signals_need_no_method_of_posix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The event loops of Windows have no `add_signal_handler`."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    async def serve_and_stop() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
        asyncio.get_running_loop().call_later(0.1, signal.raise_signal, signal.SIGTERM)
        await asyncio.wait_for(serve(parse_arguments(["--port", "0"])), 5)

    kept = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        asyncio.run(serve_and_stop())
    finally:
        for name, handler in kept.items():
            signal.signal(name, handler)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_the_program_serves_until_it_is_told_to_stop(name: signal.Signals) -> None:
    if sys.platform == "win32":
        pytest.skip("there are no signals to send to a process")
    import ollama_lmstudio

    root = Path(ollama_lmstudio.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "ollama_lmstudio.sim", "--port", "0", "--tokens", "25"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout
        assert program.stderr
        url = program.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        with httpx.Client(base_url=url) as client:
            reply = client.post(CHAT, json={**user(stream=True), "model": "llama-3.2-3b-instruct"})
            assert len(events(reply.content)) == 25 + 3
            program.send_signal(name)
            assert program.wait(10) == 0
        assert program.stdout.read() == ""
        assert program.stderr.read() == ""
