"""Commands for the console's prompt (`:`), mitmweb's command bar and key bindings.

mitmproxy's commands are synchronous. They return what is known at once; what needs LM Studio runs in the background,
and is shown when it is known. Where all of it is read: see reports.py.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from mitmproxy import command, ctx, exceptions, flow, http, types
from mitmproxy.addonmanager import Loader
from mitmproxy.log import ALERT

from ..internals import interface, servers
from ..lmstudio.catalog import Catalog
from ..lmstudio.errors import LMStudioError, scrub
from ..ollama.errors import OllamaError
from ..options import ANYWHERE, Listen
from ..record.statistics import Statistics
from ..services import Services
from ..translate import listing
from ..translate.models import find_model
from ..unicode import well_formed
from ..units import plural, size
from . import doctor, export, repeat, reports, stats, thread
from . import snapshot as snapshots
from .views import FIRST

logger = logging.getLogger(__name__)

NO_PATH = types.Path()
# What is written to these, with any suffix and in any folder, goes nowhere.
WINDOWS_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)


class Commands:
    """The commands; `services` returns the current services, `spawn` runs a coroutine in the background.

    `statistics` counts what they tell of.
    """

    def __init__(self, services: Callable[[], Services], spawn: reports.Spawn, statistics: Statistics) -> None:
        self._services = services
        self._spawn = spawn
        self._statistics = statistics

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
        if catalog is None:
            self._spawn(self._list_models())
            return [reports.to_come("ollama.models", "LM Studio is being asked")]
        # What is shown is the last list; the next time it is this one.
        self._spawn(self._refresh())
        return reports.shown("ollama.models", *_models(catalog, services), self._spawn)

    async def _list_models(self) -> None:
        services = self._services()
        lines: list[str] = []
        try:
            title, lines = _models(await services.catalog.refresh(), services)
        except LMStudioError as e:
            title = scrub(e.message, services.secrets)
        await reports.tell("ollama.models", title, lines)

    async def _refresh(self) -> None:
        services = self._services()
        try:
            await services.catalog.refresh()
        except LMStudioError as e:
            logger.warning("%s", scrub(e.message, services.secrets))

    @command.command("ollama.aliases")
    def aliases(self) -> Sequence[str]:
        """List the aliases: what each stands for, and what it adds to requests."""
        lines = []
        for alias in self._services().aliases.all().values():
            parts = {"system": alias.system, "parameters": alias.parameters, "messages": alias.messages}
            adds = ", ".join(part for part, value in parts.items() if value)
            lines.append(f"{alias.name} -> {alias.target}{f' ({adds})' if adds else ''}")
        if not lines:
            return ["there are no aliases: `ollama cp MODEL NAME` makes one"]
        title = f"{len(lines)} {plural(len(lines), 'alias', 'aliases')}"
        return reports.shown("ollama.aliases", title, lines, self._spawn)

    @command.command("ollama.unload")
    def unload(self, model: str) -> Sequence[str]:
        """Unload a model, by any name that clients may use; answers that it is giving are cut off."""
        self._spawn(self._unload(model))
        return [reports.to_come("ollama.unload", f"LM Studio is asked to unload {model}")]

    async def _unload(self, name: str) -> None:
        services = self._services()
        try:
            found = await find_model(name, services)
            await services.lifetimes.unload(found.model)
        except (OllamaError, LMStudioError) as e:
            said = f"{name} is not unloaded: {scrub(e.message, services.secrets)}"
        else:
            said = f"{found.model.key} is unloaded"
        await reports.tell("ollama.unload", said)

    @command.command("ollama.doctor")
    def doctor(self) -> Sequence[str]:
        """Look at LM Studio, the port, who may come in and the state directory, and say what is wrong."""
        self._spawn(self._examine())
        return [reports.to_come("ollama.doctor", "everything is being looked at")]

    async def _examine(self) -> None:
        found = await doctor.examine(self._services(), serving=servers.is_serving())
        problems = sum(finding.verdict == "problem" for finding in found)
        title = f"{problems} {plural(problems, 'problem')}" if problems else "all is well"
        await reports.tell("ollama.doctor", title, [str(finding) for finding in found])

    @command.command("ollama.stats")
    def stats(self, path: types.Path = NO_PATH) -> Sequence[str]:
        """Tell how often each model was asked, its errors, first token, speed, tokens and loads; to a file as CSV.

        Where there are keys with names, the same of each.
        """
        loads = stats.loads_of(self._statistics, self._services())
        if not path:
            title, *lines = stats.lines(self._statistics, loads)
            return reports.shown("ollama.stats", title, [title, *lines], self._spawn)
        file = Path(path).expanduser()
        count = len(self._statistics.models)
        _save(stats.as_csv(self._statistics, loads), file, adds=False)
        return [f"{count} {plural(count, 'model')} in {file}"]

    @command.command("ollama.conversation")
    def conversation(self, flows: Sequence[flow.Flow]) -> Sequence[str]:
        """Show all exchanges of the same conversation as one thread; the console's list then shows only them."""
        found = thread.find(flows, interface.listed_flows())
        if found is None:
            raise exceptions.CommandError("none of these flows is a chat: choose one, or write a filter that finds one")
        if interface.is_console():
            ctx.options.update(view_filter=found.filter)
        return reports.shown("ollama.conversation", found.title, thread.lines(found), self._spawn)

    @command.command("ollama.repeat")
    def repeat(self, flows: Sequence[flow.Flow], *changes: str) -> Sequence[str]:
        """Ask again with another model or other options, and show both answers and their numbers in one view.

        Names are fields, such as model or think, or options, such as temperature.
        """
        made, left_out = repeat.all_again(flows, changes, self._services().settings.lmstudio_url)
        ctx.master.commands.call("replay.client", made)
        report = [f"{len(made)} {plural(len(made), 'request')} asked again: the answers are compared under Response"]
        return report + [f"{count} left out: {reason}" for reason, count in left_out.items()]

    def done(self) -> None:
        """Log the statistics at the end, where a terminal shows them and there are any."""
        if self._statistics.models and not interface.hides_log():
            lines = stats.lines(self._statistics, stats.loads_of(self._statistics, self._services()))
            logger.info("%s", "\n".join(lines))

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
            _save(("\n" if form == "markdown" else "").join(written), file, adds=adds)
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
            if snapshot is None or snapshot.is_report:
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


def _save(text: str, file: Path, *, adds: bool) -> None:
    """Write a new file, or add to one; raise CommandError where that cannot be done."""
    if os.name == "nt" and file.name.partition(".")[0].rstrip().upper() in WINDOWS_DEVICES:
        raise exceptions.CommandError(f"{file.name} is no file: Windows has a device of this name")
    try:
        # As bytes: shells on Windows, too, run no script with CR LF, and CSV has CR LF on every system.
        with file.open("ab" if adds else "xb") as out:
            out.write(well_formed(text).encode())
    except FileExistsError:
        raise exceptions.CommandError(f"{file} is there already: to add to it, give +{file}") from None
    except OSError as e:
        raise exceptions.CommandError(f"{file} cannot be written: {e.strerror or e}") from None


def _models(catalog: Catalog, services: Services) -> tuple[str, list[str]]:
    """Return how many models there are, and a line about each."""
    rows = [_row(entry, services) for entry in listing.list_entries(catalog, services)]
    return f"{len(rows)} {plural(len(rows), 'model')}" if rows else "LM Studio has no models", rows


def _row(entry: listing.ListEntry, services: Services) -> str:
    model = entry.model
    facts = [model.params, model.quantization, size(listing.size(model)), *listing.capabilities(model, services)]
    loaded = ", ".join(f"{instance.context_length or '?'} tokens" for instance in model.instances)
    alias = f" -> {model.key}" if entry.alias else ""
    return f"{entry.name}{alias}: {' '.join(fact for fact in facts if fact)}{f', loaded ({loaded})' if loaded else ''}"
