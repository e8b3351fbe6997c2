"""A call whose answer streams, for a client that wants one object."""

from __future__ import annotations

from http import HTTPStatus

from ..internals import held_heads
from ..outcomes import NDJSON, CollectedCall, Response, StreamedCall, StreamTranslation
from .buffered import Buffered
from .exchange import Exchange


class Collected(Buffered):
    """Translate the events as they come, so that they are measured, and respond with one object at the end.

    The head of the response is held meanwhile: its status follows from what the stream says.
    """

    def __init__(self, exchange: Exchange, call: CollectedCall | StreamedCall) -> None:
        super().__init__(exchange, call)
        self._translation = call.translation
        self._fed = 0
        """How many chunks of the stream have been translated while the head was held."""
        self._is_fed_whole = False
        self._lines: list[bytes] = []
        """What has been translated for a client that wants lines."""

    @property
    def translation(self) -> StreamTranslation:
        return self._translation

    @property
    def has_begun(self) -> bool:
        return self._translation.started

    def feed_held(self, held: held_heads.HeldBody) -> None:
        """Translate those chunks that have come since the last time."""
        for at, data in held.data[self._fed :]:
            self.recorder.add_upstream(data, at)
            self._lines += self._translation.feed(data, at)
        self._fed = len(held.data)

    def flush_held(self, held: held_heads.HeldBody) -> None:
        """Translate the end of a stream that has ended while the head was held."""
        self._lines += self._translation.flush(held.ended_at)
        self._is_fed_whole = True

    async def stream(self) -> None:
        def failed(held: held_heads.HeldBody) -> bool:
            self.feed_held(held)
            return self._translation.failed

        held = await held_heads.hold(self.flow, self.bridge.clock.monotonic, failed)
        if held is None:
            return
        if failed(held):
            self.exchange.respond_at_once(self._translation.response())
        elif held.ended_at:
            self.flush_held(held)

    def translate_response(self) -> Response:
        if not self._is_fed_whole:
            return super().translate_response()
        if self._lines and not self._translation.failed:
            return Response(HTTPStatus.OK, b"".join(self._lines), NDJSON)
        return self._translation.response()
