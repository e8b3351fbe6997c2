"""A call whose answer streams, for a client that wants one object."""

from __future__ import annotations

from ..internals import held_heads
from ..outcomes import CollectedCall, Response, StreamedCall, StreamTranslation
from .buffered import Buffered
from .exchange import Exchange


class Collected(Buffered):
    """Translate the events as they come, so that they are measured, and respond with one object at the end.

    The head of the response is held meanwhile: its status follows from what the stream says.
    """

    def __init__(self, exchange: Exchange, call: CollectedCall | StreamedCall) -> None:
        super().__init__(exchange, call)
        self._stream = call.translation
        self._fed = 0
        """How many chunks of the stream have been translated while the head was held."""
        self._is_fed_whole = False

    @property
    def translation(self) -> StreamTranslation:
        return self._stream

    def feed_held(self, held: held_heads.HeldBody) -> list[bytes]:
        """Translate those chunks that have come since the last time; return their lines."""
        lines: list[bytes] = []
        for at, data in held.data[self._fed :]:
            self.recorder.add_upstream(data, at)
            lines += self._stream.feed(data, at)
        self._fed = len(held.data)
        return lines

    async def stream(self) -> None:
        def failed(held: held_heads.HeldBody) -> bool:
            self.feed_held(held)
            return self._stream.failed

        held = await held_heads.hold(self.flow, self.bridge.clock.monotonic, failed)
        if held is None:
            return
        if failed(held):
            self.exchange.respond_at_once(self._stream.response())
        elif held.ended_at:
            self._stream.flush(held.ended_at)
            self._is_fed_whole = True

    def translate_response(self) -> Response:
        return self._stream.response() if self._is_fed_whole else super().translate_response()
