"""The order in which `localhost` is dialled, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.wire.conftest import free_port, needs_ipv6

from ollama_lmstudio.internals.localhost import LocalhostOrder

ADDRESSES = ("127.0.0.1", "::1")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def listening() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(listening: ExitStack, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening.enter_context(socket.create_server((host, port), family=family))


async def dialled(port: int, order: LocalhostOrder, host: str = "localhost") -> str:
    """Return the address that a connection to localhost reaches where the system names ::1 first."""
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def system(host: str, port: int, **hints: int) -> list[object]:
        addresses = reversed(ADDRESSES) if host == "localhost" else (host,)
        return [info for address in addresses for info in await resolve(address, port, **hints)]

    setattr(loop, "getaddrinfo", system)  # noqa: B010 - a method
    order.install()
    _, writer = await asyncio.open_connection(host, port)
    try:
        return str(writer.get_extra_info("peername")[0])
    finally:
        writer.close()
        order.remove()
        assert "getaddrinfo" not in vars(loop)


@needs_ipv6
@pytest.mark.parametrize(
    ("hosts", "found"), [(ADDRESSES, "127.0.0.1"), (ADDRESSES[:1], "127.0.0.1"), (ADDRESSES[1:], "::1")]
)
def test_ipv4_is_dialled_first(listening: ExitStack, port: int, hosts: tuple[str, ...], found: str) -> None:
    for host in hosts:
        listen(listening, host, port)
    assert asyncio.run(dialled(port, LocalhostOrder(ADDRESSES))) == found


@needs_ipv6
def test_other_names_are_the_systems_affair(listening: ExitStack, port: int) -> None:
    for host in ADDRESSES:
        listen(listening, host, port)
    assert asyncio.run(dialled(port, LocalhostOrder(ADDRESSES), "::1")) == "::1"


def test_a_server_on_localhost_listens_where_the_system_says(port: int) -> None:
    async def scenario() -> list[str]:
        order = LocalhostOrder(("192.0.2.1",))
        order.install()
        async with await asyncio.start_server(lambda *_: None, "localhost", port) as server:
            order.remove()
            return [sock.getsockname()[0] for sock in server.sockets]

    assert set(asyncio.run(scenario())) <= set(ADDRESSES)
