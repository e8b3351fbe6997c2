"""Ctrl-C at each moment: nothing but the end is seen, and each client is told what became of its answer."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.wire.conftest import CHAT, HI, START_SECONDS, Proxy, RawAnswer, StartProxy, free_port, models, post_bytes
from tests.wire.test_startup import copy_of_addon, touch

from ollama_lmstudio.exchanges.exchange import STOPPED
from ollama_lmstudio.exchanges.loopback import STOPPED as STOPPED_LOCALLY
from ollama_lmstudio.sim import Sim, SimDownload, SimThread, content, sleep

if sys.platform == "win32":
    pytest.skip("there is no Ctrl-C to send", allow_module_level=True)

import pty

END_SECONDS = 20
SLOW_MODEL = "ibm/granite-4-micro"
LAST_CHUNK = b"0\r\n\r\n"


class Asking:
    """A client that has sent a request, and reads until the server ends."""

    def __init__(self, proxy: Proxy, request: bytes) -> None:
        self.received = b""
        self.socket = socket.create_connection(("127.0.0.1", proxy.port))
        self.socket.sendall(request)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self.socket:
            while data := self.socket.recv(65536):
                self.received += data

    def end(self) -> RawAnswer:
        """Wait for the end of the connection; give the answer."""
        self._thread.join(END_SECONDS)
        assert not self._thread.is_alive()
        head, _, body = self.received.partition(b"\r\n\r\n")
        return RawAnswer(head, body, closed=True)


def interrupt(proxy: Proxy) -> None:
    """Press Ctrl-C, and see the process end well."""
    proxy.process.send_signal(signal.SIGINT)
    assert proxy.process.wait(END_SECONDS) == 0
    # Until its output has been read to the end.
    proxy.stop()
    assert not re.search("Traceback|Exception|CancelledError", proxy.log), proxy.log


def chat(path: str = "/api/chat", **body: Any) -> bytes:
    return post_bytes(path, {"model": CHAT, "messages": HI, **body})


# Streams


@pytest.mark.usefixtures("started_anew")
def test_a_stream_gets_its_error_line(sim: Sim, start_proxy: StartProxy) -> None:
    sim.fault(token_delay=0.3)
    proxy = start_proxy(sim.url)
    client = Asking(proxy, chat())
    proxy.wait_for(lambda: b'"content":"' in client.received)
    interrupt(proxy)
    answer = client.end()
    assert answer.status == 200
    assert answer.lines[-1] == {"error": STOPPED}
    assert answer.lines[0]["message"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("path", "body", "event"),
    [
        (
            "/v1/chat/completions",
            {"messages": HI},
            {"error": {"message": STOPPED, "type": "api_error", "param": None, "code": None}},
        ),
        (
            "/v1/messages",
            {"messages": HI, "max_tokens": 50},
            {"type": "error", "error": {"type": "overloaded_error", "message": STOPPED}},
        ),
        (
            "/v1/responses",
            {"input": "hi"},
            {"type": "error", "code": "api_error", "message": STOPPED, "param": None},
        ),
    ],
)
def test_a_stream_that_is_passed_through_gets_its_error_event(
    sim: Sim, start_proxy: StartProxy, path: str, body: dict[str, Any], event: dict[str, Any]
) -> None:
    sim.fault(token_delay=0.3)
    proxy = start_proxy(sim.url)
    client = Asking(proxy, post_bytes(path, {"model": CHAT, "stream": True, **body}))
    proxy.wait_for(lambda: b"delta" in client.received)
    interrupt(proxy)
    answer = client.end()
    assert answer.body.endswith(LAST_CHUNK)
    last = answer.body.removesuffix(LAST_CHUNK).rpartition(b"event: error\n")[2]
    name, _, data = last.strip().partition(b": ")
    assert name == b"data"
    told = json.loads(data)
    told.pop("request_id", None)
    assert told == event


def test_a_stream_of_http_1_0_gets_its_error_line(sim: Sim, start_proxy: StartProxy) -> None:
    sim.fault(token_delay=0.3)
    proxy = start_proxy(sim.url)
    client = Asking(proxy, post_bytes("/api/chat", {"model": CHAT, "messages": HI}, version="1.0"))
    proxy.wait_for(lambda: b'"content":"' in client.received)
    interrupt(proxy)
    lines = client.end().body.splitlines()
    assert json.loads(lines[-1]) == {"error": STOPPED}


def test_a_pull_gets_its_error_line(tmp_path: Path, start_proxy: StartProxy) -> None:
    with SimThread(models=models(), downloads=[SimDownload(SLOW_MODEL, seconds=30)]) as lmstudio:
        proxy = start_proxy(lmstudio.url)
        client = Asking(proxy, post_bytes("/api/pull", {"model": SLOW_MODEL}))
        proxy.wait_for(lambda: b'"completed"' in client.received)
        interrupt(proxy)
        assert client.end().lines[-1] == {"error": STOPPED_LOCALLY}


def test_a_stream_that_began_before_a_reload_gets_its_error_line(
    sim: Sim, start_proxy: StartProxy, tmp_path: Path
) -> None:
    sim.fault(token_delay=0.5)
    script = copy_of_addon(tmp_path)
    proxy = start_proxy(sim.url, script=script)
    words = " ".join("word" for _ in range(40))
    client = Asking(proxy, chat(messages=[{"role": "user", "content": words}]))
    proxy.wait_for(lambda: b'"content":"' in client.received)
    touch(script)
    proxy.wait_for(lambda: proxy.log.count("serves Ollama's API") == 2)
    sim.faults.clear()
    sim.fault(token_delay=0.3)
    second = Asking(proxy, chat())
    proxy.wait_for(lambda: b'"content":"' in second.received)
    assert b'"done":true' not in client.received
    interrupt(proxy)
    assert client.end().lines[-1] == second.end().lines[-1] == {"error": STOPPED}


# Answers that have not begun


@pytest.mark.parametrize("stream", [True, False])
def test_who_waits_for_the_first_token_gets_a_503(sim: Sim, start_proxy: StartProxy, stream: bool) -> None:
    sim.fault(hang="headers")
    proxy = start_proxy(sim.url)
    client = Asking(proxy, chat(stream=stream))
    proxy.wait_for(lambda: sim.active)
    interrupt(proxy)
    answer = client.end()
    assert (answer.status, answer.json) == (503, {"error": STOPPED})


def test_a_held_head_becomes_a_503(sim: Sim, start_proxy: StartProxy) -> None:
    sim.script([sleep(20), content("late")])
    proxy = start_proxy(sim.url)
    client = Asking(proxy, chat())
    proxy.wait_for(lambda: sim.active)
    time.sleep(0.5)
    interrupt(proxy)
    answer = client.end()
    assert (answer.status, answer.json) == (503, {"error": STOPPED})


def test_who_waits_for_one_of_lm_studios_own_answers_gets_a_503(sim: Sim, start_proxy: StartProxy) -> None:
    sim.fault(hang="headers")
    proxy = start_proxy(sim.url)
    client = Asking(proxy, chat("/v1/chat/completions"))
    proxy.wait_for(lambda: sim.active)
    interrupt(proxy)
    answer = client.end()
    assert (answer.status, answer.json["error"]["message"]) == (503, STOPPED)


@pytest.mark.parametrize("path", ["/api/chat", "/api/blobs/sha256:" + "0" * 64])
def test_who_has_not_sent_all_gets_a_503(sim: Sim, start_proxy: StartProxy, path: str) -> None:
    proxy = start_proxy(sim.url)
    client = Asking(proxy, post_bytes(path, {"model": CHAT})[:-5])
    time.sleep(0.5)
    interrupt(proxy)
    answer = client.end()
    assert (answer.status, answer.json["error"]) == (503, STOPPED_LOCALLY if "blobs" in path else STOPPED)


def test_idle_clients_are_let_go(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url)
    clients = [Asking(proxy, b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(3)]
    proxy.wait_for(lambda: all(b"version" in client.received for client in clients))
    interrupt(proxy)
    assert all(client.end().status == 200 for client in clients)


# Ctrl-C itself


@pytest.mark.usefixtures("started_anew")
def test_a_second_ctrl_c_ends_at_once(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url)
    proxy.wait_for_log(r"\(\d+ models\)")
    sim.clear()
    sim.fault(path="/api/v1/models", hang="headers")
    # The request waits for LM Studio's list, which does not come: the end waits a second for it.
    client = Asking(proxy, b"GET /api/ps HTTP/1.1\r\nHost: localhost\r\n\r\n")
    proxy.wait_for(lambda: sim.requests)
    proxy.process.send_signal(signal.SIGINT)
    assert client.end().status == 503
    assert proxy.process.poll() is None
    proxy.process.send_signal(signal.SIGINT)
    assert proxy.process.wait(END_SECONDS) == -signal.SIGINT


def handles_interrupt(process: int) -> bool:
    """Whether a process has a handler for Ctrl-C, by /proc."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    assert found is not None
    return bool(int(found[1], 16) & 1 << signal.SIGINT - 1)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system has no /proc")
@pytest.mark.parametrize(
    ("delay", "web"), [(0, False), (0.2, False), (0.5, False), (1, False), (2, False), (0.5, True), (1.5, True)]
)
def test_ctrl_c_in_a_terminal_while_it_starts(delay: float, web: bool, tmp_path: Path) -> None:
    """Modules are imported, the script is loaded, the model list is asked for."""
    given = ["--web", "--no-web-open-browser", "--web-port", str(free_port())] if web else []
    command = [sys.executable, "-m", "ollama_lmstudio", "--demo", "--listen", f"127.0.0.1:{free_port()}", *given]
    process, descriptor = pty.fork()
    if process == 0:
        os.chdir(Path(__file__).parents[2])
        os.execv(command[0], [*command, "--state-dir", str(tmp_path)])
    shown: list[bytes] = []

    def read() -> None:
        # Linux says with an error that the program has ended.
        with suppress(OSError):
            while data := os.read(descriptor, 65536):
                shown.append(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        status = _interrupted(process, descriptor, delay, reader)
    except BaseException:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        raise
    finally:
        os.close(descriptor)
    text = b"".join(shown).decode()
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGINT)
    assert not re.search("Traceback|Error|Exception", text), text


def _interrupted(process: int, descriptor: int, delay: float, reader: threading.Thread) -> int:
    """Press Ctrl-C some time after the tool has begun to import modules; give the process's status at its end."""
    # Python's own handler comes first; while Python itself starts, there is nothing to be done.
    wait_until(lambda: b"ollama_lmstudio" in Path(f"/proc/{process}/cmdline").read_bytes())
    wait_until(lambda: handles_interrupt(process))
    wait_until(lambda: not handles_interrupt(process))
    time.sleep(delay)
    os.write(descriptor, b"\x03")
    reader.join(START_SECONDS)
    assert not reader.is_alive(), "it does not end"
    return os.waitpid(process, 0)[1]
