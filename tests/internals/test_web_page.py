"""mitmweb's page is given a rule of CSS; tests/browser looks at it in a browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from tornado.httputil import HTTPHeaders
from tornado.web import GZipContentEncoding

from ollama_lmstudio.internals import interface, web_page

PAGE = b"<html><head></head><body></body></html>"


def test_only_a_whole_page_is_changed() -> None:
    request: Any = SimpleNamespace(path="/")
    transform = web_page.WithStyle(request)
    headers = HTTPHeaders({"Content-Type": "text/html; charset=UTF-8", "Content-Length": str(len(PAGE))})
    status, sent, chunk = transform.transform_first_chunk(200, headers, PAGE, True)
    assert status == 200
    assert chunk == PAGE.replace(b"</head>", b"<style>" + web_page.CSS + b"</style></head>")
    assert sent["Content-Length"] == str(len(chunk))
    for kind, finishing in (("application/json", True), ("text/html", False)):
        headers = HTTPHeaders({"Content-Type": kind})
        assert transform.transform_first_chunk(200, headers, PAGE, finishing) == (200, headers, PAGE)
    # Neither the form of the login, nor a page of ours.
    headers = HTTPHeaders({"Content-Type": "text/html"})
    assert transform.transform_first_chunk(403, headers, PAGE, True) == (403, headers, PAGE)
    request.path = "/ollama/"
    assert web_page.WithStyle(request).transform_first_chunk(200, headers, PAGE, True) == (200, headers, PAGE)


def test_the_link_to_the_conversation_page_is_there_with_that() -> None:
    request: Any = SimpleNamespace(path="/")
    headers = HTTPHeaders({"Content-Type": "text/html"})
    interface.set_page("/there/")
    try:
        _, _, chunk = web_page.WithStyle(request).transform_first_chunk(200, headers, PAGE, True)
    finally:
        interface.set_page("")
    assert chunk.endswith(b'<a id="conversations" href="/there/">Conversations</a></body></html>')


def test_it_is_there_once_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    app = SimpleNamespace(transforms=[GZipContentEncoding])
    monkeypatch.setattr(ctx, "master", SimpleNamespace(app=app), raising=False)
    assert interface.is_web()
    for _ in range(2):
        web_page.wrap_lines()
    assert app.transforms == [web_page.WithStyle, GZipContentEncoding]
    web_page.keep_lines()
    assert app.transforms == [GZipContentEncoding]


def test_without_a_page_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctx, "master", SimpleNamespace(), raising=False)
    assert not interface.is_web()
    web_page.wrap_lines()
    web_page.keep_lines()
