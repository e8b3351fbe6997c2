"""A call whose answer streams, for a client that wants lines as they come: the main job."""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy import http

from ..internals import connections, held_heads
from ..lmstudio.errors import LMStudioError
from ..outcomes import NDJSON
from . import display, responses
from .collected import Collected
from .exchange import LAST_CHUNK
from .upstream import frame_chunks

# A client waits no longer than this for the head of an answer that LM Studio has begun: then it is a 200.
HOLD_SECONDS = 20


class Streamed(Collected):
    """Hold the head of the response until LM Studio's first event, then translate chunk by chunk.

    A stream that begins with an error gets its status. What was translated while the head was held is not translated
    again: its lines are the first that are written.
    """

    async def stream(self) -> None:
        lines: list[bytes] = []

        def has_started(held: held_heads.Arrived) -> bool:
            lines.extend(self.feed_held(held))
            return self._stream.started

        held = await held_heads.hold(self.flow, self.bridge.clock.monotonic, has_started, HOLD_SECONDS)
        if held is not None and not has_started(held) and held.over:
            # Nothing but its end came. Of a connection that broke, the error hook tells.
            if held.ended_at:
                self._stream.flush(held.ended_at)
                self._is_fed_whole = True
        elif self._stream.rejected:
            self.exchange.respond_at_once(self._stream.response())
        else:
            self._begin(lines)

    def _begin(self, lines: list[bytes]) -> None:
        response = self.flow.response
        assert response is not None
        headers = (("Content-Type", NDJSON), *responses.date(), *self.exchange.cors_headers)
        response.headers = http.Headers(responses.fields(headers))
        frame_chunks(self.exchange, response)
        response.stream = self._translate_chunks(lines)
        self.exchange.has_responded = True
        display.show_progress(self.exchange)

    def _translate_chunks(self, lines: list[bytes]) -> Callable[[bytes], list[bytes]]:
        """Return the function that turns each chunk that mitmproxy reads into those that it writes.

        `lines` are those of the held chunks, which mitmproxy hands over first. It never returns an empty chunk, which
        would end the body.
        """
        clock, held = self.bridge.clock.monotonic, self._fed
        translation, add_upstream, add_line = self._stream, self.recorder.add_upstream, self.recorder.client_body.add
        has_more = held_heads.more_at_hand(self.flow)
        together: list[bytes] = []

        def write(lines: list[bytes]) -> list[bytes]:
            if not lines:
                return []
            written = b"".join(lines)
            add_line(written)
            return [written]

        def translate(data: bytes) -> list[bytes]:
            nonlocal held
            if not data:
                now = clock()
                return write([*translate_all(now), *translation.flush(now)])
            if held:
                held -= 1
                return [] if held else end_if_failed(lines)
            together.append(data)
            # What was read at once is translated and written at once.
            return [] if has_more() else end_if_failed(translate_all(clock()))

        def translate_all(now: int) -> list[bytes]:
            if not together:
                return []
            chunk = b"".join(together)
            together.clear()
            add_upstream(chunk, now)
            return translation.feed(chunk, now)

        def end_if_failed(lines: list[bytes]) -> list[bytes]:
            if translation.failed:
                # The error line is the last one, even if LM Studio goes on.
                self.exchange.end_soon(b"" if self.exchange.http10 else LAST_CHUNK)
            return write(lines)

        return translate

    def error(self, error: LMStudioError) -> None:
        if not self.exchange.has_responded:
            super().error(error)
            return
        lines = self._stream.abort(error)
        if self._stream.rejected:
            return  # the response was complete
        self.recorder.client_body.add(b"".join(lines))
        chunks = [b"%x\r\n%s\r\n" % (len(line), line) for line in lines]
        connections.write_last(self.flow, b"".join(lines if self.exchange.http10 else [*chunks, LAST_CHUNK]))
