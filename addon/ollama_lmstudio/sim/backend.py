"""What requests for inference and for models are answered from: settings, models, engine, scripts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from .connection import SimExchange
from .engine import Engine
from .faults import Match
from .generate import Generator, Prompt, Step
from .models import Version
from .state import SimState
from .wire import Headers

Overflow = Literal["error", "stream", "cut"]


@dataclass
class Settings:
    """What can be set at any time.

    `overflow` is what a prompt longer than the context leads to: an error before the stream, an error in it, or
    a silent cut in the middle of the conversation. Without `counts_tokens` the usage of all answers is 0, as 0.4.6 had
    it.
    """

    auth: Collection[str] | None = None
    cors: bool = False
    separate_reasoning: bool = True
    token_delay: float = 0.0
    coalesce: int = 1
    overflow: Overflow = "error"
    counts_tokens: bool = True
    cached_tokens: int | None = None


@dataclass(eq=False)
class Script:
    """The steps of the answer to requests that match, in place of the default answer."""

    steps: Iterable[Step] | Callable[[Prompt], Iterable[Step]]
    match: Match
    times: int | None


def matches(match: Match, text: str, body: Any) -> bool:
    """Return whether a script or a fault is meant for a request."""
    if match is None:
        return True
    return match in text if isinstance(match, str) else bool(match(body))


class Backend:
    """What the handlers of requests work with."""

    def __init__(self, version: Version, settings: Settings, state: SimState, generator: Generator) -> None:
        self.version = version
        self.settings = settings
        self.state = state
        self.engine = Engine(state)
        self.generator = generator
        self.scripts: list[Script] = []
        self.responses: dict[str, str] = {}

    def take_script(self, prompt: Prompt) -> Script | None:
        """Return the script for a prompt; None for the default answer."""
        for script in self.scripts:
            if script.times != 0 and matches(script.match, prompt.text, prompt.body):
                if script.times is not None:
                    script.times -= 1
                return script
        return None

    @property
    def extra_headers(self) -> Headers:
        """The headers of every response."""
        if not self.settings.cors:
            return []
        return [("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Headers", "*")]

    async def send(self, exchange: SimExchange, value: Any) -> None:
        """Send a 200 with a JSON value."""
        await exchange.reply_json(200, value, extra=self.extra_headers)
