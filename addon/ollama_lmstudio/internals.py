"""The few touches of mitmproxy's private API, each with a fallback that loses only a refinement.

They are written for mitmproxy 11.0.2 to 12 and pinned by tests on both. Everything that is not found where it is looked
for is taken as not being there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mitmproxy import ctx, hooks, http
from mitmproxy.proxy import server as proxy_server

try:
    from mitmproxy.proxy.layers import http as http_layers
    from mitmproxy.proxy.layers.http import _http1
except ImportError:  # pragma: no cover - a mitmproxy to come
    http_layers = None  # type: ignore[assignment]
    _http1 = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

CORK: int | None = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", None))

MASK = "***"
BEARER = "Bearer "
MASKED_BEARER = BEARER + MASK

ErrorPage = Callable[[int, str], bytes]


def connections() -> dict[Any, Any]:
    """Give the live client connections by their id."""
    found = getattr(ctx.master.addons.get("proxyserver"), "connections", None)
    return found if isinstance(found, dict) else {}


def close_clients(but: Container[str]) -> None:
    """Close the connections of all clients but those with these ids."""
    for client_id, handler in connections().items():
        with suppress(KeyError, AttributeError, OSError, RuntimeError):
            if client_id not in but:
                handler.transports[handler.client].writer.close()


# 1. Errors that mitmproxy itself answers are HTML pages of one function.


class ErrorPages:
    """Replace mitmproxy's HTML error pages with another function's bytes, until removed."""

    def __init__(self) -> None:
        self._original: Any = None

    def install(self, page: ErrorPage) -> bool:
        """Replace the pages; False if this mitmproxy makes them elsewhere."""
        if not hasattr(_http1, "make_error_response"):
            return False
        self._original = self._original or _http1.make_error_response
        _http1.make_error_response = lambda status_code, message="": page(int(status_code), str(message))
        return True

    def remove(self) -> None:
        """Put mitmproxy's own pages back."""
        if self._original is not None:
            _http1.make_error_response = self._original
            self._original = None


# 2. The client's connection takes bytes even when LM Studio is gone, as long as the error hook runs.


def write_last(flow: http.HTTPFlow, data: bytes) -> bool:
    """Write the last bytes to a flow's client and close its connection; False if it cannot be reached or has left."""
    if flow.client_conn.tls:
        return False  # the writer is below the encryption
    try:
        writer = connections()[flow.client_conn.id].transports[flow.client_conn].writer
        if writer is None or writer.is_closing():
            return False
        # The bytes and the end in one packet, so that no client asks again on a connection that is about to end.
        if CORK is not None:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, CORK, 1)
        writer.write(data)
        writer.write_eof()
        writer.close()
    except (KeyError, AttributeError, OSError, RuntimeError):
        return False
    return True


# 3. What LM Studio sends while the responseheaders hook waits piles up in a queue of the flow's stream.


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
        for layer in connections()[flow.client_conn.id].layer.context.layers:
            if isinstance(layer, http_layers.HttpLayer):
                for stream in layer.streams.values():
                    if getattr(stream, "flow", None) is flow and stream._paused:
                        return stream if hasattr(stream, "_paused_event_queue") else None
    except (KeyError, AttributeError):
        pass
    return None


# 4. Mitmproxy hands on each piece of an answer by itself, though it often has read several at once.


def more_at_hand(flow: http.HTTPFlow) -> Callable[[], bool]:
    """Give a function that tells whether mitmproxy will hand on another piece of the answer without waiting for it.

    It is for the function that translates a stream, and says no where it cannot tell.
    """
    try:
        layers = connections()[flow.client_conn.id].layer.context.layers
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


# 5. mitmproxy ends connections on which nothing moves for ten minutes; a long prompt may take LM Studio longer.


def allow_silence(seconds: int) -> None:
    """Let connections be silent for this long."""
    if "tcp_timeout" in ctx.options:
        if ctx.options.tcp_timeout < seconds:
            ctx.options.update(tcp_timeout=seconds)
    elif isinstance(timeout := vars(proxy_server).get("TCP_TIMEOUT"), int):
        vars(proxy_server)["TCP_TIMEOUT"] = max(timeout, seconds)


# 6. A connection to LM Studio that was idle may be closed by it in the moment that we use it again.


async def drop_idle(flow: http.HTTPFlow) -> None:
    """Close the connection to LM Studio that a client's earlier request left, so that the next one gets its own."""
    try:
        transports = connections()[flow.client_conn.id].transports
        idle = [io.writer for connection, io in transports.items() if connection is not flow.client_conn]
        for writer in idle:
            if writer is not None:
                writer.close()
        # The reader has to see the end before a new request is routed: a few turns of the loop.
        for _ in range(20):
            if len(transports) <= 1:
                break
            await asyncio.sleep(0)
    except (KeyError, AttributeError, OSError, RuntimeError):
        return


# 7. A request's headers are written to the wire by `bytes()`, and shown, saved and copied as fields.


class SealedHeaders(http.Headers):
    """Headers that show `***` for a secret, and send it.

    Whatever looks at the fields (the user interfaces, a saved flow, an export, a copy) sees the mask only; who puts
    something else there sends that. `forget` is for when the request has been sent.
    """

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = (), secrets: Mapping[str, str] | None = None) -> None:
        """Add a header for each secret."""
        super().__init__(fields)
        self._sealed: dict[tuple[bytes, bytes], bytes] = {}
        for name, secret in (secrets or {}).items():
            mask = MASKED_BEARER if secret.startswith(BEARER) else MASK
            self[name] = mask
            self._sealed[name.lower().encode(), mask.encode()] = secret.encode()

    def __bytes__(self) -> bytes:
        shown = self.fields
        try:
            self.fields = tuple((name, self._sealed.get((name.lower(), value), value)) for name, value in shown)
            return super().__bytes__()
        finally:
            self.fields = shown

    def forget(self) -> None:
        """Forget the secrets."""
        self._sealed.clear()

    def sealed_again(self, fields: http.Headers) -> SealedHeaders:
        """Give headers with these secrets, where the mask still stands for them; a person may have reverted an edit."""
        again = SealedHeaders(fields.fields)
        again._sealed = dict(self._sealed)
        return again


# 8. A person may want to edit a request in the client's terms: before it is rewritten, which is before mitmproxy's own
# addon for that is asked.


def is_stopped(flow: http.HTTPFlow) -> bool:
    """Whether an intercept filter matches a request as it is now."""
    should_intercept = getattr(ctx.master.addons.get("intercept"), "should_intercept", None)
    return should_intercept is not None and bool(should_intercept(flow))


async def wait_for_a_person(flow: http.HTTPFlow) -> None:
    """Pause a request until a person lets it go on."""
    flow.intercept()
    await show_change(flow)
    await flow.wait_for_resume()


def let_pass(flow: http.HTTPFlow) -> None:
    """Let no filter pause a flow, until `may_be_stopped`."""
    flow.intercept = _never  # type: ignore[method-assign]


def may_be_stopped(flow: http.HTTPFlow) -> None:
    """Take `let_pass` back, unless the flow was killed."""
    if flow.killable:
        vars(flow).pop("intercept", None)


def watch_pauses(flow: http.HTTPFlow, clock: Callable[[], int], paused: Callable[[int], None]) -> None:
    """Tell how long (ns) a person, or another addon, has held a flow, each time that it goes on."""
    wait: Callable[[], Awaitable[None]] = flow.wait_for_resume

    async def wait_and_tell() -> None:
        if not flow.intercepted:
            return
        since = clock()
        await wait()
        paused(clock() - since)

    flow.wait_for_resume = wait_and_tell  # type: ignore[method-assign]


def keep_what_streams(flow: http.HTTPFlow) -> None:
    """Let nobody revert a flow while its answer streams: what would be sent on is not what was begun."""
    revert: Callable[[], None] = flow.revert

    def revert_unless_it_streams() -> None:
        if not (flow.live and flow.response is not None and flow.response.stream):
            revert()

    flow.revert = revert_unless_it_streams  # type: ignore[method-assign]


def end_when_killed(flow: http.HTTPFlow, killed: Callable[[http.HTTPFlow], None]) -> None:
    """Let a flow end that a person kills: at once, paused or not. `killed` is told of it first.

    Mitmproxy's kill() wakes nobody who waits for a resume, and after it resume() does nothing: the client would never
    hear of it (https://github.com/mitmproxy/mitmproxy/issues/8045).
    """
    kill: Callable[[], None] = flow.kill

    def kill_and_wake() -> None:
        paused = flow.intercepted
        kill()
        killed(flow)
        # The filter that has paused it still fits.
        let_pass(flow)
        if paused:
            flow.intercepted = True
            flow.resume()
        else:
            # Mitmproxy would look at it when LM Studio has said all that it has to say.
            write_last(flow, b"")

    flow.kill = kill_and_wake  # type: ignore[method-assign]


def _never() -> None:
    pass


# 9. What the user interfaces, the log and a saved file are to show, without anybody waiting for it or acting on it.


def is_shown() -> bool:
    """Whether there is a list of flows that somebody may look at."""
    return ctx.master.addons.get("view") is not None


def watch_list(cleared: Callable[[], None]) -> None:
    """Tell when flows were taken out of the list all at once."""
    signal = getattr(ctx.master.addons.get("view"), "sig_store_refresh", None)
    if signal is not None:
        signal.connect(cleared)


def is_listed(flow: http.HTTPFlow) -> bool:
    """Whether a flow is in the list."""
    return ctx.master.addons.get("view").get_by_id(flow.id) is not None


async def show_change(flow: http.HTTPFlow) -> None:
    """Show what has changed in a flow."""
    await ctx.master.addons.trigger_event(hooks.UpdateHook([flow]))


async def show_flow(flow: http.HTTPFlow) -> None:
    """Show a flow that has ended."""
    for event in (http_layers.HttpRequestHeadersHook, _ended_hook(flow)):
        await ctx.master.addons.handle_lifecycle(event(flow))
        flow.resume()


def _ended_hook(flow: http.HTTPFlow) -> Any:
    return http_layers.HttpErrorHook if flow.error else http_layers.HttpResponseHook


# 10. The recording that mitmproxy answers from.


def recorded_flows() -> list[http.HTTPFlow]:
    """Give the flows of `server_replay` that were not used yet."""
    return [flow for flows in _recording().values() for flow in flows if isinstance(flow, http.HTTPFlow)]


def prefer_recorded(flow: http.HTTPFlow) -> None:
    """Let this flow be the one that answers, of those that sent the same call."""
    for flows in _recording().values():
        if flow in flows:
            flows.insert(0, flows.pop(flows.index(flow)))


def _recording() -> dict[Any, list[Any]]:
    flowmap = getattr(ctx.master.addons.get("serverplayback"), "flowmap", None)
    return flowmap if isinstance(flowmap, dict) else {}
