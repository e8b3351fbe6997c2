"""mitmdump's own output: its line for each flow, what its log says of connections, and colours of the terminal.

None of it is documented.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

from mitmproxy import ctx, flow

_CAN_STYLE = True
try:
    from mitmproxy.contrib import click
    from mitmproxy.utils import vt_codes
except ImportError:  # pragma: no cover - a mitmproxy to come
    _CAN_STYLE = False

Style = Mapping[str, Any]


def is_there() -> bool:
    """Whether mitmproxy prints flows, as mitmdump does."""
    return _dumper() is not None


def _dumper() -> Any:
    return ctx.master.addons.get("dumper")


def is_set(option: str) -> bool:
    """Whether the user has set an option, also to its default value; without it, only another value is noticed."""
    kept = getattr(ctx.options, "_options", {}).get(option)
    value = getattr(kept, "value", None)
    changed: bool = option in ctx.options and getattr(ctx.options, option) != ctx.options.default(option)
    # An option that has no value has this object for it, which is of no type that an option may have.
    return changed or isinstance(value, int | str)


def is_wanted(shown: flow.Flow) -> bool:
    """Whether a flow fits the filter that limits what is printed; without it, all are."""
    fits = getattr(_dumper(), "filter", None)
    return fits is None or bool(fits(shown))


class Silence:
    """Keep mitmproxy from logging connections, and mitmdump from printing some of the flows, until removed.

    Without it, mitmproxy's output stands beside the bridge's.
    """

    LOGGER = "mitmproxy.proxy.server"
    _SAID = ("client connect", "client disconnect", "server connect", "server disconnect", "Streaming re")

    def __init__(self, is_silent: Callable[[flow.Flow], bool]) -> None:
        self._is_silent = is_silent
        self._dumper: Any = None

    def install(self) -> None:
        """Begin; nothing is changed a second time."""
        logging.getLogger(self.LOGGER).addFilter(self._filter)
        dumper = _dumper()
        if self._dumper is not None or not hasattr(dumper, "match"):
            return
        self._dumper, match = dumper, dumper.match
        vars(dumper)["match"] = lambda shown: not self._is_silent(shown) and match(shown)

    def remove(self) -> None:
        """Let mitmdump print all again."""
        if self._dumper is not None:
            vars(self._dumper).pop("match", None)
            self._dumper = None
        logging.getLogger(self.LOGGER).removeFilter(self._filter)

    def _filter(self, record: logging.LogRecord) -> bool:
        return record.levelno != logging.INFO or not record.getMessage().startswith(self._SAID)


def has_colours(file: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a file is a terminal that shows colours, and the user wants them (https://no-color.org)."""
    wanted = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return wanted and _CAN_STYLE and bool(vt_codes.ensure_supported(file))


def styled(text: str, style: Style) -> str:
    """Return a text with the escapes of a style: `fg`, `bold`, `dim`."""
    return str(click.style(text, **style)) if style and _CAN_STYLE else text


class Output:
    """A text file, such as stdout, that never fails: when nobody reads it any more, what is written is discarded."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a text at once; what the file's encoding does not have becomes a question mark."""
        try:
            try:
                self.file.write(text)
            except UnicodeEncodeError:
                self.file.write(text.encode(self.file.encoding, "replace").decode(self.file.encoding))
            self.file.flush()
        except (OSError, ValueError):
            self._discard()

    def _discard(self) -> None:
        # As the documentation of `signal.SIGPIPE` in Python has it: an error at the end of the process is avoided, too.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


def keep_log(output: Output) -> None:
    """Print mitmproxy's log there.

    Without it, mitmproxy ends the process when its log cannot be printed any more
    (https://github.com/mitmproxy/mitmproxy/issues/4669).
    """
    handler = _log_handler()
    if getattr(handler, "file", None) is output.file:
        handler.file = output


def release_log() -> None:
    """Undo `keep_log`."""
    handler = _log_handler()
    if isinstance(file := getattr(handler, "file", None), Output):
        handler.file = file.file


def _log_handler() -> Any:
    return getattr(ctx.master.addons.get("termlog"), "logger", None)
