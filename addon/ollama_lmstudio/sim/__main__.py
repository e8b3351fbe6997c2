"""Serve the stand-in from a command line: `python -m ollama_lmstudio.sim`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence
from dataclasses import replace

from .demo import PREAMBLE, TOKEN_DELAY, demo_models
from .generate import fixed_answer
from .server import Sim


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with a usage message if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m ollama_lmstudio.sim",
        description="Serve a stand-in for LM Studio's server: the first line printed is its address; "
        "SIGINT or SIGTERM ends it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to serve on, 0 for any (default: %(default)s)")
    parser.add_argument("--delay", type=float, help="seconds between tokens (default: 0)")
    parser.add_argument("--load-seconds", type=float, help="seconds that loading a model takes (default: 0)")
    parser.add_argument("--no-jit", action="store_true", help="do not load models on demand")
    parser.add_argument("--token", action="append", help="require this API token; may be given several times")
    parser.add_argument("--tokens", type=int, help="answer everything with this many tokens")
    parser.add_argument("--coalesce", type=int, default=1, help="tokens per write (default: %(default)s)")
    parser.add_argument("--linked", action="append", help="name of a linked device that has the same models, in memory")
    parser.add_argument("--demo", action="store_true", help="answer at the pace and with the words of the demo")
    return parser.parse_args(arguments)


def make_sim(options: argparse.Namespace) -> Sim:
    """Return the stand-in that the command line describes."""
    delay = options.delay if options.delay is not None else TOKEN_DELAY if options.demo else 0.0
    models = demo_models()
    if options.load_seconds is not None or not options.demo:
        models = [replace(model, load_seconds=options.load_seconds or 0.0) for model in models]
    models += [replace(model, device=device, loaded=True) for device in options.linked or () for model in models]
    return Sim(
        models,
        jit=not options.no_jit,
        auth=options.token,
        token_delay=delay,
        coalesce=options.coalesce,
        preamble=PREAMBLE if options.demo else "",
        generator=None if options.tokens is None else fixed_answer(options.tokens),
    )


async def serve(options: argparse.Namespace) -> None:
    """Serve until a signal says to stop; the first line printed is the address."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    # The loop's own method for it is for POSIX alone.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: loop.call_soon_threadsafe(stopped.set))
    sim = make_sim(options)
    await sim.start(options.host, options.port)
    async with sim:
        print(sim.url, flush=True)
        await stopped.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    asyncio.run(serve(parse_arguments(arguments)))


if __name__ == "__main__":
    main()
