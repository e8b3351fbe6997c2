"""Where the page and what it shows are asked for, in mitmweb's own Tornado application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import Any

from mitmproxy import ctx, http
from mitmproxy.exceptions import CommandError
from tornado.iostream import StreamClosedError
from tornado.web import RedirectHandler

from ..inspect import thread
from ..inspect.repeat import NotRepeatable
from ..internals import web_app
from ..lmstudio.errors import LMStudioError, scrub
from ..services import Services
from ..translate import listing
from ..unicode import well_formed
from . import ask, detail, search
from .updates import Reader, Readers

logger = logging.getLogger(__name__)

PREFIX = "/ollama/"
_FILES = resources.files(__package__) / "static"
# No longer than any system takes.
_FILE_NAME = re.compile(r"(?=.{1,80}\Z)[a-z0-9-]+(?:/[a-z0-9-]+)*\.(?:js|css|svg|txt)")
_TYPES = {
    "js": "text/javascript; charset=UTF-8",
    "css": "text/css; charset=UTF-8",
    "svg": "image/svg+xml",
}
# The rest of a name in a Host header would end a policy.
_HOST = re.compile(r"[\w.:\[\]-]+")
# What holds up everything else on the event loop for so long ends for a moment.
_SLICE_SECONDS = 0.005

# Nothing but the page's own files; nothing of it is ever live that somebody wrote: no HTML is made of a string.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{sockets}; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html"
)


@dataclass(frozen=True, slots=True)
class Page:
    """What the handlers need: the services, and the pages that are open."""

    services: Callable[[], Services]
    readers: Readers


class Handler(web_app.RequestHandler):  # type: ignore[misc]
    """What all of them share: headers, and how they answer."""

    def initialize(self, page: Page) -> None:
        self.page = page

    def set_default_headers(self) -> None:
        super().set_default_headers()
        host = self.request.host if _HOST.fullmatch(self.request.host) else ""
        sockets = f" ws://{host} wss://{host}" if host else ""
        self.set_header("Content-Security-Policy", _POLICY.format(sockets=sockets))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("X-Frame-Options", "DENY")

    def send(self, value: object) -> None:
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(well_formed(json.dumps(value, ensure_ascii=False)))

    def refuse(self, status: HTTPStatus, message: str) -> None:
        self.set_status(status)
        self.send({"error": message})

    def find(self, flow_id: str, read: Callable[[http.HTTPFlow], Any]) -> Any:
        """Return what is read of a flow; None, with an error for the page, where there is no such flow."""
        found = web_app.shown_flow(flow_id)
        value = read(found) if found is not None else None
        if value is None:
            self.refuse(HTTPStatus.NOT_FOUND, "this exchange is not in mitmweb's list any more")
        return value


class Index(Handler):
    """The page itself, with the token for its own requests; mitmweb's form, where somebody is not logged in."""

    def auth_fail(self, invalid_password: bool) -> None:
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'")
        self.render("login.html", invalid_password=invalid_password)

    def get(self) -> None:
        text = (_FILES / "index.html").read_text("utf-8")
        self.finish(text.replace("{{ xsrf }}", self.xsrf_token.decode()))

    post = get  # the form of mitmweb's login


class File(Handler):
    """The page's scripts, styles and pictures."""

    def get(self, name: str) -> None:
        file = _FILES / name
        if not _FILE_NAME.fullmatch(name) or not file.is_file():
            self.refuse(HTTPStatus.NOT_FOUND, "there is no such file")
            return
        self.set_header("Content-Type", _TYPES.get(name.rpartition(".")[2], "text/plain; charset=UTF-8"))
        self.finish(file.read_bytes())


class Exchange(Handler):
    """One exchange, as a thread."""

    def get(self, flow_id: str) -> None:
        if found := self.find(flow_id, detail.detail_of):
            self.send(found)


class Sides(Handler):
    """Both sides of an exchange."""

    def get(self, flow_id: str) -> None:
        if found := self.find(flow_id, detail.sides_of):
            self.send(found)


class Conversation(Handler):
    """All exchanges of the same conversation."""

    def get(self, flow_id: str) -> None:
        found = self.find(flow_id, lambda flow: thread.find([flow], web_app.shown_flows()))
        if found:
            self.send(detail.conversation_of(found))


class Picture(Handler):
    """A picture in a message."""

    def get(self, flow_id: str, message: str, number: str) -> None:
        if found := self.find(flow_id, lambda flow: detail.file_of(flow, int(message), int(number))):
            data, kind = found
            self.set_header("Content-Type", kind)
            self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
            self.finish(data)


class Again(Handler):
    """Ask again what an exchange asked, with changes."""

    def post(self, flow_id: str) -> None:
        wanted = self.json
        if not isinstance(wanted, dict):
            self.refuse(HTTPStatus.BAD_REQUEST, "an object is wanted")
            return
        upstream = self.page.services().settings.lmstudio_url
        try:
            made = self.find(flow_id, lambda flow: ask.ask_again(flow, wanted, upstream))
            if made is not None:
                ctx.master.commands.call("replay.client", [made])
                self.send({"id": made.id})
        except (NotRepeatable, CommandError) as e:
            self.refuse(HTTPStatus.CONFLICT, str(e))


class Models(Handler):
    """The names of the models that can be asked."""

    async def get(self) -> None:
        services = self.page.services()
        try:
            catalog = services.catalog.last or await services.catalog.refresh()
        except LMStudioError as e:
            self.refuse(HTTPStatus.BAD_GATEWAY, scrub(e.message, services.secrets))
            return
        # Not those that say nothing: they cannot be asked again.
        found = listing.list_entries(catalog, services)
        self.send([entry.name for entry in found if entry.model.type == "llm"])


class Search(Handler):
    """The exchanges in which a text was said."""

    async def get(self) -> None:
        """Send the id of each exchange that has the text, the newest first, one a line, as they are found."""
        wanted = self.get_argument("q")
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        until = time.monotonic() + _SLICE_SECONDS
        # The page leaves when something else is typed.
        with contextlib.suppress(StreamClosedError):
            for found in reversed(web_app.shown_flows()):
                if search.has_text(found, wanted):
                    self.write(f"{found.id}\n")
                if time.monotonic() > until:
                    await self.flush()
                    await asyncio.sleep(0)
                    until = time.monotonic() + _SLICE_SECONDS


class Updates(web_app.Socket):
    """The connection over which the page is told what is new."""

    reader: Reader | None = None

    def initialize(self, page: Page) -> None:
        self.page = page

    def open(self, *_: str, **__: str) -> None:
        self.reader = self.page.readers.open(self._send, self.close)

    def _send(self, message: str) -> Awaitable[None]:
        return self.write_message(message)

    def on_message(self, message: str | bytes) -> None:
        try:
            ids = json.loads(message)["follow"]
            if self.reader is not None:
                self.reader.follow([str(id_) for id_ in ids])
        except (ValueError, TypeError, KeyError, RecursionError):
            self.close(1003, "an object with `follow`, a list of ids, is wanted")

    def on_close(self) -> None:
        if self.reader is not None:
            self.page.readers.close(self.reader)


def routes(page: Page) -> web_app.Routes:
    """Return the handlers of the page, by the patterns of their paths."""
    given = {"page": page}
    flow = rf"{PREFIX}exchanges/(?P<flow_id>[0-9a-f-]+)"
    return [
        (PREFIX.rstrip("/"), RedirectHandler, {"url": PREFIX}),
        (PREFIX, Index, given),
        (rf"{PREFIX}updates", Updates, given),
        (rf"{PREFIX}models", Models, given),
        (rf"{PREFIX}search", Search, given),
        (flow, Exchange, given),
        (rf"{flow}/sides", Sides, given),
        (rf"{flow}/conversation", Conversation, given),
        (rf"{flow}/again", Again, given),
        (rf"{flow}/files/(?P<message>\d+)/(?P<number>\d+)", Picture, given),
        (rf"{PREFIX}static/(?P<name>.+)", File, given),
    ]
