"""The limit of a request's head, in mitmproxy's own layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import _http1
from tests.internals.helpers import live_context

from ollama_lmstudio.internals.limits import HeadLimit

LIMIT = 4096


@pytest.fixture
def limit() -> Iterator[HeadLimit]:
    made = HeadLimit()
    assert made.install(LIMIT)
    yield made
    made.remove()


def started() -> Any:
    server = _http1.Http1Server(live_context())
    list(server.handle_event(events.Start()))
    return server


def is_closed_by(server: Any, data: bytes) -> bool:
    done = list(server.handle_event(events.DataReceived(server.conn, data)))
    return any(isinstance(command, commands.CloseConnection) for command in done)


HEAD = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999\r\nx: %s\r\n\r\n"
ROOM = LIMIT - len(HEAD % b"")


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"\r\n", b"\n")], ids=["CRLF", "LF"])
def test_a_head_that_comes_in_one_piece_has_it_too(limit: HeadLimit, head: bytes) -> None:
    server, other = started(), started()
    assert not is_closed_by(server, head % (b"y" * ROOM) + b"z" * 9000)
    assert is_closed_by(other, head % (b"y" * (ROOM + 9)))


def test_a_head_has_a_limit_on_a_connection_from_before_a_reload(limit: HeadLimit) -> None:
    server = started()
    limit.remove()
    later = HeadLimit()
    later.install(LIMIT)
    try:
        assert not is_closed_by(server, b"GET /" + b"y" * (LIMIT - 5))
        assert is_closed_by(server, b"y")
    finally:
        later.remove()


def test_what_is_sent_ahead_of_an_answer_has_the_limit(limit: HeadLimit) -> None:
    server = started()
    assert not is_closed_by(server, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert server.state == server.wait
    assert not is_closed_by(server, b"y" * LIMIT)
    assert is_closed_by(server, b"y")
    assert not server.buf


def test_mitmproxy_is_restored() -> None:
    made = HeadLimit()
    before = dict(vars(_http1.Http1Server))
    made.install(LIMIT)
    made.remove()
    assert dict(vars(_http1.Http1Server)) == before
