"""What all exchanges share."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mitmproxy import http

from .. import __version__, access, options
from ..internals import connections, servers
from ..internals.limits import HeadLimit
from ..keys import Keyring
from ..lmstudio.cache import CatalogCache
from ..lmstudio.client import Client, ClientCall
from ..record.record import Record
from ..record.statistics import Statistics
from ..services import Clock, Services
from ..state import aliases, blobs, former, unneeded
from ..state.aliases import AliasStore
from ..tasks import Tasks
from ..translate import former_aliases
from ..translate.names import Resolver
from . import loopback
from .conversations import Conversations
from .garbage import Garbage
from .own_calls import OwnCalls
from .watch import Waits, Watch

if TYPE_CHECKING:
    from ..record.metrics import Metrics

logger = logging.getLogger(__name__)

# LM Studio closes a connection that was idle for 5 s.
IDLE_SECONDS = 4
# How often it is looked whether another bridge with the same state directory has gone.
TAKE_OVER_SECONDS = 5.0
# How often blobs are looked at: they are kept for a day.
CLEANING_SECONDS = 3600
# How long the start waits for a process that moves the same aliases, and how often it is tried again after that.
LOCK_SECONDS = 1.0
NO_LIBRARY = (
    "metrics: the library for it, {}, is not installed: pip install prometheus-client in this environment, or install "
    "ollama-lmstudio-proxy with its extra `metrics`, or set metrics=off"
)
# How often the files of keys are looked at.
LOOK_SECONDS = 1


class Label(Protocol):
    """Set the comment and mark of a flow; `record` is what its metadata holds, and None to read it there."""

    def __call__(self, flow: http.HTTPFlow, record: Record | None = None) -> None: ...


def _say_nothing(flow: http.HTTPFlow, record: Record) -> None:
    pass


class IdleConnections:
    """Since when clients' connections to LM Studio are idle.

    One that LM Studio is about to close must not carry a request: a POST that is lost on it cannot be sent again.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def left_by(self, flow: http.HTTPFlow) -> None:
        """Note that a flow has left its connection behind, unless its client is gone."""
        if flow.client_conn.connected:
            self._since[flow.client_conn.id] = time.monotonic()

    async def drop_old(self, flow: http.HTTPFlow) -> None:
        """Close the connection that an earlier flow of the same client left, if that is too long ago."""
        since = self._since.pop(flow.client_conn.id, None)
        if since is not None and time.monotonic() - since > IDLE_SECONDS:
            await connections.drop_idle(flow)

    def forget(self, client_id: str) -> None:
        """Forget a client that is gone."""
        self._since.pop(client_id, None)


class Bridge:
    """What all exchanges share: the settings and services, the loopback service, tasks and clocks.

    `label` is called with every flow whose record has changed, to set its comment and mark; `waits` with one that waits
    long, where there is no list of flows.
    """

    services: Services
    upstream: options.Upstream
    gate: access.Gate

    def __init__(self, label: Label, waits: Waits = _say_nothing) -> None:
        self.label = label
        self.waits = waits
        self.keys = Keyring()
        self.is_serving = False
        self.is_draining = False
        """Whether the process is about to end: each connection is closed with the answer that is under way on it."""
        self.clock = Clock()
        self.tasks = Tasks()
        self.watch = Watch(lambda: self.clock.monotonic(), self.tasks, lambda flow, record: self.waits(flow, record))
        self.own_calls = OwnCalls(self.watch, self.tasks, label)
        self.garbage = Garbage()
        self.conversations = Conversations()
        self.statistics = Statistics(time.time())
        self.metrics: Metrics | None = None
        """The numbers for Prometheus; None where the option `metrics` is off."""
        self.idle_connections = IdleConnections()
        self.retries = asyncio.Lock()
        """Held by the call that is sent once more because its model was evicted."""
        self._head_limit = HeadLimit()
        self._loopback: loopback.Loopback | None = None
        self._reached: tuple[str, str, bool] | None = None

    @property
    def is_configured(self) -> bool:
        """Whether there are settings."""
        return self._reached is not None

    @property
    def loopback(self) -> loopback.Loopback:
        """The loopback service. What it is made of is loaded for the first request that needs it."""
        if self._loopback is None:
            self._loopback = loopback.Loopback()
        return self._loopback

    def configure(self, settings: options.Settings, upstream: options.Upstream, *, insecure: bool) -> None:
        """Use the settings from now on. What is under way goes on, unless LM Studio is another one.

        `insecure` is whether LM Studio's certificate is not verified. Raise ValueError, before anything is changed, if
        a file of keys cannot be used, or the library of the metrics is missing.
        """
        is_same = settings.api_keys == self.keys.sources
        # A script that is loaded anew has no start to end: without its options it would answer nothing.
        is_loaded_anew = self._reached is None and servers.is_serving()
        keys = self.keys if is_same else Keyring(settings.api_keys, must_be_whole=not is_loaded_anew)
        self._use_metrics(settings.metrics)
        self.keys = keys
        self.upstream = upstream
        self._head_limit.install(settings.max_header_size)
        self.gate = access.Gate.make(
            settings.allowed_origins,
            settings.allowed_hosts,
            settings.api_key,
            self.keys,
            loopback=settings.listen.is_loopback,
        )
        reached = (str(upstream), settings.lmstudio_token, insecure)
        if reached == self._reached:
            self._update(settings)
            return
        if self._reached:
            self._disconnect()
        self._reached = reached
        client = Client(
            str(upstream),
            settings.lmstudio_token or None,
            verify=not insecure,
            on_call=self.show_call,
        )
        catalog = CatalogCache(client, settings.model_resolution_cache_ttl_seconds, Resolver)
        store = AliasStore(settings.state_dir.data)
        self.services = Services(
            settings,
            client,
            catalog,
            store,
            self.clock,
            upstream.shared_name,
            keys=self.keys,
            metrics=self.metrics,
        )

    def _use_metrics(self, chosen: str) -> None:
        """Count for Prometheus, or no more; raise ValueError if its library is missing."""
        if chosen == options.METRICS_OFF:
            self.metrics = None
        elif self.metrics is None:
            try:
                # Its library, which most do without, takes 20 ms.
                from ..record.metrics import Metrics
            except ImportError as e:
                raise ValueError(NO_LIBRARY.format(e.name or e)) from None
            self.metrics = Metrics(__version__, self._known_model, lambda: self.watch.under_way)

    def _known_model(self, name: str) -> str:
        """Return the key of a model in LM Studio's list; an empty string for any other."""
        catalog = self.services.catalog.last
        model = catalog.owner(name) if catalog else None
        return model.key if model else ""

    def _update(self, settings: options.Settings) -> None:
        services, before = self.services, self.services.settings
        services.settings, services.keys, services.metrics = settings, self.keys, self.metrics
        services.catalog.ttl_seconds = settings.model_resolution_cache_ttl_seconds
        if settings.state_dir != before.state_dir:
            services.aliases = AliasStore(settings.state_dir.data)
            services.share()
            if self.is_serving:
                self.take_over_aliases()

    def _disconnect(self) -> None:
        self.services.lifetimes.stop()
        self.services.client.close_soon()

    def stop(self) -> None:
        """End all that is not an exchange: tasks, the loopback service, the connections of our own."""
        self.own_calls.stop()
        self._head_limit.remove()
        self.tasks.cancel()
        self.stop_loopback()
        if self._reached:
            self._disconnect()

    def stop_loopback(self) -> None:
        """End what the loopback service serves, with an error for each client."""
        if self._loopback is not None:
            self._loopback.stop()

    def look_after_files(self) -> None:
        """Move what is kept elsewhere; from now on remove what is not needed, read what has changed, and take over."""
        self.take_over_aliases()
        self.tasks.spawn(self.remove_unneeded_blobs())
        self.tasks.spawn(self.watch_keys())
        self.tasks.spawn(self.look_after_others())

    def take_over_aliases(self) -> None:
        """Move the aliases from where they were kept before, if there are any, before a request needs them.

        Where another process holds a lock for longer than a start may take, requests are answered without them till
        then.
        """
        store, directories = self.services.aliases, self.services.settings.state_dir.former
        if not any(map(aliases.are_in, directories)):
            return
        if waiting := former.move(store, directories, former_aliases.parse, LOCK_SECONDS):
            for directory in waiting:
                former.report_waiting(directory, store)
            self.tasks.spawn(self._take_over_later(store, waiting))

    async def _take_over_later(self, store: AliasStore, waiting: list[Path]) -> None:
        while waiting:
            await asyncio.sleep(LOCK_SECONDS)
            # Without waiting for a lock: the process ends no sooner than its threads.
            waiting = await asyncio.to_thread(former.move, store, waiting, former_aliases.parse, 0)

    async def look_after_others(self) -> None:
        """Take over what bridges leave that go, now and from time to time."""
        while True:
            self.services.lifetimes.take_over()
            await asyncio.sleep(TAKE_OVER_SECONDS)

    async def remove_unneeded_blobs(self) -> None:
        """Remove the blobs that no alias needs, now and every hour."""
        while True:
            directory = blobs.directory_in(self.services.settings.state_dir.cache)
            await asyncio.to_thread(unneeded.remove_old, self.services.aliases, directory)
            await asyncio.sleep(CLEANING_SECONDS)

    async def watch_keys(self) -> None:
        """Read the files of keys again when they have changed."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.keys.sources.files:
                for message in await asyncio.to_thread(self.keys.look):
                    logger.log(message.level, "%s", message.text)

    def show_call(self, call: ClientCall) -> None:
        """Show a call that the bridge makes on its own, when it begins and when it has ended."""
        if self.metrics is not None and call.ended:
            self.metrics.add_call(call)
        settings = self.services.settings
        self.own_calls.show(call, settings.own_calls if self.is_serving else "none", settings.max_kept_size)
