"""Streams that pass mitmproxy's event machinery by. tests/wire/test_direct_streams.py has them on real sockets."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.proxy import server
from mitmproxy.proxy.layers.http import HttpStream, _http1
from mitmproxy.test import tflow
from tests.internals.helpers import live_context

from ollama_lmstudio.internals.direct_streams import MAX_WAITING_BYTES, DirectStream, split_chunks


def test_mitmproxy_has_what_is_looked_at() -> None:
    stream = HttpStream(live_context(), 1)
    assert stream._paused is None
    assert not stream._paused_event_queue
    assert stream.debug is None
    assert stream.state_stream_response_body
    assert stream.state_done
    client = _http1.Http1Client(live_context())
    assert callable(client.read_body)
    assert not client.buf
    reader = _http1.ChunkedReader()
    assert not reader._bytes_in_chunk
    assert not reader._bytes_to_discard
    assert "self.timeout_watchdog.register_activity()" in inspect.getsource(server.ConnectionHandler.server_event)


def test_asyncio_has_what_is_looked_at() -> None:
    async def make() -> asyncio.StreamReader:
        return asyncio.StreamReader()

    reader = asyncio.run(make())
    assert not reader._buffer  # type: ignore[attr-defined]
    assert not reader._paused  # type: ignore[attr-defined]


def test_a_flow_without_a_connection_is_left_to_mitmproxy() -> None:
    flow = tflow.tflow(resp=True)
    stream = DirectStream(flow, lambda data: [data.upper()], lambda data: pytest.fail("not read directly"))
    assert stream(b"a") == [b"A"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ([], 0, True)),
        (b"1\r\na\r\n", ([b"a"], 6, True)),
        (b"01\r\na\r\n0A\r\n0123456789\r\n", ([b"a", b"0123456789"], 23, True)),
        # What follows has not come whole yet.
        (b"1\r\na\r\n1", ([b"a"], 6, True)),
        (b"1\r\na\r\n1\r", ([b"a"], 6, True)),
        (b"1\r\na\r\n2\r\na", ([b"a"], 6, True)),
        (b"1\r\na", ([], 0, True)),
        (b"1\r\na\r", ([], 0, True)),
        # The last chunk, whole or not.
        (b"1\r\na\r\n0\r\n\r\n", ([b"a"], 6, False)),
        (b"0\r\n", ([], 0, False)),
        # What is left to mitmproxy: extensions, chunks that are none, a large chunk.
        (b"1\r\na\r\n1;a=b\r\na\r\n", ([b"a"], 6, False)),
        (b"1\r\nabc", ([], 0, False)),
        (b"1\r\na\n", ([], 0, False)),
        (b"+1\r\na\r\n", ([], 0, False)),
        (b"0x1\r\na\r\n", ([], 0, False)),
        (b"1\na\n", ([], 0, False)),
        (b"-1\r\na\r\n", ([], 0, False)),
        (b"\r\n", ([], 0, False)),
        (b"123456789\r\n", ([], 0, False)),
        (b"%x\r\n" % (MAX_WAITING_BYTES + 1), ([], 0, False)),
        (b"%x\r\n" % MAX_WAITING_BYTES, ([], 0, True)),
    ],
)
def test_chunks(data: bytes, expected: tuple[list[bytes], int, bool]) -> None:
    assert split_chunks(data) == expected


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.data())
def test_chunks_that_are_cut_anywhere(chunks: list[bytes], draw: st.DataObject) -> None:
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    cut = draw.draw(st.integers(0, len(coded)))
    first, end, is_regular = split_chunks(coded[:cut])
    assert is_regular
    second, rest, is_regular = split_chunks(coded[end:])
    assert is_regular
    assert (first + second, end + rest) == (chunks, len(coded))
