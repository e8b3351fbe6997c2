"""The exchanges that are under way, by their flows, and mitmproxy's hooks for them."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from mitmproxy import http

from ..internals import interception, interface
from ..progress import WAITS_FOR_USER
from ..record import record
from ..record.record import Record
from .bridge import Bridge
from .exchange import Exchange
from .lost_models import LostModels

logger = logging.getLogger(__name__)

# How often it is looked whether a flow that has ended has been sent.
SENT_SECONDS = 1
OLDEST_LEAVE = (
    "The list holds the newest %d exchanges from now on: the oldest leave it. The option max_flows sets how many, and "
    "-w FILE saves each of them."
)


class Exchanges:
    """Find the exchange of a flow, and call it."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self._by_flow: dict[str, Exchange] = {}
        self._has_removed = False
        self._lost_models = LostModels(self._by_flow, bridge)

    def begin(self, flow: http.HTTPFlow, kept: Record) -> Exchange:
        """Return a new exchange for a flow, whose pauses are measured and whose kill is heeded."""
        exchange = self._by_flow[flow.id] = Exchange(flow, kept, self.bridge)
        interception.keep_what_streams(flow)
        interception.end_when_killed(flow, self._killed)
        interception.watch_pauses(
            flow, self.bridge.clock.monotonic, partial(self._pauses, flow), partial(self._paused, flow)
        )
        return exchange

    def _killed(self, flow: http.HTTPFlow) -> None:
        self._show_state(flow, "")

    async def _pauses(self, flow: http.HTTPFlow) -> None:
        self._show_state(flow, WAITS_FOR_USER.text)
        if interface.is_shown():
            await interface.show_change(flow)

    def _paused(self, flow: http.HTTPFlow, duration: int, before: interception.Bodies) -> None:
        self._show_state(flow, "")
        # Looked up by its flow: a flow that stays in the list must not hold its exchange.
        if exchange := self._by_flow.get(flow.id):
            exchange.recorder.record.keep_edited(before, interception.bodies(flow))
            exchange.paused(duration)
        elif kept := record.of(flow):
            # An answer stops when its exchange has ended.
            kept.keep_edited(before, interception.bodies(flow))
            kept.save(flow.metadata)

    def _show_state(self, flow: http.HTTPFlow, state: str) -> None:
        if exchange := self._by_flow.get(flow.id):
            exchange.show(state)
        elif kept := record.of(flow):
            # Its exchange has ended, but the user may hold the whole response.
            kept.state = state
            kept.save(flow.metadata)
            self.bridge.label(flow, kept)

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer the request, or make it a call to LM Studio."""
        if exchange := self._by_flow.get(flow.id):
            self.bridge.watch.add(exchange)
            self._lost_models.begin()
            await exchange.request()

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Choose what happens to the body of the response."""
        if exchange := self._by_flow.get(flow.id):
            await exchange.responseheaders()

    async def response(self, flow: http.HTTPFlow) -> None:
        """Complete the response, and end the exchange."""
        if exchange := self._by_flow.get(flow.id):
            try:
                await exchange.response()
            finally:
                self._by_flow.pop(flow.id, None)
                self.bridge.watch.remove(exchange)
            self._limit_list(exchange)

    def error(self, flow: http.HTTPFlow) -> None:
        """Tell the client that LM Studio is gone, and end the exchange."""
        if exchange := self._by_flow.pop(flow.id, None):
            self.bridge.watch.remove(exchange)
            exchange.error()
            self._limit_list(exchange)

    def stop(self) -> None:
        """End what is under way, with an error for each client: the process ends."""
        self.bridge.stop_loopback()
        for exchange in tuple(self._by_flow.values()):
            try:
                exchange.stop()
            except Exception:
                # The others are ended all the same.
                logger.exception("%s could not be ended", exchange.path)

    def drain(self) -> int:
        """Let each answer close its connection, that of a request on its way too; return how many are under way."""
        self.bridge.is_draining = True
        for exchange in self._by_flow.values():
            exchange.close_connection = True
        return len(self._by_flow)

    @property
    def busy_clients(self) -> set[str]:
        """The ids of the clients whose exchanges are under way."""
        return {exchange.flow.client_conn.id for exchange in self._by_flow.values()}

    def kill_unlisted(self) -> None:
        """Kill what waits for a user who has cleared the list and cannot see it any more: mitmproxy resumes nothing."""
        for exchange in tuple(self._by_flow.values()):
            if exchange.flow.intercepted and exchange.flow.killable and not interface.is_listed(exchange.flow):
                exchange.flow.kill()

    def _limit_list(self, exchange: Exchange) -> None:
        """Keep what is in the list of flows, now that one more has ended, to what the options say."""
        self._shorten_when_sent(exchange)
        most = self.bridge.services.settings.max_flows
        if most and interface.remove_oldest(most) and not self._has_removed:
            self._has_removed = True
            logger.info(OLDEST_LEAVE, most)

    def _shorten_when_sent(self, exchange: Exchange) -> None:
        if interface.is_shown() and exchange.recorder.is_too_large(exchange.flow):
            self.bridge.tasks.spawn(self._shorten(exchange))

    async def _shorten(self, exchange: Exchange) -> None:
        """Cut the bodies that stay in the list of flows at `max_kept_size`, once nobody sends them any more."""
        flow = exchange.flow
        while flow.live:  # noqa: ASYNC110 - mitmproxy has no event for it
            await asyncio.sleep(SENT_SECONDS)
        # Unless it is being replayed by now.
        if flow.id not in self._by_flow and (flow.response or flow.error):
            exchange.recorder.cut(flow)
            await interface.show_change(flow)
