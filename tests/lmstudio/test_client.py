"""The client against a server on a real socket, which answers by a script."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from ollama_lmstudio.lmstudio.client import CATALOG_PATH_SECONDS, KEEPALIVE_SECONDS, Client, ClientCall
from ollama_lmstudio.lmstudio.errors import LMStudioError, LMStudioTimeout, LMStudioUnreachable

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJKLMNOPQRST"
V1_LIST = {"models": [{"key": "plain", "type": "llm"}]}
V0_LIST = {"data": [{"id": "plain", "type": "llm", "state": "loaded"}]}
OPENAI_LIST = {"data": [{"id": "plain", "object": "model"}]}


@dataclass
class Answer:
    body: object = None
    status: int = 200
    content_type: str = "application/json; charset=utf-8"
    headers: str = ""

    def to_bytes(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body, indent=2).encode()
        head = (
            f"HTTP/1.1 {self.status} Whatever\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{self.headers}\r\n"
        )
        return head.encode() + body


class Drop:
    """Close the connection instead of answering."""


class Hang:
    """Never answer."""


Outcome = Answer | Drop | Hang


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers each path with one outcome after another, then the last again; else as LM Studio does."""

    outcomes: dict[str, list[Outcome]]
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        try:
            while isinstance(outcome := self.outcome(await self.read(reader)), Answer):
                writer.write(outcome.to_bytes())
                await writer.drain()
            if isinstance(outcome, Hang):
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_connections -= 1
            self.left.set()
            writer.close()

    async def read(self, reader: asyncio.StreamReader) -> Request:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(Request(method, path, headers, body))
        self.asked.set()
        return self.requests[-1]

    def outcome(self, request: Request) -> Outcome:
        script = self.outcomes.get(request.path)
        if script is None:
            return unknown_route(f"{request.method} {request.path}")
        return script.pop(0) if len(script) > 1 else script[0]

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


def unknown_route(route: str) -> Answer:
    return Answer({"error": f"Unexpected endpoint or method. ({route})"})


def run(scenario: Callable[[Server], Awaitable[None]], **outcomes: Outcome | list[Outcome]) -> None:
    """Run a scenario against a server; `v1="..."` and the like are the outcomes of the paths in PATHS."""

    async def main() -> None:
        scripts = {PATHS[name]: script if isinstance(script, list) else [script] for name, script in outcomes.items()}
        server = Server(scripts)
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        server.url = f"http://127.0.0.1:{port}"
        try:
            async with asyncio.timeout(20):
                await scenario(server)
        finally:
            listener.close()

    asyncio.run(main())


PATHS = {
    "v1": "/api/v1/models",
    "v0": "/api/v0/models",
    "openai": "/v1/models",
    "prefixed": "/lm/api/v1/models",
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "load": "/api/v1/models/load",
    "unload": "/api/v1/models/unload",
    "download": "/api/v1/models/download",
    "job": "/api/v1/models/download/status/job_1",
    "odd_job": "/api/v1/models/download/status/a%2Fb%20c",
}


@pytest.mark.parametrize(
    ("outcomes", "source", "asked"),
    [
        pytest.param({"v1": Answer(V1_LIST)}, "v1", ["v1"], id="LM Studio 0.4"),
        pytest.param({"v0": Answer(V0_LIST)}, "v0", ["v1", "v0"], id="LM Studio 0.3.6"),
        pytest.param({"openai": Answer(OPENAI_LIST)}, "openai", ["v1", "v0", "openai"], id="older"),
        pytest.param(
            {"v1": Answer(b"Not Found", 404, "text/plain"), "v0": Answer(V0_LIST)}, "v0", ["v1", "v0"], id="404"
        ),
        pytest.param({"v1": Answer(b'{"mod'), "v0": Answer(V0_LIST)}, "v0", ["v1", "v0"], id="broken JSON"),
        pytest.param({"v1": Answer({"models": 3}), "v0": Answer(V0_LIST)}, "v0", ["v1", "v0"], id="no list"),
        pytest.param({"v1": Answer(V0_LIST)}, "v0", ["v1"], id="the shape decides, not the path"),
    ],
)
def test_the_richest_list_is_read(outcomes: dict[str, Outcome], source: str, asked: list[str]) -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        catalog = await client.catalog()
        assert catalog.source == source
        assert [model.key for model in catalog.models] == ["plain"]
        assert server.paths == [PATHS[name] for name in asked]
        await client.aclose()

    run(scenario, **outcomes)


def test_the_list_that_worked_is_asked_first_for_a_while() -> None:
    async def scenario(server: Server) -> None:
        now = 1000.0
        client = Client(server.url, clock=lambda: now)
        await client.catalog()
        await client.catalog()
        assert server.paths == [PATHS["v1"], PATHS["v0"], PATHS["v0"]]
        now += CATALOG_PATH_SECONDS
        await client.catalog()
        assert server.paths[3:] == [PATHS["v1"], PATHS["v0"]]
        await client.aclose()

    run(scenario, v0=Answer(V0_LIST))


def test_when_the_list_that_worked_is_gone_the_others_are_asked() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        assert (await client.catalog()).source == "v0"
        assert (await client.catalog()).source == "v1"
        assert (await client.catalog()).source == "v1"
        assert server.paths[2:] == [PATHS["v0"], PATHS["v1"], PATHS["v1"]]
        await client.aclose()

    run(
        scenario,
        v1=[unknown_route("GET /api/v1/models"), Answer(V1_LIST)],
        v0=[Answer(V0_LIST), unknown_route("GET /api/v0/models")],
    )


def test_no_list_at_all() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        with pytest.raises(LMStudioError, match="There is no model list of LM Studio at http://127") as caught:
            await client.catalog()
        assert caught.value.status == 502
        # The path is likelier to be wrong than LM Studio to be too old for all three.
        assert "a newer version may" not in str(caught.value)
        assert "Set lmstudio_url to the address of LM Studio's server, without /v1." in str(caught.value)
        assert len(server.requests) == 3
        await client.aclose()

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (Answer({"error": {"message": "No token.", "code": "invalid_api_key"}}, 401), 502, "lmstudio_token"),
        (Answer(b"<html>", 503, "text/html"), 503, "LM Studio answered 503 with text/html, not JSON"),
        (Answer({"error": "Broke."}, 500), 500, "Broke."),
        (Answer(b"", 302, headers="Location: /elsewhere\r\n"), 502, "LM Studio answered 302"),
    ],
)
def test_an_error_is_not_a_missing_list(answer: Answer, status: int, words: str) -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        with pytest.raises(LMStudioError) as caught:
            await client.catalog()
        assert caught.value.status == status
        assert words in caught.value.message
        assert len(server.requests) == 1
        await client.aclose()

    run(scenario, v1=answer)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_path_prefix_and_a_trailing_slash(slash: str) -> None:
    async def scenario(server: Server) -> None:
        client = Client(f"{server.url}/lm{slash}")
        assert (await client.catalog()).source == "v1"
        assert server.paths == [PATHS["prefixed"]]
        await client.aclose()

    run(scenario, prefixed=Answer(V1_LIST))


@pytest.mark.parametrize("url", ["localhost:1234", "ftp://localhost", "http://", ""])
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        Client(url)


@pytest.mark.parametrize(("scheme", "loads"), [("http", False), ("https", True), ("HTTPS", True)])
def test_certificates_are_loaded_where_they_are_needed(
    scheme: str, loads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *a, **k: loaded.append(1), raising=False)

    async def call(port: int) -> None:
        client = Client(f"{scheme}://127.0.0.1:{port}")
        with pytest.raises(LMStudioUnreachable):
            await client.catalog()
        await client.aclose()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        asyncio.run(call(taken.getsockname()[1]))
    assert bool(loaded) is loads


@pytest.mark.parametrize("token", [TOKEN, "ключ", f" {TOKEN}\n"])
def test_the_token_is_sent_and_the_environment_is_not_asked(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def scenario(server: Server) -> None:
        client = Client(server.url, token)
        await client.catalog()
        assert server.requests[0].headers["authorization"] == f"Bearer {token.strip()}".encode().decode("latin-1")
        await client.aclose()

    run(scenario, v1=Answer(V1_LIST))


def test_without_a_token_no_authorization_is_sent() -> None:
    async def scenario(server: Server) -> None:
        with_token = Client(server.url, TOKEN)
        for client in (Client(server.url), with_token.without_token()):
            await client.catalog()
            assert "authorization" not in server.requests[-1].headers
            await client.aclose()
        assert not with_token._http

    run(scenario, v1=Answer(V1_LIST))


def test_a_connection_is_reused_until_shortly_before_lm_studio_closes_it() -> None:
    assert KEEPALIVE_SECONDS < 5

    async def scenario(server: Server) -> None:
        client = Client(server.url)
        await client.catalog()
        await client.catalog()
        assert server.connections == 1
        await client.aclose()

    run(scenario, v1=Answer(V1_LIST))


def test_a_dropped_get_is_sent_once_more() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        assert (await client.catalog()).source == "v1"
        assert len(server.requests) == 2
        await client.aclose()

    run(scenario, v1=[Drop(), Answer(V1_LIST)])


def test_a_get_that_is_dropped_twice_is_an_error() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        with pytest.raises(LMStudioError, match="closed the connection before it had answered GET") as caught:
            await client.catalog()
        assert caught.value.status == 502
        assert len(server.requests) == 2
        await client.aclose()

    run(scenario, v1=Drop())


def test_a_dropped_post_is_not_repeated() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        with pytest.raises(LMStudioError, match="closed the connection"):
            await client.load("plain", timeout=5)
        assert len(server.requests) == 1
        await client.aclose()

    run(scenario, load=Drop())


def test_nothing_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"

    async def main() -> None:
        client = Client(url)
        with pytest.raises(LMStudioUnreachable, match="lms server start") as caught:
            await client.catalog()
        assert url in caught.value.message
        assert caught.value.status == 503
        await client.aclose()

    asyncio.run(main())


def test_no_answer_in_time() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url, timeout=0.2)
        with pytest.raises(LMStudioTimeout, match=r"did not answer GET /api/v1/models within 0\.2 seconds"):
            await client.catalog()
        with pytest.raises(LMStudioTimeout, match=r"POST /api/v1/models/load within 0\.1 seconds"):
            await client.load("plain", timeout=0.1)
        assert len(server.requests) == 2
        await client.aclose()

    run(scenario, v1=Hang(), load=Hang())


def test_load() -> None:
    answer = {"type": "llm", "instance_id": "plain", "load_time_seconds": 0.5, "status": "loaded"}

    async def scenario(server: Server) -> None:
        client = Client(server.url)
        assert await client.load("plain", timeout=5) == answer
        assert await client.load("plain", 8192, {"flash_attention": True}, timeout=5) == answer
        assert [json.loads(request.body) for request in server.requests] == [
            {"model": "plain"},
            {"model": "plain", "flash_attention": True, "context_length": 8192, "echo_load_config": True},
        ]
        assert server.requests[0].headers["content-type"] == "application/json"
        await client.aclose()

    run(scenario, load=Answer(answer))


@pytest.mark.parametrize(
    ("data", "ids"), [([{"id": "a"}, {"id": "b:2", "object": "model"}, {}, 3, {"id": 4}], {"a", "b:2"}), (None, set())]
)
def test_what_is_offered(data: object, ids: set[str]) -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        assert await client.offered() == ids
        await client.aclose()

    run(scenario, openai=Answer({"object": "list", "data": data}))


def test_unload() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        await client.unload("Plain:2")
        assert json.loads(server.requests[0].body) == {"instance_id": "Plain:2"}
        await client.aclose()

    run(scenario, unload=Answer({"instance_id": "Plain:2"}))


def test_download() -> None:
    job = {"job_id": "job_1", "status": "downloading", "total_size_bytes": 10}
    progress = {**job, "downloaded_bytes": 5}
    done = {"status": "already_downloaded"}
    url = "https://huggingface.co/a/b"

    async def scenario(server: Server) -> None:
        client = Client(server.url)
        assert await client.download("ibm/granite") == job
        assert await client.download(url, "q4_k_m") == done
        assert await client.download_status("job_1") == progress
        assert await client.download_status("a/b c") == progress
        assert [json.loads(request.body) for request in server.requests[:2]] == [
            {"model": "ibm/granite"},
            {"model": url, "quantization": "q4_k_m"},
        ]
        await client.aclose()

    run(scenario, download=[Answer(job), Answer(done)], job=Answer(progress), odd_job=Answer(progress))


Call = Callable[[Client], Awaitable[object]]
CALLS: dict[str, Call] = {
    "load": lambda client: client.load("plain", timeout=5),
    "unload": lambda client: client.unload("plain"),
    "download": lambda client: client.download("plain"),
    "job": lambda client: client.download_status("job_1"),
}


def refusal(call: Call, status: int, message: str) -> Callable[[Server], Awaitable[None]]:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        with pytest.raises(LMStudioError) as caught:
            await call(client)
        assert caught.value.status == status
        assert caught.value.message.startswith(message)
        await client.aclose()

    return scenario


@pytest.mark.parametrize(("name", "call"), CALLS.items())
@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (None, 502, "This LM Studio does not have "),
        (Answer({"error": {"message": "Not there.", "type": "model_not_found"}}, 404), 404, "Not there."),
        (Answer({"error": {"message": "Not there.", "type": "model_not_found"}}), 502, "Not there."),
    ],
)
def test_errors_whatever_their_status(name: str, call: Call, answer: Answer | None, status: int, message: str) -> None:
    run(refusal(call, status, message), **({name: answer} if answer else {}))


@pytest.mark.parametrize("name", ["download", "job"])
@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (Answer({}), 502, "LM Studio answered with something that has no "),
        (Answer(b"[]"), 502, "LM Studio answered with something that has no "),
        (Answer(b"null"), 502, "LM Studio answered with something that has no "),
        (Answer(b""), 502, "LM Studio answered 200 with an empty body"),
        (Answer(b"[" * 100_000), 502, "LM Studio answered 200 with broken JSON"),
    ],
)
def test_refusals(name: str, answer: Answer, status: int, message: str) -> None:
    run(refusal(CALLS[name], status, message), **{name: answer})


@pytest.mark.parametrize("name", ["load", "unload"])
@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b"", b"done", b"[" * 100_000, b'{"error":null}'])
def test_any_200_to_a_load_or_an_unload_is_a_success(name: str, body: bytes) -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        assert not (await CALLS[name](client) or {}).get("error")  # type: ignore[attr-defined]
        await client.aclose()

    run(scenario, **{name: Answer(body)})


@pytest.mark.parametrize(
    ("embeds", "path", "body"),
    [
        (
            False,
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "stream": False},
        ),
        (True, "/v1/embeddings", {"input": "hi"}),
    ],
)
def test_the_use_for_which_lm_studio_loads(embeds: bool, path: str, body: dict[str, object]) -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        await client.use_once("plain", {"ttl": 5}, embeds=embeds, timeout=5)
        (request,) = server.requests
        assert (request.path, json.loads(request.body)) == (path, {"model": "plain", "ttl": 5, **body})
        await client.aclose()

    run(scenario, **{"embeddings" if embeds else "chat": Answer({"object": "whatever"})})


def test_a_token_that_no_header_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="control characters") as caught:
        Client("http://localhost:1234", "secret\nand more")
    assert "secret" not in str(caught.value)


def test_an_answer_that_is_not_what_its_headers_say_is_an_error() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        with pytest.raises(LMStudioError, match="POST /api/v1/models/load of LM Studio failed"):
            await client.load("plain", timeout=5)
        await client.aclose()

    run(scenario, load=Answer(b"plain", headers="Content-Encoding: gzip\r\n"))


def test_every_call_is_shown_with_its_secrets_masked() -> None:
    shown: list[ClientCall] = []
    echo = {"error": {"message": f"Bad token {TOKEN}.", "code": "invalid_api_key"}}

    async def scenario(server: Server) -> None:
        client = Client(server.url, TOKEN, on_call=shown.append)
        await client.catalog()
        with pytest.raises(LMStudioError) as caught:
            await client.load(f"model named {TOKEN}", timeout=5)
        assert TOKEN not in caught.value.message
        await client.aclose()

    before = time.time()
    run(scenario, v1=[Drop(), Answer(V1_LIST)], load=Answer(echo, 401))
    # Each when it began, and when it had ended.
    assert [shown.count(call) for call in shown] == [2] * 6
    dropped, read, load = dict.fromkeys(shown)

    assert (dropped.status, dropped.response_headers, dropped.response_body) == (None, (), b"")
    assert dropped.error is not None
    assert "closed the connection" in dropped.error
    assert (read.method, read.status, read.error) == ("GET", 200, None)
    assert read.url.endswith("/api/v1/models")
    assert json.loads(read.response_body) == V1_LIST
    assert ("Content-Type", "application/json; charset=utf-8") in read.response_headers
    assert before <= read.started <= read.ended <= time.time()
    assert (load.method, load.status) == ("POST", 401)
    assert json.loads(load.request_body) == {"model": "model named ***"}
    assert ("Authorization", "***") in load.request_headers
    assert "abcdefgh" not in repr(shown)


def test_a_call_that_is_cancelled_is_shown_too() -> None:
    shown: list[ClientCall] = []
    states: list[tuple[float, str | None]] = []

    def show(call: ClientCall) -> None:
        shown.append(call)
        states.append((call.ended, call.error))

    async def scenario(server: Server) -> None:
        client = Client(server.url, on_call=show)
        call = asyncio.create_task(client.load("plain", timeout=10))
        await server.asked.wait()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await client.aclose()

    run(scenario, load=Hang())
    assert states == [(0.0, None), (shown[-1].ended, "cancelled")]


def test_a_call_that_cannot_be_shown_is_made_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def fail(call: ClientCall) -> None:
        raise RuntimeError("no screen")

    async def scenario(server: Server) -> None:
        client = Client(server.url, on_call=fail)
        assert (await client.catalog()).source == "v1"
        await client.aclose()

    with caplog.at_level(logging.ERROR):
        run(scenario, v1=Answer(V1_LIST))
    assert "could not be shown" in caplog.text


def test_the_password_of_a_url_is_not_shown() -> None:
    async def scenario(server: Server) -> None:
        shown: list[ClientCall] = []
        client = Client(server.url.replace("//", "//me:hidden@"), on_call=shown.append)
        with pytest.raises(LMStudioError) as caught:
            await client.catalog()
        assert server.requests[0].headers["authorization"].startswith("Basic ")
        assert "hidden" not in caught.value.message
        assert "hidden" not in repr(shown)
        await client.aclose()

    run(scenario)


@pytest.mark.parametrize("soon", [False, True])
def test_a_closed_client_holds_no_connection_and_makes_no_call(soon: bool) -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        await client.catalog()
        assert server.open_connections == 1
        if soon:
            client.close_soon()
        else:
            await client.aclose()
        await server.left.wait()
        assert server.open_connections == 0
        with pytest.raises(LMStudioError, match="has been closed") as caught:
            await client.catalog()
        assert caught.value.status == 503
        client.close_soon()
        await client.aclose()

    run(scenario, v1=Answer(V1_LIST))


def test_closing_during_a_call_ends_it_with_an_error() -> None:
    async def scenario(server: Server) -> None:
        client = Client(server.url)
        call = asyncio.create_task(client.load("plain", timeout=10))
        await server.asked.wait()
        client.close_soon()
        with pytest.raises(LMStudioError):
            await call

    run(scenario, load=Hang())


def test_close_soon_without_a_connection_does_nothing() -> None:
    Client("http://localhost:1234").close_soon()
