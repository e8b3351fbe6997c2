"""A call that the user replays: it is translated for the flow, and no client waits for it."""

from __future__ import annotations

from http import HTTPStatus

from ..lmstudio.errors import LMStudioError
from ..outcomes import NDJSON, Response
from . import substitution
from .collected import Collected


class Replayed(Collected):
    """Translate the events as they come, so that they can be watched; the translation becomes the flow's response."""

    async def stream(self) -> None:
        response = self.flow.response
        assert response is not None
        clock, translation = self.bridge.clock.monotonic, self.translation

        def listen(data: bytes) -> list[bytes]:
            now = clock()
            if data:
                self.recorder.add_upstream(data, now)
            lines = translation.feed(data, now) if data else translation.flush(now)
            self.recorder.client_body.add(b"".join(lines))
            self._lines += lines
            self._is_fed_whole = not data
            return []

        # What is shown meanwhile is the translation.
        response.headers["Content-Type"] = NDJSON
        response.stream = listen

    async def refused(self) -> None:
        """Leave a refusal to the user, who sees it."""

    async def checked_response(self) -> Response:
        if await substitution.is_substitute(self.exchange, self._call.model, self.translation.model):
            self.recorder.forget_translation()
            return await self.answer_for_substitute()
        return await super().checked_response()

    def translate_response(self) -> Response:
        if self._is_fed_whole and len(self._lines) > 1:
            return Response(HTTPStatus.OK, b"".join(self._lines), NDJSON)
        return super().translate_response()

    def error(self, error: LMStudioError) -> None:
        self.recorder.client_body.add(b"".join(self.translation.abort(error)))
