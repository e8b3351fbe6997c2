"""The contentviews **Ollama** and **LM Studio**: the same functions, with an adapter each for mitmproxy 11 and 12.

mitmproxy selects the one that fits; the user can select either for every flow of the bridge.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mitmproxy import contentviews, http
from mitmproxy.addonmanager import Loader

from ..internals import highlighting, interface, web_page
from . import render, render_answer, render_lmstudio, render_parts, sheet
from . import snapshot as snapshots
from .snapshot import Snapshot

logger = logging.getLogger(__name__)

# Render priorities: mitmproxy selects the view with the highest. Its own views return 1 at most, and its raw view 0.1:
# a view with POSSIBLE is only selected by hand.
CHOSEN = 2.0
POSSIBLE = 0.0
IMPOSSIBLE = -1.0

FOREIGN = "This is no exchange of the bridge between Ollama's API and LM Studio"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two views: its name, the exchanges that it is selected for, and its text of either message."""

    name: str
    fits: Callable[[Snapshot], bool]
    request: Callable[[Snapshot], str]
    response: Callable[[Snapshot], str]


def is_for_ollama(snapshot: Snapshot) -> bool:
    """Return whether an exchange is best seen from the client's side: all but internal calls and plain passthrough."""
    return not snapshot.is_internal and (snapshot.record.kind != "relay" or snapshot.is_chat)


# Looked up when a view is asked for: what renders is not loaded before.
OLLAMA = Side(
    "Ollama",
    is_for_ollama,
    lambda snapshot: render.ollama_request(snapshot),
    lambda snapshot: render_answer.ollama_response(snapshot),
)
LM_STUDIO = Side(
    "LM Studio",
    lambda snapshot: not is_for_ollama(snapshot),
    lambda snapshot: render_lmstudio.lmstudio_request(snapshot),
    lambda snapshot: render_lmstudio.lmstudio_response(snapshot),
)
SIDES = (OLLAMA, LM_STUDIO)


@dataclass(slots=True)
class First:
    """Which view is shown where the user has not chosen one: the one that fits, or LM Studio's of all exchanges."""

    is_lmstudio: bool = False

    def chooses(self, side: Side, snapshot: Snapshot) -> bool:
        """Return whether this side of an exchange is shown first."""
        return side is LM_STUDIO if self.is_lmstudio else side.fits(snapshot)

    def swap(self) -> str:
        """Show the other side first from now on; return what that means."""
        self.is_lmstudio = not self.is_lmstudio
        interface.render_anew()
        name = LM_STUDIO.name if self.is_lmstudio else OLLAMA.name
        return f"{name}'s side of exchanges is shown first now, in mitmweb of what is chosen next"


FIRST = First()

# The key that shows the other side in the console, with its command.
OTHER_SIDE = "o", "ollama.view", "Show the other side: Ollama's or LM Studio's"


def priority(side: Side, flow: object, message: object) -> float:
    """Return a view's render priority: above all of mitmproxy's views, or below them for a flow of somebody else."""
    if not isinstance(flow, http.HTTPFlow) or message is None:
        return IMPOSSIBLE
    if message is not flow.request and message is not flow.response:
        return IMPOSSIBLE
    try:
        snapshot = snapshots.of(flow)
        if snapshot is None:
            return IMPOSSIBLE
        return CHOSEN if FIRST.chooses(side, snapshot) else POSSIBLE
    except Exception:
        # On mitmproxy 11 the exception would keep every other view but the raw one from being selected.
        logger.debug("the view %s cannot tell whether it fits", side.name, exc_info=True)
        return IMPOSSIBLE


def text(side: Side, data: bytes, flow: object, message: object) -> str:
    """Return the text of a message; where the view fails, the message's body as text."""
    try:
        snapshot = snapshots.of(flow) if isinstance(flow, http.HTTPFlow) else None
        if snapshot is None or not isinstance(flow, http.HTTPFlow):
            return _plain(FOREIGN, data)
        shown = (side.request if message is flow.request else side.response)(snapshot)
        # A terminal's text is not copied with its tabs, and the console shows no tabs.
        return shown.expandtabs() if interface.is_console() else shown
    except Exception as e:
        logger.debug("the view %s failed", side.name, exc_info=True)
        return _plain(f"The view {side.name} failed ({type(e).__name__}), this is the body as it is", data)


def _plain(heading: str, data: bytes) -> str:
    shown = sheet.Sheet()
    shown.heading(heading)
    shown.text("body", data[: render_parts.BODY_CHARACTERS].decode("utf-8", "replace"), render_parts.BODY_CHARACTERS)
    return str(shown)


# What mitmproxy 11 paints the parts of a sheet with: names of its console's palette, which are its page's classes too.
_STYLES = {
    "section": "header",
    "text": "Token_Name_Tag",
    "key": "Token_Name_Tag",
    "added": "Token_Name_Tag",
    "removed": "Token_Literal_String",
}
# The same on mitmproxy 12, in the console and in mitmdump: its page has no colours.
_TAGS = {"section": "boolean", "text": "name", "key": "name", "added": "name", "removed": "error"}


def _styled(shown: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the lines of a sheet with styles for mitmproxy 11, which does no syntax highlighting."""
    # mitmweb shows an empty line with no height, and copies none; the console shows two for a line break.
    empty = "\n" if interface.is_web() else ""
    for kind, line in sheet.styled(shown):
        painted, rest = _painted(kind, line)
        yield [(_STYLES[kind], painted), ("text", rest)] if painted else [("text", rest or empty)]


def _painted(kind: str, line: str) -> tuple[str, str]:
    """Return the part of a line that has a colour, and the rest of it."""
    if kind == "key":
        key, _, rest = line.partition(":")
        return f"{key}:", rest
    return (line, "") if kind in _STYLES else ("", line)


def _tagged(shown: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a sheet with tags for mitmproxy 12."""
    for number, (kind, line) in enumerate(sheet.styled(shown)):
        painted, rest = _painted(kind, line)
        yield "", "\n" if number else ""
        yield _TAGS.get(kind, ""), painted
        yield "", rest


# The base class of mitmproxy 12, or that of 11: 12 still has the latter, and warns when it is used.
_New: Any = getattr(contentviews, "Contentview", object)
_Old: Any = object if _New is not object else contentviews.View


class OldView(_Old):  # type: ignore[misc]
    """A contentview for mitmproxy 11."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self.name = side.name

    def render_priority(self, data: bytes, *, flow: Any = None, http_message: Any = None, **_: Any) -> float:
        return priority(self._side, flow, http_message)

    def __call__(
        self, data: bytes, *, flow: Any = None, http_message: Any = None, **_: Any
    ) -> tuple[str, Iterator[list[tuple[str, str]]]]:
        return self.name, _styled(text(self._side, data, flow, http_message))


class NewView(_New):  # type: ignore[misc]
    """A contentview for mitmproxy 12."""

    # There are colours for YAML, JavaScript, CSS and XML: each would paint a part of what somebody said.
    syntax_highlight = highlighting.Language.of(_tagged)

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
        interface.put_views_first([side.name for side in SIDES])
        highlighting.add_languages()
        if interface.is_web():
            web_page.wrap_lines()

    def running(self) -> None:
        """Give the console a key for the other side."""
        interface.bind_key("flowview", *OTHER_SIDE)

    def done(self) -> None:
        """Remove the views."""
        for side in SIDES:
            interface.remove_view(side.name)
        interface.keep_views_in_order()
        highlighting.remove_languages()
        if interface.is_web():
            web_page.keep_lines()
