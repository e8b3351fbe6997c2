"""Our responses as mitmproxy's objects, and as bytes on the wire."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from mitmproxy import http

from ..ollama import wire
from ..outcomes import Headers, Response, header_fields


def date() -> Headers:
    """Return the Date header, which every response carries, as Go's net/http server sends it."""
    return _date(int(time.time()))


@lru_cache(maxsize=1)
def _date(second: int) -> Headers:
    return (("Date", formatdate(second, usegmt=True)),)


def phrase(status: int) -> str:
    """Return the reason phrase of a status, empty for an unknown one: that of the responses that mitmproxy makes.

    The standard library's `HTTPStatus.phrase` differs for some (408, 413, 422, 504), and from version to version.
    """
    return http.Response.make(status).reason


def headers(answer: Response, extra: Headers) -> http.Headers:
    """Return the headers of a response in Ollama's order, without those that give its length."""
    content_type = (("Content-Type", answer.content_type),) if answer.content_type else ()
    return http.Headers(header_fields((*answer.headers, *extra, *content_type, *date())))


def make(answer: Response, extra: Headers, method: str) -> http.Response:
    """Return mitmproxy's response.

    RFC 9110 8.6: a 204 has no Content-Length; a response to HEAD has that of the body which GET would get.
    """
    response = http.Response.make(answer.status, answer.body, headers(answer, extra))
    if answer.status == HTTPStatus.NO_CONTENT:
        response.headers.pop("content-length", None)
    elif method == "HEAD":
        response.raw_content = b""
        response.headers["Content-Length"] = str(len(answer.body))
    return response


def raw(answer: Response, extra: Headers = ()) -> bytes:
    """Return a whole response as bytes, for a connection that is closed after it."""
    last = headers(answer, (*extra, ("Content-Length", str(len(answer.body))), ("Connection", "close")))
    head = b"HTTP/1.1 %d %s\r\n" % (answer.status, phrase(answer.status).encode())
    return head + bytes(last) + b"\r\n" + answer.body


def error_page(status: int, message: str) -> bytes:
    """Return an error of mitmproxy's own as a whole response in Ollama's form, as bytes."""
    return raw(Response(status, wire.dumps({"error": message})))
