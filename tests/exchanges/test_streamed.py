"""A call whose answer streams, for a client that wants lines as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy.flow import Error
from tests.exchanges.conftest import (
    FakeTranslation,
    Holding,
    MakeExchange,
    answer,
    error_of,
    flow_of,
    kept,
    response_of,
    written,
)

from ollama_lmstudio.exchanges import exchange as exchanges
from ollama_lmstudio.exchanges.exchange import Exchange
from ollama_lmstudio.exchanges.streamed import Streamed
from ollama_lmstudio.internals import connections, held_heads, interface
from ollama_lmstudio.outcomes import StreamedCall
from ollama_lmstudio.record.record import UNFINISHED

MakeHolding = Callable[..., Holding]


@pytest.fixture
def last(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is written past mitmproxy, before the connection is closed."""
    last: list[bytes] = []
    monkeypatch.setattr(connections, "write_last", lambda flow, data: last.append(data))
    return last


def streamed(exchange: Exchange) -> FakeTranslation:
    translation = FakeTranslation()
    exchange.handler = Streamed(exchange, StreamedCall("/v1/chat/completions", b"{}", translation))
    answer(exchange)
    return translation


def test_a_chunk_is_fed_once_and_its_line_written_when_it_comes(exchange_of: MakeExchange, hold: MakeHolding) -> None:
    holding = hold(b": ping", b"a", b"not waited for")
    exchange = exchange_of()
    translation = streamed(exchange)
    asyncio.run(exchange.responseheaders())
    assert holding.seconds == held_heads.HOLD_SECONDS
    assert [data for data, _ in translation.fed] == [b": ping", b"a"]
    # mitmproxy hands over again what has come while the head was held.
    assert written(exchange, b": ping") == []
    assert written(exchange, b"a") == [b"<a>\n"]
    assert written(exchange, b"b") == [b"<b>\n"]
    assert written(exchange, b": ping") == []
    assert written(exchange, b"") == [b"end\n"]
    assert [data for data, _ in translation.fed] == [b": ping", b"a", b"b", b": ping", b""]
    assert translation.fed[:2] == [(b": ping", 100), (b"a", 101)]
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"<a>\n<b>\nend\n")
    assert kept(exchange).upstream == b": pingab: ping"
    assert exchange.flow.response is not None
    assert not exchange.flow.response.stream, "the list of flows would hold the exchange"


def test_the_head_of_the_response(exchange_of: MakeExchange, hold: MakeHolding) -> None:
    hold(b"a")
    exchange = exchange_of()
    exchange.cors_headers = (("Access-Control-Allow-Origin", "*"),)
    streamed(exchange)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    headers = dict(exchange.flow.response.headers)
    assert headers.pop("Date")
    assert headers == {
        "Content-Type": "application/x-ndjson",
        "X-Accel-Buffering": "no",
        "Access-Control-Allow-Origin": "*",
        "Transfer-Encoding": "chunked",
    }


def test_what_was_read_at_once_is_translated_at_once(
    exchange_of: MakeExchange, hold: MakeHolding, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = iter([True, True, False, True])
    monkeypatch.setattr(held_heads, "more_at_hand", lambda flow: lambda: next(more))
    hold()
    exchange = exchange_of()
    translation = streamed(exchange)
    asyncio.run(exchange.responseheaders())
    assert written(exchange, b"a", b"b") == []
    assert written(exchange, b"c") == [b"<abc>\n"]
    assert written(exchange, b"d", b"") == [b"<d>\nend\n"]
    assert [data for data, _ in translation.fed] == [b"abc", b"d", b""]


def test_a_stream_that_begins_with_an_error_gets_its_status(
    exchange_of: MakeExchange, hold: MakeHolding, last: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "LINGER_SECONDS", 0)

    async def scenario() -> None:
        await exchange.responseheaders()
        assert written(exchange, b": ping", b"!", b"") == [b"failed"]
        await asyncio.sleep(0.01)

    hold(b": ping", b"!")
    exchange = exchange_of()
    streamed(exchange)
    asyncio.run(scenario())
    assert exchange.flow.response is not None
    assert (exchange.flow.response.status_code, exchange.flow.response.headers["content-length"]) == (502, "6")
    assert last == [b""], "LM Studio goes on: the connection is closed"
    exchange.flow.error = Error("gone")
    exchange.error()
    assert last == [b""], "the response was complete"
    assert response_of(exchange) == (502, b"failed")


def test_an_error_in_the_stream_is_the_last_line(
    exchange_of: MakeExchange, hold: MakeHolding, last: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "LINGER_SECONDS", 0)

    async def scenario(*held: bytes) -> list[bytes]:
        hold(*held)
        exchange = exchange_of()
        streamed(exchange)
        await exchange.responseheaders()
        found = written(exchange, b"a", b"!", b"more")
        await asyncio.sleep(0.01)
        assert written(exchange, b"") == []
        return found

    assert asyncio.run(scenario()) == [b"<a>\n", b"error\n"]
    assert asyncio.run(scenario(b"a")) == [b"<a>\n", b"error\n"]
    assert last == [b"0\r\n\r\n"] * 2


@pytest.mark.parametrize(("version", "wanted"), [("HTTP/1.1", b"b\r\n%b\r\n0\r\n\r\n"), ("HTTP/1.0", b"%b")])
def test_lm_studio_is_gone_in_the_middle(
    exchange_of: MakeExchange, hold: MakeHolding, last: list[bytes], version: str, wanted: bytes
) -> None:
    hold(b"a")
    exchange = exchange_of(flow_of(version=version))
    streamed(exchange)
    asyncio.run(exchange.responseheaders())
    written(exchange, b"a")
    assert exchange.flow.response is not None
    assert ("transfer-encoding" in exchange.flow.response.headers) is (version == "HTTP/1.1")
    exchange.flow.error = Error("gone")
    exchange.error()
    line = b"error: LM Studio closed the connection before its answer was finished\n"
    assert last == [wanted.replace(b"b\r\n%b", b"%x\r\n%b" % (len(line), line)).replace(b"%b", line)]
    assert response_of(exchange) == (200, b"<a>\n" + line)


@pytest.mark.parametrize("held", [(b"#tool call",), (b": ping",), ()], ids=["no line yet", "held too long", "nothing"])
def test_a_stream_that_breaks_before_its_first_line_ends_with_an_error_line(
    exchange_of: MakeExchange, hold: MakeHolding, last: list[bytes], held: tuple[bytes, ...]
) -> None:
    hold(*held)
    exchange = exchange_of()
    streamed(exchange)
    asyncio.run(exchange.responseheaders())
    assert written(exchange, *held) == []
    exchange.flow.error = Error("gone")
    exchange.error()
    line = b"error: LM Studio closed the connection before its answer was finished\n"
    assert last == [b"%x\r\n%b\r\n0\r\n\r\n" % (len(line), line)]
    assert response_of(exchange) == (200, line)


def test_an_answer_that_is_there_only_when_its_stream_ends(exchange_of: MakeExchange, hold: MakeHolding) -> None:
    class AtItsEnd(FakeTranslation):
        def feed(self, data: bytes, at: int) -> list[bytes]:
            self.fed.append((data, at))
            return []

        def flush(self, at: int) -> list[bytes]:
            return super().feed(b"a", at) + super().flush(at)

    hold(b"a", ended=True)
    exchange = exchange_of()
    exchange.handler = Streamed(exchange, StreamedCall("/v1/chat/completions", b"{}", AtItsEnd()))
    answer(exchange)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    exchange.flow.response.raw_content = b"a"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (200, b"<a>\nend\n")


def test_a_stream_that_ends_with_nothing(exchange_of: MakeExchange, hold: MakeHolding) -> None:
    hold(b": ping", ended=True)
    exchange = exchange_of()
    translation = streamed(exchange)
    asyncio.run(exchange.responseheaders())
    assert exchange.flow.response is not None
    assert not exchange.flow.response.stream
    exchange.flow.response.raw_content = b": ping"
    asyncio.run(exchange.response())
    assert response_of(exchange) == (502, b"failed")
    assert [data for data, _ in translation.fed] == [b": ping", b""]


def test_a_stream_that_breaks_before_it_has_begun(
    exchange_of: MakeExchange, hold: MakeHolding, last: list[bytes]
) -> None:
    hold(b": ping", server_gone=True)
    exchange = exchange_of()
    streamed(exchange)
    asyncio.run(exchange.responseheaders())
    exchange.flow.error = Error("gone")
    exchange.error()
    status, body = response_of(exchange)
    assert (status, error_of((status, body))) == (
        502,
        "LM Studio closed the connection before its answer was finished",
    )
    assert last[0].endswith(body)


@pytest.mark.parametrize("gone", ["killed", "left"])
def test_nobody_is_told_who_is_not_there(
    exchange_of: MakeExchange, hold: MakeHolding, last: list[bytes], gone: str
) -> None:
    hold(b"a")
    exchange = exchange_of()
    translation = streamed(exchange)
    asyncio.run(exchange.responseheaders())
    if gone == "left":
        exchange.flow.client_conn.state = type(exchange.flow.client_conn.state).CLOSED
    exchange.flow.error = Error(Error.KILLED_MESSAGE if gone == "killed" else "Client disconnected.")
    exchange.error()
    assert (last, translation.failed) == ([], False)
    assert kept(exchange).error == exchange.flow.error.msg


def test_an_answer_is_shown_while_it_comes(
    exchange_of: MakeExchange, hold: MakeHolding, master: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ollama_lmstudio.exchanges.display.REFRESH_SECONDS", 0.01)
    shown: list[bytes | None] = []

    async def show(flow: Any) -> None:
        shown.append(flow.response.raw_content)

    monkeypatch.setattr(interface, "show_change", show)
    master.addons["view"] = object()

    async def scenario() -> None:
        hold(b"a")
        exchange = exchange_of()
        streamed(exchange)
        await exchange.responseheaders()
        for chunk in (b"a", b"b", b""):
            written(exchange, chunk)
            await asyncio.sleep(0.03)
        await exchange.response()
        await asyncio.sleep(0.03)

    asyncio.run(scenario())
    bodies = [b"<a>\n", b"<a>\n<b>\n", b"<a>\n<b>\nend\n"]
    assert shown == [body + UNFINISHED for body in bodies]
