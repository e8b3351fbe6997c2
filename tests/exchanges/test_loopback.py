"""The service on a loopback port, without mitmproxy in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import httpx
import pytest

from ollama_lmstudio.exchanges.loopback import SECRET_HEADER, STOPPED, TICKET_HEADER, Loopback
from ollama_lmstudio.lmstudio.errors import LMStudioError
from ollama_lmstudio.ollama import errors
from ollama_lmstudio.outcomes import LocalStream, Response

Line = Mapping[str, object]


async def lines(*given: Line | Exception) -> AsyncGenerator[Line, None]:
    for line in given:
        if isinstance(line, Exception):
            raise line
        yield line


class Swallow:
    """Count a body."""

    def __init__(self) -> None:
        self.size = 0
        self.begun = asyncio.Event()
        self.aborted = asyncio.Event()

    async def feed(self, data: bytes) -> None:
        self.size += len(data)
        self.begun.set()

    async def end(self) -> Response:
        return Response.json({"size": self.size}, status=201)

    def abort(self) -> None:
        self.aborted.set()


def run(scenario: Callable[[Loopback, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        loopback = Loopback()
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                await scenario(loopback, client)
        finally:
            loopback.stop()
            await asyncio.sleep(0.05)

    asyncio.run(main())


def url(loopback: Loopback) -> str:
    return f"http://127.0.0.1:{loopback.port}/api/pull"


def test_nothing_without_the_secret_and_nothing_twice() -> None:
    async def scenario(loopback: Loopback, client: httpx.AsyncClient) -> None:
        right = dict(loopback.add(LocalStream(lines({"status": "success"}), True)))
        for changes in ({SECRET_HEADER: ""}, {SECRET_HEADER: right[SECRET_HEADER][:-1]}, {TICKET_HEADER: "2"}):
            refused = await client.post(url(loopback), headers=right | changes)
            assert (refused.status_code, refused.content) == (403, b"")
        refused = await client.post(url(loopback))
        assert (refused.status_code, refused.content) == (403, b"")
        answer = await client.post(url(loopback), headers=right)
        assert (answer.status_code, answer.content) == (200, b'{"status":"success"}\n')
        assert (await client.post(url(loopback), headers=right)).status_code == 403

        forgotten = dict(loopback.add(Swallow()))
        loopback.forget(forgotten[TICKET_HEADER])
        assert (await client.post(url(loopback), headers=forgotten)).status_code == 403

    run(scenario)


def test_every_process_has_its_own_secret() -> None:
    assert Loopback().secret != Loopback().secret
    assert len(Loopback().secret) >= 32


FIRST = {"status": "first"}
OURS = RuntimeError("a mistake of ours")


@pytest.mark.parametrize(
    ("given", "streaming", "status", "content_type", "body"),
    [
        ([FIRST, {"status": "last"}], False, 200, "application/json", b'{"status":"last"}'),
        ([errors.manifest_not_found()], True, 500, "application/json", b'{"error":"pull model manifest: file does n'),
        ([FIRST, errors.manifest_not_found()], False, 500, "application/json", b'{"error":"pull model manifest: file'),
        ([LMStudioError(503, "away from sesame")], False, 503, "application/json", b'{"error":"away from ***"}'),
        (
            [FIRST, LMStudioError(503, "sesame")],
            True,
            200,
            "application/x-ndjson",
            b'{"status":"first"}\n{"error":"***',
        ),
        ([OURS], True, 500, "application/json", b'{"error":"internal error of the proxy, see its log"}'),
        ([FIRST, OURS], False, 500, "application/json", b'{"error":"internal error of the proxy, see its log"}'),
    ],
)
def test_answers(given: list[Line | Exception], streaming: bool, status: int, content_type: str, body: bytes) -> None:
    async def scenario(loopback: Loopback, client: httpx.AsyncClient) -> None:
        headers = loopback.add(LocalStream(lines(*given), streaming), ("sesame",))
        answer = await client.post(url(loopback), headers=dict(headers))
        assert (answer.status_code, answer.headers["content-type"]) == (status, content_type)
        assert answer.content.startswith(body)
        assert "server" not in answer.headers
        assert "etag" not in answer.headers

    run(scenario)


def test_body_is_handed_on() -> None:
    async def scenario(loopback: Loopback, client: httpx.AsyncClient) -> None:
        headers = dict(loopback.add(Swallow()))
        answer = await client.post(url(loopback), headers=headers, content=b"x" * 300_000)
        assert (answer.status_code, answer.json()) == (201, {"size": 300_000})

    run(scenario)


def test_client_that_leaves_ends_the_job() -> None:
    async def scenario(loopback: Loopback, client: httpx.AsyncClient) -> None:
        closed = asyncio.Event()

        async def forever() -> AsyncGenerator[Line, None]:
            try:
                while True:
                    yield FIRST
                    await asyncio.sleep(0.01)
            finally:
                closed.set()

        headers = dict(loopback.add(LocalStream(forever(), True)))
        async with client.stream("POST", url(loopback), headers=headers) as answer:
            assert await anext(answer.aiter_lines()) == '{"status":"first"}'
        await asyncio.wait_for(closed.wait(), 5)

        swallow = Swallow()
        head = "".join(f"{name}: {value}\r\n" for name, value in loopback.add(swallow).items())
        _, writer = await asyncio.open_connection("127.0.0.1", loopback.port)
        writer.write(f"POST /api/blobs/x HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\nsome".encode())
        await writer.drain()
        await asyncio.wait_for(swallow.begun.wait(), 5)
        writer.close()
        await asyncio.wait_for(swallow.aborted.wait(), 5)

    run(scenario)


def test_stop_tells_who_is_still_there() -> None:
    async def scenario(loopback: Loopback, client: httpx.AsyncClient) -> None:
        async def waiting() -> AsyncGenerator[Line, None]:
            yield FIRST
            await asyncio.sleep(60)

        headers = dict(loopback.add(LocalStream(waiting(), True)))
        async with client.stream("POST", url(loopback), headers=headers) as answer:
            given = answer.aiter_lines()
            await anext(given)
            loopback.stop()
            assert [line async for line in given] == [f'{{"error":"{STOPPED}"}}']

    run(scenario)
