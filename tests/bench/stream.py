"""Measure what the addon costs, beside plain mitmproxy and beside no proxy at all.

    python tests/bench/stream.py [--python PATH]... [--rows NAME,...] [--compare OTHER/addon/ollama.py]
        [--balancer haproxy] [--balancer nginx] [--markdown]

`--python` is the interpreter of an environment with mitmproxy, by default the one that runs this; several are measured
in one go. The variants take turns in balanced orders, so that what else the machine does hits all of them alike, and
each waits until the processes of the others have nothing left to do:

    direct   the stand-in for LM Studio, without a proxy
    plain    mitmproxy as a reverse proxy that lets the same answer through, in each environment
    addon    mitmproxy with the addon, in each environment
    compare  mitmproxy with the addon of another checkout, if one is given
    haproxy  several bridges in the first environment behind HAProxy, or nginx, with --balancer; beside one alone

The stand-in and each proxy are processes of their own; this one is the client. For `/api/tags` and `/api/version`
the others are asked for LM Studio's list of models. Every answer is checked for all its tokens; exits with 1 if any was
not whole. On a machine that does something else meanwhile only ratios mean something, and those not much.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "addon" / "ollama.py"
sys.path[:0] = [str(ROOT), str(SCRIPT.parent)]

from tests.bench.client import LMStudio, Variant  # noqa: E402
from tests.bench.measurements import MEASUREMENTS, Bench, Row, Settings  # noqa: E402
from tests.bench.report import Report  # noqa: E402
from tests.bench.variants import (  # noqa: E402
    balanced_recipes,
    balancer,
    machine,
    proxy,
    recipes,
    stand_in,
    versions,
)

BALANCERS = ("haproxy", "nginx")


def row_names(text: str) -> list[str]:
    """Parse the names of `--rows`. Raises ArgumentTypeError."""
    names = text.split(",")
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise argparse.ArgumentTypeError(f"no such row: {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    return [name for name in MEASUREMENTS if name in names]


def positive(text: str) -> int:
    """Parse a number of at least 1. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with a usage message if it is wrong."""
    parser = argparse.ArgumentParser(description="Measure what the addon costs beside plain mitmproxy.")

    def count(name: str, default: int, text: str) -> None:
        parser.add_argument(name, type=positive, default=default, metavar="N", help=f"{text} (default: %(default)s)")

    parser.add_argument(
        "--python",
        type=Path,
        action="append",
        metavar="PATH",
        help="the Python of an environment with mitmproxy; may be given several times (default: this one)",
    )
    parser.add_argument(
        "--rows",
        type=row_names,
        default=list(MEASUREMENTS),
        metavar="NAME,...",
        help=f"what to measure, of {', '.join(MEASUREMENTS)} (default: all)",
    )
    parser.add_argument(
        "--compare", type=Path, metavar="PATH", help="addon/ollama.py of another checkout, to measure beside this one"
    )
    parser.add_argument(
        "--balancer",
        action="append",
        choices=BALANCERS,
        default=[],
        help="measure several bridges behind this one, too; may be given for both",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the table in Markdown, too, as the README has it"
    )
    count("--rounds", 5, "turns of each variant")
    count("--samples", 20, "short answers of each kind per round")
    count("--streams", 16, "answers at once")
    count("--tokens", 2000, "tokens per answer at full speed")
    count("--paced-tokens", 200, "tokens per answer at a pace")
    count("--rate", 50, "tokens/s of the paced answers")
    count("--requests", 10_000, "requests before memory is looked at; it is looked at after a fifth of them, too")
    count("--starts", 5, "starts of each proxy")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return the exit status."""
    options = parse_arguments(arguments)
    pythons = options.python or [Path(sys.executable)]
    scripts = {"addon": SCRIPT} | ({"compare": options.compare} if options.compare else {})
    labels = [versions(python) for python in pythons]
    settings = Settings(
        rounds=options.rounds,
        samples=options.samples,
        streams=options.streams,
        tokens=options.tokens,
        paced_tokens=options.paced_tokens,
        rate=options.rate,
        requests=options.requests,
        starts=options.starts,
    )
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(stand_in(settings.streams, settings.tokens, 1 / settings.rate))
        cooked = recipes(pythons, scripts, server.url, folder)
        variants = [Variant("direct", None, server.port, LMStudio)]
        variants += [stack.enter_context(proxy(recipe, folder)) for recipe in cooked]
        if options.balancer:
            recipe_of_each = balanced_recipes(pythons[0], SCRIPT, server.url, folder)
            bridges = [stack.enter_context(proxy(recipe, folder)) for recipe in recipe_of_each]
            variants += [stack.enter_context(balancer(program, bridges, folder)) for program in options.balancer]
        bench = Bench(variants, cooked, server, settings, folder)
        for name in options.rows:
            print(f"measuring: {name}", file=sys.stderr)
            rows += MEASUREMENTS[name](bench)
    told = [row for row in rows if not all(map(math.isnan, row.values.values()))]
    report = Report(labels, ["plain", *scripts, *options.balancer], dict.fromkeys(BALANCERS, "addon"))
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}, {settings.rounds} rounds; mitmproxy / Python above each group\n")
    print(report.text(told))
    if options.markdown:
        print(f"\n{report.markdown(told)}")
    if len(told) < len(rows):
        print("\nleft out, since this system does not tell: " + "; ".join(row.title for row in rows if row not in told))
    print(f"\n{bench.answers:,} answers, {bench.bad.total()} of them bad")
    for problem, number in bench.bad.most_common():
        print(f"{number:6} x {problem}")
    return 1 if bench.bad else 0


if __name__ == "__main__":
    sys.exit(main())
