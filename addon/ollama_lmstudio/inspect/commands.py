"""Commands for mitmproxy's prompt (`:`) and mitmweb's command bar.

A command cannot wait: what LM Studio has to be asked for comes as an alert in the log, and what is known already is the
command's value. A value is never an empty list, on which mitmproxy's own display of it fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mitmproxy import command, ctx, exceptions, flow, http, types
from mitmproxy.log import ALERT

from ..endpoints.base import Services
from ..endpoints.inference import find_model
from ..endpoints.models import listed, tag_entry
from ..lmstudio.catalog import Catalog
from ..lmstudio.errors import LMStudioError, scrub
from ..ollama.errors import OllamaError
from ..options import Listen
from . import doctor, export, listings
from . import exchange as exchanges

logger = logging.getLogger(__name__)

ANYWHERE = ("0.0.0.0", "::", "")

Function = TypeVar("Function", bound=Callable[..., Any])


def _command(name: str) -> Callable[[Function], Function]:
    """Make a command of a method; mitmproxy's own decorator has no types."""
    decorate: Callable[[Function], Function] = command.command(name)
    return decorate


def _argument(name: str, argument_type: object) -> Callable[[Function], Function]:
    decorate: Callable[[Function], Function] = command.argument(name, argument_type)
    return decorate


class Commands:
    """The commands `ollama.*`. `get_services` gives what the bridge works with."""

    name = "ollama-commands"

    def __init__(self, get_services: Callable[[], Services]) -> None:
        self._get_services = get_services
        self._tasks: set[asyncio.Task[None]] = set()

    def done(self) -> None:
        """Stop what is still asked."""
        for task in self._tasks:
            task.cancel()

    @_command("ollama.models")
    def models(self) -> Sequence[str]:
        """
        List the models under the names that clients use, as last read. They are read again: what has changed is said in
        the event log.
        """
        services = self._services()
        known = services.catalog.last
        shown = _table(known, services) if known else ["LM Studio is being asked: its models come in the event log."]
        self._spawn(self._read_models(services, shown))
        return shown

    async def _read_models(self, services: Services, shown: list[str]) -> None:
        fresh = _table(await services.catalog.refresh(), services)
        if fresh != shown:
            _alert("\n".join(fresh))

    @_command("ollama.aliases")
    def aliases(self) -> Sequence[str]:
        """List the aliases, and LM Studio's model that each stands for."""
        aliases = self._services().aliases.all().values()
        return [f"{alias.name} -> {alias.target}" for alias in aliases] or ["There are no aliases."]

    @_command("ollama.unload")
    def unload(self, model: str) -> None:
        """Unload a model, by any name that a client may use. When it is done, that is said in the event log."""
        self._spawn(self._unload(self._services(), model))

    async def _unload(self, services: Services, name: str) -> None:
        found = await find_model(name, services)
        catalog = await services.catalog.refresh()
        if not any(model.key == found.model.key and model.loaded for model in catalog.models):
            _alert(f"{found.model.key} is not loaded.")
            return
        await services.life.unload(found.model)
        _alert(f"{found.model.key} is unloaded.")

    @_command("ollama.doctor")
    def doctor(self) -> Sequence[str]:
        """
        Look for what keeps the bridge from working: LM Studio, its token, the ports, the state directory, who may ask.
        The whole report comes in the event log.
        """
        services = self._services()
        self._spawn(self._examine(services))
        return [*map(str, doctor.here(services)), "LM Studio is being asked: the whole report comes in the event log."]

    async def _examine(self, services: Services) -> None:
        findings = await doctor.examine(services, serving=_is_serving())
        _alert("\n".join(map(str, findings)))

    @_command("ollama.export.formats")
    def formats(self) -> Sequence[str]:
        """List the formats of ollama.export."""
        return list(export.FORMATS)

    @_command("ollama.export")
    @_argument("form", types.Choice("ollama.export.formats"))
    def export(self, flows: Sequence[flow.Flow], path: types.Path, form: str = "") -> None:
        """
        Write exchanges to a file: as Markdown (.md), as the client's curl commands (.sh), or as lines for fine-tuning
        (.jsonl, only conversations that ended well). The format goes by the file's name unless it is given.
        """
        services = self._services()
        form = form or export.SUFFIXES.get(Path(path).suffix.lower(), "")
        if not form:
            raise exceptions.CommandError(
                f"Name the file {', '.join(f'*{suffix}' for suffix in export.SUFFIXES)}, or give a format: "
                f"{', '.join(export.FORMATS)}"
            )
        written, refused = _write(flows, form, _address(services))
        why = f", {len(refused)} not: {refused[0]}" if refused else ""
        if not written:
            raise exceptions.CommandError(f"Nothing to write{why}" if refused else "There are no flows to write")
        try:
            Path(path).write_text("\n".join(written) if form == "markdown" else "".join(written), "utf-8")
        except OSError as e:
            raise exceptions.CommandError(f"{path}: {e.strerror}") from None
        _alert(f"{len(written)} exchange{'' if len(written) == 1 else 's'} written to {path}{why}.")

    def _services(self) -> Services:
        try:
            return self._get_services()
        except AttributeError:
            raise exceptions.CommandError("The bridge has not been configured.") from None

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, LMStudioError | OllamaError):
            logger.error("%s", scrub(error.message, self._services().secrets))
        else:
            logger.error("a command failed: %s", error, exc_info=error)


def _alert(text: str) -> None:
    """Say something in the log that the tools draw attention to."""
    logger.log(ALERT, "%s", text)


def _table(catalog: Catalog, services: Services) -> list[str]:
    """Lay out the models and aliases, with what is in memory."""
    entries = [
        tag_entry(entry, services) | {"state": ", ".join(map(doctor.describe, entry.model.instances))}
        for entry in listed(catalog, services)
    ]
    return listings.table(entries)


def _is_serving() -> bool:
    """Whether mitmproxy has at least one server that runs."""
    servers = getattr(ctx.master.addons.get("proxyserver"), "servers", ())
    return any(server.is_running for server in servers)


def _address(services: Services) -> str:
    """Give the address that clients on this machine have for the bridge."""
    listen = services.settings.listen
    host = ctx.options.listen_host or listen.host
    port = listen.port if ctx.options.listen_port is None else ctx.options.listen_port
    return f"http://{Listen('localhost' if host in ANYWHERE else host, port)}"


def _write(flows: Sequence[flow.Flow], form: str, address: str) -> tuple[list[str], list[str]]:
    """Write exchanges in one format; give the texts, and why others could not be written."""
    written, refused = [], []
    for each in flows:
        exchange = exchanges.of(each) if isinstance(each, http.HTTPFlow) else None
        if exchange is None:
            refused.append("it is no exchange of the bridge")
            continue
        try:
            written.append(export.write(exchange, form, address))
        except export.NotExportable as e:
            refused.append(str(e))
    return written, refused
