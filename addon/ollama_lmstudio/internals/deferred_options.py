"""Options that were set before the script that adds them was loaded: `--set`, or mitmproxy's config.yaml."""

from __future__ import annotations

from collections.abc import Iterable

from mitmproxy import ctx


def apply(name: str) -> None:
    """Set an option that has been added since, if it was set. Raises OptionsError for a wrong value.

    mitmproxy does this itself after a script's `load`, where the error is lost: without this call, it would serve
    without the addon and without a message.
    """
    # It takes a millisecond, for each of the options.
    if name in unknown():
        ctx.options.process_deferred()


def unknown() -> Iterable[str]:
    """Return the names that no addon has added. Without it, a misspelt option is ignored silently, as by mitmproxy."""
    return tuple(getattr(ctx.options, "deferred", ()))
