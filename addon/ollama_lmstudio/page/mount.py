"""Put the page into mitmweb, and take it out again."""

from __future__ import annotations

import logging

from ..exchanges.bridge import Bridge
from ..internals import interface, web_app
from . import handlers, updates

logger = logging.getLogger(__name__)


class ConversationPage:
    """The page at `/ollama/`, for as long as this addon is loaded. In any other tool than mitmweb it does nothing."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._readers: updates.Readers | None = None
        self._watch: web_app.ListWatch | None = None

    def install(self) -> None:
        """Add the page to mitmweb."""
        if not interface.is_web():
            return
        web_app.remove_routes(handlers.PREFIX.rstrip("/"))
        self._readers = updates.Readers(self._bridge.tasks, self._bridge.watch.show_body_now)
        if not web_app.add_routes(handlers.routes(handlers.Page(lambda: self._bridge.services, self._readers))):
            logger.warning("This mitmproxy has no room for the conversation page, %s", handlers.PREFIX)
            return
        interface.set_page(handlers.PREFIX)
        self._watch = web_app.ListWatch(self._readers)
        self._watch.install()

    def remove(self) -> None:
        """Remove the page; those that are open wait for the next version of the script."""
        if self._readers is None:
            return
        interface.set_page("")
        if self._watch is not None:
            self._watch.remove()
        web_app.remove_routes(handlers.PREFIX.rstrip("/"))
        self._readers.close_all()
