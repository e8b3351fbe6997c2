"""A call whose answer streams, for a client that wants one object."""

from __future__ import annotations

from http import HTTPStatus

from ..internals import held_heads
from ..lmstudio.errors import is_evicted
from ..outcomes import NDJSON, CollectedCall, Response, StreamedCall, StreamTranslation
from ..progress import State
from ..units import plural, speed
from . import eviction, substitution
from .buffered import Buffered
from .exchange import Exchange
from .watch import NS_PER_SECOND


class Collected(Buffered):
    """Translate the events as they come, so that they are measured, and respond with one object at the end.

    The head of the response is held meanwhile: its status follows from what the stream says.
    """

    _call: CollectedCall | StreamedCall
    awaits = "waits for the first token"

    def __init__(self, exchange: Exchange, call: CollectedCall | StreamedCall) -> None:
        super().__init__(exchange, call)
        self._fed = 0
        """How many chunks of the stream have been translated while the head was held."""
        self._is_fed_whole = False
        self._lines: list[bytes] = []
        """What has been translated for a client that wants lines."""

    @property
    def translation(self) -> StreamTranslation:
        return self._call.translation

    @property
    def has_begun(self) -> bool:
        return self.translation.started

    def state(self, now: int) -> State | None:
        count, since = self.translation.so_far
        if not count:
            return super().state(now)
        seconds = (now - since) / NS_PER_SECOND
        has_speed = since and seconds > 0 and count > 1
        facts = [f"{count:,} {plural(count, 'token')}", *([speed(count / seconds)] if has_speed else ())]
        return State("answers", ", ".join(facts), flows=True)

    def feed_held(self, held: held_heads.HeldBody) -> None:
        """Translate those chunks that have come since the last time."""
        for at, data in held.data[self._fed :]:
            self.recorder.add_upstream(data, at)
            self._lines += self.translation.feed(data, at)
        self._fed = len(held.data)

    def flush_held(self, held: held_heads.HeldBody) -> None:
        """Translate the end of a stream that has ended while the head was held."""
        self._lines += self.translation.flush(held.ended_at)
        self._is_fed_whole = True

    async def failure(self, held: held_heads.HeldBody | None) -> Response:
        """Return the client's response for a stream that has failed: that of a second one, if its model was evicted."""
        translation, error = self.translation, self.translation.error
        if held is None or error is None or not (translation.rejected and is_evicted(error)):
            return translation.response()
        translation.begin_again()
        self.recorder.forget_upstream()
        return await self.call_in_turn(held) or translation.fail(error)

    async def stream(self) -> None:
        def failed(held: held_heads.HeldBody) -> bool:
            return self.has_started(held) and self.translation.failed

        clock = self.bridge.clock.monotonic
        held = await held_heads.hold(self.flow, clock, self.has_started)
        if held is None or (self.has_started(held) and await self.is_substitute(held)):
            return
        held = await held_heads.hold(self.flow, clock, failed) or held
        if failed(held):
            self.exchange.respond_at_once(await self.failure(held))
        elif held.ended_at:
            self.flush_held(held)

    def has_started(self, held: held_heads.HeldBody) -> bool:
        """Translate what has come; return whether the answer has begun."""
        self.feed_held(held)
        return self.translation.started

    async def is_substitute(self, held: held_heads.HeldBody | None) -> bool:
        """Return whether the answer that has begun is of another model; the client has its response then, or left."""
        if not await substitution.is_substitute(self.exchange, self._call.model, self.translation.model):
            return False
        await self.respond_for_substitute(held)
        return True

    async def respond_for_substitute(self, held: held_heads.HeldBody | None) -> None:
        """Respond in place of another model's answer, unless the client goes meanwhile."""
        response = await eviction.while_client_waits(held or held_heads.HeldBody(), self.answer_for_substitute())
        if response is not None:
            self.exchange.respond_at_once(response)

    async def checked_response(self) -> Response:
        return self.translate_response() if self._is_fed_whole else await super().checked_response()

    def translate_response(self) -> Response:
        if not self._is_fed_whole:
            return super().translate_response()
        if self._lines and not self.translation.failed:
            return Response(HTTPStatus.OK, b"".join(self._lines), NDJSON)
        return self.translation.response()
