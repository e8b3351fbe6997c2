"""Commands for the console's prompt (`:`), mitmweb's command bar and key bindings.

mitmproxy's commands are synchronous. They return what is known at once; what needs LM Studio runs in the background
and is logged.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from mitmproxy import command, exceptions, flow, http, types
from mitmproxy.addonmanager import Loader
from mitmproxy.log import ALERT

from ..internals import servers
from ..lmstudio.errors import LMStudioError, scrub
from ..ollama.errors import OllamaError
from ..options import ANYWHERE, Listen
from ..services import Services
from ..translate import listing
from ..translate.models import find_model
from ..units import size
from . import doctor, export
from . import snapshot as snapshots
from .views import FIRST

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], object]

ASKING = "LM Studio is being asked: the answer comes in the event log"


class Commands:
    """The commands; `services` returns the current services, `spawn` runs a coroutine in the background."""

    def __init__(self, services: Callable[[], Services], spawn: Spawn) -> None:
        self._services = services
        self._spawn = spawn

    def load(self, loader: Loader) -> None:
        """Add the commands to mitmproxy: it would find those of an addon by itself, and this need not be one."""
        for name, member in vars(type(self)).items():
            if path := getattr(member, "command_name", ""):
                loader.add_command(path, getattr(self, name))

    @command.command("ollama.models")
    def models(self) -> Sequence[str]:
        """List LM Studio's models and the aliases, with the names that clients use."""
        services = self._services()
        catalog = services.catalog.last
        self._spawn(self._refresh())
        if catalog is None:
            return [ASKING]
        rows = [_row(entry, services) for entry in listing.list_entries(catalog, services)]
        return rows or ["LM Studio has no models"]

    async def _refresh(self) -> None:
        services = self._services()
        try:
            catalog = await services.catalog.refresh()
        except LMStudioError as e:
            logger.warning("%s", scrub(e.message, services.secrets))
        else:
            logger.log(ALERT, "%d models at %s", len(catalog.models), services.client.url)

    @command.command("ollama.aliases")
    def aliases(self) -> Sequence[str]:
        """List the aliases: what each stands for, and what it adds to requests."""
        lines = []
        for alias in self._services().aliases.all().values():
            parts = {"system": alias.system, "parameters": alias.parameters, "messages": alias.messages}
            adds = ", ".join(part for part, value in parts.items() if value)
            lines.append(f"{alias.name} -> {alias.target}{f' ({adds})' if adds else ''}")
        return lines or ["there are no aliases: `ollama cp MODEL NAME` makes one"]

    @command.command("ollama.unload")
    def unload(self, model: str) -> Sequence[str]:
        """Unload a model, by any name that clients may use; answers that it is giving are cut off."""
        self._spawn(self._unload(model))
        return [ASKING]

    async def _unload(self, name: str) -> None:
        services = self._services()
        try:
            found = await find_model(name, services)
            await services.lifetimes.unload(found.model)
        except (OllamaError, LMStudioError) as e:
            logger.warning("%s is not unloaded: %s", name, scrub(e.message, services.secrets))
        else:
            logger.log(ALERT, "%s is unloaded", found.model.key)

    @command.command("ollama.doctor")
    def doctor(self) -> Sequence[str]:
        """Look at LM Studio, the port, who may come in and the state directory, and say what is wrong."""
        self._spawn(self._examine())
        return ["everything is being looked at: the report comes in the event log"]

    async def _examine(self) -> None:
        found = await doctor.examine(self._services(), serving=servers.is_serving())
        for finding in found:
            logger.log(logging.WARNING if finding.verdict == "problem" else logging.INFO, "doctor: %s", finding)
        problems = sum(finding.verdict == "problem" for finding in found)
        logger.log(ALERT, "doctor: %s", f"{problems} problems, see above" if problems else "all is well")

    @command.command("ollama.export")
    def export(self, flows: Sequence[flow.Flow], path: types.Path) -> Sequence[str]:
        """Write exchanges to a file: .md the conversations, .sh curl commands, .jsonl lines for fine-tuning.

        A file that is there is only added to, with a + before its path.
        """
        text = str(path)
        adds = text.startswith("+")
        file = Path(text.removeprefix("+")).expanduser()
        form = export.SUFFIXES.get(file.suffix.lower())
        if form is None:
            raise exceptions.CommandError(f"{file.name} should end with one of {', '.join(export.SUFFIXES)}")
        written, left_out = self._written(flows, form)
        if written:
            try:
                with file.open("a" if adds else "x", encoding="utf-8") as out:
                    out.write(("\n" if form == "markdown" else "").join(written))
            except FileExistsError:
                raise exceptions.CommandError(f"{file} is there already: to add to it, give +{file}") from None
            except OSError as e:
                raise exceptions.CommandError(f"{file} cannot be written: {e.strerror or e}") from None
        report = [f"{len(written)} of {len(flows)} exchanges are in {file}" if written else "nothing was written"]
        return report + [f"{count} left out: {reason}" for reason, count in left_out.items()]

    @command.command("ollama.view")
    def view(self) -> None:
        """Show LM Studio's side of exchanges first, or Ollama's again; in the console, the key o in an exchange."""
        # What a command returns would cover the exchange in the console.
        logger.log(ALERT, "%s", FIRST.swap())

    def _written(self, flows: Sequence[flow.Flow], form: str) -> tuple[list[str], Counter[str]]:
        written: list[str] = []
        left_out: Counter[str] = Counter()
        for item in flows:
            snapshot = snapshots.of(item) if isinstance(item, http.HTTPFlow) else None
            if snapshot is None:
                left_out["it is none of the bridge's"] += 1
                continue
            try:
                written.append(export.write(snapshot, form, self._address()))
            except export.NotExportable as e:
                left_out[str(e)] += 1
        return written, left_out

    def _address(self) -> str:
        """Return the bridge's address for clients on this machine."""
        given = self._services().settings.listen
        is_localhost = given.host in ANYWHERE or (given.is_loopback and ":" not in given.host)
        return f"http://{Listen('localhost', given.port) if is_localhost else given}"


def _row(entry: listing.ListEntry, services: Services) -> str:
    model = entry.model
    facts = [model.params, model.quantization, size(listing.size(model)), *listing.capabilities(model, services)]
    loaded = ", ".join(f"{instance.context_length or '?'} tokens" for instance in model.instances)
    alias = f" -> {model.key}" if entry.alias else ""
    return f"{entry.name}{alias}: {' '.join(fact for fact in facts if fact)}{f', loaded ({loaded})' if loaded else ''}"
