"""`ollama-lmstudio-proxy`: the options as flags, passed to mitmdump or mitmweb with the addon.

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
from typing import Any

from . import about, options

# Where the texts of --help begin, unless a flag is too long for it.
HELP_COLUMN = 26
# The flags as --help groups them; each is in one of these.
GROUPS: Mapping[str, Sequence[str]] = {
    "Serving": ("listen", "demo", "config", "state_dir", "ollama_version"),
    "LM Studio": (
        *("lmstudio_url", "lmstudio_token", "generate_endpoint", "repair_passthrough", "num_ctx", "context_length"),
        *("load_timeout_seconds", "model_resolution_cache_ttl_seconds"),
    ),
    "Who may come in": ("api_key", "allowed_origins", "allowed_hosts"),
    "Looking at the traffic": ("web", "log_level", "own_calls", "max_kept_size"),
    "Streams that are not as they should be": ("max_buffer_size", "enable_chunk_recovery"),
    "Help": ("doctor", "version", "licenses", "help"),
}
# How much a flag has to be like one of this tool's to be taken for a misspelt one, as difflib measures it.
LIKENESS = 0.75
# mitmproxy's own flags that are as much like one.
MITMPROXYS = ("--allow-hosts", "--listen-host", "--listen-port")

PACKAGE = Path(__file__).parent
# Beside the package in a checkout, inside it in a wheel (pyproject.toml, force-include).
SCRIPTS = (PACKAGE.parent / "ollama.py", PACKAGE / "script" / "ollama.py")


def script_path() -> Path:
    """Return the path of the script that mitmproxy loads."""
    return next(path for path in SCRIPTS if path.is_file())


class _Tell(argparse.Action):
    """A flag that prints a text, and ends; the text is made only if it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, told: Callable[[], str], **shown: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **shown)
        self._told = told

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            told = self._told()
            # People's names in licences have letters that a Windows console or pipe may not have.
            encoding = sys.stdout.encoding or "utf-8"
            print(told.encode(encoding, "replace").decode(encoding))
        except ValueError as e:
            parser.error(str(e))
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
        metavar="FILE",
        help="Read options from a YAML file, as there are in configs/. Flags win over it.",
    ),
    "web": lambda group: group.add_argument(
        "--web", action="store_true", help="Start mitmweb, to look at the traffic in a browser."
    ),
    "log_level": lambda group: group.add_argument(
        "--log-level", choices=options.LOG_LEVELS, default="info", help="How much is logged. Default: %(default)s"
    ),
    "doctor": lambda group: group.add_argument(
        "--doctor", action="store_true", help="Say what is wrong, if something is, and end; status 1 if it is."
    ),
    "version": lambda group: group.add_argument(
        "--version", action=_Tell, told=about.version, help="Say which version this is, and of what, and end."
    ),
    "licenses": lambda group: group.add_argument(
        "--licenses",
        action=_Tell,
        told=about.licenses,
        help="Say the licences of what is bundled in a binary, and end.",
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


def command(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[bool, list[str]]:
    """Return whether mitmweb is wanted (else mitmdump), and the arguments for it.

    Exits with status 2 and a message for a wrong flag.
    """
    parser = _Parser(environ)
    known, rest = parser.parse_known_args([_with_dashes(parser, argument) for argument in arguments])
    _refuse_misspelt(parser, rest)
    chosen: dict[str, object] = {}
    for file in known.config:
        chosen |= _read_config(parser, file)
    for option in options.OPTIONS:
        value = getattr(known, option.name)
        if value is not None:
            chosen[option.name] = value
            _check(parser, option, value)
    set_in_rest = _set_in(rest)
    _refuse_to_be_overruled(parser, {**chosen, **set_in_rest})
    result = ["-s", str(script_path()), "--set", f"termlog_verbosity={known.log_level}"]
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
    return known.web and not known.doctor, result + rest


def _set_in(rest: Sequence[str]) -> dict[str, str]:
    """Return the options that mitmproxy's own `--set` sets."""
    pairs = (value.partition("=") for flag, value in pairwise(rest) if flag == "--set")
    return {name: value for name, _, value in pairs}


def _refuse_to_be_overruled(parser: _Parser, chosen: Mapping[str, object]) -> None:
    """Exit with status 2 if mitmproxy's config.yaml sets another value: it is read after `--set`, and would win."""
    directory = Path(str(chosen.get("confdir", "~/.mitmproxy"))).expanduser()
    # The last one wins, as in mitmproxy.
    for file in [file for name in ("config.yaml", "config.yml") if (file := directory / name).is_file()][-1:]:
        standing = {name: value for name, value in _read_config(parser, str(file)).items() if name in options.NAMES}
        names = [name for name, value in standing.items() if name in chosen and str(chosen[name]) != str(value)]
        if names:
            parser.error(f"{file} would win over what is given here for {', '.join(names)}: take it out there, or here")


def _set(name: str, value: object) -> list[str]:
    """Return mitmproxy's arguments for an option; a list needs a `--set` for each item."""
    values = value if isinstance(value, list) else [value]
    texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in values]
    return [part for text in texts for part in ("--set", f"{name}={text}")]


def _read_config(parser: _Parser, file: str) -> dict[str, object]:
    """Read a YAML file of options; exit with status 2 if it is none."""
    from mitmproxy import exceptions, optmanager

    try:
        config = optmanager.parse(Path(file).expanduser().read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise exceptions.OptionsError("no options")
    except (OSError, UnicodeDecodeError, exceptions.OptionsError) as e:
        parser.error(f"argument --config: {file}: {e}")
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


def main() -> None:
    """Run the command line tool."""
    web, arguments = command(sys.argv[1:], os.environ)
    # Imported after the flags have been checked: it takes most of a second.
    from mitmproxy.tools import main as tools

    (tools.mitmweb if web else tools.mitmdump)(arguments)
