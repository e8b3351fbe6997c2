"""Starting: the options, the mode that mitmproxy serves in, the demo's stand-in, the doctor, and what the log says."""

from __future__ import annotations

import asyncio
import difflib
import errno
import logging
import os
import re
import socket
import sys
from collections.abc import Container
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader

from . import container, options, streams
from .inspect import doctor
from .internals import connections, deferred_options, dumper, interface, presence, servers, web_app
from .lmstudio.catalog import Catalog
from .lmstudio.errors import LMStudioError, LMStudioUnreachable
from .services import Services
from .tasks import Tasks
from .units import plural

logger = logging.getLogger(__name__)

# The modes of mitmproxy that no user has chosen: its default, and that of the command line tool, which opens no port.
NOT_CHOSEN: tuple[list[str], ...] = (["regular"], [])
# The key in configs/lan.yaml, which the user is to change.
PLACEHOLDER = "change-me"
# The columns of mitmweb's list, unless the user has chosen others. The comment has all the room that the time of day
# leaves (internals/web_page.py). It begins with what the status and the colours of mitmweb would say: a failure, or
# that the exchange waits for the user. The duration (`time`) goes on for ever where there is no response, as for a
# client that has left while a model was loaded.
WEB_COLUMNS = ["comment", "timestamp"]
# The options of mitmproxy that say where it serves and how LM Studio is reached, and one that must not be set.
OWN_OPTIONS = ("listen_host", "listen_port", "mode", "ssl_insecure", "stream_large_bodies")
# The attribute of mitmproxy's master by which a script that is loaded later knows that it has to serve again.
CLOSED = "_closed_without_bridge"
# The same, for the start of the script that was last given options which it can use.
SERVING = "_serving_bridge"
# The same, for the address that a script has told mitmproxy for its interfaces: it is no choice of the user's.
SHOWN = "_shown_address"
# The values of listen_host and listen_port that no user has changed.
NO_ADDRESS = ("", None)
# Set by the command line tool's --doctor; no setting, thus not in the table.
DOCTOR = "doctor"
STREAMING_OFF = (
    "The option stream_large_bodies has been switched off: larger requests would reach LM Studio untranslated, which "
    "answers with another model for one that it does not have. Answers are streamed whatever their size."
)
NOTHING_SERVED = (
    "The script is gone, cannot be loaded, or was given an option that it cannot use: nothing is served until it can. "
    "Mend that, and touch the script, or set the option."
)
# What mitmproxy and asyncio write before the reason, when a port cannot be listened on.
BIND_FAILURE = re.compile(
    r"^(?:\[Errno -?\d+\] )?.* failed to listen on (\S+) with (?:\[Errno -?\d+\] )?"
    r"(?:error while attempting to bind on address .*?\): )?"
)
IN_USE = "address already in use"
# Why a port that nobody listens on is refused.
RESERVED = (
    ". Another program has the port for itself, or Windows keeps it for another use "
    "(netsh interface ipv4 show excludedportrange tcp): choose another port."
)
PRIVILEGED = ". This port is the system's: choose one above 1023."
# Why an address cannot be listened on; a name has numbers of its own for that.
NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_AGAIN, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
NOT_HERE = ". This machine has no such address: serve on one that it has, 127.0.0.1 for this machine only or 0.0.0.0"
# How many ports after one that is taken are looked at for a free one.
PORTS_TO_TRY = 20
# mitmweb's own proxy has the port before its page's.
WEB_PORT_STEP = 2
# How long the program on a port that is taken may need to answer. It runs on this machine.
PORT_SECONDS = 0.5
NOT_REACHED = (
    "%s is %s, and clients on this machine that go there do not reach this bridge: this system lets several programs "
    "listen on port %d, each for other addresses. Stop that program, or serve on another port: %s"
)
UNREACHABLE_HINT = "If it runs elsewhere, set lmstudio_url. Until it answers, clients get this error."
# How often it is looked whether the port is still open.
OPEN_SECONDS = 1
# How long the line that tells what is served waits for LM Studio's list of models, to tell their number as well.
LOOK_SECONDS = 1
PAGE = "Conversations, answers and their timing as pictures: %s"
# How many files and sockets may be open, where the system allows so many: on macOS it begins with 256, and an exchange
# needs two. Go's programs, and so Ollama, raise it as well.
DESCRIPTORS = 10_240


class Bridge(Protocol):
    """What is begun: the bridge of exchanges/bridge.py."""

    services: Services
    tasks: Tasks
    is_serving: bool

    @property
    def is_configured(self) -> bool:
        """Whether there are settings."""

    def look_after_files(self) -> None:
        """Do what is to be done with files from now on."""


def add_options(loader: Loader) -> None:
    """Add the table's options to mitmproxy's."""
    for option in options.OPTIONS:
        default = options.default_of(option, os.environ)
        loader.add_option(option.name, option.typespec, default, option.help, option.choices)
        try:
            deferred_options.apply(option.name)
        except exceptions.OptionsError as e:
            logger.error("%s: %s", option.name, e)
            return
    loader.add_option(DOCTOR, bool, False, "Examine LM Studio, the port, the access and the state directory, and end.")


def allow_descriptors() -> None:
    """Raise the limit of open files and sockets, as far as the system lets a user do so."""
    if sys.platform == "win32":
        return
    import resource

    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def is_ollama(address: options.Listen) -> bool:
    """Return whether an Ollama server, or a bridge like this one, answers on an address of this machine."""
    try:
        async with asyncio.timeout(PORT_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                await reader.readuntil(b"Ollama is running")
            finally:
                writer.close()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    return True


class Startup:
    """Bring mitmproxy into the mode that serves Ollama's clients."""

    def __init__(self) -> None:
        self._failure_log = servers.FailureLog(self._server_failed)
        self._started_log = servers.StartedLog(self._says_itself)
        self._starting = True
        self._has_begun = False
        self._failed: list[str] = []
        self._reported_streaming = False
        self._listen = options.Listen("", 0)
        self._mode = ""
        self._demo_socket: socket.socket | None = None
        self._demo_port = 0
        self._told_of = ""
        self._demo: Any = None
        self._reopening = servers.Reopening()
        # Not cancelled by `stop`: the demo's server is stopped in one of them.
        self._tasks = Tasks()
        self._watches = Tasks()

    def check_web_port(self) -> None:
        """End the process with one line if mitmweb's page has no port: mitmproxy itself would end with a traceback."""
        reason = interface.page_failure()
        if reason is None:
            return
        host, port = ctx.options.web_host, ctx.options.web_port
        free = servers.free_port([host], range(port + WEB_PORT_STEP, port + WEB_PORT_STEP + PORTS_TO_TRY))
        why = "another program is there" if reason.errno == errno.EADDRINUSE else reason.strerror or str(reason)
        message = "mitmweb's page cannot be served on %s:%d: %s. Choose another port: --web-port %s"
        logger.error(message, host, port, why, "PORT" if free is None else free)
        _exit(1)

    def watch_log(self) -> None:
        """Hold back mitmproxy's lines about servers, and httpx's for each request; any text can be printed then."""
        streams.accept_any_text()
        self._failure_log.install()
        self._started_log.install()
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)

    def upstream(self, settings: options.Settings) -> options.Upstream:
        """Return the address of LM Studio; with `demo`, that of the stand-in, whose port is reserved here."""
        if not settings.demo:
            self._close_demo()
            self._report_removed(settings.lmstudio_url)
            return settings.lmstudio_url
        if self._demo_socket is None and self._demo is None:
            self._demo_socket = socket.socket()
            self._demo_socket.bind(("127.0.0.1", 0))
            # Connections made before the stand-in is up wait in the backlog.
            self._demo_socket.listen()
            self._demo_port = self._demo_socket.getsockname()[1]
        return options.Upstream("http", "127.0.0.1", self._demo_port)

    def _report_removed(self, upstream: options.Upstream) -> None:
        """Log, once for an address, that its path has been cut."""
        if upstream.removed and str(upstream) != self._told_of:
            self._told_of = str(upstream)
            logger.info(
                "lmstudio_url is the address of LM Studio's server, without %s: using %s", upstream.removed, upstream
            )

    def listening(self, given: options.Listen) -> options.Listen:
        """Return the address that is served on: mitmproxy's own options win over `listen`."""
        if not self._is_our_choice() and (address := servers.reverse_address()) is not None:
            return options.Listen(address[0] or options.EVERYWHERE_6, address[1] or given.port)
        host, port = NO_ADDRESS if _is_shown_address() else (ctx.options.listen_host, ctx.options.listen_port)
        return options.Listen((host or given.host).strip("[]"), given.port if port is None else port)

    def _is_our_choice(self) -> bool:
        """Whether the mode is mitmproxy's default or the one that this object has set, not the user's."""
        return list(ctx.options.mode) in (*NOT_CHOSEN, [self._mode])

    def _says_itself(self) -> bool:
        """Whether what is served is told by `serve`, so that mitmproxy need not."""
        return self._is_our_choice() and ctx.options.termlog_verbosity != "debug"

    def take_over(self, settings: options.Settings, upstream: options.Upstream) -> None:
        """Set mitmproxy's mode, unless the user has set one, and the other options that the addon relies on."""
        wanted, mode = mode_spec(settings, upstream), list(ctx.options.mode)
        changes: dict[str, Any] = {}
        # The wanted mode may be there already, set before the script was reloaded.
        is_ours = self._is_our_choice()
        if is_ours or mode == [wanted]:
            self._mode = wanted
            if mode != [wanted]:
                changes["mode"] = [wanted]
                servers.cancel_start()
        if is_ours:
            changes |= _shown_address(settings.listen)
        # "eager" connects to LM Studio first: while it is down, clients get an empty reply, and no hook runs.
        if ctx.options.connection_strategy != "lazy":
            changes["connection_strategy"] = "lazy"
        # Ollama and LM Studio speak HTTP/1.1 only; sealed headers and the last bytes of a stream are written for that.
        if ctx.options.http2:
            changes["http2"] = False
        # The guard against DNS rebinding reads the client's Host header.
        if not ctx.options.keep_host_header:
            changes["keep_host_header"] = True
        # In mitmweb's list, the comment says more than the path of the call to LM Studio.
        if "web_columns" in ctx.options and list(ctx.options.web_columns) == list(ctx.options.default("web_columns")):
            changes["web_columns"] = WEB_COLUMNS
        # mitmproxy sends a larger request on as it comes, before it could be translated, and its model looked up.
        if ctx.options.stream_large_bodies:
            changes["stream_large_bodies"] = None
            if not self._reported_streaming:
                self._reported_streaming = True
                logger.warning(STREAMING_OFF)
        self._listen = settings.listen
        vars(ctx.master)[SERVING] = self
        if changes:
            ctx.options.update(**changes)

    def close_if_alone(self, busy: Container[str]) -> None:
        """Stop serving, unless the script is loaded again: mitmproxy alone would pass every request to LM Studio.

        The connections of the clients with the ids in `busy` stay open for their responses.
        """
        if vars(ctx.master).get(SERVING) is not self or not ctx.options.server:
            return
        logger.warning(NOTHING_SERVED)
        vars(ctx.master)[CLOSED] = True
        ctx.options.update(server=False)
        connections.close_clients(busy)

    def begin(self, bridge: Bridge) -> None:
        """Serve, once, as soon as mitmproxy runs and there are settings.

        A script that is loaded anew while an option is wrong has them later.
        """
        if self._has_begun or not (bridge.is_serving and bridge.is_configured):
            return
        self._has_begun = True
        if vars(ctx.master).pop(CLOSED, False):
            ctx.options.update(server=True)
        bridge.tasks.spawn(self.serve(bridge.services))
        # The doctor changes nothing, and a mitmproxy that only opens a file of flows is no server.
        if ctx.options.server and not ctx.options.doctor:
            bridge.look_after_files()

    async def serve(self, services: Services) -> None:
        """Serve in the mode that was set, also where mitmproxy started in another, and log what the user should know.

        With the option `doctor`, examine everything and end the process instead.
        """
        allow_descriptors()
        try:
            if ctx.options.server and not await servers.start():
                await self._give_up()
                return
        finally:
            self._starting = False
        self._report_unknown_options()
        await self._start_demo()
        if ctx.options.doctor:
            await _diagnose(services)
        # A mitmproxy that only opens a file of flows needs no LM Studio.
        elif ctx.options.server:
            self._watches.spawn(self._keep_open())
            self._watches.spawn(self._ask_who_answers())
            await _report(services, demo=self._demo is not None)
        if interface.page() and not ctx.options.doctor:
            logger.info(PAGE, web_app.page_url(interface.page()))

    async def _ask_who_answers(self) -> None:
        """Say so, if clients on this machine reach another program at the address that is served."""
        for address in self._listen.reached_by:
            if await presence.at(address.host, address.port) is presence.Presence.ANOTHER:
                holder = await doctor.holder_of(address)
                logger.error(NOT_REACHED, address, holder.partition(":")[0], address.port, _listen_flag("HOST:PORT"))

    async def _keep_open(self) -> None:
        """Open ports again that were closed without being stopped, and say so."""
        while True:
            await asyncio.sleep(OPEN_SECONDS)
            opened, failed = await self._reopening.look()
            for port in opened:
                logger.warning("The system had closed port %d. It is open again.", port)
            for message in failed:
                reason = BIND_FAILURE.sub(r"\1: ", message)
                logger.error("The system has closed a port, and it cannot be opened again yet: %s", reason)

    def _server_failed(self, message: str) -> None:
        # To stop a server that does not run is an error without a text.
        if not message:
            return
        if self._starting:
            self._failed.append(message)
        else:
            self._tasks.spawn(self._report_failure(message))

    async def _give_up(self) -> None:
        """Report why a server does not run, and end the process with status 1.

        Errors that were held back about other servers are dropped: before the script is loaded, mitmproxy 12 starts one
        on port 8080.
        """
        messages = [*servers.failures()] or self._failed
        reported = [await self._report_failure(message) for message in messages]
        _exit("\n".join(reported) if interface.hides_log() else 1)

    async def _report_failure(self, message: str) -> str:
        """Log why a server does not run, naming an Ollama server that has the port; return what was logged."""
        port, reason = servers.failures().get(message), servers.errno_of(message)
        message = BIND_FAILURE.sub(r"Cannot serve on \1: ", message)
        if reason == errno.EADDRINUSE:
            # The system's own words are of its language, and Windows' do not say it shortly.
            message = f"{message.partition(': ')[0]}: {IN_USE}"
        elif reason == errno.EACCES:
            message += RESERVED if sys.platform == "win32" else PRIVILEGED
        elif reason == errno.EADDRNOTAVAIL:
            # What is said then is the system's or asyncio's, and no more than this.
            message = message.partition(": ")[0] + NOT_HERE
        elif reason in NO_SUCH_NAME:
            message += NOT_HERE
        if port and port == self._listen.port and reason == errno.EADDRINUSE:
            is_known = await is_ollama(self._listen.local)
            program = "An Ollama server, or another bridge like this one," if is_known else "Another program"
            hosts = [address.host for address in (self._listen, *self._listen.reached_by)]
            free = servers.free_port(hosts, range(port + 1, port + 1 + PORTS_TO_TRY))
            other = "HOST:PORT" if free is None else str(replace(self._listen, port=free))
            message += (
                f". {program} answers on port {port} already: stop it, or serve on another port: {_listen_flag(other)}"
            )
        logger.error("%s", message)
        return message

    def stop(self) -> None:
        """Stop the stand-in, keep no port open, and hold back no more errors."""
        self._watches.cancel()
        self._failure_log.remove()
        self._started_log.remove()
        self._close_demo()

    def _close_demo(self) -> None:
        if self._demo_socket is not None:
            self._demo_socket.close()
            self._demo_socket = None
        if self._demo is not None:
            self._tasks.spawn(self._demo.stop())
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
        for name in deferred_options.unknown():
            near = difflib.get_close_matches(name, [*options.NAMES, *ctx.options.keys()], 1)
            hint = f", did you mean {near[0]}?" if near else ""
            logger.warning("--set %s: there is no such option%s", name, hint)


def _listen_flag(value: str) -> str:
    """Return how the user sets `listen`: the command line tool has a flag for it, mitmproxy's own programs have not."""
    program = Path(sys.argv[0])
    is_tool = program.stem.startswith(options.APP_NAME) or program.parent.name == __package__
    return f"{'--listen ' if is_tool or getattr(sys, 'frozen', False) else '--set listen='}{value}"


def mode_spec(settings: options.Settings, upstream: options.Upstream) -> str:
    """Return mitmproxy's mode.

    It takes an IPv6 address without brackets. Its sockets of IPv6 have no IPv4, so that every address of both is told
    as no address.
    """
    host, port = settings.listen.host, settings.listen.port
    return f"reverse:{upstream.origin}@{'' if host == options.EVERYWHERE_6 else host}:{port}"


def _is_shown_address() -> bool:
    """Whether mitmproxy's options of the address hold nothing of the user's."""
    return (ctx.options.listen_host, ctx.options.listen_port) in (NO_ADDRESS, vars(ctx.master).get(SHOWN))


def _shown_address(listen: options.Listen) -> dict[str, Any]:
    """Return the options that make mitmweb show the address, unless the user has set them.

    mitmweb shows them, or `*:8080`, whatever mode it serves in. The mode has an address of its own.
    """
    shown = ("" if listen.host in options.ANYWHERE else listen.host, listen.port)
    if not _is_shown_address() or (ctx.options.listen_host, ctx.options.listen_port) == shown:
        return {}
    vars(ctx.master)[SHOWN] = shown
    return dict(zip(("listen_host", "listen_port"), shown, strict=True))


def _exit(status: int | str) -> None:
    """End the process with a status, or with status 1 and a text on stderr."""
    # Raised in a task, SystemExit would be reported as the failure of that task.
    asyncio.get_running_loop().call_soon(sys.exit, status)


async def _diagnose(services: Services) -> None:
    """Print what the doctor finds, and end the process: with status 1 if something is wrong."""
    status = 1
    try:
        found = await doctor.examine(services, serving=None)
        dumper.Output(sys.stdout).write("".join(f"{finding}\n" for finding in found))
        status = int(any(finding.verdict == "problem" for finding in found))
    finally:
        _exit(status)


async def _report(services: Services, *, demo: bool) -> None:
    """Log what serves what, who may come in, and what is wrong with LM Studio."""
    settings = services.settings
    if settings.loops:
        logger.warning(options.LOOPS.format(settings.lmstudio_url))
        return
    lmstudio = "the built-in stand-in" if demo else f"LM Studio at {services.client.url}"
    looking = asyncio.ensure_future(services.catalog.refresh())
    try:
        is_late = not (await asyncio.wait({looking}, timeout=LOOK_SECONDS))[0]
        found = "" if is_late or looking.exception() is not None else f" ({_count(looking.result())})"
        logger.info("http://%s serves Ollama's API in front of %s%s", settings.listen.named, lmstudio, found)
        if demo:
            logger.info(
                "DEMO: the answers come from the built-in stand-in, not from LM Studio and not from a language model."
            )
        _report_access(services)
        await _report_models(looking, lmstudio, is_late=is_late)
    finally:
        # A script that is loaded anew looks by itself.
        looking.cancel()


async def _report_models(looking: asyncio.Future[Catalog], lmstudio: str, *, is_late: bool) -> None:
    """Log what is wrong with LM Studio or its list, once it is there."""
    try:
        catalog = await looking
    except LMStudioError as e:
        said = [e.message]
        if isinstance(e, LMStudioUnreachable):
            said += [container.LMSTUDIO_HINT, UNREACHABLE_HINT] if container.is_container() else [UNREACHABLE_HINT]
        logger.warning(" ".join(said))
        return
    if is_late:
        logger.info("%s has answered (%s)", lmstudio, _count(catalog))
    for skipped in catalog.skipped:
        logger.warning("LM Studio lists a model that cannot be used: %s", skipped)


def _count(catalog: Catalog) -> str:
    count = len(catalog.models)
    return f"{count} {plural(count, 'model')}" if count else "no models yet: download one there"


def _report_access(services: Services) -> None:
    settings, listen = services.settings, services.settings.listen
    for text in (*services.keys.problems(), *services.keys.open_files()):
        logger.warning("api_keys: %s", text)
    if settings.api_key == PLACEHOLDER:
        logger.warning(
            "api_key is the one of the example in configs/lan.yaml, which anybody can look up: choose another."
        )
    elif settings.api_keys:
        # Where there are none, that has been said.
        if owners := [*services.keys.names, *(["api_key"] if settings.api_key else [])]:
            logger.info("Clients need a key (option api_keys): that of %s.", ", ".join(owners))
    elif settings.api_key:
        logger.info("Clients need the key (option api_key).")
    elif listen.is_loopback:
        return
    elif container.is_container():
        logger.info("%s.", container.NO_KEY.capitalize())
    else:
        logger.info(
            "Everybody on this network can use it without a key: set api_key to ask for one, or listen=127.0.0.1:%d "
            "to serve this machine only.",
            listen.port,
        )
