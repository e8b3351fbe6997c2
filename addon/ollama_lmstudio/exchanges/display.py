"""What mitmproxy's interfaces show of exchanges while they go on. Nothing waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..internals import interface
from ..lmstudio.client import ClientCall
from ..record import internal_calls

if TYPE_CHECKING:
    from .bridge import Bridge
    from .exchange import Exchange

# Refresh a streaming flow once a second, plus one second per MiB kept: each refresh renders both bodies anew, on the
# event loop.
REFRESH_SECONDS = 1
REFRESHED_BYTES = 2**20


def show_progress(exchange: Exchange) -> None:
    """Show what has come of an answer that streams, again and again, if there is a list of flows."""
    if interface.is_shown():
        exchange.bridge.tasks.spawn(_refresh(exchange))


async def _refresh(exchange: Exchange) -> None:
    flow, recorder = exchange.flow, exchange.recorder
    while True:
        size = len(flow.request.raw_content or b"") + len(recorder.upstream_body.data)
        await asyncio.sleep(REFRESH_SECONDS * (1 + size // REFRESHED_BYTES))
        if exchange.ended:
            return
        if recorder.update(flow):
            await interface.show_change(flow)


def shorten_when_sent(exchange: Exchange) -> None:
    """Cut the bodies that stay in the list of flows at `max_kept_size`, once nobody sends them any more."""
    if interface.is_shown() and exchange.recorder.is_too_large(exchange.flow):
        exchange.bridge.tasks.spawn(_shorten(exchange))


async def _shorten(exchange: Exchange) -> None:
    flow = exchange.flow
    while flow.live:  # noqa: ASYNC110 - mitmproxy has no event for it
        await asyncio.sleep(REFRESH_SECONDS)
    # Unless it is being replayed by now.
    if exchange.bridge.get(flow) is None and (flow.response or flow.error):
        exchange.recorder.cut(flow)
        await interface.show_change(flow)


def show_call(bridge: Bridge, call: ClientCall) -> None:
    """Show a call that the bridge made on its own."""
    if bridge.is_serving:
        flow = internal_calls.to_flow(call, bridge.services.settings.max_kept_size)
        bridge.label(flow)
        bridge.tasks.spawn(interface.show_flow(flow))
