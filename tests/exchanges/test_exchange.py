"""The state machine itself: what every handler can rely on."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from mitmproxy import http
from mitmproxy.flow import Error
from tests.exchanges.conftest import FakeTranslation, MakeExchange, answer, flow_of

from ollama_lmstudio.exchanges import admission, exchange, handlers
from ollama_lmstudio.exchanges.bridge import Bridge
from ollama_lmstudio.exchanges.buffered import Buffered
from ollama_lmstudio.exchanges.exchange import Exchange, Handler
from ollama_lmstudio.exchanges.registry import Exchanges
from ollama_lmstudio.exchanges.streamed import Streamed
from ollama_lmstudio.internals import connections
from ollama_lmstudio.internals.headers import SealedHeaders
from ollama_lmstudio.outcomes import Call, StreamedCall


def test_the_table_has_every_handler() -> None:
    names = {handler.__name__ for handler in {*handlers.HANDLERS.values(), *handlers.REPLAY_HANDLERS.values()}}
    names |= {admission.Admitted.__name__, admission.Resent.__name__}
    lines = (exchange.__doc__ or "").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("---")) + 1
    rows = {line.split()[0] for line in lines[begin:] if line[:1].isupper() and "  " in line}
    assert rows == names


@pytest.mark.parametrize("ends", ["response", "error"])
def test_an_exchange_ends_once_and_releases_what_it_holds(
    exchanges: Exchanges, exchange_of: MakeExchange, labelled: list[http.HTTPFlow], ends: str
) -> None:
    released: list[int] = []
    made = exchange_of()
    made.handler = Buffered(made, Call("/v1/x", b"", FakeTranslation(), release=lambda: released.append(1)))
    answer(made, body=b"{}")
    if ends == "error":
        made.flow.error = Error("Client disconnected.")
    for _ in range(2):
        asyncio.run(exchanges.response(made.flow)) if ends == "response" else exchanges.error(made.flow)
    assert (made.recorder.is_finished, released, labelled[-1]) == (True, [1], made.flow)
    assert not exchanges.busy_clients


@pytest.mark.parametrize("ends", ["response", "error"])
def test_an_exchange_that_has_ended_is_freed_without_the_garbage_collector(
    exchanges: Exchanges, exchange_of: MakeExchange, ends: str
) -> None:
    made = exchange_of()
    flow = made.flow
    made.handler = handler = Streamed(made, StreamedCall("/v1/x", b"", FakeTranslation()))
    made.decide_again = handler.answer_for_substitute
    answer(made)
    # mitmproxy's checks of types would keep the stack of who makes a response.
    made.head_sent = True
    if ends == "error":
        flow.error = Error("Client disconnected.")
    freed = weakref.ref(made), weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        del made, handler
        asyncio.run(exchanges.response(flow)) if ends == "response" else exchanges.error(flow)
        assert [reference() for reference in freed] == [None, None]
    finally:
        gc.enable()


def test_what_cannot_be_recorded_is_still_released(exchange_of: MakeExchange, caplog: pytest.LogCaptureFixture) -> None:
    released: list[int] = []

    class Broken(Handler):
        def record(self) -> None:
            raise ValueError

        def close(self) -> None:
            released.append(1)

    made = exchange_of()
    made.handler = Broken(made)
    answer(made, body=b"")
    asyncio.run(made.response())
    assert released == [1]
    assert "/api/chat could not be recorded" in caplog.text


@pytest.mark.parametrize(("connection", "closes"), [("keep-alive", False), ("close", True)])
def test_a_connection_is_closed_as_its_client_asked(exchange_of: MakeExchange, connection: str, closes: bool) -> None:
    made = exchange_of(flow_of(connection=connection))
    made.flow.request.headers.pop("connection", None)
    answer(made, body=b"")
    asyncio.run(made.response())
    assert made.flow.response is not None
    assert (made.flow.response.headers.get("connection") == "close") is closes


def test_a_reverted_edit_keeps_the_secrets(exchange_of: MakeExchange) -> None:
    made = exchange_of()
    made.flow.request.headers = made.sealed = SealedHeaders((), {"Authorization": "Bearer t0ken"})
    made.flow.request.headers = http.Headers(made.sealed.fields)
    made.paused(5)
    assert b"t0ken" in bytes(made.flow.request.headers)


@pytest.mark.parametrize("state", ["response", "error", "not live"])
def test_a_request_that_another_addon_has_answered_is_left_alone(exchange_of: MakeExchange, state: str) -> None:
    made = exchange_of()
    if state == "response":
        answer(made)
    elif state == "error":
        made.flow.error = Error("blocked")
    else:
        made.flow.live = False
    assert made.is_answered


def test_a_flow_that_stays_in_the_list_does_not_hold_its_exchange(
    exchanges: Exchanges, exchange_of: MakeExchange
) -> None:
    def leave() -> tuple[http.HTTPFlow, weakref.ref[Exchange]]:
        made = exchange_of()
        made.handler = Streamed(made, StreamedCall("/v1/x", b"", FakeTranslation()))
        answer(made)
        assert made.flow.response is not None
        made.flow.response.stream = lambda data: [made.path.encode()]
        asyncio.run(exchanges.response(made.flow))
        return made.flow, weakref.ref(made)

    flow, reference = leave()
    gc.collect()
    assert flow.response is not None
    assert reference() is None


def test_a_replay_leaves_the_client_alone_that_its_flow_had(
    bridge: Bridge, exchange_of: MakeExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Connection(dict[object, object]):
        def __getitem__(self, key: object) -> object:
            pytest.fail("the connection was looked for")

    monkeypatch.setattr(connections, "by_id", Connection)
    made = exchange_of()
    made.client_request = None
    made.flow.is_replay = "request"
    made.handler = Buffered(made, Call("/v1/embeddings", b"{}", FakeTranslation()))
    made.flow.error = Error("gone")
    asyncio.run(made.request())
    made.error()
    assert made.flow.response is None
    assert not bridge.idle_connections._since
