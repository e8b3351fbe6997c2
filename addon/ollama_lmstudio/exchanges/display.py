"""What mitmproxy's interfaces show of an answer while it comes. Nothing waits for it."""

from __future__ import annotations

import asyncio

from mitmproxy import http

from ..internals import interface
from ..record.recorder import Recorder
from ..tasks import Tasks

# Refresh a streaming flow once a second, plus one second per MiB kept: each refresh renders both bodies anew, on the
# event loop.
REFRESH_SECONDS = 1
REFRESHED_BYTES = 2**20


def show_progress(flow: http.HTTPFlow, recorder: Recorder, tasks: Tasks) -> None:
    """Show what has come of an answer that streams, again and again, if there is a list of flows."""
    if interface.is_shown():
        tasks.spawn(_refresh(flow, recorder))


async def _refresh(flow: http.HTTPFlow, recorder: Recorder) -> None:
    while True:
        size = len(flow.request.raw_content or b"") + len(recorder.upstream_body.data)
        await asyncio.sleep(REFRESH_SECONDS * (1 + size // REFRESHED_BYTES))
        if recorder.is_finished:
            return
        if recorder.update(flow):
            await interface.show_change(flow)
