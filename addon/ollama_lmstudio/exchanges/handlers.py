"""The table from outcome to handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..outcomes import Call, CollectedCall, LocalStream, Passthrough, Response, StreamedCall
from ..record.recording import RecordedAnswer
from .answered import Answered, ServerReplayed
from .buffered import Buffered
from .collected import Collected
from .exchange import Exchange, Handler
from .local import Local
from .passed_through import PassedThrough
from .replayed import Replayed
from .streamed import Streamed

Handlers = Mapping[type, Callable[[Exchange, Any], Handler]]

HANDLERS: Handlers = {
    Response: Answered,
    RecordedAnswer: ServerReplayed,
    Call: Buffered,
    CollectedCall: Collected,
    StreamedCall: Streamed,
    Passthrough: PassedThrough,
    LocalStream: Local,
}
# Where the user replays an exchange, what differs.
REPLAY_HANDLERS: Handlers = {**HANDLERS, CollectedCall: Replayed, StreamedCall: Replayed}
