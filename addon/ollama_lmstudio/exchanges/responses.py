"""Answers of ours as mitmproxy's responses, and as bytes."""

from __future__ import annotations

from email.utils import formatdate

from mitmproxy import http
from mitmproxy.net.http import status_codes

from ..ollama import wire
from ..outcomes import Headers, Response, header_fields


def date() -> Headers:
    """Give the header that every answer has."""
    return (("Date", formatdate(usegmt=True)),)


def phrase(status: int) -> str:
    """Give what stands beside a status; empty for one that has no name."""
    return status_codes.RESPONSES.get(status, "")


def headers(answer: Response, extra: Headers) -> http.Headers:
    """Give the headers of an answer, in Ollama's order, but for those that tell its length."""
    content_type = (("Content-Type", answer.content_type),) if answer.content_type else ()
    return http.Headers(header_fields((*answer.headers, *extra, *content_type, *date())))


def make(answer: Response, extra: Headers, method: str) -> http.Response:
    """Make a response of an answer. A HEAD gets the head alone."""
    response = http.Response.make(answer.status, answer.body, headers(answer, extra))
    if answer.status == 204:
        response.headers.pop("content-length", None)
    elif method == "HEAD":
        response.raw_content = b""
        response.headers["Content-Length"] = str(len(answer.body))
    return response


def raw(answer: Response, extra: Headers = ()) -> bytes:
    """Write a whole answer as bytes, for a connection that ends with it."""
    last = headers(answer, (*extra, ("Content-Length", str(len(answer.body))), ("Connection", "close")))
    head = b"HTTP/1.1 %d %s\r\n" % (answer.status, phrase(answer.status).encode())
    return head + bytes(last) + b"\r\n" + answer.body


def error_page(status: int, message: str) -> bytes:
    """Write what mitmproxy itself has to say as Ollama's error."""
    return raw(Response(status, wire.dumps({"error": message})))
