"""`ollama-lmstudio-proxy`: the options as flags, passed to mitmdump or mitmweb with the addon.

Arguments that it does not know are passed on to mitmproxy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from . import __version__, options

PACKAGE = Path(__file__).parent
# Beside the package in a checkout, inside it in a wheel (pyproject.toml, force-include).
SCRIPTS = (PACKAGE.parent / "ollama.py", PACKAGE / "script" / "ollama.py")


def script_path() -> Path:
    """Return the path of the script that mitmproxy loads."""
    return next(path for path in SCRIPTS if path.is_file())


class _Parser(argparse.ArgumentParser):
    """A parser of this tool's flags, one for each option."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(
            prog="ollama-lmstudio-proxy",
            description="Serve Ollama's API in front of LM Studio, with mitmproxy. Unknown arguments go on to it.",
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=__version__)
        self.add_argument("--web", action="store_true", help="Start mitmweb, to look at the traffic in a browser.")
        self.add_argument(
            "--log-level", choices=options.LOG_LEVELS, default="info", help="How much is logged; default: %(default)s"
        )
        self.add_argument(
            "--doctor", action="store_true", help="Say what is wrong, if something is, and end; status 1 if it is."
        )
        self.add_argument(
            "--config",
            action="append",
            default=[],
            metavar="FILE",
            help="Read options from a YAML file, as there are in configs/. Flags win over it.",
        )
        for option in options.OPTIONS:
            names = dict.fromkeys((f"--{option.name.replace('_', '-')}", f"--{option.name}"))
            if option.typespec is bool:
                self.add_argument(*names, dest=option.name, help=option.help, action=argparse.BooleanOptionalAction)
            else:
                self.add_argument(
                    *names,
                    dest=option.name,
                    help=_help(option, environ),
                    action="append" if option.typespec == Sequence[str] else "store",
                    metavar=option.metavar or None,
                    choices=option.choices,
                )


def _help(option: options.Option, environ: Mapping[str, str]) -> str:
    default = option.shown_default or (option.default if option.default not in ("", []) else "")
    if option.environment:
        default = " or ".join(f"${name}" for name in option.environment)
    return f"{option.help}{f' Default: {default}' if default else ''}".replace("%", "%%")


def command(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[bool, list[str]]:
    """Return whether mitmweb is wanted (else mitmdump), and the arguments for it.

    Exits with status 2 and a message for a wrong flag.
    """
    parser = _Parser(environ)
    known, rest = parser.parse_known_args([_with_dashes(argument) for argument in arguments])
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
            parser.error(f"{file} would win over what is given here for {', '.join(names)}: take it out of one of both")


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


def _with_dashes(argument: str) -> str:
    """Return `--log-level` for `--log_level`: the options' flags are added in both spellings, this one is no option."""
    return argument.replace("--log_level", "--log-level", 1) if argument.startswith("--log_level") else argument


def _check(parser: _Parser, option: options.Option, value: object) -> None:
    """Exit with status 2 for a wrong value: mitmproxy's own message would not name the flag."""
    try:
        option.parse(int(value) if option.typespec is int else value)  # type: ignore[call-overload]
    except ValueError as e:
        parser.error(f"argument --{option.name.replace('_', '-')}: {e}")


def main() -> None:
    """Run the command line tool."""
    web, arguments = command(sys.argv[1:], os.environ)
    # Imported after the flags have been checked: it takes most of a second.
    from mitmproxy.tools import main as tools

    (tools.mitmweb if web else tools.mitmdump)(arguments)
