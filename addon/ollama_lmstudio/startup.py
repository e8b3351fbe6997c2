"""Starting: the options, the mode that mitmproxy serves in, the stand-in, and what is said in the log."""

from __future__ import annotations

import asyncio
import difflib
import http.client
import logging
import os
import socket
import sys
from collections.abc import Container
from typing import Any

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode

from . import options
from .internals import connections
from .lmstudio.errors import LMStudioError
from .services import Services

logger = logging.getLogger(__name__)

# Mitmproxy's own mode, with which it starts when nobody says otherwise.
REGULAR = ["regular"]
REGULAR_PORT = 8080
# What stands for the key in configs/lan.yaml.
PLACEHOLDER = "change-me"
# The columns of mitmweb's list, unless a person has chosen others.
# Mitmweb colours the method of a request that waits for a person, and the time of an answer that does.
WEB_COLUMNS = ["method", "status", "comment", "time"]
# Mitmproxy's own options that say where to serve, and how LM Studio is reached.
OWN_OPTIONS = ("listen_host", "listen_port", "mode", "ssl_insecure")
# Where code that comes later finds that it has to serve again.
CLOSED = "_closed_without_bridge"
SERVER_LOGGER = "mitmproxy.addons.proxyserver"


def add_options(loader: Loader) -> None:
    """Add the table's options to mitmproxy's."""
    for option in options.OPTIONS:
        default = options.default_of(option, os.environ)
        loader.add_option(option.name, option.typespec, default, option.help, option.choices)
        try:
            # Mitmproxy does so later, where an error is lost: it would go on, without this addon and without a word.
            ctx.options.process_deferred()
        except exceptions.OptionsError as e:
            logger.error("%s: %s", option.name, e)
            return


class _ServerLog(logging.Filter):
    """Watch what mitmproxy says of its servers while this addon starts.

    Where it had begun to serve in its own mode before the script was loaded, the failure of that is nobody's concern. A
    port that is taken is explained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.port = 0
        self.starting = True

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno < logging.ERROR:
            return True
        if self.starting and (not message or f":{REGULAR_PORT} with" in message):
            return self.port == REGULAR_PORT and bool(message)
        if self.port and f":{self.port} with" in message and is_ollama(self.port):
            record.msg = (
                f"{message}\nAn Ollama server, or another bridge like this one, answers on port {self.port} already. "
                f"Stop it, or serve on another port: "
                f"--set listen=127.0.0.1:{self.port + 1}"
            )
            record.args = ()
        return True


def is_ollama(port: int) -> bool:
    """Whether an Ollama server answers on a port of this machine; asked only when the port is taken."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
    try:
        connection.request("GET", "/")
        return b"Ollama is running" in connection.getresponse().read(100)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Startup:
    """Bring mitmproxy into the mode that serves Ollama's clients."""

    def __init__(self) -> None:
        self._log = _ServerLog()
        self._mode = ""
        self._demo_socket: socket.socket | None = None
        self._demo_port = 0
        self._demo: Any = None

    def watch_log(self) -> None:
        """Begin to watch what mitmproxy says of its servers."""
        logging.getLogger(SERVER_LOGGER).addFilter(self._log)
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)

    def upstream(self, settings: options.Settings) -> options.Upstream:
        """Give where LM Studio is; with `demo`, where the stand-in will answer."""
        if not settings.demo:
            self._close_demo()
            return settings.lmstudio_url
        if self._demo_socket is None and self._demo is None:
            self._demo_socket = socket.socket()
            self._demo_socket.bind(("127.0.0.1", 0))
            # Who comes before the stand-in is up waits for it.
            self._demo_socket.listen()
            self._demo_port = self._demo_socket.getsockname()[1]
        return options.Upstream("http", "127.0.0.1", self._demo_port)

    def listening(self, given: options.Listen) -> options.Listen:
        """Give the address that is served on: what mitmproxy itself was told wins over `listen`."""
        host, port = ctx.options.listen_host, ctx.options.listen_port
        if not self._is_our_choice():
            modes = [ProxyMode.parse(spec) for spec in ctx.options.mode]
            mode = next((mode for mode in modes if isinstance(mode, ReverseMode)), None)
            if mode is not None:
                return options.Listen(
                    mode.listen_host(host) or options.EVERYWHERE, mode.listen_port(port) or given.port
                )
        return options.Listen(host or given.host, given.port if port is None else port)

    def _is_our_choice(self) -> bool:
        """Whether no person has set a mode."""
        return list(ctx.options.mode) in (REGULAR, [self._mode])

    def take_over(self, settings: options.Settings, upstream: options.Upstream) -> None:
        """Set mitmproxy's mode, unless a person has set one; and what the bridge needs of its other options."""
        wanted, mode = mode_spec(settings, upstream), list(ctx.options.mode)
        changes: dict[str, Any] = {}
        # What is wanted already was set by an earlier load of this script.
        if self._is_our_choice() or mode == [wanted]:
            self._mode = wanted
            if mode != [wanted]:
                changes["mode"] = [wanted]
        # With an eager connection a client gets nothing at all while LM Studio is down.
        if ctx.options.connection_strategy != "lazy":
            changes["connection_strategy"] = "lazy"
        # Ollama speaks HTTP/1.1 alone, and so does LM Studio: sealed headers and last words are written for that.
        if ctx.options.http2:
            changes["http2"] = False
        # The Host header is what a rebound name is recognised by.
        if not ctx.options.keep_host_header:
            changes["keep_host_header"] = True
        # In mitmweb's list, what an exchange was says more than the path of the call that it became.
        if "web_columns" in ctx.options and list(ctx.options.web_columns) == list(ctx.options.default("web_columns")):
            changes["web_columns"] = WEB_COLUMNS
        self._log.port = settings.listen.port
        if changes:
            ctx.options.update(**changes)

    def close_if_alone(self, busy: Container[str]) -> None:
        """Serve nobody, unless other code comes after this: mitmproxy alone would let everybody through to LM Studio.

        The clients with the ids in `busy` get their answers.
        """
        if ctx.master.addons.get("bridge") is not None or not ctx.options.server:
            return
        logger.warning("The script is gone, or cannot be loaded: nothing is served until it can.")
        vars(ctx.master)[CLOSED] = True
        ctx.options.update(server=False)
        connections.close_clients(busy)

    async def serve(self, services: Services) -> None:
        """Serve in the mode that was set, also where mitmproxy began in another, and say how things are."""
        if vars(ctx.master).pop(CLOSED, False):
            ctx.options.update(server=True)
        proxyserver = ctx.master.addons.get("proxyserver")
        try:
            if ctx.options.server and proxyserver is not None:
                # What it returns tells of the server that is replaced, too.
                await proxyserver.setup_servers()
                if not all(server.is_running for server in proxyserver.servers):
                    # Not from a task, which would be told of as one that failed.
                    asyncio.get_running_loop().call_soon(sys.exit, 1)
                    return
        finally:
            self._log.starting = False
        self._report_unknown_options()
        await self._start_demo()
        # Who only opens a file has nothing to do with LM Studio.
        if ctx.options.server:
            await _report(services, demo=self._demo is not None)

    def stop(self) -> None:
        """Stop the stand-in and the watch over the log."""
        logging.getLogger(SERVER_LOGGER).removeFilter(self._log)
        self._close_demo()

    def _close_demo(self) -> None:
        if self._demo_socket is not None:
            self._demo_socket.close()
            self._demo_socket = None
        if self._demo is not None:
            _stopping.add(task := asyncio.get_running_loop().create_task(self._demo.stop()))
            task.add_done_callback(_stopping.discard)
            self._demo = None

    async def _start_demo(self) -> None:
        if self._demo_socket is None:
            return
        from .sim.demo import demo_sim

        sock, self._demo_socket = self._demo_socket, None
        self._demo = demo_sim()
        await self._demo.start(sock=sock)

    @staticmethod
    def _report_unknown_options() -> None:
        for name in ctx.options.deferred:
            near = difflib.get_close_matches(name, [*options.NAMES, *ctx.options.keys()], 1)
            hint = f", did you mean {near[0]}?" if near else ""
            logger.warning("--set %s: there is no such option%s", name, hint)


# The stand-in is stopped in the background: these tasks must not be forgotten.
_stopping: set[asyncio.Task[None]] = set()


def mode_spec(settings: options.Settings, upstream: options.Upstream) -> str:
    """Give mitmproxy's mode."""
    return f"reverse:{upstream.origin}@{settings.listen}"


async def _report(services: Services, *, demo: bool) -> None:
    settings = services.settings
    if settings.loops:
        logger.warning(options.LOOPS.format(settings.lmstudio_url))
        return
    if settings.api_key == PLACEHOLDER:
        logger.warning(
            "The key that clients need is the one of the ready configuration: choose another (option api_key)."
        )
    elif settings.api_key:
        logger.info("Clients need the key (option api_key).")
    if not settings.listen.is_loopback and not settings.api_key:
        logger.info(
            "Serving on %s without a key: everybody on this network can use it (option api_key).",
            settings.listen,
        )
    if demo:
        logger.info(
            "DEMO: the answers come from the built-in stand-in, not from LM Studio and not from a language model."
        )
    try:
        catalog = await services.catalog.refresh()
    except LMStudioError as e:
        logger.warning("%s", e.message)
        return
    logger.info("%d models at %s.", len(catalog.models), services.client.url)
    for skipped in catalog.skipped:
        logger.warning("LM Studio lists a model that cannot be used: %s", skipped)
