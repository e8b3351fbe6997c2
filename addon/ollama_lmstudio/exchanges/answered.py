"""Answered at once: by the bridge itself, or from a recording."""

from __future__ import annotations

from ..internals import interception, playback
from ..outcomes import Response
from ..record import recording
from ..record.recording import RecordedAnswer
from .exchange import Exchange, Handler


class Answered(Handler):
    """Respond without LM Studio."""

    def __init__(self, exchange: Exchange, response: Response) -> None:
        super().__init__(exchange)
        self._response = response

    async def request(self) -> None:
        self.respond()

    def respond(self) -> None:
        """Set the response; there is no upstream request to be stopped, and the response stops in its own hook."""
        interception.let_pass(self.flow)
        self.exchange.respond(self._response)


class ServerReplayed(Handler):
    """Let mitmproxy's `server_replay` answer, with a flow that it has recorded."""

    def __init__(self, exchange: Exchange, answer: RecordedAnswer) -> None:
        super().__init__(exchange)
        self._recorded = answer.flow
        self.recorder.record = answer.record

    async def request(self) -> None:
        recording.become(self.flow, self._recorded)
        playback.prefer_recorded(self._recorded)

    def record(self) -> None:
        """Keep the record as it was recorded."""
        self.recorder.save(self.flow)
