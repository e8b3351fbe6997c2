"""Holding the head of an answer: what LM Studio sends while the responseheaders hook waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mitmproxy import http

from . import connections

try:
    from mitmproxy.proxy.layers import http as http_layers
except ImportError:  # pragma: no cover - a mitmproxy to come
    http_layers = None  # type: ignore[assignment]


@dataclass(slots=True)
class Arrived:
    """What has come while the answer was held: bytes with their times (ns), and how it ended, if it did."""

    data: list[tuple[int, bytes]] = field(default_factory=list)
    ended_at: int = 0
    server_gone: bool = False
    client_gone: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.ended_at) or self.server_gone or self.client_gone

    @property
    def body(self) -> bytes:
        """All bytes so far."""
        return b"".join(data for _, data in self.data)


class _WatchedQueue(deque[Any]):
    """Tell what is put into a queue of events. Nothing is taken out: the events reach the stream afterwards."""

    def __init__(self, events: deque[Any], clock: Callable[[], int]) -> None:
        super().__init__(events)
        self.arrived = Arrived()
        self.changed = asyncio.Event()
        self._clock = clock
        for event in events:
            self._note(event)

    def append(self, event: Any) -> None:
        super().append(event)
        self._note(event)
        self.changed.set()

    def _note(self, event: Any) -> None:
        if isinstance(event, http_layers.ResponseData):
            self.arrived.data.append((self._clock(), event.data))
        elif isinstance(event, http_layers.ResponseEndOfMessage):
            self.arrived.ended_at = self._clock()
        elif isinstance(event, http_layers.ResponseProtocolError):
            self.arrived.server_gone = True
        elif isinstance(event, http_layers.RequestProtocolError):
            self.arrived.client_gone = True


async def hold(
    flow: http.HTTPFlow,
    clock: Callable[[], int],
    enough: Callable[[Arrived], bool],
    timeout: float | None = None,
) -> Arrived | None:
    """Wait in the responseheaders hook until enough of the answer has come, or all of it, or `timeout` seconds have
    passed.

    None if this mitmproxy cannot tell: the answer is then not held.
    """
    stream = _stream_of(flow)
    if stream is None:
        return None
    queue = _WatchedQueue(stream._paused_event_queue, clock)
    stream._paused_event_queue = queue
    try:
        async with asyncio.timeout(timeout):
            while not queue.arrived.over and not enough(queue.arrived):
                queue.changed.clear()
                await queue.changed.wait()
    except TimeoutError:
        pass
    return queue.arrived


def _stream_of(flow: http.HTTPFlow) -> Any | None:
    """Find the stream of a flow that is paused in a hook."""
    try:
        for layer in connections.by_id()[flow.client_conn.id].layer.context.layers:
            if isinstance(layer, http_layers.HttpLayer):
                for stream in layer.streams.values():
                    if getattr(stream, "flow", None) is flow and stream._paused:
                        return stream if hasattr(stream, "_paused_event_queue") else None
    except (KeyError, AttributeError):
        pass
    return None


def more_at_hand(flow: http.HTTPFlow) -> Callable[[], bool]:
    """Give a function that tells whether mitmproxy will hand on another piece of the answer without waiting for it.

    It is for the function that translates a stream, and says no where it cannot tell.
    """
    try:
        layers = connections.by_id()[flow.client_conn.id].layer.context.layers
        http_layer: Any = next(layer for layer in layers if isinstance(layer, http_layers.HttpLayer))
        queue = _stream_of(flow)._paused_event_queue  # type: ignore[union-attr]
        read: bytearray = http_layer.connections[flow.server_conn].context.layers[-1].buf._data
    except (AttributeError, KeyError, StopIteration):
        return lambda: False

    def more() -> bool:
        if queue:
            return isinstance(queue[0], (http_layers.ResponseData, http_layers.ResponseEndOfMessage))
        # The CRLF that ends this chunk, the size of the next one, another CRLF, and the whole chunk.
        end = read.find(b"\r\n", 2)
        try:
            return end > 0 and 0 < int(read[2:end], 16) <= len(read) - end - 2
        except ValueError:
            return False

    return more
