"""`localhost`, and connections that are refused as slowly as Windows refuses them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from ollama_lmstudio.lmstudio.client import CONNECT_SECONDS, Client
from ollama_lmstudio.lmstudio.errors import LMStudioUnreachable

WINDOWS_SECONDS = 2.05
"""Three attempts to connect, with 500 ms and 1 s between them, and the answer to the third."""

SOON_SECONDS = 0.1

Dialled = list[tuple[str, str]]
"""Addresses, and how it ended."""


@pytest.fixture(params=[WINDOWS_SECONDS])
def dialled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Dialled:
    """Let connections be refused as late as by Windows, and collect those that have ended."""
    ended: Dialled = []
    with closing(asyncio.new_event_loop()) as loop:
        kind: Any = type(loop)
    connect = kind.sock_connect

    async def connect_late(loop: Any, sock: socket.socket, address: Any) -> None:
        outcome = "given up"
        try:
            await connect(loop, sock, address)
            outcome = "connected"
        except ConnectionRefusedError:
            await asyncio.sleep(request.param)
            outcome = "refused"
            raise
        finally:
            ended.append((address[0], outcome))

    monkeypatch.setattr(kind, "sock_connect", connect_late)
    return ended


def refusal(url: str, connect_timeout: float = CONNECT_SECONDS) -> str:
    async def ask() -> str:
        client = Client(url, connect_timeout=connect_timeout)
        with pytest.raises(LMStudioUnreachable) as caught:
            await client.catalog()
        await client.aclose()
        return caught.value.message

    return asyncio.run(ask())


def at_closed_port(host: str, ask: Callable[[str], str]) -> tuple[str, str]:
    """Return a URL at which nobody listens, and what `ask` returns for it while its port is kept."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://{host}:{taken.getsockname()[1]}"
        return url, ask(url)


START = "Start its server: Developer tab, or `lms server start`."


def test_a_refusal_that_takes_two_seconds_is_no_timeout(dialled: Dialled) -> None:
    url, message = at_closed_port("localhost", refusal)
    assert message == f"LM Studio is not reachable at {url}. {START}"
    assert dialled == [("127.0.0.1", "refused"), ("::1", "given up")], "that of the other address is not waited for"


def test_a_machine_that_does_not_answer_is_told_from_one_that_refuses(dialled: Dialled) -> None:
    url, message = at_closed_port("127.0.0.1", lambda url: refusal(url, connect_timeout=0.1))
    assert message == f"LM Studio is not reachable at {url} (no answer within 0.1 seconds). {START}"
    assert dialled == [("127.0.0.1", "given up")]


@pytest.mark.parametrize("dialled", [SOON_SECONDS], indirect=True)
def test_an_lm_studio_that_listens_on_ipv6_alone_is_found(dialled: Dialled) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"Host: localhost:" in head
            body = b'{"models": []}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
            writer.close()

        async with await asyncio.start_server(serve, "::1") as server:
            client = Client(f"http://localhost:{server.sockets[0].getsockname()[1]}")
            assert (await client.catalog()).models == ()
            await client.aclose()

    asyncio.run(scenario())
    assert dialled == [("127.0.0.1", "refused"), ("::1", "connected")]
