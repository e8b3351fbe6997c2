"""`ollama-lmstudio-proxy`: the options as flags, handed to mitmdump or mitmweb with the addon. Everything else is
mitmproxy's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__, options

PACKAGE = Path(__file__).parent
# Beside the package in a checkout, inside of it where it was installed.
SCRIPTS = (PACKAGE.parent / "ollama.py", PACKAGE / "script" / "ollama.py")


def script_path() -> Path:
    """Find the script that mitmproxy loads."""
    return next(path for path in SCRIPTS if path.is_file())


class _Parser(argparse.ArgumentParser):
    """A parser that leaves alone what it does not know."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(
            prog="ollama-lmstudio-proxy",
            description="Serve Ollama's API in front of LM Studio, with mitmproxy. Unknown arguments go on to it.",
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=__version__)
        self.add_argument("--web", action="store_true", help="Start mitmweb, to look at the traffic in a browser.")
        self.add_argument(
            "--doctor",
            action="store_true",
            help="Do not serve, but look for what keeps this from working; the exit status is 1 if there is a problem.",
        )
        self.add_argument(
            "--log-level", choices=options.LOG_LEVELS, default="info", help="How much is logged; default: %(default)s"
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
    """Turn the flags into mitmproxy's arguments: whether mitmweb is wanted, and what it gets.

    Exits with status 2 and a message for a wrong flag.
    """
    arguments = [_with_dashes(argument) for argument in arguments]
    parser = _Parser(environ)
    known, rest = parser.parse_known_args(arguments)
    result = ["-s", str(script_path()), "--set", f"termlog_verbosity={known.log_level}"]
    for option in options.OPTIONS:
        value = getattr(known, option.name)
        if value is None:
            continue
        if isinstance(value, list):
            result += [part for item in value for part in ("--set", f"{option.name}={item}")]
        else:
            result += ["--set", f"{option.name}={str(value).lower() if isinstance(value, bool) else value}"]
        _check(parser, option, value)
    return known.web, result + rest


def doctor_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> options.Settings | None:
    """Give the settings that `--doctor` is to look at; None where it is not among the flags, all of which are right."""
    parser = _Parser(environ)
    known, _ = parser.parse_known_args([_with_dashes(argument) for argument in arguments])
    if not known.doctor:
        return None
    values = {option.name: options.default_of(option, environ) for option in options.OPTIONS}
    for option in options.OPTIONS:
        if (given := getattr(known, option.name)) is not None:
            values[option.name] = _typed(option, given)
    try:
        return options.parse(values)
    except ValueError as e:
        parser.error(str(e))


def _with_dashes(argument: str) -> str:
    """Write the two words of this tool that are no options of mitmproxy's the one way."""
    return argument.replace("--log_level", "--log-level", 1) if argument.startswith("--log_level") else argument


def _check(parser: argparse.ArgumentParser, option: options.Option, value: object) -> None:
    """Refuse a wrong value here, where the flag can be named, and not first in mitmproxy."""
    try:
        option.parse(_typed(option, value))
    except ValueError as e:
        parser.error(f"argument --{option.name.replace('_', '-')}: {e}")


def _typed(option: options.Option, value: Any) -> Any:
    return int(value) if option.typespec is int else value


def main() -> None:
    """Run the command line tool."""
    web, arguments = command(sys.argv[1:], os.environ)
    settings = doctor_settings(sys.argv[1:], os.environ)
    if settings is not None:
        from .inspect import doctor

        sys.exit(doctor.main(settings))
    # Not before the flags are right: it takes a while.
    from mitmproxy.tools import main as tools

    (tools.mitmweb if web else tools.mitmdump)(arguments)
