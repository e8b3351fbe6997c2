"""The stand-in itself: its settings, what tests ask of it, and the way of a request through it."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import fields
from types import TracebackType
from typing import Any, TypeVar

from .backend import Backend, Overflow, Script, Settings, matches
from .connection import Connection, Recorded, SimExchange
from .engine import CRASHED, UNLOADED
from .faults import NO_FAULT, Fault, Loss, Match
from .generate import Generator, Prompt, Step, default_answer
from .models import SimModel, Version
from .routes import INFERENCE_PATHS, find_route
from .state import DEFAULT_TTL, Instance, SimDownload, SimState
from .wire import JSON_TYPE, ApiError, parse_json, stringify

logger = logging.getLogger(__package__)

TOKEN_REQUIRED = (
    "An LM Studio API token is required to make requests to this server, but none was provided using the "
    "Authorization header using the 'Bearer' scheme (i.e., 'Authorization: Bearer $LM_API_TOKEN'). "
    "Learn more at: https://lmstudio.ai/docs/developer/core/authentication."
)
TOKEN_MALFORMED = "Malformed LM Studio API token provided: {start}**************. Ensure you are using a valid token."
OPEN_PATHS = ("/lmstudio-greeting",)

Result = TypeVar("Result")


STATE_SETTINGS = (
    "jit",
    "auto_evict",
    "default_ttl",
    "abort_concurrent_loads",
    "memory",
    "preferred_device",
    "lists_each_device",
)


class Sim(Backend):
    """A stand-in for LM Studio's server.

    `models` are on disk, here or on a linked device; those with `loaded` are loaded. `preferred_device` is which device
    a key is for that several have, and `lists_each_device` whether such a key is listed for each of them. `auth` is a
    set of accepted tokens. `clock` is what time to live and downloads go by. `token_delay` is in seconds. `coalesce` is
    how many tokens go out in one write. `keep_alive` is how long an idle connection is kept. `preamble` begins every
    default answer.
    """

    def __init__(
        self,
        models: Iterable[SimModel] = (),
        *,
        jit: bool = True,
        auto_evict: bool = True,
        default_ttl: float = DEFAULT_TTL,
        abort_concurrent_loads: bool = False,
        preferred_device: str | None = None,
        lists_each_device: bool = True,
        auth: Collection[str] | None = None,
        cors: bool = False,
        separate_reasoning: bool = True,
        version: str = "0.4.25",
        clock: Callable[[], float] = time.monotonic,
        token_delay: float = 0.0,
        coalesce: int = 1,
        overflow: Overflow | None = None,
        keep_alive: float = 5.0,
        downloads: Iterable[SimDownload] = (),
        generator: Generator | None = None,
        preamble: str = "",
    ) -> None:
        number = Version(version)
        if overflow is None:
            overflow = "cut" if number.is_bionic else "error"
        settings = Settings(auth, cors, separate_reasoning, token_delay, coalesce, overflow)
        state = SimState(
            models,
            version=number,
            clock=clock,
            downloads=downloads,
            jit=jit,
            auto_evict=auto_evict,
            default_ttl=default_ttl,
            abort_concurrent_loads=abort_concurrent_loads,
            preferred_device=preferred_device,
            lists_each_device=lists_each_device,
        )
        generator = generator or functools.partial(default_answer, preamble=preamble)
        super().__init__(number, settings, state, generator)
        self.keep_alive = keep_alive
        self.requests: list[Recorded] = []
        self.faults: list[Fault] = []
        self.connections = 0
        self.failures: list[Exception] = []
        self.url = ""
        self._open: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # Life

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, sock: socket.socket | None = None) -> None:
        """Serve on an address, or on a socket that is bound already. Raises OSError."""
        self._loop = loop = asyncio.get_running_loop()
        if sock is None:
            self._server = await loop.create_server(lambda: Connection(self), host, port)
        else:
            self._server = await loop.create_server(lambda: Connection(self), sock=sock)
        address = self._server.sockets[0].getsockname()
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.url = f"http://{name}:{address[1]}"

    async def stop(self) -> None:
        """Close everything: the socket, the connections and what goes on in the background."""
        if self._server is None:
            return
        await self._accept_no_more(self._server)
        self._server.close()
        connections = list(self._open)
        for connection in connections:
            connection.shut()
        await asyncio.gather(
            *(connection.task for connection in connections if connection.task), return_exceptions=True
        )
        await self.engine.stop()
        await self._server.wait_closed()
        self._server = self._loop = None

    async def _accept_no_more(self, server: asyncio.Server) -> None:
        # What asyncio has accepted becomes a connection two turns of its loop later: if the server is closed by then,
        # nobody closes the client's socket.
        loop = asyncio.get_running_loop()
        for sock in server.sockets:
            with suppress(NotImplementedError):  # on Windows, whose loop has nothing for that
                loop.remove_reader(sock)
        for _ in range(3):
            await asyncio.sleep(0)

    async def __aenter__(self) -> Sim:
        if self._server is None:
            await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    # What tests ask; from any thread

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def active(self) -> int:
        """How many requests are being answered."""
        return sum(connection.is_busy for connection in list(self._open))

    @property
    def instances(self) -> list[Instance]:
        """The loaded instances, in the order they were loaded."""
        return self._in_loop(self.state.loaded)

    def clear(self) -> None:
        """Forget the recorded requests."""
        self.requests.clear()

    def script(
        self,
        steps: Iterable[Step] | Callable[[Prompt], Iterable[Step]],
        match: Match = None,
        times: int | None = None,
    ) -> Script:
        """Answer requests with these steps: whose prompt has the text `match`, or whose body it is true for.

        The first script that matches is used, `times` times if given. Return it; `sim.scripts` has them all.
        """
        script = Script(steps if callable(steps) else list(steps), match, times)
        self.scripts.append(script)
        return script

    def fault(self, fault: Fault | None = None, **fields: Any) -> Fault:
        """Add a Fault, or one of these fields, and return it; `sim.faults` has them all."""
        fault = fault or Fault(**fields)
        self.faults.append(fault)
        return fault

    def set(self, **changes: Any) -> None:
        """Change settings: those of `Settings`, and those in STATE_SETTINGS. Raises TypeError for others."""
        known = {field.name for field in fields(Settings)}
        for name, value in changes.items():
            if name not in known and name not in STATE_SETTINGS:
                raise TypeError(f"no such setting: {name}")
            setattr(self.state if name in STATE_SETTINGS else self.settings, name, value)

    def load(
        self,
        key: str,
        *,
        context_length: int | None = None,
        instance_id: str | None = None,
        jit: bool = False,
        ttl: float | None = None,
        device: str = "",
    ) -> Instance:
        """Load a model at once, as a user does in the app, of a device. Raises KeyError for an unknown key."""
        model = {(model.device, model.key): model for model in self.state.on_disk()}[device, key]
        return self._in_loop(
            lambda: self.state.add(model, jit=jit, ttl=ttl, context_length=context_length, instance_id=instance_id)
        )

    def unload(self, instance_id: str) -> None:
        """Unload an instance at once, as a user does in the app; answers under way end with an error."""
        self._in_loop(lambda: self.engine.remove(self._instance(instance_id), UNLOADED))

    def download(self, model: SimModel) -> None:
        """Have a model on disk at once, as after a download in the app."""
        self._in_loop(lambda: self.state.models.__setitem__(model.key, model))

    def delete(self, key: str) -> None:
        """Delete a model from disk, as a user does in the app, and unload it. Raises KeyError for an unknown key."""
        for instance in self.state.instances_of(self.state.models[key]):
            self.unload(instance.id)
        self._in_loop(lambda: self.state.models.pop(key))

    def crash(self, instance_id: str) -> None:
        """Crash a model: its instance is gone, and answers under way end with an error."""
        self._in_loop(lambda: self.engine.remove(self._instance(instance_id), CRASHED))

    def disconnect(self, device: str, *, how: Loss = "error", listed: bool = False) -> None:
        """Lose a linked device: its answers under way end as `how` says, and its models are not listed any more.

        With `listed` they are, as before LM Studio has noticed it. Loads fail, and no instance is listed.
        """
        self._in_loop(lambda: self.engine.disconnect(device, how=how, listed=listed))

    def connect(self, device: str) -> None:
        """Have a linked device back, with what it has loaded."""
        self._in_loop(lambda: self.state.connect(device))

    def wedge(self, instance_id: str) -> None:
        """Make the engine of an instance fail every request until the model is loaded anew."""
        self._in_loop(lambda: setattr(self._instance(instance_id), "wedged", True))

    def _instance(self, instance_id: str) -> Instance:
        instance = self.state.instance(instance_id)
        if instance is None:
            raise KeyError(instance_id)
        return instance

    def _in_loop(self, function: Callable[[], Result]) -> Result:
        """Call a function where the server runs, and wait for it."""
        loop = self._loop
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if loop is None or loop is here:
            return function()

        async def call() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), loop).result()

    # Connections

    def opened(self, connection: Connection) -> None:
        """Add a connection."""
        self.connections += 1
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self._open.discard(connection)

    def early_fault(self, record: Recorded, *, reused: bool) -> Fault:
        """Return the fault to apply before a body is read; `reused`: the connection had an earlier request."""
        return self._take_fault(
            record, lambda fault: fault.is_early and fault.match is None and (reused or not fault.stale)
        )

    def _take_fault(self, record: Recorded, fits: Callable[[Fault], bool]) -> Fault:
        inference = is_inference(record)
        for fault in self.faults:
            if fault.applies_to(record.path, inference) and fits(fault):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return NO_FAULT

    # Requests

    async def handle(self, exchange: SimExchange) -> None:
        """Answer a request, and record it."""
        record = exchange.record
        try:
            record.json = parse_json(record.body) if record.body else None
        except (ValueError, RecursionError):
            record.json = None
        self.requests.append(record)
        try:
            await self._answer(exchange)
        except ApiError as problem:
            await exchange.reply_json(problem.status, problem.body, indent=problem.indent, extra=self.extra_headers)
        except Exception as problem:
            # A mistake in the stand-in or in a script: the test that made it should see it.
            logger.exception("%s %s", record.method, record.path)
            self.failures.append(problem)
            if not exchange.begun:
                await exchange.reply_json(500, {"error": repr(problem)}, extra=self.extra_headers)
            else:
                exchange.drop()

    async def _answer(self, exchange: SimExchange) -> None:
        record = exchange.record
        if exchange.fault is NO_FAULT:
            text = record.body.decode(errors="replace")
            exchange.fault = self._take_fault(
                record, lambda fault: not fault.is_early and matches(fault.match, text, record.json)
            )
        if await self._obstruct(exchange):
            return
        if self.settings.cors and record.method == "OPTIONS":
            await exchange.reply_empty(204, self.extra_headers)
            return
        self._check_token(record)
        route, found = find_route(record.method, record.path, self.version)
        if route is None or found is None:
            logger.info("Unexpected endpoint or method. (%s %s). Returning 200 anyway", record.method, record.path)
            await self.unknown_route(exchange)
            return
        if isinstance(record.json, dict) and route.known_keys:
            record.ignored = tuple(key for key in record.json if key not in route.known_keys)
        await route.handle(self, exchange, found)

    async def unknown_route(self, exchange: SimExchange) -> None:
        """Answer as LM Studio does where it serves nothing: 200, and an error."""
        record = exchange.record
        body = {"error": f"Unexpected endpoint or method. ({record.method} {record.path})"}
        await exchange.reply(200, JSON_TYPE, stringify(body), self.extra_headers)

    async def _obstruct(self, exchange: SimExchange) -> bool:
        """Apply a fault that strikes before LM Studio sees the request; return whether the request ended with it."""
        fault, record = exchange.fault, exchange.record
        upgrade = record.header("upgrade") and not self.version.has("upgrade_ignored")
        if fault.hang == "headers":
            exchange.open_stream(self.extra_headers)
            await exchange.flush()
        if fault.hang or upgrade:
            await exchange.wait_for_client()
        if fault.disconnect and fault.disconnect.how == "before_headers":
            exchange.drop()
        elif refusal := fault.refusal:
            await exchange.reply(*refusal)
        elif fault.ok_error:
            await self.unknown_route(exchange)
        else:
            return False
        return True

    def _check_token(self, record: Recorded) -> None:
        accepted = self.settings.auth
        if accepted is None or record.path in OPEN_PATHS:
            return
        scheme, _, token = (record.header("authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            token = record.header("x-api-key") or "" if record.path == "/v1/messages" else ""
        if token in accepted:
            return
        message = TOKEN_MALFORMED.format(start=token[:10]) if token else TOKEN_REQUIRED
        raise ApiError(401, {"error": {"type": "invalid_request", "code": "invalid_api_key", "message": message}})


def is_inference(record: Recorded) -> bool:
    """Return whether a request is one that models answer."""
    return record.method == "POST" and record.path.rstrip("/").lower() in INFERENCE_PATHS


class SimThread:
    """A Sim that runs in a thread of its own, for tests that do not run an event loop.

    `with SimThread(models=[...]) as sim` gives the Sim; the arguments are those of Sim.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.sim = Sim(*args, **settings)
        self._stop: Callable[[], object] = lambda: None
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=__package__, daemon=True)

    def __enter__(self) -> Sim:
        self._thread.start()
        self._ready.wait()
        if self._problem:
            raise self._problem
        return self.sim

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._thread.join()
        if self._problem:
            raise self._problem

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as problem:
            self._problem = problem
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        self._stop = functools.partial(loop.call_soon_threadsafe, stopped.set)
        async with self.sim:
            self._ready.set()
            await stopped.wait()
