"""What a person sees of a start: the lines, and the ports that are open, from the first moment on."""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.wire.conftest import START_SECONDS, Proxy, StartProxy, free_port, needs_proc
from tests.wire.web import Web

from ollama_lmstudio import container
from ollama_lmstudio.sim import Sim

TIME = r"\[\d\d:\d\d:\d\d\.\d{3}\] "
LISTENING = "0A"

SERVES = r"http://\S+ serves Ollama's API in front of "
LATE = re.compile(r"(?P<lmstudio>.+) has answered (?P<models>\(\d+ models\))")


def said(proxy: Proxy) -> list[str]:
    """Give the lines about the start, without their times: those of no client and no exchange.

    How many models there are is put where it belongs, should a busy machine have needed more than a second for them.
    """
    lines = [line for line in proxy.log.splitlines() if re.match(TIME, line) and "Loading script" not in line]
    lines = [re.sub(TIME, "", line) for line in lines]
    if late := next(filter(None, map(LATE.fullmatch, lines)), None):
        lines.remove(late[0])
        lines = [f"{line} {late['models']}" if line.endswith(f" {late['lmstudio']}") else line for line in lines]
    return lines


def ports_of(process: int) -> set[int]:
    """Give the ports that a process listens on now."""
    inodes = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING and row[9] in inodes}


@contextmanager
def watched(proxy: Proxy) -> Iterator[set[int]]:
    """Give the ports that a process listens on while this goes on, even for a moment."""
    ports: set[int] = set()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            try:
                ports.update(ports_of(proxy.process.pid))
            except FileNotFoundError:
                return
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield ports
    finally:
        is_over.set()
        thread.join()


def tool(proxy: Proxy, *arguments: str) -> Sequence[str]:
    """Give the command line tool's command."""
    return [sys.executable, "-m", "ollama_lmstudio", *arguments, "--listen", f"127.0.0.1:{proxy.port}"]


@pytest.mark.usefixtures("started_anew")
@needs_proc
@pytest.mark.parametrize("program", ["mitmdump", "mitmweb", "ollama-lmstudio-proxy", "ollama-lmstudio-proxy --web"])
def test_no_other_port_is_open_at_any_moment(sim: Sim, tmp_path: Path, program: str) -> None:
    web = Web.arguments() if "web" in program else ()
    proxy = Proxy(sim.url, *web, tool=program, state_dir=tmp_path)
    if program.startswith("ollama"):
        given = ("--lmstudio-url", sim.url, "--state-dir", str(tmp_path), *program.split()[1:], *web)
        proxy.command = tool(proxy, *given)
    proxy.start(wait=False)
    try:
        with watched(proxy) as ports:
            proxy.wait_for_log(SERVES)
            proxy.wait_for(proxy.answers)
    finally:
        proxy.stop()
    assert ports == {proxy.port, *(int(web[2]) for _ in web[:1])}
    assert not re.search(r"8080|listening at \*|HTTP\(S\) proxy", proxy.log)


@needs_proc
def test_the_port_of_mitmproxys_own_proxy_is_closed_where_it_was_open(sim: Sim, start_proxy: StartProxy) -> None:
    """With a `listen_host`, mitmproxy 12 has bound its port before it loads the script."""
    port = free_port()
    proxy = start_proxy(
        sim.url,
        *("--listen-host", "127.0.0.1", "--listen-port", str(port)),
        options={"listen": f"0.0.0.0:{free_port()}"},
        wait=False,
    )
    proxy.port, proxy.url = port, f"http://127.0.0.1:{port}"
    proxy.wait_for_log(SERVES)
    proxy.wait_for(proxy.answers)
    assert ports_of(proxy.process.pid) == {port}
    assert "HTTP(S) proxy" not in proxy.log


def test_the_mode_of_a_user_is_not_taken_away(sim: Sim, tmp_path: Path) -> None:
    """The command line tool starts without a mode, unless there is one."""
    port = free_port()
    for given in (["--mode"], ["--set"]):
        mode = f"{'mode=' if given == ['--set'] else ''}reverse:{sim.url}@127.0.0.1:{port}"
        proxy = Proxy(sim.url)
        proxy.command = tool(proxy, "--lmstudio-url", sim.url, "--state-dir", str(tmp_path), *given, mode)
        proxy.url = f"http://127.0.0.1:{port}"
        with proxy:
            proxy.wait_for_log(rf"{proxy.url} serves")


@pytest.mark.parametrize("quiet", ["-n", "--no-server"])
@needs_proc
def test_no_server_means_none(sim: Sim, tmp_path: Path, quiet: str) -> None:
    proxy = Proxy(sim.url)
    proxy.command = tool(proxy, "--state-dir", str(tmp_path), quiet)
    proxy.start(wait=False)
    with watched(proxy) as ports:
        proxy.wait_for_log("Loading script")
        time.sleep(2)
    assert proxy.stop() == 0
    assert ports == set()
    assert "serves" not in proxy.log


# What is said


@pytest.mark.usefixtures("started_anew")
def test_the_lines_of_a_start(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url)
    proxy.wait_for_log(r"\(\d+ models\)")
    assert said(proxy) == [f"{proxy.url} serves Ollama's API in front of LM Studio at {sim.url} (8 models)"]


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"listen": "127.0.0.1:{}"}, []),
        (
            {"listen": "0.0.0.0:{}"},
            [
                f"{container.NO_KEY.capitalize()}."
                if container.is_container()
                else "Everybody on this network can use it without a key: set api_key to ask for one, "
                "or listen=127.0.0.1:{} to serve this machine only."
            ],
        ),
        ({"listen": "0.0.0.0:{}", "api_key": "k"}, ["Clients need the key (option api_key)."]),
        (
            {"listen": "0.0.0.0:{}", "api_key": "change-me"},
            ["api_key is the one of the example in configs/lan.yaml, which anybody can look up: choose another."],
        ),
        (
            {"listen": "127.0.0.1:{}", "demo": "true"},
            ["DEMO: the answers come from the built-in stand-in, not from LM Studio and not from a language model."],
        ),
    ],
    ids=["this machine", "everybody", "key", "example key", "demo"],
)
def test_who_may_come_in_is_said(sim: Sim, start_proxy: StartProxy, settings: dict[str, str], more: list[str]) -> None:
    port = free_port()
    options = {name: text.format(port) for name, text in settings.items()}
    proxy = start_proxy(sim.url, "--flow-detail", "0", options=options, wait=False)
    proxy.wait_for_log(r"\(\d+ models\)")
    if more:
        proxy.wait_for_log(re.escape(more[0].format(port)))
    host = "localhost" if settings["listen"].startswith("0") else "127.0.0.1"
    lmstudio, count = ("the built-in stand-in", 5) if "demo" in settings else (f"LM Studio at {sim.url}", 8)
    assert said(proxy) == [
        f"http://{host}:{port} serves Ollama's API in front of {lmstudio} ({count} models)",
        *(line.format(port) for line in more),
    ]


def test_lm_studio_does_not_run(start_proxy: StartProxy) -> None:
    port = free_port()
    proxy = start_proxy(f"http://127.0.0.1:{port}")
    proxy.wait_for_log("Until it answers")
    first, second = said(proxy)
    assert first == f"{proxy.url} serves Ollama's API in front of LM Studio at http://127.0.0.1:{port}"
    assert re.fullmatch(
        rf"LM Studio is not reachable at http://127\.0\.0\.1:{port}( \(.*\))?\. Start its server: Developer tab, or "
        r"`lms server start`\.( This is a container: .*)? "
        r"If it runs elsewhere, set lmstudio_url\. Until it answers, clients get this error\.",
        second,
    )


def test_lm_studio_that_does_not_answer_is_not_waited_for(sim: Sim, start_proxy: StartProxy) -> None:
    sim.fault(path="/api/v1/models", hang="headers")
    proxy = start_proxy(sim.url)
    proxy.wait_for_log(rf"serves Ollama's API in front of LM Studio at {sim.url}\n", 5)
    assert "did not answer" not in proxy.log


def test_mitmproxys_own_lines_are_there_for_who_wants_them(sim: Sim, start_proxy: StartProxy) -> None:
    proxy = start_proxy(sim.url, options={"termlog_verbosity": "debug"})
    proxy.wait_for_log(rf"reverse proxy to {sim.url} listening at 127.0.0.1:{proxy.port}")


def test_mitmweb_shows_the_address(sim: Sim, start_proxy: StartProxy) -> None:
    """Its page shows these two options, or *:8080."""
    proxy = start_proxy(sim.url, *Web.arguments(), tool="mitmweb")
    web = Web(proxy)

    def shown() -> tuple[str, int]:
        options = web.http.get("/options").json()
        return options["listen_host"]["value"], options["listen_port"]["value"]

    proxy.wait_for(lambda: shown() == ("127.0.0.1", proxy.port))
    port = free_port()
    web.option(listen=f"0.0.0.0:{port}")
    proxy.wait_for(lambda: shown() == ("", port))
    proxy.port, proxy.url = port, f"http://127.0.0.1:{port}"
    proxy.wait_for(proxy.answers)
    # What the user tells mitmproxy still wins.
    port = free_port()
    web.option(listen_port=port)
    proxy.port, proxy.url = port, f"http://127.0.0.1:{port}"
    proxy.wait_for(proxy.answers)
    assert shown() == ("", port)
    web.http.close()


# mitmweb's port


@pytest.mark.parametrize("program", ["mitmweb", "ollama-lmstudio-proxy --web"])
def test_a_taken_port_of_mitmweb_is_one_line(sim: Sim, tmp_path: Path, program: str) -> None:
    # Not one of those that the system gives to clients, of whom there are many at the same time.
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        web = ("--no-web-open-browser", "--web-port", str(port), "--web-host", "127.0.0.1")
        proxy = Proxy(sim.url, *web, tool="mitmweb", state_dir=tmp_path)
        if program != "mitmweb":
            proxy.command = tool(proxy, "--lmstudio-url", sim.url, "--state-dir", str(tmp_path), "--web", *web)
        proxy.start(wait=False)
        assert proxy.process.wait(START_SECONDS) == 1
        proxy.stop()
    assert said(proxy) == [
        f"mitmweb's page cannot be served on 127.0.0.1:{port}: another program is there. "
        f"Choose another port: --web-port {port + 2}"
    ]
    assert len(proxy.log.splitlines()) == 2, "with the line about the script"


def test_a_taken_port_is_one_line_in_mitmweb_too(sim: Sim) -> None:
    proxy = Proxy(sim.url, *Web.arguments(), tool="mitmweb")
    with socket.create_server(("127.0.0.1", proxy.port)):
        proxy.start(wait=False)
        assert proxy.process.wait(START_SECONDS) == 1
        proxy.stop()
    web, line = said(proxy)
    assert "Web server listening at http://" in web
    assert line == (
        f"Cannot serve on 127.0.0.1:{proxy.port}: address already in use. Another program answers on port {proxy.port} "
        f"already: stop it, or serve on another port: --set listen=127.0.0.1:{proxy.port + 1}"
    )
    assert "Traceback" not in proxy.log
