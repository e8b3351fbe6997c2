"""`ollama-lmstudio-proxy`: the options as flags, handed to mitmdump or mitmweb with the addon. Everything else is
mitmproxy's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

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
    """Turn the flags into mitmproxy's arguments: whether mitmweb is wanted, and what it gets.

    Exits with status 2 and a message for a wrong flag.
    """
    known, chosen, rest = _parse(arguments, environ)
    _refuse_to_be_overruled({**chosen, **_set_there(rest)}, rest)
    result = ["-s", str(script_path()), "--set", f"termlog_verbosity={known.log_level}"]
    # Mitmproxy takes each option once.
    set_there = _set_there(rest)
    for name, value in chosen.items():
        if name not in set_there:
            result += _set(name, value)
    return known.web, result + rest


def _set_there(rest: Sequence[str]) -> dict[str, str]:
    """Give the options that are set in mitmproxy's way."""
    pairs = (value.partition("=") for flag, value in pairwise(rest) if flag == "--set")
    return {name: value for name, _, value in pairs}


def _standing(rest: Sequence[str]) -> tuple[Path, dict[str, object]]:
    """Give mitmproxy's own file of options, and what it sets of this tool's: mitmproxy lets it win over everything."""
    directory = Path(_set_there(rest).get("confdir", "~/.mitmproxy")).expanduser()
    files = [file for name in ("config.yaml", "config.yml") if (file := directory / name).is_file()]
    found = _read_config(_Parser({}), str(files[-1])) if files else {}
    return files[-1] if files else directory, {name: value for name, value in found.items() if name in options.NAMES}


def _refuse_to_be_overruled(chosen: Mapping[str, object], rest: Sequence[str]) -> None:
    file, standing = _standing(rest)
    names = [name for name, value in standing.items() if name in chosen and str(chosen[name]) != str(value)]
    if names:
        _Parser({}).error(
            f"{file} would win over what is given here for {', '.join(names)}: take it out of one of both"
        )


def _parse(
    arguments: Sequence[str], environ: Mapping[str, str]
) -> tuple[argparse.Namespace, dict[str, object], list[str]]:
    """Give the flags, the options that they and the config files choose, and the arguments that are mitmproxy's."""
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
    return known, chosen, rest


def diagnose(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print what `ollama.doctor` finds with these options; the status is 1 if something is wrong."""
    from .inspect.doctor import examine
    from .lmstudio.cache import CatalogCache
    from .lmstudio.client import Client
    from .services import Services
    from .state.aliases import AliasStore
    from .translate.names import Resolver

    _, chosen, rest = _parse(arguments, environ)
    chosen = {**chosen, **_set_there(rest), **_standing(rest)[1]}
    values = {option.name: chosen.get(option.name, options.default_of(option, environ)) for option in options.OPTIONS}
    integers = {option.name for option in options.OPTIONS if option.typespec is int}
    try:
        settings = options.parse({name: int(str(v)) if name in integers else v for name, v in values.items()})
    except (ValueError, TypeError, AttributeError) as e:
        print(e, file=sys.stderr)
        return 2
    address, _ = _address_parser().parse_known_args(rest)
    host, port = address.listen_host or settings.listen.host, address.listen_port or settings.listen.port
    settings = replace(settings, listen=options.Listen(host, port))

    async def look() -> int:
        if not settings.demo:
            return await look_at(str(settings.lmstudio_url))
        from .sim.demo import demo_sim

        sim = demo_sim()
        await sim.start()
        try:
            return await look_at(sim.url)
        finally:
            await sim.stop()

    async def look_at(url: str) -> int:
        client = Client(url, settings.lmstudio_token or None)
        catalog = CatalogCache(client, settings.model_resolution_cache_ttl_seconds, Resolver)
        found = await examine(Services(settings, client, catalog, AliasStore(settings.state_dir)), serving=None)
        await client.aclose()
        print(*found, sep="\n")
        return int(any(finding.verdict == "problem" for finding in found))

    return asyncio.run(look())


def _address_parser() -> argparse.ArgumentParser:
    """Know mitmproxy's own arguments for the address."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-p", "--listen-port", type=int)
    parser.add_argument("--listen-host")
    return parser


def _set(name: str, value: object) -> list[str]:
    """Give mitmproxy's arguments for an option; a list is given one by one."""
    values = value if isinstance(value, list) else [value]
    texts = [str(item).lower() if isinstance(item, bool) else str(item) for item in values]
    return [part for text in texts for part in ("--set", f"{name}={text}")]


def _read_config(parser: _Parser, file: str) -> dict[str, object]:
    from mitmproxy import exceptions, optmanager

    try:
        config = optmanager.parse(Path(file).expanduser().read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise exceptions.OptionsError("no options")
    except (OSError, UnicodeDecodeError, exceptions.OptionsError) as e:
        parser.error(f"argument --config: {file}: {e}")
    return {str(name): value for name, value in config.items() if value is not None}


def _with_dashes(argument: str) -> str:
    """Write the two words of this tool that are no options of mitmproxy's the one way."""
    return argument.replace("--log_level", "--log-level", 1) if argument.startswith("--log_level") else argument


def _check(parser: argparse.ArgumentParser, option: options.Option, value: object) -> None:
    """Refuse a wrong value here, where the flag can be named, and not first in mitmproxy."""
    try:
        option.parse(int(value) if option.typespec is int else value)  # type: ignore[call-overload]
    except ValueError as e:
        parser.error(f"argument --{option.name.replace('_', '-')}: {e}")


def main() -> None:
    """Run the command line tool."""
    if "--doctor" in sys.argv:
        sys.exit(diagnose(sys.argv[1:], os.environ))
    web, arguments = command(sys.argv[1:], os.environ)
    # Not before the flags are right: it takes a while.
    from mitmproxy.tools import main as tools

    (tools.mitmweb if web else tools.mitmdump)(arguments)
