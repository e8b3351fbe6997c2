"""Start the command line tool, so that Ctrl-C ends it without a traceback while modules are still being imported."""

from __future__ import annotations

import signal

from . import streams


def main() -> None:
    """Run the command line tool. From the start of its event loop on, mitmproxy handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    streams.ensure()
    streams.accept_any_text()
    from . import cli

    cli.main()
