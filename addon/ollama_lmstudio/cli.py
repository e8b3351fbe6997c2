"""`ollama-lmstudio-proxy`: the options as flags, passed to mitmdump, mitmweb or mitmproxy's console with the addon.

Arguments that it does not know are passed on to mitmproxy.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

from . import about, bundled, options, streams

Tool = Literal["mitmdump", "mitmweb", "mitmproxy"]

# Where the texts of --help begin, unless a flag is too long for it.
HELP_COLUMN = 26
# The flags as --help groups them; each is in one of these.
GROUPS: Mapping[str, Sequence[str]] = {
    "Serving": ("listen", "demo", "config", "state_dir", "drain_seconds", "ollama_version"),
    "LM Studio": (
        *("lmstudio_url", "lmstudio_token", "generate_endpoint", "repair_passthrough", "num_ctx", "context_length"),
        *("load_timeout_seconds", "model_resolution_cache_ttl_seconds"),
    ),
    "Who may come in": (
        *("api_key", "api_keys", "allowed_origins", "allowed_hosts"),
        *("max_header_size", "max_decompressed_size"),
    ),
    "Looking at the traffic": ("web", "console", "log_level", "own_calls", "max_kept_size", "max_flows", "metrics"),
    "Streams that are not as they should be": ("max_buffer_size", "enable_chunk_recovery"),
    "Help": ("doctor", "script_path", "version", "licenses", "help"),
}
# How much a flag has to be like one of this tool's to be taken for a misspelt one, as difflib measures it.
LIKENESS = 0.75
# The same for the name of a configuration, of which there are few.
NAME_LIKENESS = 0.5
# mitmproxy's own flags that are as much like one.
MITMPROXYS = ("--allow-hosts", "--listen-host", "--listen-port")
# Which of mitmproxy's options says how much is logged. The console keeps its log in a window of its own.
VERBOSITY: Final[Mapping[Tool, str]] = {
    "mitmdump": "termlog_verbosity",
    "mitmweb": "termlog_verbosity",
    "mitmproxy": "console_eventlog_verbosity",
}
# What --config is given when it has no value: then it lists the ready configurations.
NO_CONFIG = ""
NO_TERMINAL = (
    "--console draws in a terminal, and {} is none. Start it in a terminal's window, without redirection{}, or look at "
    "the traffic in a browser: --web"
)
NO_HOME = (
    "there is no home directory, in which mitmproxy keeps its configuration: set HOME, or name a directory for it with "
    "--set confdir=DIRECTORY"
)
# Git Bash and the like connect programs through pipes.
NO_WINDOWS_TERMINAL = " (on Windows in Windows Terminal, PowerShell or cmd, not in Git Bash's window)"


class _Tell(argparse.Action):
    """A flag that prints a text, and ends; the text is made only if it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, told: Callable[[], str], **shown: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **shown)
        self._told = told

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        _say(parser, self._told())


def _say(parser: argparse.ArgumentParser, text: str) -> NoReturn:
    """Print a text, and end; with status 1 if it cannot be printed."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Who reads no further, such as `head`, has all that is wanted.
        streams.discard_output()
    except OSError as e:
        streams.discard_output()
        parser.exit(1, f"{parser.prog}: error: the text cannot be printed: {e.strerror}\n")
    parser.exit()


class _Parser(argparse.ArgumentParser):
    """A parser of this tool's flags, one for each option."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(
            prog="ollama-lmstudio-proxy",
            usage="%(prog)s [FLAG ...] [mitmproxy's own arguments]",
            description="Serve Ollama's API in front of LM Studio, with mitmproxy.",
            epilog="All other arguments go on to mitmproxy: see mitmdump --help, and with --web, mitmweb --help.",
            formatter_class=partial(argparse.HelpFormatter, max_help_position=HELP_COLUMN),
            allow_abbrev=False,
            add_help=False,
        )
        by_name = {option.name: option for option in options.OPTIONS}
        for title, names in GROUPS.items():
            group = self.add_argument_group(title)
            for name in names:
                if name in by_name:
                    _add_option(group, by_name[name], environ)
                else:
                    _OWN_FLAGS[name](group)

    @property
    def flags(self) -> list[str]:
        """All flags that begin with two dashes."""
        return [name for name in self._option_string_actions if name.startswith("--")]


def _add_option(group: argparse._ArgumentGroup, option: options.Option, environ: Mapping[str, str]) -> None:
    name = f"--{option.name.replace('_', '-')}"
    if option.typespec is bool:
        switch = argparse.BooleanOptionalAction
        group.add_argument(name, dest=option.name, help=_help(option, environ), action=switch)
        return
    group.add_argument(
        name,
        dest=option.name,
        help=_help(option, environ),
        action="append" if option.typespec == Sequence[str] else "store",
        metavar=option.metavar or None,
        choices=option.choices,
    )


_OWN_FLAGS: Mapping[str, Callable[[argparse._ArgumentGroup], object]] = {
    "config": lambda group: group.add_argument(
        "--config",
        action="append",
        default=[],
        nargs="?",
        const=NO_CONFIG,
        metavar="NAME|FILE",
        help="Read options from a ready configuration or a YAML file; flags win over it. Without a value, list the "
        "ready ones, and end.",
    ),
    "web": lambda group: group.add_argument(
        "--web", action="store_true", help="Start mitmweb, to look at the traffic in a browser."
    ),
    "console": lambda group: group.add_argument(
        "--console", action="store_true", help="Start mitmproxy's console, to look at the traffic in this terminal."
    ),
    "log_level": lambda group: group.add_argument(
        "--log-level", choices=options.LOG_LEVELS, default="info", help="How much is logged. Default: %(default)s"
    ),
    "doctor": lambda group: group.add_argument(
        "--doctor", action="store_true", help="Say what is wrong, if something is, and end; status 1 if it is."
    ),
    "script_path": lambda group: group.add_argument(
        "--script-path",
        action="store_true",
        help='Say where the script is, and end: for mitmdump -s "$(ollama-lmstudio-proxy --script-path)".',
    ),
    "version": lambda group: group.add_argument(
        "--version", action=_Tell, told=about.version, help="Say which version this is, and of what, and end."
    ),
    "licenses": lambda group: group.add_argument(
        "--licenses",
        action=_Tell,
        told=about.licenses,
        help="Say the licences of what is bundled, and end.",
    ),
    "help": lambda group: group.add_argument("-h", "--help", action="help", help="Say this, and end."),
}


def _help(option: options.Option, environ: Mapping[str, str]) -> str:
    default = option.shown_default or (option.default if option.default not in ("", []) else "")
    if default is True:
        default = "on"
    if option.environment:
        default = " or ".join(f"${name}" for name in option.environment)
    return f"{option.help}{f' Default: {default}' if default else ''}".replace("%", "%%")


def command(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[Tool, list[str]]:
    """Return which of mitmproxy's tools is wanted, and the arguments for it.

    Exits with status 2 and a message for a wrong flag, and with status 0 when it has told what it was asked for.
    """
    parser = _Parser(environ)
    known, rest = parser.parse_known_args([_with_dashes(parser, argument) for argument in arguments])
    _refuse_misspelt(parser, rest)
    if known.web and known.console:
        parser.error("--web and --console are two ways to look at the traffic: choose one")
    if known.script_path:
        _tell_script_path(parser)
    if NO_CONFIG in known.config:
        _list_configurations(parser)
    tool: Tool = "mitmproxy" if known.console else "mitmweb" if known.web else "mitmdump"
    if known.doctor:
        tool = "mitmdump"
    chosen: dict[str, object] = {}
    for file in known.config:
        chosen |= _read_config(parser, _config_path(parser, file))
    for option in options.OPTIONS:
        value = getattr(known, option.name)
        if value is not None:
            chosen[option.name] = value
            _check(parser, option, value)
    set_in_rest = _set_in(rest)
    _refuse_to_be_overruled(parser, {**chosen, **set_in_rest})
    result = ["-s", str(bundled.script()), "--set", f"{VERBOSITY[tool]}={known.log_level}"]
    if "mode" not in chosen and "mode" not in set_in_rest:
        # None: mitmproxy opens no port before the script is loaded, which sets the mode. A user's --mode wins.
        result += ["--set", "mode"]
    # mitmproxy refuses an option that is set twice.
    for name, value in chosen.items():
        if name not in set_in_rest:
            result += _set(name, value)
    if known.doctor:
        # Its report, and nothing else, goes to stdout; no port is bound.
        result += ["--set", "doctor=true", "--no-server", "--quiet"]
    return tool, result + rest


def _tell_script_path(parser: _Parser) -> None:
    """Print the script's path, and end."""
    if bundled.is_temporary():
        parser.error(
            "--script-path: this program has its own mitmproxy and unpacks the script only while it runs; its "
            "arguments go on to that mitmproxy. For another one, install the package in that one's environment"
        )
    _say(parser, str(bundled.script()))


def _list_configurations(parser: _Parser) -> None:
    """Print the ready configurations, what each is for and where they are, and end."""
    found = bundled.configurations()
    width = max(map(len, found), default=0)
    lines = [f"{name:{width}}  {bundled.what_for(path)}" for name, path in found.items()]
    if found and not bundled.is_temporary():
        lines += ["", f"To change one, copy it from {next(iter(found.values())).parent}"]
    _say(parser, "\n".join(lines))


def _config_path(parser: _Parser, given: str) -> Path:
    """Return the file that --config means; exit with status 2 if there is none.

    A bare name is a ready configuration; only where there is none of this name it is a file, as a path is.
    """
    path, known = _expanded(given) or Path(given), bundled.configurations()
    if given not in known and not _is_there(path):
        parser.error(f"argument --config: {_not_there(path, given, known)}")
    return known.get(given, path)


def _expanded(path: str) -> Path | None:
    """Return a path with the home directory for `~`; None where that is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None


def _is_there(path: Path) -> bool:
    """Return whether there is something at a path: it may be a pipe. What cannot be looked at is told by reading it."""
    try:
        return path.exists()
    except OSError:
        return True


def _not_there(path: Path, given: str, known: Mapping[str, Path]) -> str:
    """Return what to say of a configuration that is neither a ready one nor a file."""
    if path.name != given or path.suffix:
        hint = f"; the ready one is --config {path.stem}" if path.stem in known else ""
        return f"{given}: there is no such file{hint}"
    near = difflib.get_close_matches(given.lower(), known, len(known), NAME_LIKENESS)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}; or name a file"
    return f"there is no configuration {given!r}: {hint}"


def _set_in(rest: Sequence[str]) -> dict[str, str]:
    """Return the options that mitmproxy's own `--set` sets."""
    pairs = (value.partition("=") for flag, value in pairwise(rest) if flag == "--set")
    return {name: value for name, _, value in pairs}


def _refuse_to_be_overruled(parser: _Parser, chosen: Mapping[str, object]) -> None:
    """Exit with status 2 if mitmproxy's config.yaml sets another value: it is read after `--set`, and would win."""
    directory = _expanded(str(chosen.get("confdir", "~/.mitmproxy")))
    if directory is None:
        parser.error(NO_HOME)
    # The last one wins, as in mitmproxy.
    for file in [file for name in ("config.yaml", "config.yml") if _is_there(file := directory / name)][-1:]:
        found = _read_config(parser, file, "mitmproxy's own configuration")
        standing = {name: value for name, value in found.items() if name in options.NAMES}
        names = [name for name, value in standing.items() if name in chosen and str(chosen[name]) != str(value)]
        if names:
            parser.error(f"{file} would win over what is given here for {', '.join(names)}: take it out there, or here")


def _set(name: str, value: object) -> list[str]:
    """Return mitmproxy's arguments for an option; a list needs a `--set` for each item."""
    values = value if isinstance(value, list) else [value]
    texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in values]
    return [part for text in texts for part in ("--set", f"{name}={text}")]


def _read_config(parser: _Parser, file: Path, what: str = "argument --config:") -> dict[str, object]:
    """Read a YAML file of options; exit with status 2 if it is none. `what` it is begins the message."""
    from mitmproxy import exceptions, optmanager

    try:
        config = optmanager.parse(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise exceptions.OptionsError("no options")
    except (OSError, UnicodeDecodeError, exceptions.OptionsError) as e:
        parser.error(f"{what} {file}: {e.strerror if isinstance(e, OSError) else e}")
    return {str(name): value for name, value in config.items() if value is not None}


def _with_dashes(parser: _Parser, argument: str) -> str:
    """Return a flag of this tool with dashes, as `--log-level` for `--log_level`: options have underscores."""
    name, equals, value = argument.partition("=")
    dashed = name.replace("_", "-")
    return f"{dashed}{equals}{value}" if dashed in parser.flags else argument


def _refuse_misspelt(parser: _Parser, rest: Sequence[str]) -> None:
    """Exit with status 2 for what is nearly one of this tool's flags: mitmproxy's own message would not name that."""
    for argument in rest:
        name = argument.partition("=")[0]
        # argparse takes the beginning of a flag for the flag.
        is_mitmproxys = any(flag.startswith(name) for flag in MITMPROXYS) and not _begins_ours(parser, name)
        if name.startswith("--") and not is_mitmproxys:
            for near in difflib.get_close_matches(name.replace("_", "-"), parser.flags, 1, LIKENESS):
                parser.error(f"there is no flag {name}; did you mean {near}?")


def _begins_ours(parser: _Parser, name: str) -> bool:
    return any(flag.startswith(name) for flag in parser.flags)


def _check(parser: _Parser, option: options.Option, value: object) -> None:
    """Exit with status 2 for a wrong value: mitmproxy's own message would not name the flag."""
    flag = f"argument --{option.name.replace('_', '-')}"
    if option.typespec is int and not re.fullmatch(r"[+-]?[0-9]+", str(value).strip()):
        parser.error(f"{flag}: {value!r} is not a number: give one without a point or a unit")
    try:
        option.parse(int(str(value)) if option.typespec is int else value)
    except ValueError as e:
        parser.error(f"{flag}: {e}")


def _need_terminal() -> None:
    """Exit with status 1 if the console would have no terminal: mitmproxy's own message does not say what to do."""
    for name, stream in (("its input", sys.stdin), ("its output", sys.stdout)):
        # A program without a console window has no streams on Windows.
        if stream is None or not stream.isatty():
            where = NO_WINDOWS_TERMINAL if sys.platform == "win32" else ""
            sys.exit(f"ollama-lmstudio-proxy: error: {NO_TERMINAL.format(name, where)}")


def main() -> None:
    """Run the command line tool."""
    tool, arguments = command(sys.argv[1:], os.environ)
    if tool == "mitmproxy":
        _need_terminal()
    # Imported after the flags have been checked: it takes most of a second.
    from mitmproxy.tools import main as tools

    run: Mapping[Tool, Callable[[Sequence[str]], object]] = {
        "mitmdump": tools.mitmdump,
        "mitmweb": tools.mitmweb,
        "mitmproxy": tools.mitmproxy,
    }
    run[tool](arguments)
