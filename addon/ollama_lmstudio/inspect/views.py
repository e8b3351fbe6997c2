"""The contentviews **Ollama** and **LM Studio**, on mitmproxy 11 and 12: two thin classes each over the same functions.

Each is chosen by itself where it fits, and by hand for every flow of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mitmproxy import contentviews, http
from mitmproxy.addonmanager import Loader

from ..internals import interface
from ..unicode import well_formed
from . import jsontext, render
from . import snapshot as snapshots
from .snapshot import Snapshot

logger = logging.getLogger(__name__)

# Mitmproxy's own views say at most 1 for JSON.
CHOSEN = 2.0
POSSIBLE = 0.0
IMPOSSIBLE = -1.0

FOREIGN = "# This is no exchange of the bridge between Ollama's API and LM Studio"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two views: its name, when it is the one to see, and what it shows of a request and a response."""

    name: str
    fits: Callable[[Snapshot], bool]
    request: Callable[[Snapshot], str]
    response: Callable[[Snapshot], str]


def is_for_ollama(snapshot: Snapshot) -> bool:
    """Whether an exchange is looked at from the client's side: all but LM Studio's own APIs without a conversation."""
    return not snapshot.is_internal and (snapshot.record.kind != "relay" or snapshot.is_chat)


OLLAMA = Side("Ollama", is_for_ollama, render.ollama_request, render.ollama_response)
LM_STUDIO = Side(
    "LM Studio",
    lambda snapshot: not is_for_ollama(snapshot),
    render.lmstudio_request,
    render.lmstudio_response,
)
SIDES = (OLLAMA, LM_STUDIO)


def priority(side: Side, flow: object, message: object) -> float:
    """Tell how well a view fits a message: more than any of mitmproxy's own, or not at all for what is none of ours."""
    if not isinstance(flow, http.HTTPFlow) or message is None:
        return IMPOSSIBLE
    if message is not flow.request and message is not flow.response:
        return IMPOSSIBLE
    try:
        snapshot = snapshots.of(flow)
        if snapshot is None:
            return IMPOSSIBLE
        return CHOSEN if side.fits(snapshot) else POSSIBLE
    except Exception:
        # Nothing that a flow holds may keep the other views from being looked at.
        logger.debug("the view %s cannot tell whether it fits", side.name, exc_info=True)
        return IMPOSSIBLE


def text(side: Side, data: bytes, flow: object, message: object) -> str:
    """Show a message; a view that fails shows the message's bytes instead, as text."""
    try:
        snapshot = snapshots.of(flow) if isinstance(flow, http.HTTPFlow) else None
        if snapshot is None or not isinstance(flow, http.HTTPFlow):
            return f"{FOREIGN}\n{_plain(data)}"
        return (side.request if message is flow.request else side.response)(snapshot)
    except Exception as e:
        logger.debug("the view %s failed", side.name, exc_info=True)
        return f"# The view {side.name} failed ({type(e).__name__}), this is the body as it is\n{_plain(data)}"


def _plain(data: bytes) -> str:
    shown = jsontext.without_base64(data[: render.BODY_CHARACTERS].decode("utf-8", "replace"))
    return well_formed(shown)


def _styled(line: str) -> list[tuple[str, str]]:
    """Give a line the styles of mitmproxy 11, which colours nothing by itself: headings, and keys."""
    if line.startswith("#"):
        return [("header", line)]
    key, colon, rest = line.partition(": ")
    if colon and not line.startswith((" ", "{", "[")):
        return [("Token_Name_Tag", f"{key}:"), ("text", f" {rest}")]
    # In mitmweb an empty line would have no height.
    return [("text", line or " ")]


# The interface of mitmproxy 12, and that of 11, which 12 still has but warns of.
_New: Any = getattr(contentviews, "Contentview", object)
_Old: Any = object if _New is not object else contentviews.View


class OldView(_Old):  # type: ignore[misc]
    """A contentview of mitmproxy 11."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self.name = side.name

    def render_priority(self, data: bytes, *, flow: Any = None, http_message: Any = None, **_: Any) -> float:
        return priority(self._side, flow, http_message)

    def __call__(
        self, data: bytes, *, flow: Any = None, http_message: Any = None, **_: Any
    ) -> tuple[str, Iterator[list[tuple[str, str]]]]:
        return self.name, map(_styled, text(self._side, data, flow, http_message).split("\n"))


class NewView(_New):  # type: ignore[misc]
    """A contentview of mitmproxy 12."""

    syntax_highlight = "yaml"

    def __init__(self, side: Side) -> None:
        self._side = side

    @property
    def name(self) -> str:
        return self._side.name

    def render_priority(self, data: bytes, metadata: Any) -> float:
        return priority(self._side, metadata.flow, metadata.http_message)

    def prettify(self, data: bytes, metadata: Any) -> str:
        return text(self._side, data, metadata.flow, metadata.http_message)


class Views:
    """Add both views to mitmproxy for as long as this addon is loaded."""

    name = "ollama-lmstudio-views"

    def load(self, loader: Loader) -> None:
        """Add the views in place of those of an earlier load: mitmproxy 11 refuses a second view of a name."""
        self.done()
        make = OldView if _New is object else NewView
        for side in SIDES:
            contentviews.add(make(side))

    def done(self) -> None:
        """Remove the views."""
        for side in SIDES:
            interface.remove_view(side.name)
