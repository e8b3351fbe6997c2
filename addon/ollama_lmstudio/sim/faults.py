"""What can go wrong on the way: the transport faults a test asks for, all of which combine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

BAD_GATEWAY = (
    502,
    "text/html",
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
)
ENGINE_ERROR = "Input does not fit in context length."

Match = str | Callable[[Any], bool] | None

Loss = Literal["error", "end", "fin", "rst", "hang"]
"""What becomes of an answer whose device is lost: an error, the end of the stream or of the connection, or nothing."""


@dataclass(frozen=True)
class MidError:
    """Fail after `after` tokens; `done` sends `[DONE]` all the same, `old_style` a `data:` line with a text."""

    after: int = 1
    done: bool = False
    old_style: bool = False
    message: str = ENGINE_ERROR


@dataclass(frozen=True)
class Disconnect:
    """Drop the connection after `after` tokens.

    `fin`, `rst`: at once. `mid_line`: in the middle of the next frame. `no_last_chunk`: everything is sent but
    the chunk that ends the body. `end`: the body ends as it should, with nothing of what should come before.
    `before_headers`: instead of an answer.
    """

    after: int = 1
    how: Literal["fin", "rst", "mid_line", "no_last_chunk", "end", "before_headers"] = "fin"


@dataclass(eq=False)
class Fault:
    """Things that go wrong with the requests it applies to: inference routes, or exactly `path`, and `match`.

    `times` is how often it strikes, None for always. Times are in seconds. `split` is the most bytes in a write,
    or the positions in the body to cut at. `stale` closes a kept-alive connection just as its next request
    arrives. `hang` never answers, never goes on after the headers, or never reads the request's body.
    """

    path: str | None = None
    match: Match = None
    times: int | None = None
    # Before the answer
    hang: Literal["accept", "headers", "read"] | None = None
    stale: bool = False
    pre_error: tuple[int, str, bytes | str] | None = None
    html_502: bool = False
    ok_error: bool = False
    cold_load: float = 0.0
    prefill: float = 0.0
    headers_first: bool = False
    # In the answer
    token_delay: float | None = None
    mid_error: MidError | None = None
    disconnect: Disconnect | None = None
    no_done: bool = False
    done_without_finish: bool = False
    # In the bytes of a stream
    newline: Literal["\n", "\r\n", "\r"] = "\n"
    bom: bool = False
    comments: bool = False
    pings: bool = False
    blank_lines: bool = False
    retry_and_id: bool = False
    no_space: bool = False
    multi_line_data: bool = False
    unknown_events: bool = False
    split: int | Sequence[int] | None = None

    @property
    def is_early(self) -> bool:
        """Whether it strikes before the body of a request is read; `match` is not asked then."""
        return self.stale or self.hang == "read"

    def applies_to(self, path: str, inference: bool) -> bool:
        """Return whether the fault applies to requests for this path, if it is not used up."""
        return self.times != 0 and (inference if self.path is None else self.path == path)

    @property
    def refusal(self) -> tuple[int, str, bytes] | None:
        """The answer that is given instead of LM Studio's, if any."""
        if self.html_502:
            return BAD_GATEWAY
        if self.pre_error is None:
            return None
        status, content_type, body = self.pre_error
        return status, content_type, body if isinstance(body, bytes) else body.encode()

    def dress(self, frame: bytes) -> bytes:
        """Write one SSE frame in the way of other servers and proxies, meaning the same."""
        if self.multi_line_data:
            frame = frame.replace(b"data: {", b"data: {\ndata: ", 1)
        if self.no_space:
            frame = frame.replace(b"data: ", b"data:")
        extras = b""
        if self.comments:
            extras += b": ping\n\n"
        if self.pings:
            extras += b"event: ping\ndata: {}\n\n"
        if self.unknown_events:
            extras += b'event: tool_call.name\ndata: {"type":"tool_call.name"}\n\n'
        if self.blank_lines:
            extras += b"\n\n"
        if self.retry_and_id:
            extras += b"retry: 1000\nid: 1\n"
        frame = extras + frame
        return frame if self.newline == "\n" else frame.replace(b"\n", self.newline.encode())

    def pieces(self, data: bytes, position: int) -> list[bytes]:
        """Cut what goes to byte `position` of the body into the writes it takes."""
        if self.split is None:
            return [data]
        if isinstance(self.split, int):
            cuts = list(range(self.split, len(data), self.split))
        else:
            cuts = [cut - position for cut in self.split if 0 < cut - position < len(data)]
        return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]


NO_FAULT = Fault()
