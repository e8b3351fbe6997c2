"""What is said when a server does not run, and the doctor's end, where no real process is needed."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mitmproxy import ctx
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from tests.internals.helpers import master_with
from tests.wire.conftest import free_port

from ollama_lmstudio import container, keys, options, startup
from ollama_lmstudio.inspect import doctor
from ollama_lmstudio.inspect.doctor import Finding
from ollama_lmstudio.internals import servers
from ollama_lmstudio.lmstudio.errors import LMStudioUnreachable

with warnings.catch_warnings():
    # mitmproxy's filters are made with names that pyparsing has given up.
    warnings.simplefilter("ignore", DeprecationWarning)
    from mitmproxy.addons.proxyserver import Proxyserver


async def is_ollama(*parts: bytes, silent: bool = False) -> bool:
    """Ask a server which answers with these bytes, or not at all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            if silent:
                await reader.read()
            writer.writelines(parts)
            with suppress(ConnectionError):
                await writer.drain()
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        return await startup.is_ollama(options.Listen(*server.sockets[0].getsockname()))


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n", b"Ollama is running"], True),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nelse"], False),
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], False),
        ([], False),
        ([b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 18), b"Ollama is running"], False),
    ],
    ids=["Ollama", "another", "not HTTP", "nothing", "without end"],
)
def test_an_ollama_server_is_known(parts: list[bytes], found: bool) -> None:
    assert asyncio.run(is_ollama(*parts)) is found


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "PORT_SECONDS", 0.05)
    assert not asyncio.run(is_ollama(silent=True))
    assert not asyncio.run(startup.is_ollama(options.Listen("127.0.0.1", free_port())))


async def fail_to_serve(monkeypatch: pytest.MonkeyPatch, host: str, port: int) -> None:
    """Let mitmproxy try to listen on an address."""
    proxyserver = Proxyserver()
    master_with(monkeypatch, proxyserver=proxyserver)
    given = Options()
    given.update(mode=[f"reverse:http://h:1@{host}:{port}"])
    monkeypatch.setattr(ctx, "options", given, raising=False)
    await proxyserver.setup_servers()


@pytest.mark.parametrize("is_ollama", [True, False])
def test_a_port_that_is_taken_while_it_runs(
    is_ollama: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The user gives another address to a proxy that serves: it goes on, and says what is wrong."""

    async def ask(address: options.Listen) -> bool:
        asked.append(address)
        return is_ollama

    asked: list[options.Listen] = []
    logged = asyncio.Event()
    errors: list[str] = []

    def note(_: str, message: str) -> None:
        errors.append(message)
        logged.set()

    monkeypatch.setattr(startup.logger, "error", note)
    monkeypatch.setattr(startup, "is_ollama", ask)

    async def scenario(port: int) -> None:
        start = startup.Startup()
        monkeypatch.setattr(start, "_listen", options.Listen("0.0.0.0", port))
        monkeypatch.setattr(start, "_starting", False)
        start.watch_log()
        try:
            await fail_to_serve(monkeypatch, "127.0.0.1", port)
            await logged.wait()
        finally:
            start.stop()

    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        asyncio.run(asyncio.wait_for(scenario(port), 5))
    (message,) = errors
    program = "An Ollama server, or another bridge like this one," if is_ollama else "Another program"
    told, _, proposed = message.rpartition(":")
    assert told == (
        f"Cannot serve on 127.0.0.1:{port}: address already in use. {program} answers on port {port} already: "
        "stop it, or serve on another port: --set listen=0.0.0.0"
    )
    # The next one, unless that is taken as well.
    assert port < int(proposed) <= port + startup.PORTS_TO_TRY
    assert asked == [options.Listen("127.0.0.1", port)]
    assert not caplog.records, "mitmproxy's own record is not shown as well"


@pytest.mark.parametrize(
    ("program", "flag"),
    [
        ("/usr/bin/mitmdump", "--set listen="),
        ("mitmweb.exe", "--set listen="),
        ("/home/u/.local/bin/ollama-lmstudio-proxy", "--listen "),
        ("ollama-lmstudio-proxy.exe", "--listen "),
        (str(Path(startup.__file__).parent / "__main__.py"), "--listen "),
    ],
)
@pytest.mark.parametrize(
    ("host", "shown", "looked_at"),
    [
        ("127.0.0.1", "127.0.0.1", {"127.0.0.1", "::1"}),
        ("localhost", "localhost", {"localhost", "127.0.0.1", "::1"}),
        ("0.0.0.0", "0.0.0.0", {"0.0.0.0", "127.0.0.1", "::1"}),
        ("::", "[::]", {"::", "127.0.0.1", "::1"}),
        ("192.168.1.5", "192.168.1.5", {"192.168.1.5"}),
    ],
)
def test_the_port_that_is_proposed_is_free_at_the_users_host_and_named_as_the_user_names_it(
    host: str,
    shown: str,
    looked_at: set[str],
    program: str,
    flag: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = 20000
    message = (
        f"[Errno 98] reverse proxy to http://h:1 failed to listen on 127.0.0.1:{port} with [Errno 98] in Verwendung"
    )
    error = OSError(errno.EADDRINUSE, message.removeprefix("[Errno 98] "))
    server = SimpleNamespace(
        is_running=False, last_exception=error, mode=SimpleNamespace(listen_port=lambda default: port)
    )
    master_with(monkeypatch, proxyserver=SimpleNamespace(servers=[server]))
    monkeypatch.setattr(ctx, "options", SimpleNamespace(listen_port=None), raising=False)
    monkeypatch.setattr(sys, "argv", [program])
    bound: list[tuple[list[str], list[int]]] = []

    def free_port(hosts: Sequence[str], ports: Sequence[int]) -> int | None:
        bound.append((list(hosts), list(ports)))
        return None if len(bound) > 1 else ports[2]

    monkeypatch.setattr(servers, "free_port", free_port)

    async def scenario() -> list[str]:
        start = startup.Startup()
        monkeypatch.setattr(start, "_listen", options.Listen(host, port))
        return [await start._report_failure(str(error)) for _ in range(2)]

    first, second = asyncio.run(scenario())
    said = f"Cannot serve on 127.0.0.1:{port}: address already in use. Another program answers on port {port} already: "
    assert first == f"{said}stop it, or serve on another port: {flag}{shown}:{port + 3}"
    assert second == f"{said}stop it, or serve on another port: {flag}HOST:PORT", "none was free"
    hosts, ports = bound[0]
    assert (hosts[0], set(hosts)) == (host, looked_at)
    assert ports == list(range(port + 1, port + 1 + startup.PORTS_TO_TRY))


def test_what_looks_at_lmstudio_at_the_start_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """As when the script is loaded anew in its first second."""

    async def scenario() -> bool:
        looks, is_cancelled = asyncio.Event(), False

        async def refresh() -> None:
            nonlocal is_cancelled
            looks.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                is_cancelled = True
                raise

        settings = SimpleNamespace(loops=False, listen=options.Listen("127.0.0.1", 1))
        services = SimpleNamespace(
            settings=settings, client=SimpleNamespace(url="u"), catalog=SimpleNamespace(refresh=refresh)
        )
        reporting = asyncio.ensure_future(startup._report(cast(Any, services), demo=False))
        await looks.wait()
        reporting.cancel()
        await asyncio.wait({reporting})
        await asyncio.sleep(0)
        return is_cancelled

    assert asyncio.run(scenario())


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ([Finding("ok", "well"), Finding("note", "well, too")], 0),
        ([Finding("ok", "well"), Finding("problem", "ill")], 1),
        (None, 1),
    ],
)
def test_the_doctor_ends_the_process(
    found: list[Finding] | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def examine(services: Any, *, serving: bool | None) -> list[Finding]:
        if found is None:
            raise RuntimeError("a fault of the doctor's own")
        return found

    monkeypatch.setattr(doctor, "examine", examine)
    master_with(monkeypatch)
    monkeypatch.setattr(ctx, "options", SimpleNamespace(server=False, doctor=True, deferred={}), raising=False)

    async def scenario() -> None:
        start: Callable[[Any], Awaitable[None]] = startup.Startup().serve
        try:
            await start(cast(Any, None))
        finally:
            await asyncio.sleep(1)

    with pytest.raises(SystemExit) as ended:
        asyncio.run(scenario())
    assert ended.value.code == status
    assert capsys.readouterr().out == "".join(f"{finding}\n" for finding in found or [])


def test_who_may_come_in_with_a_named_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file = tmp_path / "keys"
    for text, api_key, told in (
        ("alice=sk-1\nbob=sk-2\n", "", ["Clients need a key (option api_keys): that of alice, bob."]),
        ("alice=sk-1\n", "k", ["Clients need a key (option api_keys): that of alice, api_key."]),
        ("", "", [f"api_keys: {keys.NOBODY}"]),
    ):
        caplog.clear()
        file.write_text(text)
        file.chmod(0o600)
        values = {option.name: option.default for option in options.OPTIONS}
        settings = options.parse(values | {"api_key": api_key, "api_keys": [str(file)]})
        ring = keys.Keyring(settings.api_keys)
        startup._report_access(cast(Any, SimpleNamespace(settings=settings, keys=ring)))
        assert [record.getMessage() for record in caplog.records] == told


def test_what_is_said_in_a_container(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its addresses are not the machine's: neither the advice to listen on one of them nor `localhost` would help."""
    caplog.set_level("INFO")
    monkeypatch.setattr(container, "MARKS", (tmp_path / "none", tmp_path / "mark"))
    settings = options.parse({option.name: option.default for option in options.OPTIONS} | {"listen": "0.0.0.0:11434"})
    services = cast(Any, SimpleNamespace(settings=settings, keys=keys.Keyring(settings.api_keys)))

    async def nothing() -> Any:
        raise LMStudioUnreachable("http://host.docker.internal:1234")

    async def told() -> list[str]:
        caplog.clear()
        startup._report_access(services)
        await startup._report_models(asyncio.ensure_future(nothing()), "LM Studio", is_late=False)
        return [record.getMessage() for record in caplog.records]

    access, models = asyncio.run(told())
    assert "listen=127.0.0.1:11434" in access
    assert "--bind" not in models
    (tmp_path / "mark").touch()
    access, models = asyncio.run(told())
    assert "listen=" not in access
    assert access.startswith("No key is needed (option api_key)")
    assert "(`lms server start --bind 0.0.0.0`). If it runs elsewhere" in models


@pytest.mark.parametrize(
    ("listen", "host"), [("127.0.0.1:5", "127.0.0.1"), ("[::1]:5", "::1"), ("[::]:5", ""), ("5", "0.0.0.0")]
)
def test_the_mode(listen: str, host: str) -> None:
    settings = cast(Any, SimpleNamespace(listen=options.parse_listen(listen)))
    spec = startup.mode_spec(settings, options.parse_url("https://h/x"))
    assert spec == f"reverse:https://h:443@{host}:5"
    mode = ProxyMode.parse(spec)
    assert (mode.listen_host("not this"), mode.listen_port()) == (host, 5)


@pytest.mark.parametrize("host", ["203.0.113.5", "no-such-name.invalid"])
@pytest.mark.parametrize("is_newer", [False, True], ids=["this Python", "a newer one"])
def test_an_address_that_this_machine_has_not(
    host: str, is_newer: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listen = asyncio.start_server

    async def newer(*arguments: Any) -> asyncio.Server:
        try:
            return await listen(*arguments)
        except OSError as e:
            if e.errno == errno.EADDRNOTAVAIL:
                raise OSError(f"could not bind on any address out of {[arguments[1:]]}") from None
            raise

    async def scenario() -> str:
        await fail_to_serve(monkeypatch, host, free_port())
        (message,) = servers.failures()
        return await startup.Startup()._report_failure(message)

    if is_newer:
        monkeypatch.setattr(asyncio, "start_server", newer)
    said = asyncio.run(scenario())
    assert re.match(rf"Cannot serve on {re.escape(host)}:\d+(: [^.]*)?\. This machine has no such address", said)
    assert said.endswith(startup.NOT_HERE)
    assert said in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(("hard", "wanted"), [(20_000, 10_240), (500, 500)])
def test_the_limit_of_open_files_is_raised(hard: int, wanted: int) -> None:
    script = (
        "import resource; from ollama_lmstudio.startup import allow_descriptors; kind = resource.RLIMIT_NOFILE; "
        f"resource.setrlimit(kind, (256, {hard})); allow_descriptors(); print(*resource.getrlimit(kind))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(wanted), str(hard)]
