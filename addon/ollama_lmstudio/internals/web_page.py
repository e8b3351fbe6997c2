"""mitmweb's page: long lines of a view wrap, the comments in the list have the room that is left, and one click leads
to the conversation page.

Its views do not wrap lines, and what models write has one line a paragraph. Folding the text would change what is
copied out of it, so the page is given rules of CSS more. Its list gives each column a share of fixed numbers, which is
less than half for the comment beside a time of day; mitmproxy 11 writes it at the right edge.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from mitmproxy import ctx
from tornado.web import OutputTransform

from . import interface

CSS = (
    b".contentview pre{white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere}"
    b".flow-table .col-comment{width:auto;white-space:pre}"
    b".flow-table td.col-comment{text-align:left}"
    b".flow-table .col-timestamp{width:205px}"
    b"#conversations{position:fixed;top:4px;right:12px;z-index:9;padding:2px 8px;border-radius:4px;"
    b"color:#fff;background:#1f6b47;font:13px sans-serif}"
)
LINK = '<a id="conversations" href="{}">Conversations</a>'
_END_OF_HEAD, _END = b"</head>", b"</body>"


class WithStyle(OutputTransform):
    """Adds the rules and the link to mitmweb's page, and to nothing else that it sends."""

    def __init__(self, request: Any) -> None:
        self._is_page = request.path == "/"

    def transform_first_chunk(
        self, status_code: int, headers: Any, chunk: bytes, finishing: bool
    ) -> tuple[int, Any, bytes]:
        """Return what is sent first: of a page, all that there is."""
        is_html = headers.get("Content-Type", "").startswith("text/html")
        # The form of its login has the same address.
        if self._is_page and status_code == HTTPStatus.OK and finishing and is_html and _END_OF_HEAD in chunk:
            chunk = chunk.replace(_END_OF_HEAD, b"<style>" + CSS + b"</style>" + _END_OF_HEAD, 1)
            if path := interface.page():
                chunk = chunk.replace(_END, LINK.format(path).encode() + _END, 1)
            if "Content-Length" in headers:
                headers["Content-Length"] = str(len(chunk))
        return status_code, headers, chunk


def wrap_lines() -> None:
    """Let mitmweb's page wrap the lines of its views. Without it, a paragraph is one line that has to be scrolled."""
    keep_lines()
    transforms = _transforms()
    if transforms is not None:
        # Before a compression.
        transforms.insert(0, WithStyle)


def keep_lines() -> None:
    """Undo `wrap_lines`."""
    transforms = _transforms()
    if transforms is not None:
        transforms[:] = [transform for transform in transforms if transform.__name__ != WithStyle.__name__]


def _transforms() -> list[Any] | None:
    """Return the transforms of mitmweb's Tornado application; None where there is no such application."""
    found = getattr(getattr(getattr(ctx, "master", None), "app", None), "transforms", None)
    return found if isinstance(found, list) else None
