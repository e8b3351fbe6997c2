"""Running models: loads that others wait for, slots, and answers that end when model or client goes."""

from __future__ import annotations

import asyncio
import codecs
import random
import string
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

from .answer import Dialect
from .connection import SimExchange
from .faults import NO_FAULT, Disconnect, Loss
from .generate import Delta, ErrorStep, Event, HangupStep, RawStep, SleepStep, ToolDelta, WaitStep
from .models import SimModel
from .state import LINK_LOST, Instance, Loading, SimState
from .wire import Headers, JsonObject

UNLOADED = "Model unloaded."
CRASHED = "The model has crashed without additional information. (Exit code: 6)"
WEDGED = "Engine protocol predict request failed: fetch failed"
# How often a step that waits for an event looks at it: another thread sets it.
LOOK_SECONDS = 0.01

T = TypeVar("T")


async def outlived(task: asyncio.Task[T]) -> T:
    """Return the result of a task that goes on when who waits for it is cancelled.

    Of one that is shielded and fails then, asyncio complains since Python 3.14.
    """
    await asyncio.wait([task])
    return task.result()


class GenerationError(Exception):
    """The generation ends with an error; `how` it does may be that the client is not told."""

    def __init__(self, message: str, status: int = 400, how: Loss = "error") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.how: Loss = how


class LoadError(Exception):
    """A model could not be loaded."""

    def __init__(self, model: SimModel, reason: str) -> None:
        super().__init__(reason)
        self.model = model
        self.reason = reason


class Run:
    """One request that uses an instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.prefilled_at = 0.0
        self._killed = asyncio.Event()
        self._reason = ""
        self._how: Loss = "error"

    def kill(self, reason: str, how: Loss = "error") -> None:
        """End the run with an error."""
        self._reason, self._how = reason, how
        self._killed.set()

    def check(self) -> None:
        """Raise GenerationError if the run was killed."""
        if self._reason:
            raise GenerationError(self._reason, how=self._how)

    async def pause(self, seconds: float) -> None:
        """Wait, unless the run is killed. Raises GenerationError."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self._killed.wait(), seconds)
            except TimeoutError:
                return
        self.check()


class Engine:
    """Loads models and runs them."""

    def __init__(self, state: SimState, seed: int = 0) -> None:
        self.state = state
        self.random = random.Random(seed)
        self._loads: dict[SimModel, asyncio.Task[Instance | str]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._slots: dict[Instance, asyncio.Semaphore] = {}
        self._runs: defaultdict[Instance, set[Run]] = defaultdict(set)

    def new_id(self, length: int, alphabet: str = string.digits + string.ascii_lowercase) -> str:
        """Return an id. The same ids come in the same order each time."""
        return "".join(self.random.choices(alphabet, k=length))

    def new_call_id(self, model: SimModel) -> str:
        """Return the id of a tool call, in the way of the engine that runs the model."""
        if model.format == "mlx" or model.is_gpt_oss:
            return self.new_id(9, string.digits)
        return self.new_id(32, string.ascii_letters + string.digits)

    async def stop(self) -> None:
        """Cancel what goes on in the background."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Loading

    def remove(self, instance: Instance, reason: str = UNLOADED) -> None:
        """Unload an instance; its answers under way end with an error."""
        self.state.remove(instance)
        self._slots.pop(instance, None)
        for run in self._runs.pop(instance, set()):
            run.kill(reason)

    def disconnect(self, device: str, *, how: Loss, listed: bool) -> None:
        """Lose a linked device; it keeps its instances, but not the answers under way."""
        for instance in self.state.disconnect(device, listed=listed):
            for run in set(self._runs[instance]):
                run.kill(LINK_LOST, how)

    async def acquire(
        self,
        resolve: Callable[[], Instance | SimModel],
        ttl: float | None,
        *,
        context_length: int | None = None,
        watch: Callable[[SimModel, asyncio.Task[Instance | str]], Coroutine[Any, Any, None]] | None = None,
    ) -> tuple[Instance, float | None]:
        """Return the instance that answers, and how long its load took if it was not loaded.

        Requests for a model that is being loaded wait for that load. `watch` is awaited during it.
        Raises ApiError, LoadError.
        """
        target = resolve()
        if isinstance(target, Instance):
            self.state.touch(target)
            return target, None
        load = self._loads.get(target)
        if load is None:
            load = self._loads[target] = self.background(self._load_on_demand(target, ttl, context_length))
        if watch:
            await watch(target, load)
        loaded = await outlived(load)
        if isinstance(loaded, str):
            raise LoadError(target, loaded)
        return loaded, target.load_seconds

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start work that goes on when the client that asked for it has gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load_on_demand(self, model: SimModel, ttl: float | None, context_length: int | None) -> Instance | str:
        try:
            for instance in self.state.evicted_by(model):
                self.remove(instance)
            return await self.load(model, jit=True, ttl=ttl, context_length=context_length)
        finally:
            del self._loads[model]

    async def load(
        self,
        model: SimModel,
        *,
        jit: bool = False,
        ttl: float | None = None,
        context_length: int | None = None,
        config: JsonObject | None = None,
    ) -> Instance | str:
        """Load a model in the time it takes; return the instance, or why there is none."""
        loading: Loading = self.state.begin_load(model)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(loading.aborted.wait(), model.load_seconds)
            if loading.problem:
                return loading.problem
            return self.state.add(model, jit=jit, ttl=ttl, context_length=context_length, config=config)
        finally:
            self.state.end_load(loading)

    # Running

    @asynccontextmanager
    async def slot(self, instance: Instance) -> AsyncIterator[Run]:
        """Wait for one of the slots of an instance and hold it.

        A client that goes away while the prompt is processed leaves its slot busy until that is done.
        """
        run = Run(instance)
        self._runs[instance].add(run)
        instance.busy += 1
        slots = self._slots.setdefault(instance, asyncio.Semaphore(instance.parallel))
        held = False
        try:
            await slots.acquire()
            held = True
            run.check()
            if instance.wedged:
                raise GenerationError(WEDGED)
            yield run
        finally:
            self._runs[instance].discard(run)
            left = run.prefilled_at - time.monotonic()
            if left > 0:
                asyncio.get_running_loop().call_later(left, self._release, instance, slots, held)
            else:
                self._release(instance, slots, held)

    def _release(self, instance: Instance, slots: asyncio.Semaphore, held: bool) -> None:
        instance.busy -= 1
        self.state.touch(instance)
        if held:
            slots.release()


class Performance:
    """One answer on its way to the client, whole or token by token."""

    def __init__(
        self,
        exchange: SimExchange,
        run: Run,
        dialect: Dialect,
        *,
        delay: float,
        coalesce: int,
        extra_headers: Headers,
    ) -> None:
        self._exchange = exchange
        self._extra_headers = extra_headers
        self._begun = False
        self._run = run
        self._dialect = dialect
        self._fault = exchange.fault
        self._delay = delay if self._fault.token_delay is None else self._fault.token_delay
        self._coalesce = coalesce
        self._waiting: list[bytes] = []
        self._started = time.monotonic()

    async def prefill(self) -> None:
        """Process the prompt, for as long as the fault says."""
        if self._fault.prefill:
            self._run.prefilled_at = time.monotonic() + self._fault.prefill
            await self._run.pause(self._fault.prefill)

    async def whole(self) -> JsonObject | None:
        """Generate everything and return the reply, or None if the connection was dropped. Raises GenerationError."""
        await self.prefill()
        async with aclosing(self._events()) as events:
            async for event in events:
                if isinstance(event, HangupStep):
                    self._exchange.drop(rst=event.how == "rst")
                    return None
        return self._dialect.reply()

    async def stream(self) -> None:
        """Generate and send token by token. Raises GenerationError."""
        for frame in self._dialect.opening():
            await self.send(frame)
        await self._flush()
        await self.prefill()
        for frame in self._dialect.prefilled():
            await self.send(frame)
        drop = self._fault.disconnect
        tokens = 0
        async with aclosing(self._events()) as events:
            async for event in events:
                if isinstance(event, Delta | ToolDelta):
                    frame = self._dialect.frame(event)
                    if drop and tokens >= drop.after and drop.how != "no_last_chunk":
                        await self._drop(drop, frame)
                        return
                    tokens += 1
                    await self.send(frame)
                    continue
                await self._flush()
                if isinstance(event, RawStep):
                    await self._write(event.data)
                elif isinstance(event, HangupStep):
                    self._exchange.drop(rst=event.how == "rst")
                    return
        frames = [] if self._fault.done_without_finish else self._dialect.closing()
        if drop and drop.how != "no_last_chunk":
            await self._drop(drop, b"".join(frames))
            return
        if self._dialect.done and not self._fault.no_done:
            frames.append(self._dialect.done)
        await self.finish(frames)

    async def finish(self, frames: list[bytes]) -> None:
        """Send the last frames and end the stream."""
        for frame in frames:
            await self.send(frame)
        await self._flush()
        if not self._begun:
            await self._write(b"")
        if self._fault.disconnect:
            self._exchange.drop()
        else:
            self._exchange.end_stream()

    async def _events(self) -> AsyncGenerator[Event, None]:
        """Generate, at the pace of the model; keep count of the time it takes."""
        answer, fault = self._dialect.answer, self._fault
        fails_at = fault.mid_error.after if fault.mid_error else -1
        first = 0.0
        tokens = 0
        for event in answer.generation:
            self._run.check()
            if isinstance(event, ErrorStep):
                raise GenerationError(event.message, event.status)
            if isinstance(event, SleepStep | WaitStep):
                yield event
                await self._rest(event)
                continue
            if isinstance(event, Delta | ToolDelta):
                if tokens == fails_at:
                    break
                if self._delay:
                    await self._run.pause(self._delay)
                answer.take(event)
                tokens += 1
                first = first or time.monotonic()
            yield event
        self._run.check()
        if fault.mid_error:
            raise GenerationError(fault.mid_error.message)
        answer.time_to_first_token = (first or time.monotonic()) - self._started
        answer.generation_time = time.monotonic() - (first or self._started)

    async def _rest(self, step: SleepStep | WaitStep) -> None:
        """Say nothing, for as long as the step says."""
        if isinstance(step, SleepStep):
            await self._run.pause(step.seconds)
            return
        while not step.event.is_set():
            await self._run.pause(LOOK_SECONDS)

    async def send(self, frame: bytes) -> None:
        """Send a frame, or keep it until there are enough for one write; not every token has one."""
        if not frame:
            return
        if self._fault is not NO_FAULT:
            frame = self._fault.dress(frame)
        if self._coalesce > 1:
            self._waiting.append(frame)
            if len(self._waiting) < self._coalesce:
                return
            await self._flush()
        else:
            await self._write(frame)

    async def _flush(self) -> None:
        if self._waiting:
            await self._write(b"".join(self._waiting))
            self._waiting.clear()

    async def _write(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            if not self._exchange.begun:
                self._exchange.open_stream(self._extra_headers)
            if self._fault.bom:
                data = codecs.BOM_UTF8 + data
        await self._exchange.write(data)

    async def _drop(self, drop: Disconnect, next_frame: bytes) -> None:
        await self._flush()
        await self._write(next_frame[: len(next_frame) // 2] if drop.how == "mid_line" else b"")
        if drop.how == "end":
            self._exchange.end_stream()
        else:
            self._exchange.drop(rst=drop.how == "rst")
