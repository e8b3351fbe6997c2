"""Our responses as mitmproxy's objects, and as bytes."""

from __future__ import annotations

import re

import pytest

from ollama_lmstudio.exchanges import responses
from ollama_lmstudio.outcomes import Response, header_fields

EXTRA = (("Vary", "Origin"),)
OK = Response.json({"a": 1})


def names(head: bytes) -> list[str]:
    return [line.partition(b": ")[0].decode() for line in head.split(b"\r\n")[1:] if line]


def test_a_response() -> None:
    response = responses.make(OK, EXTRA, "POST")
    assert (response.status_code, response.raw_content) == (200, b'{"a":1}')
    assert [name for name, _ in response.headers.fields] == [b"Vary", b"Content-Type", b"Date", b"content-length"]
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"


def test_a_head_has_the_length_of_what_is_not_there() -> None:
    response = responses.make(OK, (), "HEAD")
    assert (response.raw_content, response.headers["Content-Length"]) == (b"", "7")


@pytest.mark.parametrize(("status", "length"), [(204, None), (200, "0")])
def test_an_empty_answer_has_no_type(status: int, length: str | None) -> None:
    response = responses.make(Response(status, b"", ""), (), "OPTIONS")
    assert "content-type" not in response.headers
    assert response.headers.get("content-length") == length


def test_bytes() -> None:
    head, _, body = responses.raw(Response.error(404, "no"), EXTRA).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert names(head) == ["Vary", "Content-Length", "Connection", "Content-Type", "Date"]
    assert body == b'{"error":"no"}'
    assert re.search(rb"Content-Length: 14\r\n", head)


def test_an_error_of_mitmproxys_own() -> None:
    page = responses.error_page(502, 'gone "there"')
    assert page.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert page.endswith(b'{"error":"gone \\"there\\""}')
    assert b"Connection: close\r\n" in page


# Every status of ours, and those of LM Studio whose names differ between tables. mitmproxy 11 has no name for 429.
PHRASES = {
    200: "OK",
    204: "No Content",
    301: "Moved Permanently",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Time-out",
    413: "Payload Too Large",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
    599: "",
}


@pytest.mark.parametrize(("status", "phrase"), PHRASES.items())
def test_phrases_are_the_same_on_every_python_and_mitmproxy(status: int, phrase: str) -> None:
    assert responses.phrase(status) == phrase
    assert responses.make(Response.error(status, "no"), (), "POST").reason == phrase
    assert responses.raw(Response.error(status, "no")).startswith(f"HTTP/1.1 {status} {phrase}\r\n".encode())


def test_what_no_header_can_hold() -> None:
    assert header_fields((("X", "\u2028"),)) == [(b"X", b"?")]
