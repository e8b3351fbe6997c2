"""A call whose answer streams, for a client that wants lines as they come: the main job."""

from __future__ import annotations

from mitmproxy import http

from ..internals import connections, held_heads
from ..internals.direct_streams import DirectStream
from ..lmstudio.errors import LMStudioError
from ..outcomes import NDJSON, StreamTranslation, header_fields
from . import responses, substitution
from .collected import Collected
from .downstream import UNBUFFERED, frame_chunks, last_bytes
from .exchange import LAST_CHUNK, WHOLE, Exchange


class Streamed(Collected):
    """Hold the head of the response until LM Studio's first event, then translate chunk by chunk.

    A stream that begins with an error gets its status. What was translated while the head was held is not translated
    again: its lines are the first that are written.
    """

    _has_begun = False
    """Whether the client has the head of a 200, so that an error can only be a line."""

    async def stream(self) -> None:
        held = await held_heads.hold(self.flow, self.bridge.clock.monotonic, self.has_started, held_heads.HOLD_SECONDS)
        if held is not None and not self.has_started(held) and held.over:
            # Nothing but its end came: the response hook completes it, or the error hook if the connection broke.
            if held.ended_at:
                self.flush_held(held)
        elif await self.is_substitute(held):
            return
        elif self.translation.rejected:
            self.exchange.respond_at_once(await self.failure(held))
        else:
            self._begin()
            if held is not None:
                # mitmproxy keeps its queue as long as the flow, and with it what was held.
                held.data.clear()

    async def is_substitute(self, held: held_heads.HeldBody | None) -> bool:
        if self.translation.started or not await substitution.is_gone(self.exchange, self._call.model):
            return await super().is_substitute(held)
        # Nothing has come for so long that the head has to go. LM Studio has chosen a model when the call came.
        await self.respond_for_substitute(held)
        return True

    def _begin(self) -> None:
        response = self.flow.response
        assert response is not None
        headers = (("Content-Type", NDJSON), *responses.date(), *UNBUFFERED, *self.exchange.cors_headers)
        response.headers = http.Headers(header_fields(headers))
        frame_chunks(self.exchange, response)
        translator = ChunkTranslator(self.exchange, self.translation, self._fed, self._lines)
        response.stream = DirectStream(self.flow, translator, translator.feed)
        self.exchange.head_sent = self._has_begun = True

    def error(self, error: LMStudioError) -> None:
        if not self._has_begun:
            super().error(error)
            return
        lines = self.translation.abort(error)
        if not (lines or self.translation.failed):
            self.recorder.failure = WHOLE
        self.recorder.client_body.add(b"".join(lines))
        connections.write_last(self.flow, last_bytes(lines, chunked=not self.exchange.http10))


class ChunkTranslator:
    """Turn each chunk that mitmproxy reads into those that it writes; an empty chunk stands for the end.

    The first `held` chunks, which have come while the head was held, are translated already: to `lines`. What was read
    at once is translated and written at once. No empty chunk is ever returned: it would end the client's body.
    """

    __slots__ = (
        "_clock",
        "_exchange",
        "_has_more",
        "_held",
        "_is_ending",
        "_lines",
        "_recorder",
        "_together",
        "_translation",
    )

    def __init__(self, exchange: Exchange, translation: StreamTranslation, held: int, lines: list[bytes]) -> None:
        self._exchange = exchange
        self._recorder = exchange.recorder
        self._clock = exchange.bridge.clock.monotonic
        self._translation = translation
        self._held = held
        self._lines = lines
        self._together: list[bytes] = []
        self._has_more = held_heads.more_at_hand(exchange.flow)
        self._is_ending = False

    def __call__(self, data: bytes) -> list[bytes]:
        if self._held and data:
            self._held -= 1
            if self._held:
                return []
            lines, self._lines = self._lines, []
            return self._write(lines)
        if data:
            self._together.append(data)
            return [] if self._has_more() else self._write(self._translate(self._clock()))
        now = self._clock()
        self._is_ending = True
        return self._write(self._translate(now) + self._translation.flush(now))

    def feed(self, data: bytes) -> list[bytes]:
        """Translate what does not come through mitmproxy."""
        self._together.append(data)
        return self._write(self._translate(self._clock()))

    def _translate(self, now: int) -> list[bytes]:
        chunk = b"".join(self._together)
        if not chunk:
            return []
        self._together.clear()
        self._recorder.add_upstream(chunk, now)
        return self._translation.feed(chunk, now)

    def _write(self, lines: list[bytes]) -> list[bytes]:
        if self._translation.failed and not self._is_ending:
            # The error line is the last one, even if LM Studio goes on.
            self._is_ending = True
            last = b"" if self._exchange.http10 else LAST_CHUNK
            self._exchange.end_soon(lambda: last)
        if not lines:
            return []
        written = b"".join(lines)
        self._recorder.client_body.add(written)
        return [written]
