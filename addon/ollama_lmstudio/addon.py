"""The addon: mitmproxy's hooks, in the order in which it calls them. Each finds its exchange, and calls it.

What can become of an exchange is in exchanges/exchange.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import replace

from mitmproxy import connection, ctx, exceptions, http
from mitmproxy.addonmanager import Loader

from . import lazy, options, startup
from .exchanges import admission, responses
from .exchanges.bridge import Bridge
from .exchanges.draining import Drain
from .exchanges.registry import Exchanges
from .inspect import terminal
from .inspect.commands import Commands
from .inspect.summary import CROSS, has_mark_of_failure, label, speed_of
from .inspect.views import Views
from .internals import connections, ending, headers, interface
from .internals.accepting import Accepting
from .internals.console_list import ConsoleList
from .internals.hook_dispatch import HookDispatch
from .internals.localhost import LocalhostOrder
from .lmstudio.localhost import ADDRESSES
from .page.mount import ConversationPage

SILENCE_SECONDS = 3600  # mitmproxy ends silent connections; LM Studio may think about a long prompt for this long


class OllamaBridge:
    """Make mitmproxy speak Ollama's API in front of LM Studio."""

    name = "bridge"

    def __init__(self) -> None:
        self._terminal = terminal.Terminal()
        self._bridge = Bridge(label, self._terminal.waits)
        self._exchanges = Exchanges(self._bridge)
        self._drain = Drain(self._exchanges)
        self._error_pages = connections.ErrorPages()
        self._hook_dispatch = HookDispatch()
        self._localhost = LocalhostOrder(ADDRESSES)
        self._accepting = Accepting()
        self._start = startup.Startup()
        # No addons of their own: mitmproxy would ask each of them for each hook, several times a request.
        self._views = Views()
        self._commands = Commands(lambda: self._bridge.services, self._bridge.tasks.spawn, self._bridge.statistics)
        self._page = ConversationPage(self._bridge)
        self._console_list = ConsoleList(terminal.is_ours, has_mark_of_failure, speed_of, CROSS)

    # The life of the addon

    def load(self, loader: Loader) -> None:
        """Add the options; raise NotSealed where secrets could not be kept out of flows."""
        headers.check()
        startup.add_options(loader)
        self._error_pages.install(responses.error_page)
        self._start.watch_log()
        self._start.check_web_port()
        self._views.load(loader)
        self._commands.load(loader)

    def configure(self, updated: Iterable[str]) -> None:
        """Use the options; raise an OptionsError that names one that is wrong."""
        updated = frozenset(updated)
        if not updated.isdisjoint(terminal.OPTIONS):
            self._terminal.configure()
        if updated.isdisjoint((*options.NAMES, *startup.OWN_OPTIONS)):
            return
        try:
            settings = options.parse({name: getattr(ctx.options, name) for name in options.NAMES})
            settings = replace(settings, listen=self._start.listening(settings.listen))
            upstream = self._start.upstream(settings)
            self._bridge.configure(settings, upstream, insecure=bool(ctx.options.ssl_insecure))
        except ValueError as e:
            raise exceptions.OptionsError(str(e)) from None
        self._start.take_over(settings, upstream)
        connections.allow_silence(SILENCE_SECONDS)
        self._start.begin(self._bridge)

    def running(self) -> None:
        """Serve, and report in the log how things are. Not async: mitmproxy could not reload the script."""
        self._bridge.is_serving = True
        self._drain.install()
        self._hook_dispatch.install()
        self._bridge.garbage.start()
        self._localhost.install()
        self._accepting.install()
        self._views.running()
        self._console_list.install()
        self._page.install()
        interface.watch_list(self._exchanges.kill_unlisted)
        self._start.begin(self._bridge)

    def done(self) -> Awaitable[None] | None:
        """Stop everything of ours. On reload exchanges go on, else mitmproxy awaits their end. Not async: `running`."""
        self._bridge.is_serving = False
        if ending.is_ending():
            return self._end()
        busy = self._exchanges.busy_clients
        asyncio.get_running_loop().call_soon(self._start.close_if_alone, busy)
        if busy:
            lazy.load_all()
            ctx.master.addons.add(Remaining(self._exchanges))
        self._stop()
        return None

    async def _end(self) -> None:
        """End what is under way, with an error for each client."""
        ending.heed_second_signal()
        for stop_exchanges in (self._exchanges.stop, *ending.others("stop_exchanges")):
            stop_exchanges()
        await ending.close(lambda: self._exchanges.busy_clients)
        self._stop()

    def _stop(self) -> None:
        self._commands.done()
        self._start.stop()
        self._bridge.stop()
        self._localhost.remove()
        self._accepting.remove()
        self._hook_dispatch.remove()
        self._error_pages.remove()
        self._views.done()
        self._terminal.done()
        self._console_list.remove()
        self._page.remove()

    # The life of a flow

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Begin an exchange, or refuse to, before the body is read."""
        if admission.is_ours(flow):
            admission.admit(flow, self._exchanges)

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer the request, or make it a call to LM Studio."""
        await self._exchanges.request(flow)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Choose what happens to the body of LM Studio's response."""
        await self._exchanges.responseheaders(flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Complete the response."""
        await self._exchanges.response(flow)
        self._terminal.ended(flow)

    async def error(self, flow: http.HTTPFlow) -> None:
        """Tell a client that LM Studio is gone."""
        self._exchanges.error(flow)
        self._terminal.ended(flow)

    def client_disconnected(self, client: connection.Client) -> None:
        """Forget a client."""
        self._bridge.idle_connections.forget(client.id)


class Remaining:
    """The exchanges that are under way when the script is loaded anew: they end with the code that they began with.

    mitmproxy calls this addon last: what saves or prints flows sees them before they are recorded.
    """

    def __init__(self, exchanges: Exchanges) -> None:
        self.name = f"remaining exchanges of {id(exchanges)}"
        self._exchanges = exchanges
        # For the version of the script that ends the process.
        self.drain_exchanges, self.stop_exchanges = exchanges.drain, exchanges.stop

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer a request whose head came before, or make it a call to LM Studio."""
        await self._exchanges.request(flow)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Choose what happens to the body of LM Studio's response."""
        await self._exchanges.responseheaders(flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Complete the response."""
        await self._exchanges.response(flow)
        self._leave()

    async def error(self, flow: http.HTTPFlow) -> None:
        """Tell a client that LM Studio is gone."""
        self._exchanges.error(flow)
        self._leave()

    def _leave(self) -> None:
        if not self._exchanges.busy_clients and self in ctx.master.addons:
            ctx.master.addons.remove(self)
