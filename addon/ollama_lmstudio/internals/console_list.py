"""The console's list of flows, with the comment of each in place of its URL.

No option of mitmproxy shows a comment there. Without this, a row tells the call's method, URL and size.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from mitmproxy import http

logger = logging.getLogger(__name__)

_COMMON = "mitmproxy.tools.console.common"
# The width of the status, and of the speed or the duration.
_STATUS_COLUMNS = 3
_SPEED_COLUMNS = 10


class ConsoleList:
    """Show the comments of the flows that `is_ours` chooses, until removed.

    `has_failed` tells which are red, and `speed` what is shown at the end of a row in place of its duration. `sign` is
    left off the beginning of a comment: a row has a mark.
    """

    def __init__(
        self,
        is_ours: Callable[[http.HTTPFlow], bool],
        has_failed: Callable[[http.HTTPFlow], bool],
        speed: Callable[[http.HTTPFlow], str],
        sign: str,
    ) -> None:
        self._is_ours = is_ours
        self._has_failed = has_failed
        self._speed = speed
        self._sign = sign
        self._original: Any = None

    def install(self) -> None:
        """Begin, in the console alone; nothing is changed where its module is another one than is known."""
        common = sys.modules.get(_COMMON)
        original = getattr(common, "format_flow", None)
        if common is not None and original is not None and self._original is None:
            self._original = original
            vars(common)["format_flow"] = self._format

    def remove(self) -> None:
        """Show URLs again."""
        common = sys.modules.get(_COMMON)
        if common is not None and self._original is not None and vars(common).get("format_flow") == self._format:
            vars(common)["format_flow"] = self._original
        self._original = None

    def _format(self, flow: Any, **how: Any) -> Any:
        common: Any = sys.modules[_COMMON]
        try:
            in_list = how["render_mode"] in (common.RenderMode.LIST, common.RenderMode.TABLE)
            if in_list and isinstance(flow, http.HTTPFlow) and flow.comment and self._is_ours(flow):
                return self._row(common, flow, bool(how.get("focused", True)))
        except Exception:
            logger.debug("the row of a flow could not be made", exc_info=True)
        return (self._original or common.format_flow)(flow, **how)

    def _row(self, common: Any, flow: http.HTTPFlow, focused: bool) -> Any:
        """Return `>> 16:49:26 200 "Why is the sky blue?"  llama3.2  42 tok/s`, of parts of mitmproxy's rows."""
        response, columns = flow.response, common.fcol
        status = str(response.status_code) if response else "err" if flow.error else ""
        pending = "title" if not (response or flow.error) else "text"
        style = "intercept" if flow.intercepted else "error" if self._has_failed(flow) else pending
        coloured = style if style in ("intercept", "error") else ""
        code = common.HTTP_RESPONSE_CODE_STYLE.get(response.status_code // 100, "code_other") if response else "error"
        last, last_style = self._speed(flow), "text"
        if not last and response and response.timestamp_end:
            last, last_style = common.format_duration(max(response.timestamp_end - flow.request.timestamp_start, 0))
        comment = "".join(character if character.isprintable() else " " for character in flow.comment)
        comment = comment.removeprefix(self._sign).removeprefix(f"{status} ")
        return common.urwid.Columns(
            [
                common.format_left_indicators(
                    focused=focused, intercepted=flow.intercepted, timestamp=flow.request.timestamp_start
                ),
                columns(common.fixlen(status, _STATUS_COLUMNS), coloured or code),
                ("weight", 1.0, common.truncated_plain(comment, style)),
                columns(last.rjust(_SPEED_COLUMNS), last_style),
                common.format_right_indicators(replay=bool(flow.is_replay), marked=flow.marked),
            ],
            dividechars=1,
            min_width=15,
        )
